"""Input layer for images: standardisation, and augmentation in training."""

import warnings

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.nn import functional

from sknas._problem import ImageSpec
from sknas.nets import ImageInput

N, CHANNELS, HEIGHT, WIDTH = 40, 2, 7, 10


@pytest.fixture
def images(rng):
    """8-bit images (N, channels, height, width) without equal pixels in an image."""
    pixels = rng.permuted(np.tile(np.arange(140), (N, 1)), axis=1)
    return torch.tensor(pixels.reshape(N, CHANNELS, HEIGHT, WIDTH), dtype=torch.uint8)


@pytest.fixture
def image(images):
    x = images.numpy().astype(np.float32)
    mean, deviation = x.mean(axis=(0, 2, 3)), x.std(axis=(0, 2, 3))
    return ImageSpec((CHANNELS, HEIGHT, WIDTH), mean, deviation)


def make_input(image, *, is_training=True, **options):
    torch.manual_seed(0)
    return ImageInput(image, **options).train(is_training)


AUGMENTED = [{"flip": True}, {"shift": 2}, {"cutout": True}]


def test_channels_are_standardised(image, images):
    x = make_input(image)(images)
    assert x.dtype == torch.float32 and x.shape == images.shape
    assert_allclose(x.mean(dim=(0, 2, 3)), 0, atol=1e-6)
    assert_allclose(x.std(dim=(0, 2, 3), correction=0), 1, rtol=1e-5)


def test_read_only_statistics_do_not_raise_a_warning(image):
    for numbers in (image.mean, image.deviation):
        numbers.flags.writeable = False  # as in a memory map
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # otherwise torch warns once per process
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("error")
            ImageInput(image)
    finally:
        torch.set_warn_always(always)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
def test_outputs_do_not_depend_on_the_dtype(image, images, dtype):
    for options in ({}, *AUGMENTED):
        read = [make_input(image, **options)] * 2
        outputs = []
        for layer, x in zip(read, (images, images.to(dtype)), strict=True):
            torch.manual_seed(1)
            outputs.append(layer(x))
        assert torch.equal(*outputs) and outputs[1].dtype == torch.float32


@pytest.mark.parametrize("options", AUGMENTED, ids=lambda options: next(iter(options)))
def test_augmentation_is_active_only_in_training(image, images, options):
    plain = make_input(image)(images)
    layer = make_input(image, **options)
    assert not torch.equal(layer(images), plain)
    state = torch.random.get_rng_state()
    assert torch.equal(layer.eval()(images), plain)
    assert torch.equal(torch.random.get_rng_state(), state)  # no draws


@pytest.mark.parametrize("options", AUGMENTED, ids=lambda options: next(iter(options)))
def test_augmentation_is_seeded_and_differs_between_calls(image, images, options):
    one, other = (make_input(image, **options) for _ in range(2))
    torch.manual_seed(2)
    first, second = one(images), one(images)
    torch.manual_seed(2)
    assert torch.equal(other(images), first)
    assert not torch.equal(first, second)


def test_about_half_of_the_images_are_flipped_horizontally(image, images):
    plain = make_input(image)(images)
    seen = make_input(image, flip=True)(images)
    are_mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(seen, plain, strict=True)]
    for is_mirrored, a, b in zip(are_mirrored, seen, plain, strict=True):
        assert is_mirrored or torch.equal(a, b)
    assert 0.25 < np.mean(are_mirrored) < 0.75


def test_images_are_shifted_by_whole_pixels_along_both_axes(image, images):
    max_shift = 2
    plain = make_input(image)(images)
    seen = make_input(image, shift=max_shift)(images)
    padded = functional.pad(plain, [max_shift] * 4)
    moves = set()
    for view, source in zip(seen, padded, strict=True):
        found = [
            (top, left)
            for top in range(2 * max_shift + 1)
            for left in range(2 * max_shift + 1)
            if torch.equal(view, source[:, top : top + HEIGHT, left : left + WIDTH])
        ]
        assert len(found) == 1
        moves.update(found)
    assert len(moves) > 10
    assert {top for top, _ in moves} == {left for _, left in moves} == set(range(5))


def test_cutout_removes_a_square_of_half_the_side(image, images):
    plain = make_input(image)(images)
    seen = make_input(image, cutout=True)(images)
    sides = []
    for view, source in zip(seen, plain, strict=True):
        is_cut = (view != source).any(dim=0)
        rows, columns = is_cut.any(dim=1), is_cut.any(dim=0)
        assert torch.equal(is_cut, rows[:, None] & columns[None])  # a rectangle
        assert (view[:, is_cut] == 0).all()
        for line in (rows, columns):
            (indices,) = np.nonzero(line.numpy())
            assert len(indices) == 0 or np.ptp(indices) == len(indices) - 1
        sides.append((int(rows.sum()), int(columns.sum())))
    half = HEIGHT / 2
    assert np.max(sides) <= half + 1 and np.min(sides) >= 0
    # Squares that cross the border of the image cut out fewer pixels.
    assert np.min(sides) < half - 1 and np.median(sides) > half - 1.5


def test_augmentations_are_combined(image, images):
    seen = make_input(image, flip=True, shift=1, cutout=True)(images)
    assert seen.shape == images.shape and torch.isfinite(seen).all()
    assert ((seen == 0).sum(dim=(1, 2, 3)) > 0).float().mean() > 0.9


def test_image_input_has_no_parameters_and_restores_its_statistics(image, images):
    layer = make_input(image)
    assert not list(layer.parameters())
    again = make_input(ImageSpec(image.shape, np.zeros(2), np.ones(2)))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(images), layer(images))
