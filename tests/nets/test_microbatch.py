"""Random numbers of a batch that comes in parts."""

import numpy as np
import pytest
import torch
from torch import nn

from sknas._problem import ImageSpec
from sknas.nets import Dropout, ImageInput
from sknas.nets._microbatch import BatchRNG, micro_batches


def drawn_whole(net, x, seed=0):
    torch.manual_seed(seed)
    answer = net(x)
    return answer, torch.get_rng_state()


def drawn_in_parts(net, x, n_parts, seed=0):
    torch.manual_seed(seed)
    dim = 1 if isinstance(net[0], Dropout) else 0
    n_rows = x.shape[dim]
    parts = [
        net(x.narrow(dim, part.start, part.stop - part.start))
        for part in micro_batches(net, n_rows, n_parts)
    ]
    return torch.cat(parts, dim=dim), torch.get_rng_state()


@pytest.mark.parametrize("n_rows", [1, 2, 7, 10])
@pytest.mark.parametrize("n_parts", [1, 2])
def test_units_are_dropped_as_in_the_whole_batch(n_rows, n_parts):
    net = nn.Sequential(Dropout([0.5, 0.25]), Dropout([0.1, 0.1]))
    x = torch.ones(2, n_rows, 3)
    whole, state = drawn_whole(net, x)
    parted, after = drawn_in_parts(net, x, n_parts)
    assert torch.equal(parted, whole)
    assert torch.equal(after, state)  # what is drawn later does not change either
    again, _ = drawn_whole(net, x)
    assert torch.equal(again, whole)  # and the parts are forgotten


@pytest.mark.parametrize(("n_rows", "sizes"), [(1, [1]), (3, [3]), (4, [2, 2])])
def test_no_row_is_alone_in_a_part(n_rows, sizes):
    """Normalisation over a batch takes no single row."""
    parts = list(micro_batches(nn.Sequential(Dropout([0.5, 0.25])), n_rows, 2))
    assert [part.stop - part.start for part in parts] == sizes


def test_images_are_changed_as_in_the_whole_batch():
    spec = ImageSpec((1, 8, 8), np.zeros(1, "f4"), np.ones(1, "f4"))
    inputs = ImageInput(spec, is_flipped=True, shift=2, is_cut=True)
    net = nn.Sequential(inputs, nn.Identity())
    x = torch.rand(9, 1, 8, 8)
    whole, state = drawn_whole(net, x)
    parted, after = drawn_in_parts(net, x, 2)
    assert not torch.equal(whole, x)
    assert torch.equal(parted, whole) and torch.equal(after, state)


def test_copies_of_packed_networks_are_parted_each():
    """Rows of a packed network are those of a batch, once for each copy."""
    draws, m, n = BatchRNG(), 3, 5
    numbers = torch.arange(m * n).view(m * n, 1)
    rows = []
    for start, stop in ((0, 3), (3, 5)):
        draws.part = (start, stop, n)
        rows.append(draws(m * (stop - start), lambda n: numbers[:n]).view(m, -1))
    assert torch.equal(torch.cat(rows, dim=1).flatten(), numbers.flatten())


def test_parts_cover_a_batch():
    net = nn.Identity()
    parts = [(p.start, p.stop) for p in micro_batches(net, 7, 2)]
    assert parts == [(0, 4), (4, 7)]
    assert [(p.start, p.stop) for p in micro_batches(net, 7, 1)] == [(0, 7)]
    assert [(p.start, p.stop) for p in micro_batches(net, 1, 2)] == [(0, 1)]
