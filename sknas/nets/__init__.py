"""Networks for several architectures at once; they know nothing of search."""

from sknas.nets._embeddings import TableInput
from sknas.nets._layers import (
    ACTIVATIONS,
    NORMALISATIONS,
    BatchNorm,
    Dropout,
    LayerNorm,
    Linear,
)
from sknas.nets._table import Side, TableNet

__all__ = [
    "ACTIVATIONS",
    "NORMALISATIONS",
    "BatchNorm",
    "Dropout",
    "LayerNorm",
    "Linear",
    "Side",
    "TableInput",
    "TableNet",
]
