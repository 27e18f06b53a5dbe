"""Where the output goes: a notebook, or a terminal."""

from __future__ import annotations

import sys


def in_notebook() -> bool:
    """True inside a Jupyter kernel. That has imported IPython, so nothing is imported here."""
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return False
    return getattr(ipython.get_ipython(), "kernel", None) is not None
