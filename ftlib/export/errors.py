"""What every export raises."""

from __future__ import annotations


class ExportError(ValueError):
    """An export that cannot be made or is not what was asked for, with the reason and the mend."""
