"""The loss of several networks on one table or on several tables."""

import pytest
import torch
from torch.nn import functional

from sknas._training.loss import WeightedLoss

KINDS = ["binary", "multiclass", "multilabel", "regression"]
N, C = 10, 3


def make_targets(kind, *shape, seed=0):
    """Return random targets of a shape."""
    generator = torch.Generator().manual_seed(seed)
    if kind in ("binary", "multiclass"):
        return torch.randint(0, C, shape, generator=generator)
    values = torch.randn(*shape, C, generator=generator)
    return (values > 0).float() if kind == "multilabel" else values


def outputs(*shape, seed=1):
    return torch.randn(*shape, C, generator=torch.Generator().manual_seed(seed))


def torch_loss(kind, output, y, weight, smoothing=0.0):
    """Return the loss of one network on one table, computed by torch."""
    if kind in ("binary", "multiclass"):
        each = functional.cross_entropy(
            output, y, reduction="none", label_smoothing=smoothing
        )
    elif kind == "multilabel":
        each = functional.binary_cross_entropy_with_logits(output, y, reduction="none")
        each = each.mean(dim=1)
    else:
        each = ((output - y) ** 2).mean(dim=1)
    return (each * weight).mean()


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_a_weighted_mean_summed_over_networks(kind):
    y, weight, output = make_targets(kind, N), torch.linspace(0, 2, N), outputs(3, N)
    loss = WeightedLoss(kind)
    one_by_one = sum(loss(output[k : k + 1], y, weight) for k in range(3))
    assert torch.isclose(loss(output, y, weight), one_by_one)
    expected = sum(torch_loss(kind, own, y, weight) for own in output)
    assert torch.isclose(loss(output, y, weight), expected)
    doubled = loss(output, y, 2 * weight)
    assert torch.isclose(doubled, 2 * loss(output, y, weight))


@pytest.mark.parametrize("kind", KINDS)
def test_network_k_uses_table_k_modulo_the_number_of_tables(kind):
    y, output = make_targets(kind, 2, N), outputs(6, N)
    weight = torch.rand(2, N, generator=torch.Generator().manual_seed(2))
    found = WeightedLoss(kind)(output, y, weight)
    expected = sum(
        torch_loss(kind, output[k], y[k % 2], weight[k % 2]) for k in range(6)
    )
    assert torch.isclose(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_tables", [None, 2])
def test_loss_of_copies_is_the_mean_of_their_losses(kind, n_tables):
    """Each copy is trained by itself, so the mean is over losses, not predictions."""
    shape = (N,) if n_tables is None else (n_tables, N)
    y = make_targets(kind, *shape)
    weight = torch.rand(*shape, generator=torch.Generator().manual_seed(2))
    output = outputs(4, 5 * N)
    found = WeightedLoss(kind)(output, y, weight)
    expected = 0.0
    for k, own in enumerate(output):
        index = () if n_tables is None else (k % n_tables,)
        copies = own.unflatten(0, (5, N))
        losses = [torch_loss(kind, copy, y[index], weight[index]) for copy in copies]
        expected = expected + sum(losses) / 5
    assert torch.isclose(found, expected)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_labels_are_smoothed_for_each_network(kind):
    y, weight, output = make_targets(kind, N), torch.ones(N), outputs(3, N)
    shares = (0.0, 0.1, 0.3)
    found = WeightedLoss(kind, shares)(output, y, weight)
    expected = sum(
        torch_loss(kind, own, y, weight, share)
        for own, share in zip(output, shares, strict=True)
    )
    assert torch.isclose(found, expected)
    alike = WeightedLoss(kind, (0.1,))(output, y, weight)
    expected = sum(torch_loss(kind, own, y, weight, 0.1) for own in output)
    assert torch.isclose(alike, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_agree_with_those_of_single_networks(kind):
    y, weight = make_targets(kind, N), torch.linspace(0.5, 1.5, N)
    output = outputs(3, N).requires_grad_()
    WeightedLoss(kind, (0.05, 0.0, 0.1))(output, y, weight).backward()
    smoothing = (0.05, 0.0, 0.1) if kind in ("binary", "multiclass") else (0.0,) * 3
    for k in range(3):
        alone = output.detach()[k].requires_grad_()
        torch_loss(kind, alone, y, weight, smoothing[k]).backward()
        torch.testing.assert_close(output.grad[k], alone.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_non_finite_network_does_not_change_gradients_of_others(kind):
    y, weight = make_targets(kind, N), torch.ones(N)
    output = outputs(3, N)
    output[1] = torch.nan
    output.requires_grad_()
    WeightedLoss(kind)(output, y, weight).backward()
    finite = torch.isfinite(output.grad).all(dim=2).all(dim=1)
    assert finite.tolist() == [True, False, True]


def test_loss_of_half_precision_outputs_has_single_precision():
    y, weight, output = make_targets("binary", N), torch.ones(N), outputs(2, N)
    loss = WeightedLoss("binary")
    half = loss(output.bfloat16(), y, weight)
    assert half.dtype == torch.float32
    assert torch.isclose(half, loss(output, y, weight), rtol=0.02)
