"""What a column becomes before a network sees it, and back."""

from sknas.encoding._table import Table, TableEncoder, TableReader
from sknas.encoding._target import TargetReader, TargetScale

__all__ = ["Table", "TableEncoder", "TableReader", "TargetReader", "TargetScale"]
