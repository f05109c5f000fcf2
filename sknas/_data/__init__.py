"""Data of a search: read X and y, merge equal rows, split and encode them.

A `Reader` learns the layout of X and returns `RawRows`; an `Encoder` learns statistics
from the training rows of one fold, so no statistic ever sees a validation row.
"""
