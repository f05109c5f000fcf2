"""Errors and warnings of sknas; each derives from the kind scikit-learn would raise."""


class InvalidParameterError(ValueError, TypeError):
    """A parameter has a value or a type that is not allowed."""


class CheckpointError(RuntimeError):
    """A checkpoint is damaged, or another process is using it."""


class SearchFailedError(RuntimeError):
    """No trial of a search succeeded; the message counts the reasons."""


class SearchWarning(UserWarning):
    """Something about a search that its user should know; given once a fit."""
