"""Random numbers of a batch that is split into micro-batches."""

import numpy as np
import pytest
import torch
from torch import nn

from sknas._problem import ImageSpec
from sknas.nets import Dropout, ImageInput
from sknas.nets._microbatch import BatchRNG, micro_batches


def run_whole(net, x, seed=0):
    torch.manual_seed(seed)
    output = net(x)
    return output, torch.get_rng_state()


def run_in_micro_batches(net, x, n_micro_batches, seed=0):
    torch.manual_seed(seed)
    dim = 1 if isinstance(net[0], Dropout) else 0
    n_rows = x.shape[dim]
    parts = [
        net(x.narrow(dim, part.start, part.stop - part.start))
        for part in micro_batches(net, n_rows, n_micro_batches)
    ]
    return torch.cat(parts, dim=dim), torch.get_rng_state()


@pytest.mark.parametrize("n_rows", [1, 2, 7, 10])
@pytest.mark.parametrize("n_micro_batches", [1, 2])
def test_dropout_equals_that_of_the_whole_batch(n_rows, n_micro_batches):
    net = nn.Sequential(Dropout([0.5, 0.25]), Dropout([0.1, 0.1]))
    x = torch.ones(2, n_rows, 3)
    whole, state = run_whole(net, x)
    in_parts, after = run_in_micro_batches(net, x, n_micro_batches)
    assert torch.equal(in_parts, whole)
    assert torch.equal(after, state)  # later draws do not change either
    again, _ = run_whole(net, x)
    assert torch.equal(again, whole)  # the micro-batch is reset at the end


@pytest.mark.parametrize(("n_rows", "sizes"), [(1, [1]), (3, [3]), (4, [2, 2])])
def test_no_micro_batch_has_a_single_row(n_rows, sizes):
    """Batch normalisation needs at least two rows."""
    parts = list(micro_batches(nn.Sequential(Dropout([0.5, 0.25])), n_rows, 2))
    assert [part.stop - part.start for part in parts] == sizes


def test_augmentation_equals_that_of_the_whole_batch():
    spec = ImageSpec((1, 8, 8), np.zeros(1, "f4"), np.ones(1, "f4"))
    inputs = ImageInput(spec, flip=True, shift=2, cutout=True)
    net = nn.Sequential(inputs, nn.Identity())
    x = torch.rand(9, 1, 8, 8)
    whole, state = run_whole(net, x)
    in_parts, after = run_in_micro_batches(net, x, 2)
    assert not torch.equal(whole, x)
    assert torch.equal(in_parts, whole) and torch.equal(after, state)


def test_each_copy_of_a_packed_network_is_split_into_micro_batches():
    """A packed network repeats the rows of a batch once per copy."""
    rng, m, n = BatchRNG(), 3, 5
    numbers = torch.arange(m * n).view(m * n, 1)
    rows = []
    for start, stop in ((0, 3), (3, 5)):
        rng.micro_batch = (start, stop, n)
        rows.append(rng(m * (stop - start), lambda n: numbers[:n]).view(m, -1))
    assert torch.equal(torch.cat(rows, dim=1).flatten(), numbers.flatten())


def test_micro_batches_cover_the_batch():
    net = nn.Identity()
    parts = [(p.start, p.stop) for p in micro_batches(net, 7, 2)]
    assert parts == [(0, 4), (4, 7)]
    assert [(p.start, p.stop) for p in micro_batches(net, 7, 1)] == [(0, 7)]
    assert [(p.start, p.stop) for p in micro_batches(net, 1, 2)] == [(0, 1)]
