"""Errors that several layers raise: each names what is wrong, its value, and the fix."""

from __future__ import annotations


class DataError(ValueError):
    """Rows that cannot be used: names file, line or row, the reason and the fix."""


class PairError(DataError):
    """A pair or a binary row that cannot be used: which, the key, its value and the fix."""


class OpenTurnError(DataError):
    """A chat template writes nothing after an answer at which generation stops."""


class RewrittenTurnError(DataError):
    """A chat template writes an answer otherwise in the middle of a conversation than after the
    prompt that a model is asked with.
    """


class LoadError(ValueError):
    """A model or tokenizer that cannot be loaded, with the reason and the fix."""
