"""An index page of executed labs, with their figures."""

from __future__ import annotations

import base64
import html
from pathlib import Path

from ftlib.course.executing import Result


def figures(notebook) -> list[bytes]:
    """All PNG outputs of a notebook, in order."""
    pictures = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                pictures.append(base64.b64decode(output["data"]["image/png"]))
    return pictures


def write_index(output: Path, results: list[Result], notebooks: list) -> Path:
    """One page over all labs, with each one's outcome and figures. (nbconvert makes a page of one
    notebook, and whole.)
    """
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Labs</title><style>"
        "body{font:16px sans-serif;max-width:60em;margin:2em auto}"
        "img{max-width:30em;margin:.5em}pre{background:#fee;padding:1em;overflow:auto}</style>"
        "<h1>Labs</h1>"
    ]
    for result, notebook in zip(results, notebooks, strict=True):
        name = html.escape(result.name)
        heading = html.escape(result.title)
        state = "failed" if result.error else f"{result.seconds:.0f} s"
        parts.append(f"<h2><a href='{name}'>{heading}</a> · {state}</h2>")
        if result.error:
            parts.append(f"<pre>{html.escape(result.error)}</pre>")
        for i, png in enumerate(figures(notebook), 1):
            data = base64.b64encode(png).decode()
            parts.append(f"<img alt='figure {i} of {heading}' src='data:image/png;base64,{data}'>")
    page = output / "index.html"
    page.write_text("\n".join(parts), encoding="utf-8")
    return page
