"""Scorers for problems in tests."""

import numpy as np

from sknas._problem import PredictionScorer, Score


class FunctionScorer(PredictionScorer):
    """Scores by a function (predictions, rows, weight) -> float."""

    def __init__(self, function, reason=""):
        self.function, self.reason = function, reason

    def score(self, predictions, rows, weight=None):
        value = self.function(predictions, rows, weight)
        return Score(value, self.reason if np.isnan(value) else "")
