"""The number of steps of a training, by rows and batch size."""

import math

import pytest

from sknas._training.schedules import training_length

N_ROWS = [2, 30, 100, 256, 257, 1_000, 1_999, 5_000, 30_000, 200_000, 10**7]
BATCH_SIZES = [1, 32, 64, 256, 4_096]


def lengths(n_rows, n_steps, max_epochs=None):
    """Return lengths of trainings on four fifths of the rows, by batch size."""
    return {
        size: training_length(n_rows, 0.8 * n_rows, n_steps, size, max_epochs)
        for size in BATCH_SIZES
    }


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("n_steps", [60, 500, 1_500])
def test_steps_grow_with_the_inverse_square_root_of_the_batch_size(n_rows, n_steps):
    by_size = lengths(n_rows, n_steps)
    for small, large in ((1, 64), (64, 256), (256, 4_096)):
        ratio = by_size[small].n_steps / by_size[large].n_steps
        # Numbers of steps are rounded.
        slack = 1.01 / by_size[large].n_steps
        assert ratio == pytest.approx(math.sqrt(large / small), rel=slack)


@pytest.mark.parametrize("n_rows", N_ROWS)
def test_planned_steps_do_not_depend_on_the_batch_size(n_rows):
    assert {length.planned for length in lengths(n_rows, 500).values()} == {500}


@pytest.mark.parametrize("n_rows", N_ROWS)
@pytest.mark.parametrize("max_epochs", [None, 1, 7])
def test_epochs_contain_all_rows_and_the_last_one_has_started(n_rows, max_epochs):
    for batch_size, length in lengths(n_rows, 500, max_epochs).items():
        n_rows_read = length.n_batches * batch_size
        assert n_rows_read - batch_size < 0.8 * n_rows <= n_rows_read
        assert (length.n_epochs - 1) * length.n_batches < length.n_steps
        assert length.n_steps <= length.n_epochs * length.n_batches
        assert max_epochs is None or length.n_epochs <= max_epochs


@pytest.mark.parametrize(
    ("n_rows", "batch_size", "is_image"),
    [(1_000, 64, False), (200, 256, False), (10_000, 128, True)],
)
def test_the_default_batch_size_takes_the_steps_it_is_given(
    n_rows, batch_size, is_image
):
    length = training_length(n_rows, n_rows, 640, batch_size, None, is_image=is_image)
    assert length.n_steps == length.planned == 640


@pytest.mark.parametrize(
    ("max_epochs", "expected"),
    [(None, (57, 20)), (5, (10, 5)), (99, (57, 20)), (1, (2, 1))],
)
def test_epochs_are_bounded(max_epochs, expected):
    length = training_length(90, 60, 20, 32, max_epochs)
    assert (length.n_steps, length.planned) == expected
