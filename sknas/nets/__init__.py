"""Networks for several architectures at once; they know nothing of search."""

from sknas.nets._conv import (
    HEADS,
    IMAGE_ACTIVATIONS,
    IMAGE_BLOCKS,
    IMAGE_NORMALISATIONS,
    POOLINGS,
    ConvNet,
)
from sknas.nets._image import ImageInput
from sknas.nets._init import STARTS, start_weights
from sknas.nets._inputs import (
    NUMERIC_EMBEDDINGS,
    NUMERIC_SCALES,
    Features,
    Inputs,
    Layout,
    TableInput,
)
from sknas.nets._layers import (
    ACTIVATIONS,
    NORMALISATIONS,
    Activation,
    BatchNorm,
    Dropout,
    InputLinear,
    LayerNorm,
    Linear,
    ParametricActivation,
)
from sknas.nets._supernet import Decision, MixedOperation, Relaxed, Weights
from sknas.nets._table import BLOCKS, UNIT_KINDS, Side, TableModule, TableNet

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "HEADS",
    "IMAGE_ACTIVATIONS",
    "IMAGE_BLOCKS",
    "IMAGE_NORMALISATIONS",
    "NORMALISATIONS",
    "NUMERIC_EMBEDDINGS",
    "NUMERIC_SCALES",
    "POOLINGS",
    "STARTS",
    "UNIT_KINDS",
    "Activation",
    "BatchNorm",
    "ConvNet",
    "Decision",
    "Dropout",
    "Features",
    "ImageInput",
    "InputLinear",
    "Inputs",
    "LayerNorm",
    "Layout",
    "Linear",
    "MixedOperation",
    "ParametricActivation",
    "Relaxed",
    "Side",
    "TableInput",
    "TableModule",
    "TableNet",
    "Weights",
    "start_weights",
]
