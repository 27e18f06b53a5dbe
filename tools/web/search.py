"""Full-text search by section: what the page `search` looks through, in a file beside the pages.

A lab is long, and a result that leads to its top is half a result. So the unit is the section, and
in the reference the function. The file is a script, not data that is fetched: then the search works
for pages that are opened from a folder, without a server.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

from docutils import nodes
from sphinx import addnodes

MOST_LEAD = 90  # characters of a bold beginning that is a title


def write_index(app) -> None:
    """Write _static/search-data.js, from the pages that were read."""
    pages, sections = [], []
    names = navigation_names(app.env)
    for docname in sorted(app.env.found_docs - {app.config.root_doc}):
        title = app.env.titles[docname].astext()
        pages.append([app.builder.get_target_uri(docname), title, names.get(docname, "")])
        for part in parts_of(app.env.get_doctree(docname)):
            sections.append([len(pages) - 1, part.anchor, part.heading, part.above, part.text])
    data = json.dumps({"pages": pages, "sections": sections}, ensure_ascii=False)
    file = Path(app.outdir) / "_static" / "search-data.js"
    file.write_text(f"window.COURSE = {data};\n", encoding="utf-8")


def navigation_names(env) -> dict[str, str]:
    """What the sidebar calls a page, where that is not its title: it is searched as well."""
    names = {}
    for toctree in env.get_doctree(env.config.root_doc).findall(addnodes.toctree):
        names.update({docname: title for title, docname in toctree["entries"] if title})
    return names


def mark_leads(app, doctree: nodes.document) -> None:
    """A paragraph that begins in bold, **such as this.** with more behind it, has a title of its
    own: it gets an anchor, and is found for itself.
    """
    used: set[str] = set()
    for paragraph in doctree.findall(nodes.paragraph):
        lead = lead_of(paragraph)
        if lead and isinstance(paragraph.parent, nodes.section):
            anchor = nodes.make_id(f"lead {lead}")
            if anchor not in used and anchor not in doctree.ids:
                used.add(anchor)
                paragraph["ids"].append(anchor)


def lead_of(paragraph: nodes.paragraph) -> str:
    """The bold words that a paragraph begins with, if there are more words behind them."""
    parts = [part for part in paragraph if part.astext()]
    if len(parts) < 2 or not isinstance(parts[0], nodes.strong):
        return ""
    lead = parts[0].astext().strip()
    return lead.rstrip(".:") if len(lead) <= MOST_LEAD else ""


class Part(NamedTuple):
    """A section, or what has a name within one: a function, a paragraph with a title, a term."""

    anchor: str
    heading: str
    above: str  # the heading that it stands below; none where that is the page's title
    text: str


def parts_of(doctree: nodes.document) -> list[Part]:
    """The parts of a page in order."""
    found = []
    for node in doctree.findall():
        if isinstance(node, nodes.section):
            inside = _text(node) or _text_below(node)
            found.append(Part(node["ids"][0], node[0].astext(), _above(node), inside))
        elif isinstance(node, addnodes.desc) and node[0].get("ids"):
            heading = f"{node[0].get('module') or ''}.{node[0].get('fullname', '')}".strip(".")
            names = " ".join(n.astext() for n in node[0].findall(addnodes.desc_parameter))
            inside = f"{_text(node[-1])} {names}"
            found.append(Part(node[0]["ids"][0], heading, _above(node), inside))
        elif isinstance(node, nodes.paragraph) and node["ids"]:
            found.append(Part(node["ids"][0], lead_of(node), _above(node), _text(node)))
        elif _is_entry(node):
            term = node.next_node(nodes.term).astext()
            found.append(Part(node["ids"][0], term, _above(node), _text(node)))
    return found


def _is_entry(node: nodes.Node) -> bool:
    """Of the glossary or of the list of papers."""
    return isinstance(node, nodes.definition_list) and bool(node["ids"])


def _above(node: nodes.Element) -> str:
    """The title of the section that the part is in."""
    around = node.parent
    while not isinstance(around, nodes.section | nodes.document):
        around = around.parent
    is_page = isinstance(around, nodes.document) or isinstance(around.parent, nodes.document)
    return "" if is_page else around[0].astext()


def _text_below(section: nodes.section) -> str:
    """Of a section that is only a heading over others, the text of the first of them."""
    first = section.next_node(nodes.section)
    return (_text(first) or _text_below(first)) if first else ""


def _text(part: nodes.Element) -> str:
    """The part's own text: not that of sections, functions and entries in it, nor its title. A
    notebook's code comes last, so that what is quoted of a section is rather its prose.
    """
    pieces: list[str] = []
    code: list[str] = []
    for child in part.children:
        _collect(child, pieces, code)
    return " ".join("".join([*pieces, *code]).split())


def _collect(node: nodes.Node, pieces: list[str], code: list[str]) -> None:
    apart = isinstance(node, nodes.section | addnodes.desc | nodes.title | nodes.comment)
    if apart or _is_entry(node) or isinstance(node, nodes.image | addnodes.toctree):
        return
    if isinstance(node, nodes.raw):  # a table that a lab made, or a folded answer's edge
        pieces.append(re.sub(r"<[^>]+>", " ", node.astext()))
    elif isinstance(node, nodes.Text):
        pieces.append(node.astext())
    elif isinstance(node, nodes.container) and "cell_input" in node["classes"]:
        code.append(f" {node.astext()}")
    else:
        for child in node.children:
            _collect(child, pieces, code)
        if not isinstance(node, nodes.Inline):
            pieces.append(" ")
