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
from sknas.nets._init import STARTS, initialize_weights
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
from sknas.nets._supernet import MixedChoice, MixedOperation, MixtureWeights, Supernet
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
    "Dropout",
    "Features",
    "ImageInput",
    "InputLinear",
    "Inputs",
    "LayerNorm",
    "Layout",
    "Linear",
    "MixedChoice",
    "MixedOperation",
    "MixtureWeights",
    "ParametricActivation",
    "Side",
    "Supernet",
    "TableInput",
    "TableModule",
    "TableNet",
    "initialize_weights",
]
