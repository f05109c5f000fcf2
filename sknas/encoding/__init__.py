"""What a column becomes before a network sees it, and back."""

from sknas.encoding._table import Table, TableEncoder, TableReader, forget_words
from sknas.encoding._target import TargetReader, TargetScale

__all__ = [
    "Table",
    "TableEncoder",
    "TableReader",
    "TargetReader",
    "TargetScale",
    "forget_words",
]
