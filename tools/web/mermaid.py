"""Mermaid's flowcharts as text and tables: a browser needs a script to draw them, and a screen
reader has nothing of the drawing.
"""

from __future__ import annotations

import re

BLOCK = re.compile(r"^```mermaid\n(.*?)^```\s*?$", re.M | re.S)
NODE = re.compile(r'(\w+)\["([^"]+)"\]')
EDGE = re.compile(r"(\w+)(?:\[\"[^\"]+\"\])? *-->(?:\|(\d+)\|)? *(?=(\w+))")


def without_mermaid(markdown: str) -> str:
    """The text with each flowchart as a chain of steps, or as a table of what leads where."""
    return BLOCK.sub(lambda match: _chart(match[1]), markdown)


def _chart(source: str) -> str:
    names = dict(NODE.findall(source))
    edges = [(start, end, count) for start, count, end in EDGE.findall(source)]
    if source.startswith("flowchart LR"):
        return _chain(names, edges)
    return _table(names, edges)


def _shown(name: str) -> str:
    first, _, more = name.partition("<br>")
    return f"{first} ({more})" if more else first


def _chain(names: dict[str, str], edges: list) -> str:
    """The steps from the first on; what leaves the chain comes after it."""
    following: dict[str, str] = {}
    beside = []
    for start, end, _ in edges:
        if start in following:
            beside.append((start, end))
        else:
            following[start] = end
    step = next(iter(names))
    steps = [step]
    while step in following:
        step = following[step]
        steps.append(step)
    items = "\n".join(f"<li>{_boxed(names[step])}</li>" for step in steps)
    lines = [f'<ol class="flow">\n{items}\n</ol>']
    lines += [f"{_shown(names[a])} → {_shown(names[b])}" for a, b in beside if b not in steps]
    return "\n\n".join(lines)


def _boxed(name: str) -> str:
    first, _, more = name.partition("<br>")
    return f"<b>{first}</b><span>{more}</span>"


def _table(names: dict[str, str], edges: list) -> str:
    lines = ["| from | to (how many) |", "|---|---|"]
    for node, name in names.items():
        to = [f"{end} ({count})" if count else end for start, end, count in edges if start == node]
        lines.append(f"| {_shown(name)} | {', '.join(to) or '–'} |")
    return "\n".join(lines)
