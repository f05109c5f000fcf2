"""Networks that compute several architectures at once, independent of the search."""

from sknas._training.parameter_groups import GroupedModule, LRGroup
from sknas.nets._base import HalfPrecisionModule, InitializedModule
from sknas.nets._conv import (
    HEADS,
    IMAGE_ACTIVATIONS,
    IMAGE_BLOCKS,
    IMAGE_NORMALISATIONS,
    POOLINGS,
    ConvNet,
)
from sknas.nets._image import ImageInput
from sknas.nets._init import INITS, initialize_weights
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
from sknas.nets._table import BLOCKS, TABLE_ACTIVATIONS, TableModule, TableNet

__all__ = [
    "ACTIVATIONS",
    "BLOCKS",
    "HEADS",
    "IMAGE_ACTIVATIONS",
    "IMAGE_BLOCKS",
    "IMAGE_NORMALISATIONS",
    "INITS",
    "NORMALISATIONS",
    "NUMERIC_EMBEDDINGS",
    "NUMERIC_SCALES",
    "POOLINGS",
    "TABLE_ACTIVATIONS",
    "Activation",
    "BatchNorm",
    "ConvNet",
    "Dropout",
    "Features",
    "GroupedModule",
    "HalfPrecisionModule",
    "ImageInput",
    "InitializedModule",
    "InputLinear",
    "Inputs",
    "LRGroup",
    "LayerNorm",
    "Layout",
    "Linear",
    "MixedChoice",
    "MixedOperation",
    "MixtureWeights",
    "ParametricActivation",
    "Supernet",
    "TableInput",
    "TableModule",
    "TableNet",
    "initialize_weights",
]
