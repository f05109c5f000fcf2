"""Errors and warnings of sknas, derived from the types that scikit-learn raises."""


class InvalidParameterError(ValueError, TypeError):
    """A parameter has a value or a type that is not allowed."""


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or another process is using it."""


class SearchFailedError(RuntimeError):
    """No trial of a search succeeded; the message counts the reasons."""


class SearchWarning(UserWarning):
    """Something the user of a search should know; issued at most once per fit."""


class UnseenValuesWarning(UserWarning):
    """Most values of a column did not occur in fit; issued once per fit."""
