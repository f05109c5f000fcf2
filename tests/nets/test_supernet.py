"""Mixtures of operations."""

import pytest
import torch
from torch import nn

from sknas.nets import MixedChoice, MixedOperation, MixtureWeights, Supernet
from sknas.nets._supernet import shuffled


class Times(nn.Module):
    """Multiplies, and counts how often it is called."""

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
    answer = mixed(x, MixtureWeights(torch.tensor([0.5, 0.3, 0.2])))
    torch.testing.assert_close(answer, (0.5 + 3 + 20) * x)


def test_only_what_is_computed_is_called(x):
    operations = [Times(1.0), Times(10.0), Times(100.0)]
    mixed = MixedOperation(operations)
    answer = mixed(x, MixtureWeights(torch.tensor([0.0, 1.0, 0.0]), computed=(1,)))
    torch.testing.assert_close(answer, 10 * x)
    assert [operation.n_calls for operation in operations] == [0, 1, 0]
    mixed(x, MixtureWeights(torch.tensor([0.0, 0.5, 0.5]), computed=(1, 2)))
    assert [operation.n_calls for operation in operations] == [0, 2, 1]


def test_what_is_not_computed_has_a_gradient(x):
    mixed = MixedOperation([Times(1.0), Times(10.0), Times(100.0)])
    values = torch.tensor([0.0, 1.0, 0.0], requires_grad=True)
    mixed(x, MixtureWeights(values, computed=(1,))).sum().backward()
    expected = torch.tensor([float(x.numel()), 10 * x.sum(), float(x.numel())])
    torch.testing.assert_close(values.grad, expected)


def test_places_and_ghosts():
    values = torch.tensor([0.2, 0.3, 0.5])
    assert (
        MixtureWeights(values).places == (0, 1, 2)
        and MixtureWeights(values).ghost is None
    )
    some = MixtureWeights(values, computed=(2,))
    assert some.places == (2,) and some.ghost.item() == pytest.approx(0.5)


def test_one_of_k_channels_goes_through_and_others_pass_by(x):
    mixed = MixedOperation([Times(0.0)], partial=4)
    answer = mixed(x, MixtureWeights(torch.ones(1)))
    is_zero = (answer == 0).all(dim=0).all(dim=-1).all(dim=-1)
    assert is_zero.tolist() == [True, False, False, False] * 2
    whole = MixedOperation([Times(1.0)], partial=4)(x, MixtureWeights(torch.ones(1)))
    torch.testing.assert_close(whole, shuffled(x, 4))


def test_channels_that_pass_by_are_pooled_where_maps_are_halved(x):
    for size in (4, 5):
        maps = torch.randn(2, 8, size, size)
        halving = nn.AvgPool2d(3, 2, padding=1)
        answer = MixedOperation([halving], partial=2)(
            maps, MixtureWeights(torch.ones(1))
        )
        assert answer.shape == (2, 8, (size + 1) // 2, (size + 1) // 2)


def test_shuffled_channels_are_dealt_out():
    x = torch.arange(6.0).view(1, 6)
    assert shuffled(x, 2).tolist() == [[0, 3, 1, 4, 2, 5]]
    assert torch.equal(shuffled(shuffled(x, 2), 3), x)


def test_numbers_that_skips_pass_on_are_dropped_in_training():
    x = torch.ones(1, 10_000)
    mixed = MixedOperation([Times(1.0), Times(1.0)], skips=(0,))
    torch.manual_seed(0)
    weights = MixtureWeights(torch.tensor([1.0, 0.0]), dropout=0.25)
    answer = mixed(x, weights)
    assert (answer == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert answer.mean().item() == pytest.approx(1.0, abs=0.02)
    assert torch.equal(mixed.eval()(x, weights), x)
    other = MixtureWeights(torch.tensor([0.0, 1.0]), dropout=0.25)
    assert torch.equal(mixed.train()(x, other), x)


def test_a_relaxed_network_names_its_options():
    class Two(Supernet):
        def forward(self, x, weights):
            return x[None]

        def architecture(self, chosen, shares):
            return {name: self.option(name, chosen) for name in self.decisions}

    net = Two(
        {"width": MixedChoice((8, 16)), "activation": MixedChoice(("relu", "tanh"))}
    )
    chosen = {"width": 1, "activation": 0}
    assert net.architecture(chosen, {}) == {"width": 16, "activation": "relu"}
    assert net.used(chosen, {}) == ["width", "activation"]
    with pytest.raises(TypeError, match="abstract"):
        Supernet({})
