"""What every export raises, and what serving does."""

from __future__ import annotations


class ExportError(ValueError):
    """An export that cannot be made or is not what was asked for, with the reason and the fix."""


class ServingError(ValueError):
    """A server that cannot be reached, started or used, or broke off: the reason and the fix."""


class TemplateError(ValueError):
    """A chat template that cannot be translated or rendered, with the reason and the fix."""
