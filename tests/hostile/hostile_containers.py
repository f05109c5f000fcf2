"""Containers of images that are no arrays, and objects that are no containers."""

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset


def tensor(array):
    """Return a tensor, or the array itself if torch has no such dtype."""
    try:
        return torch.tensor(array)
    except TypeError:
        return array


def _with_gradient(array):
    given = tensor(array)
    is_tensor = isinstance(given, torch.Tensor)
    return (
        given.double().requires_grad_() if is_tensor and given.isreal().all() else given
    )


def _bfloat16(array):
    given = tensor(array)
    is_real = isinstance(given, torch.Tensor) and not given.is_complex()
    return given.bfloat16() if is_real else given


def _pictures(array):
    """Return images of PIL, or arrays if they are flat or it has no such mode."""
    if array.ndim < 3:
        return list(array)
    try:
        return [Image.fromarray(image) for image in array]
    except (TypeError, ValueError, KeyError):
        return list(array)


CONTAINERS = {
    "tensor": tensor,
    "tensor with gradient": _with_gradient,
    "bfloat16": _bfloat16,
    "list of tensors": lambda array: [tensor(image) for image in array],
    "pictures": _pictures,
    "series": lambda array: pd.Series(list(array)),
    "array of objects": lambda array: pd.Series(list(array)).to_numpy(),
    "masked array": lambda array: np.ma.masked_array(array),
}


def _dataset(X):
    return TensorDataset(torch.zeros(X.shape))


def _masked(X):
    masked = np.ma.masked_array(X)
    masked[0] = np.ma.masked
    return masked


# Given to `predict` instead of the array X.
REFUSED = {
    "dataset": _dataset,
    "loader": lambda X: DataLoader(_dataset(X)),
    "dict": lambda X: {"image": X},
    "generator": lambda X: (image for image in X),
    "files": lambda X: ["a.png"] * len(X),
    "sparse tensor": lambda X: torch.zeros(X.shape).to_sparse(),
    "meta tensor": lambda X: torch.zeros(X.shape, device="meta"),
    "nested tensor": lambda X: torch.nested.nested_tensor(
        [torch.zeros(image.shape) for image in X], layout=torch.jagged
    ),
    "masked": _masked,
    "one picture": lambda X: Image.new("L", (8, 8)),
    "pictures of two sizes": lambda X: [
        Image.new("L", (8 + i % 2, 8)) for i in range(len(X))
    ],
    "palettes": lambda X: [Image.new("P", (8, 8)) for _ in X],
    "pairs": lambda X: [(image, 0) for image in X],
}
