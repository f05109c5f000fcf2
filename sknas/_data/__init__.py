"""What a column or an image becomes before a network sees it, and back."""

from sknas._data.image import ImageEncoder, ImageReader, Images
from sknas._data.reader import Encoder, RawRows, Reader, n_dimensions
from sknas._data.table_encoder import Table, TableEncoder
from sknas._data.table_reader import TableReader
from sknas._data.target import TargetReader, TargetScale, as_array

__all__ = [
    "Encoder",
    "ImageEncoder",
    "ImageReader",
    "Images",
    "RawRows",
    "Reader",
    "Table",
    "TableEncoder",
    "TableReader",
    "TargetReader",
    "TargetScale",
    "as_array",
    "n_dimensions",
]
