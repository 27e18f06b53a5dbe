"""Full-text search by section: what the page `search` looks through, in a file beside the pages.

A lab is long, and a result that leads to its top is half a result. So the unit is the section, and
in the reference the function. The file is a script, not data that is fetched: then the search works
for pages that are opened from a folder, without a server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

KINDS = {"labs/": "lab", "reference/": "function"}


def write_index(app) -> None:
    """Write _static/search-data.js, from the pages that were read."""
    pages, sections = [], []
    for docname in sorted(app.env.found_docs):
        title = app.env.titles[docname].astext()
        pages.append([app.builder.get_target_uri(docname), title])
        for anchor, heading, text in parts_of(app.env.get_doctree(docname)):
            sections.append([len(pages) - 1, anchor, heading, text])
    data = json.dumps({"pages": pages, "sections": sections}, ensure_ascii=False)
    file = Path(app.outdir) / "_static" / "search-data.js"
    file.write_text(f"window.COURSE = {data};\n", encoding="utf-8")


def parts_of(doctree: nodes.document) -> list[tuple[str, str, str]]:
    """(anchor, heading, text) of each section and of each described name."""
    found = []
    for node in doctree.findall(lambda n: isinstance(n, nodes.section | addnodes.desc)):
        if isinstance(node, nodes.section):
            heading = node[0].astext()
            found.append((node["ids"][0], heading, _text(node)))
        elif node[0].get("ids"):
            heading = f"{node[0].get('module') or ''}.{node[0].get('fullname', '')}".strip(".")
            found.append((node[0]["ids"][0], heading, _text(node)))
    return found


def _text(part: nodes.Element) -> str:
    """The part's own text: not that of the parts inside it, nor its title."""
    pieces: list[str] = []
    _collect(part, pieces, top=True)
    return " ".join(" ".join(pieces).split())


def _collect(node: nodes.Node, pieces: list[str], top: bool = False) -> None:
    if isinstance(node, nodes.Text):
        pieces.append(node.astext())
        return
    inner = isinstance(node, nodes.section | addnodes.desc | nodes.title | nodes.comment)
    if (inner and not top) or isinstance(node, nodes.image | addnodes.toctree):
        return
    if isinstance(node, nodes.raw):  # a table that a lab made
        pieces.append(re.sub(r"<[^>]+>", " ", node.astext()))
        return
    for child in node.children:
        _collect(child, pieces)
    if isinstance(node, nodes.TextElement) and not isinstance(node, nodes.Inline):
        pieces.append(" ")
