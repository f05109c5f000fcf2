"""What a column or an image becomes before a network sees it, and back."""

from sknas.encoding._base import Encoder, Reader, Samples, n_dimensions
from sknas.encoding._image import ImageEncoder, ImageReader, Images
from sknas.encoding._table import Table, TableEncoder, TableReader
from sknas.encoding._target import TargetReader, TargetScale, as_array

__all__ = [
    "Encoder",
    "ImageEncoder",
    "ImageReader",
    "Images",
    "Reader",
    "Samples",
    "Table",
    "TableEncoder",
    "TableReader",
    "TargetReader",
    "TargetScale",
    "as_array",
    "n_dimensions",
]
