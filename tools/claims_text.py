"""The blocks of a Markdown text: its paragraphs, list items, table rows and headings."""

from __future__ import annotations

import re

BLOCKS = (("heading", r"#"), ("row", r"\|"), ("item", r"\s*(?:[-*]|\d+\.) "))  # and how they begin


def without_code(text: str) -> str:
    """The text without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def block_kind(line: str) -> str:
    """The kind of the block that a line begins: of `BLOCKS`, or "text"."""
    for kind, beginning in BLOCKS:
        if re.match(beginning, line):
            return kind
    return "text"


def blocks(text: str) -> list[tuple[str, str]]:
    """(kind, text) of the paragraphs, list items, table rows and headings, in order, without code
    blocks and displayed formulas.
    """
    text = without_code(text)
    text = re.sub(
        r"\$\$.*?\$\$|<!-- validation -->.*?<!-- end -->|</?\w+[^>]*>", "\n", text, flags=re.S
    )
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        kind = block_kind(line)
        if not line.strip():
            found.append(("gap", ""))
        elif kind == "text" and found and found[-1][0] in ("text", "item"):
            begun_kind, begun = found[-1]
            found[-1] = (begun_kind, f"{begun} {line.strip()}")
        else:
            found.append((kind, line))
    return [block for block in found if block[0] != "gap"]


def prose(text: str) -> str:
    """The text without code spans, formulas and link targets."""
    text = re.sub(r"`[^`]*`", " ", text)
    text = re.sub(r"\]\([^)]*\)|https?://\S+", "]", text)
    return re.sub(r"\$[^$]*\$", " ", text)


def scope(all_blocks, i: int) -> str:
    """Where a citation may be: the block; for a row or an item also the rest of its table or
    list.
    """
    kind = all_blocks[i][0]
    first = i
    last = i
    if kind in ("row", "item"):
        while first > 0 and all_blocks[first][0] == kind:
            first -= 1
        while last < len(all_blocks) - 1 and all_blocks[last][0] == kind:
            last += 1
    return " ".join(text for _, text in all_blocks[first : last + 1])
