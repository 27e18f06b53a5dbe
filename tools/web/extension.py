"""What Sphinx does for this site beyond its own: formulas as MathML, names of the library as links,
source pages, and the search by section.
"""

from __future__ import annotations

import html
import logging as python_logging
import re
from pathlib import Path

import ziamath
from docutils import nodes
from fontTools import subset
from fontTools.ttLib import TTFont
from sphinx import addnodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

from tools.web import search, sources
from tools.web.formulas import to_mathml
from tools.web.reference import public_entries

LOG = logging.getLogger(__name__)
FONT = Path(ziamath.__file__).parent / "fonts" / "STIXTwoMath-Regular.ttf"
SIGNS = (  # Latin and Greek, marks and arrows, operators, letters of mathematics
    range(0x20, 0x250),
    range(0x2B0, 0x400),
    range(0x2000, 0x2400),
    range(0x27C0, 0x2B00),
    range(0x1D400, 0x1D800),
)
BOXES = {  # the beginning of a box's class, and what it is given
    '"table-wrapper': 'tabindex="0"',
    "'table-wrapper": 'tabindex="0"',
    '"cell_input': 'role="group" aria-label="Code"',
    '"cell_output': 'role="group" aria-label="Output"',
}
NAMED = re.compile(r"(?:ftlib\.|ft\.)(\w+)(?:\(.*\))?")


def setup(app) -> dict:
    app.add_config_value("site_sources", True, "html", bool)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.add_post_transform(NamesAreLinks)
    app.connect("builder-inited", _no_index_of_sphinx)
    app.connect("html-collect-pages", sources.pages)
    app.connect("html-collect-pages", lambda app: [("search", {"title": "Search"}, "search.html")])
    app.connect("html-page-context", _for_readers)
    app.connect("doctree-read", _figures_have_texts)
    app.connect("doctree-read", _tables_of_names)
    app.connect("doctree-read", search.mark_leads)
    app.connect("build-finished", _after)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --- formulas -------------------------------------------------------------------------------------
def _mathml(translator, node, display: bool) -> str:
    latex = node.astext()
    try:
        return to_mathml(latex, display)
    except Exception as error:  # the converter has errors of its own
        LOG.warning("no MathML for %r: %s", latex, error, location=node)
        return f"<code>{html.escape(latex)}</code>"


def _inline(translator, node) -> None:
    translator.body.append(_mathml(translator, node, display=False))
    raise nodes.SkipNode


def _block(translator, node) -> None:
    markup = _mathml(translator, node, display=True)
    translator.body.append(f'<div class="formula">{markup}</div>\n')
    raise nodes.SkipNode


# --- names of the library -------------------------------------------------------------------------
class NamesAreLinks(SphinxPostTransform):
    """`ft.neftune` and `kto_loss` in a text lead to the reference."""

    default_priority = 5  # before references are resolved

    def run(self, **_kwargs) -> None:
        for literal in list(self.document.findall(nodes.literal)):
            name = self._public_name(literal.astext())
            inside_link = isinstance(literal.parent, nodes.reference | addnodes.pending_xref)
            if name and not inside_link:
                link = addnodes.pending_xref(
                    refdomain="py", reftype="obj", reftarget=f"ftlib.{name}", refexplicit=True
                )
                link["refdoc"] = self.env.docname
                literal.replace_self(link)
                link += literal

    def _public_name(self, text: str) -> str:
        """With `ft.` before it any name; without, one that can be nothing else."""
        found = NAMED.fullmatch(text)
        name = found[1] if found else text
        in_reference = self.env.docname.startswith("reference/")
        if name not in public_entries():
            return ""
        return name if found or "_" in name or in_reference else ""


# --- pages ----------------------------------------------------------------------------------------
def _no_index_of_sphinx(app) -> None:
    """Ours is by section (`tools.web.search`)."""
    app.builder.search = False


def _for_readers(app, pagename, templatename, context, doctree) -> None:
    """A wide table's box is reached by keyboard, so that it can be scrolled; code and output are
    told apart by who hears the page.
    """
    body = context.get("body") or ""
    for box, more in BOXES.items():
        body = body.replace(f"<div class={box}", f"<div {more} class={box}")
    context["body"] = body


def _tables_of_names(app, doctree) -> None:
    """A table without a head, | | |, as the labs begin: its first column names the rows."""
    for table in doctree.findall(nodes.tgroup):
        head = table.next_node(nodes.thead)
        if head is not None and not head.astext().strip():
            table.remove(head)
            table.next_node(nodes.colspec)["stub"] = 1


def _figures_have_texts(app, doctree) -> None:
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            LOG.warning("a figure without a text in its place: %s", image["uri"], location=image)


def _after(app, error) -> None:
    if error is None:
        search.write_index(app)
        write_font(Path(app.outdir) / "_static" / "math.woff")


def write_font(target: Path) -> None:
    """The font of the formulas, STIX Two Math (SIL Open Font License), with the signs that formulas
    are made of: a third of its size.
    """
    python_logging.getLogger("fontTools").setLevel("WARNING")
    font = TTFont(FONT)
    chosen = subset.Subsetter()
    chosen.populate(unicodes=[code for block in SIGNS for code in block])
    chosen.subset(font)
    font.flavor = "woff"
    font.save(target)
