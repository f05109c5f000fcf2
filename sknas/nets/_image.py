"""Images as a network reads them: one scale, and other views of them in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sknas._problem import ImageSpec
from sknas.nets._microbatch import BatchRNG

CUTOUT_SHARE = 0.5  # of the side of an image, that of the square cut out of it


class ImageInput(nn.Module):
    """Images of any scale -> images of mean 0 and deviation 1, augmented in training.

    Parameters
    ----------
    image : ImageSpec
        Shape and statistics of the images.
    is_flipped : bool, default=False
        Whether half of the images are mirrored, left to right.
    shift : int, default=0
        Most pixels by which an image is moved along each side; what comes in is 0.
    is_cut : bool, default=False
        Whether a square of each image, up to half a side, is made 0.

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
        is_flipped: bool = False,
        shift: int = 0,
        is_cut: bool = False,
    ) -> None:
        super().__init__()
        n_channels = image.shape[0]
        for name in ("mean", "deviation"):
            numbers = torch.tensor(getattr(image, name), dtype=torch.float32)
            self.register_buffer(name, numbers.view(1, n_channels, 1, 1))
        self.is_flipped = is_flipped
        self.shift = shift
        self.is_cut = is_cut
        self.draws = BatchRNG()

    def forward(self, x: Tensor) -> Tensor:
        x = (x.to(self.mean.dtype) - self.mean) / self.deviation
        if not self.training:
            return x
        if self.is_flipped:
            x = torch.where(_drawn(x, self.draws) < 0.5, x.flip(3), x)
        if self.shift:
            x = shifted(x, self.shift, self.draws)
        return cut_out(x, self.draws) if self.is_cut else x


def means(x: Tensor) -> Tensor:
    """The mean of each channel (N, H) of maps (N, H, height, width).

    Its gradient lies in memory as the maps do: any other order slows down the layer
    before several times.
    """
    if not x.is_contiguous(memory_format=torch.channels_last):
        return x.mean(dim=(2, 3))
    return x.permute(0, 2, 3, 1).flatten(1, 2).mean(dim=1)


def _drawn(x: Tensor, draws: BatchRNG) -> Tensor:
    """A number for each image, (N, 1, 1, 1)."""
    return draws(len(x), lambda n: torch.rand(n, 1, 1, 1, device=x.device))


def shifted(x: Tensor, most: int, draws: BatchRNG) -> Tensor:
    """Images moved by up to `most` pixels along each side, each its own way."""
    n, _, height, width = x.shape
    padded = functional.pad(x, [most] * 4)

    def moves(n: int) -> Tensor:
        return torch.randint(2 * most + 1, (n, 1), device=x.device)

    tops, lefts = draws(n, moves), draws(n, moves)
    rows = tops + torch.arange(height, device=x.device)  # (N, height)
    columns = lefts + torch.arange(width, device=x.device)  # (N, width)
    images = torch.arange(n, device=x.device)
    # Indices beside a slice: the channels come last.
    moved = padded[images[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).contiguous()


def cut_out(x: Tensor, draws: BatchRNG) -> Tensor:
    """Images without a square around a random place, which may hang over the edge."""
    height, width = x.shape[2:]
    half = CUTOUT_SHARE * min(height, width) / 2
    inside = []
    for size in (height, width):
        centres = _drawn(x, draws).flatten(1) * size
        places = torch.arange(size, device=x.device) + 0.5
        inside.append((places - centres).abs() < half)  # (N, size)
    square = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return x.masked_fill(square, 0.0)
