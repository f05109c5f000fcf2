"""Search spaces: the choices of an architecture, and the network it describes."""

from sknas._history import Architecture
from sknas._problem import ImageSpec, TaskSpec
from sknas.spaces._base import DictSpace, Space
from sknas.spaces._cell import CellSpace
from sknas.spaces._choices import Categorical, Choice, Integer, Real, as_choice
from sknas.spaces._image import ImageSpace
from sknas.spaces._sampler import UnseenSampler
from sknas.spaces._table import TableSpace

SPACES = {"table": TableSpace, "image": ImageSpace, "cell": CellSpace}

__all__ = [
    "SPACES",
    "Architecture",
    "Categorical",
    "CellSpace",
    "Choice",
    "DictSpace",
    "ImageSpace",
    "ImageSpec",
    "Integer",
    "Real",
    "Space",
    "TableSpace",
    "TaskSpec",
    "UnseenSampler",
    "as_choice",
]
