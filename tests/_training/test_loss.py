"""The loss of several networks, on one table or on several."""

import pytest
import torch
from torch.nn import functional

from sknas._training.loss import WeightedLoss

KINDS = ["binary", "multiclass", "multilabel", "regression"]
N, C = 10, 3


def made(kind, *shape, seed=0):
    """Targets of a shape."""
    generator = torch.Generator().manual_seed(seed)
    if kind in ("binary", "multiclass"):
        return torch.randint(0, C, shape, generator=generator)
    values = torch.randn(*shape, C, generator=generator)
    return (values > 0).float() if kind == "multilabel" else values


def outputs(*shape, seed=1):
    return torch.randn(*shape, C, generator=torch.Generator().manual_seed(seed))


def by_hand(kind, output, y, weight, smoothing=0.0):
    """The loss of one network on one table, by torch."""
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
    y, weight, output = made(kind, N), torch.linspace(0, 2, N), outputs(3, N)
    loss = WeightedLoss(kind)
    one_by_one = sum(loss(output[k : k + 1], y, weight) for k in range(3))
    assert torch.isclose(loss(output, y, weight), one_by_one)
    expected = sum(by_hand(kind, own, y, weight) for own in output)
    assert torch.isclose(loss(output, y, weight), expected)
    doubled = loss(output, y, 2 * weight)
    assert torch.isclose(doubled, 2 * loss(output, y, weight))


@pytest.mark.parametrize("kind", KINDS)
def test_network_k_reads_table_k_modulo_their_number(kind):
    y, output = made(kind, 2, N), outputs(6, N)
    weight = torch.rand(2, N, generator=torch.Generator().manual_seed(2))
    found = WeightedLoss(kind)(output, y, weight)
    expected = sum(by_hand(kind, output[k], y[k % 2], weight[k % 2]) for k in range(6))
    assert torch.isclose(found, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_tables", [None, 2])
def test_each_copy_is_held_to_the_targets(kind, n_tables):
    """Copies are trained each by itself: the mean over them is of their losses."""
    shape = (N,) if n_tables is None else (n_tables, N)
    y = made(kind, *shape)
    weight = torch.rand(*shape, generator=torch.Generator().manual_seed(2))
    output = outputs(4, 5 * N)
    found = WeightedLoss(kind)(output, y, weight)
    expected = 0.0
    for k, own in enumerate(output):
        place = () if n_tables is None else (k % n_tables,)
        copies = own.unflatten(0, (5, N))
        losses = [by_hand(kind, copy, y[place], weight[place]) for copy in copies]
        expected = expected + sum(losses) / 5
    assert torch.isclose(found, expected)


@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_labels_are_smoothed_for_each_network(kind):
    y, weight, output = made(kind, N), torch.ones(N), outputs(3, N)
    shares = (0.0, 0.1, 0.3)
    found = WeightedLoss(kind, shares)(output, y, weight)
    expected = sum(
        by_hand(kind, own, y, weight, share)
        for own, share in zip(output, shares, strict=True)
    )
    assert torch.isclose(found, expected)
    alike = WeightedLoss(kind, (0.1,))(output, y, weight)
    expected = sum(by_hand(kind, own, y, weight, 0.1) for own in output)
    assert torch.isclose(alike, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_each_network_alone(kind):
    y, weight = made(kind, N), torch.linspace(0.5, 1.5, N)
    output = outputs(3, N).requires_grad_()
    WeightedLoss(kind, (0.05, 0.0, 0.1))(output, y, weight).backward()
    smoothing = (0.05, 0.0, 0.1) if kind in ("binary", "multiclass") else (0.0,) * 3
    for k in range(3):
        alone = output.detach()[k].requires_grad_()
        by_hand(kind, alone, y, weight, smoothing[k]).backward()
        torch.testing.assert_close(output.grad[k], alone.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_one_network_that_is_not_finite_spoils_no_gradient_of_another(kind):
    y, weight = made(kind, N), torch.ones(N)
    output = outputs(3, N)
    output[1] = torch.nan
    output.requires_grad_()
    WeightedLoss(kind)(output, y, weight).backward()
    finite = torch.isfinite(output.grad).all(dim=2).all(dim=1)
    assert finite.tolist() == [True, False, True]


def test_answers_in_half_precision_have_a_loss_in_single():
    y, weight, output = made("binary", N), torch.ones(N), outputs(2, N)
    loss = WeightedLoss("binary")
    half = loss(output.bfloat16(), y, weight)
    assert half.dtype == torch.float32
    assert torch.isclose(half, loss(output, y, weight), rtol=0.02)
