"""How a lab states a result."""

from __future__ import annotations

import textwrap

from ftlib.core.runtime import configure

SIGNS = {"right": "✓", "open": "○", "wrong": "✗"}
# ANSI green and red: with bold, JupyterLab's dark ones, readable on white.
BOLD = {"right": "32", "wrong": "31"}


def say(text: str) -> None:
    """State a result under its figure: text from computed values, in a notebook as Markdown."""
    from ftlib.core.notebook import in_notebook

    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(textwrap.dedent(text).strip()))
    else:
        print(text)


def quiet_libraries() -> None:
    """Leave out of a notebook what libraries warn of and count while a lab does what it is meant to
    do (`ftlib.core.runtime.configure`).
    """
    configure(progress_bars=False, library_warnings=False)
