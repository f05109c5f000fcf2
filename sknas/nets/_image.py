"""Standardisation and augmentation of images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sknas._problem import ImageSpec
from sknas.nets._microbatch import BatchRNG, RandomModule

CUTOUT_SHARE = 0.5  # side of the blanked square, relative to the shorter side


class ImageInput(RandomModule):
    """Scales images to mean 0 and standard deviation 1; augments them in training.

    Parameters
    ----------
    image : ImageSpec
        Shape and statistics of the images.
    flip : bool, default=False
        Whether half of the images are mirrored, left to right.
    shift : int, default=0
        Maximum number of pixels by which an image is moved along each axis; pixels
        moved in are 0.
    cutout : bool, default=False
        Whether a square of each image, of up to half its shorter side, is set to 0.

    Notes
    -----
    **Shape**: (N, channels, height, width), 8 bits or floats -> the same, floats.

    References
    ----------
    DeVries, Taylor: Improved Regularization of Convolutional Neural Networks with
    Cutout. arXiv:1708.04552.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        image: ImageSpec,
        *,
        flip: bool = False,
        shift: int = 0,
        cutout: bool = False,
    ) -> None:
        super().__init__()
        n_channels = image.shape[0]
        for name, values in (("mean", image.mean), ("deviation", image.deviation)):
            numbers = torch.tensor(values, dtype=torch.float32)
            self.register_buffer(name, numbers.view(1, n_channels, 1, 1))
        self.flip = flip
        self.shift = shift
        self.cutout = cutout

    def forward(self, x: Tensor) -> Tensor:
        x = (x.to(self.mean.dtype) - self.mean) / self.deviation
        if not self.training:
            return x
        if self.flip:
            x = torch.where(_draw_uniform(x, self.rng) < 0.5, x.flip(3), x)
        if self.shift:
            x = random_shift(x, self.shift, self.rng)
        return random_cutout(x, self.rng) if self.cutout else x


def global_average_pool(x: Tensor) -> Tensor:
    """Return the mean of each channel (N, H) of maps (N, H, height, width).

    The gradient keeps the memory format of the maps: another one would make the
    preceding layer several times slower.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.mean(dim=(2, 3))
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)


def _draw_uniform(x: Tensor, rng: BatchRNG) -> Tensor:
    """Draw a number from [0, 1) for each image, (N, 1, 1, 1)."""
    return rng(len(x), lambda n: torch.rand(n, 1, 1, 1, device=x.device))


def random_shift(x: Tensor, max_shift: int, rng: BatchRNG) -> Tensor:
    """Move each image by up to `max_shift` pixels along both axes."""
    n, _, height, width = x.shape
    padded = functional.pad(x, [max_shift] * 4)

    def draw(n: int) -> Tensor:
        return torch.randint(2 * max_shift + 1, (n, 1), device=x.device)

    tops, lefts = rng(n, draw), rng(n, draw)
    rows = tops + torch.arange(height, device=x.device)  # (N, height)
    columns = lefts + torch.arange(width, device=x.device)  # (N, width)
    images = torch.arange(n, device=x.device)
    # Indexing on both sides of a slice puts the channels last.
    moved = padded[images[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def random_cutout(x: Tensor, rng: BatchRNG) -> Tensor:
    """Blank a square around a random pixel of each image; it may cross the border."""
    height, width = x.shape[2:]
    half = CUTOUT_SHARE * min(height, width) / 2
    inside = []
    for size in (height, width):
        centres = _draw_uniform(x, rng).flatten(1) * size
        pixels = torch.arange(size, device=x.device) + 0.5
        inside.append((pixels - centres).abs() < half)  # (N, size)
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(square, 0.0)
