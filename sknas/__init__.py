"""Neural architecture search as scikit-learn estimators."""

from sknas._estimators import NASClassifier, NASRegressor
from sknas._search.function import search

__version__ = "0.1.0"

__all__ = ["NASClassifier", "NASRegressor", "__version__", "search"]
