"""What a figure says, as text: for who does not see it, and in the pages made of notebooks.

A notebook keeps a picture together with a text form, which by itself says how large the figure is.
`use_texts` has it say the figure's message: titles and axes.
"""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def describe(figure: Figure) -> str:
    """Titles and axes of a figure, in a line: "Figure: Loss by rank (rank; nats per token)."."""
    parts = [figure.get_suptitle()] if figure.get_suptitle() else []
    for ax in figure.axes:
        said = _describe_axes(ax)
        if said and said not in parts:
            parts.append(said)
    return f"Figure: {'. '.join(parts)}." if parts else "Figure without a title."


def _describe_axes(ax: Axes) -> str:
    """Empty for axes that say nothing, such as a colour bar's."""
    titles = [ax.get_title(loc) for loc in ("left", "center", "right")]
    title = " ".join(" ".join(titles).split())
    labels = [" ".join(label.split()) for label in (ax.get_xlabel(), ax.get_ylabel()) if label]
    axes = f"({'; '.join(labels)})" if labels else ""
    return f"{title} {axes}".strip() if title else ""


def use_texts(formatter: Any) -> None:
    """Have IPython's formatter for plain text write `describe` for a figure."""
    formatter.for_type(Figure, _write)


def _write(figure: Figure, printer: Any, cycle: bool) -> None:
    printer.text(describe(figure))
