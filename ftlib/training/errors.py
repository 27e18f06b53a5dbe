"""The error of a training run."""

from __future__ import annotations


class RunError(ValueError):
    """A training run that cannot start, go on or save, with the reason and the fix."""
