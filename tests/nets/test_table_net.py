"""Networks for tables."""

import pytest
import torch

from sknas.nets import ACTIVATIONS, NORMALISATIONS, Side, TableInput, TableNet

SHAPES = {
    "plain": {"depth": 1, "n_bins": None},
    "deep": {"depth": 3, "residual": True, "activation": "gelu"},
    "layer": {"depth": 2, "normalisation": "layer", "residual": True},
    "batch": {"depth": 2, "normalisation": "batch", "activation": "relu"},
}


def table_net(k, task, *, n_bins=8, dropout=None, **shape):
    shape = {"depth": 2, "activation": "silu", "normalisation": "none"} | shape
    shape = {"width": 12, "residual": False, "dropout": dropout or [0.0] * k} | shape
    return TableNet(TableInput(k, task, n_bins), task.n_outputs, **shape)


def member(group, place, alone):
    """Give a network of one the weights of a member of a group."""
    with torch.no_grad():
        for own, shared in zip(alone.parameters(), group.parameters(), strict=True):
            own.copy_(shared[[place]])
        buffers = dict(group.named_buffers())
        for name, own in alone.named_buffers():
            is_shared = own.shape == buffers[name].shape
            own.copy_(buffers[name] if is_shared else buffers[name][[place]])
    return alone


def unlike(net):
    """Weights drawn anew, so that no member starts like another or at zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.3)
    return net


def close(one, other, atol=1e-5):
    torch.testing.assert_close(one, other, rtol=1e-4, atol=atol)


def learn(net, x, rates):
    """Three steps of gradient descent, each member at a rate of its own."""
    net.train()
    for step in range(3):
        torch.manual_seed(step)
        net.zero_grad()
        net(x).square().mean(dim=(1, 2)).sum().backward()
        with torch.no_grad():
            for p in net.parameters():
                p -= torch.tensor(rates).view(-1, *[1] * (p.ndim - 1)) * p.grad
    net.eval()


@pytest.mark.parametrize("shape", SHAPES)
def test_a_member_answers_as_it_does_alone(task, encoded_rows, shape):
    x = torch.from_numpy(encoded_rows)
    group = unlike(table_net(3, task, **SHAPES[shape])).eval()
    for place in range(3):
        alone = member(group, place, table_net(1, task, **SHAPES[shape])).eval()
        close(alone(x)[0], group(x)[place])


@pytest.mark.parametrize("shape", SHAPES)
def test_a_member_learns_as_it_does_alone(task, encoded_rows, shape):
    rates = [0.02, 0.005, 0.05]
    x, shape = torch.from_numpy(encoded_rows), SHAPES[shape]
    group = unlike(table_net(3, task, **shape))
    alones = [member(group, place, table_net(1, task, **shape)) for place in range(3)]
    learn(group, x, rates)
    for alone, rate in zip(alones, rates, strict=True):
        learn(alone, x, [rate])
    for place, alone in enumerate(alones):
        close(alone(x)[0], group(x)[place], atol=1e-4)


def test_a_member_that_diverges_does_not_touch_the_others(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    group = unlike(table_net(3, task, normalisation="batch"))
    expected = group.train()(x).detach()
    with torch.no_grad():
        group.head.weight[1] = torch.nan
        group.blocks[0].linear.weight[1] = torch.inf
    answers = group(x)
    assert not torch.isfinite(answers[1]).any()
    close(answers[[0, 2]], expected[[0, 2]])
    answers[[0, 2]].sum().backward()
    for parameter in group.parameters():
        assert torch.isfinite(parameter.grad[[0, 2]]).all()


@pytest.mark.parametrize("residual", [False, True])
def test_residual_layers_add_what_they_read(task, encoded_rows, residual):
    x = torch.from_numpy(encoded_rows)
    net = unlike(table_net(2, task, depth=3, residual=residual)).eval()
    h = net.blocks[0](net.inputs(x))
    with torch.no_grad():
        for block in net.blocks[1:]:
            block.linear.weight.zero_()
            block.linear.bias.zero_()
    # Layers of zeros let everything through, or nothing.
    close(net(x), net.head(h if residual else 0 * h))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_all_kinds_of_blocks_pass_gradients(
    task, encoded_rows, activation, normalisation
):
    net = table_net(2, task, activation=activation, normalisation=normalisation)
    net(torch.from_numpy(encoded_rows)).square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_a_new_network_answers_near_zero(task, encoded_rows):
    torch.manual_seed(0)
    answers = table_net(20, task)(torch.from_numpy(encoded_rows))
    assert answers.abs().max() < 0.15
    assert answers.std() > 0  # but not all alike


def test_rows_are_answered_one_by_one(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    net = unlike(table_net(2, task, normalisation="batch")).eval()
    close(torch.cat([net(row[None]) for row in x], dim=1), net(x))


# ------------------------------------------------------------------------ side by side


def test_networks_of_different_shapes_answer_in_their_places(task, encoded_rows):
    x = torch.from_numpy(encoded_rows)
    two, one = unlike(table_net(2, task)), unlike(table_net(1, task, depth=1, width=5))
    side = Side([two, one], [[2, 0], [1]]).eval()
    answers = side(x)
    close(answers[[2, 0]], two(x))
    close(answers[[1]], one(x))
    rows = torch.stack([x, x.flip(0), x.roll(1, 0)])
    answers = side(rows)
    close(answers[1], one(x.flip(0))[0])
    close(answers[0], two(x)[1])
    close(answers[2], two(x.roll(1, 0))[0])


def test_networks_side_by_side_have_all_their_parameters(task):
    nets = [table_net(2, task), table_net(1, task, depth=1)]
    side = Side(nets, [[0, 1], [2]])
    own = sum(p.numel() for net in nets for p in net.parameters())
    assert sum(p.numel() for p in side.parameters()) == own
