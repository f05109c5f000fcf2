"""Mixtures of operations."""

import pytest
import torch
from torch import nn

from sknas.nets import MixedChoice, MixedOperation, MixtureWeights, Supernet
from sknas.nets._supernet import channel_shuffle


class Times(nn.Module):
    """An operation that multiplies by a factor and counts its calls."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.n_calls = 0

    def forward(self, x):
        self.n_calls += 1
        return self.factor * x


@pytest.fixture
def x():
    return torch.randn(3, 8, 4, 4, generator=torch.Generator().manual_seed(0))


def test_a_mixture_is_a_weighted_sum(x):
    mixed = MixedOperation([Times(1.0), Times(10.0), Times(100.0)])
    output = mixed(x, MixtureWeights(torch.tensor([0.5, 0.3, 0.2])))
    torch.testing.assert_close(output, (0.5 + 3 + 20) * x)


def test_only_computed_operations_are_called(x):
    operations = [Times(1.0), Times(10.0), Times(100.0)]
    mixed = MixedOperation(operations)
    output = mixed(x, MixtureWeights(torch.tensor([0.0, 1.0, 0.0]), computed=(1,)))
    torch.testing.assert_close(output, 10 * x)
    assert [operation.n_calls for operation in operations] == [0, 1, 0]
    mixed(x, MixtureWeights(torch.tensor([0.0, 0.5, 0.5]), computed=(1, 2)))
    assert [operation.n_calls for operation in operations] == [0, 2, 1]


def test_weights_of_operations_that_are_not_computed_have_a_gradient(x):
    mixed = MixedOperation([Times(1.0), Times(10.0), Times(100.0)])
    values = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    mixed(x, MixtureWeights(values, computed=(1,))).sum().backward()
    expected = torch.tensor([float(x.numel()), 10 * x.sum(), float(x.numel())])
    torch.testing.assert_close(values.grad, expected)


def test_indices_and_straight_through_term_of_mixture_weights():
    values = torch.tensor([0.2, 0.3, 0.5])
    assert (
        MixtureWeights(values).indices == (0, 1, 2)
        and MixtureWeights(values).straight_through_term is None
    )
    some = MixtureWeights(values, computed=(2,))
    assert some.indices == (2,) and some.straight_through_term.item() == pytest.approx(
        0.5
    )


def test_partial_mixture_processes_one_of_k_channels(x):
    mixed = MixedOperation([Times(0.0)], partial=4)
    output = mixed(x, MixtureWeights(torch.ones(1)))
    is_zero = (output == 0).all(dim=0).all(dim=-1).all(dim=-1)
    assert is_zero.tolist() == [True, False, False, False] * 2
    whole = MixedOperation([Times(1.0)], partial=4)(x, MixtureWeights(torch.ones(1)))
    torch.testing.assert_close(whole, channel_shuffle(x, 4))


def test_unprocessed_channels_are_pooled_at_stride_2(x):
    for size in (4, 5):
        maps = torch.randn(2, 8, size, size)
        strided = nn.AvgPool2d(3, 2, padding=1)
        output = MixedOperation([strided], partial=2)(
            maps, MixtureWeights(torch.ones(1))
        )
        assert output.shape == (2, 8, (size + 1) // 2, (size + 1) // 2)


def test_channel_shuffle_interleaves_groups():
    x = torch.arange(6.0).view(1, 6)
    assert channel_shuffle(x, 2).tolist() == [[0, 3, 1, 4, 2, 5]]
    assert torch.equal(channel_shuffle(channel_shuffle(x, 2), 3), x)


def test_outputs_of_skips_are_dropped_in_training():
    x = torch.ones(1, 10_000)
    mixed = MixedOperation([Times(1.0), Times(1.0)], skips=(0,))
    torch.manual_seed(0)
    weights = MixtureWeights(torch.tensor([1.0, 0.0]), dropout=0.25)
    output = mixed(x, weights)
    assert (output == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert output.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(mixed.eval()(x, weights), x)
    other = MixtureWeights(torch.tensor([0.0, 1.0]), dropout=0.25)
    assert torch.equal(mixed.train()(x, other), x)


def test_supernet_maps_chosen_indices_to_options():
    class Two(Supernet):
        def forward(self, x, weights):
            return x[None]

        def architecture(self, chosen, shares):
            return {name: self.option(name, chosen) for name in self.choices}

    net = Two(
        {"width": MixedChoice((8, 16)), "activation": MixedChoice(("relu", "tanh"))}
    )
    chosen = {"width": 1, "activation": 0}
    assert net.architecture(chosen, {}) == {"width": 16, "activation": "relu"}
    assert net.used(chosen, {}) == ["width", "activation"]
    with pytest.raises(TypeError, match="abstract"):
        Supernet({})
