"""A small site, built: all documents and the whole reference, one lab whole and the text of the
others. Nothing leads nowhere, nothing is fetched from the network, every figure has a text. And the
site of `make site`, if there is one, the same.
"""

import json
import re
import shutil
from pathlib import Path

import nbformat
import pytest

pytest.importorskip("sphinx", reason="Sphinx is not installed: make site")
pytest.importorskip("myst_nb", reason="myst-nb is not installed: make site")
pytest.importorskip("furo", reason="furo is not installed: make site")
pytest.importorskip("ziamath", reason="ziamath is not installed: make site")

from conftest import ROOT
from docutils import nodes
from docutils.utils import new_document

from ftlib.course.catalogue import lab_files, lab_number
from tools.web import extension, search, sources
from tools.web import stage as web_stage
from tools.web.__main__ import build
from tools.web.links import broken_links
from tools.web.reference import public_entries, source_file
from tools.web.stage import page_of, stage

BUILT = ROOT / "build" / "site"
WHOLE = "3.1.3"


def text_alone(path: Path, folder: Path) -> Path:
    """A copy of a notebook without its code."""
    notebook = nbformat.read(path, as_version=4)
    notebook.cells = [cell for cell in notebook.cells if cell.cell_type == "markdown"]
    copy = folder / path.name
    nbformat.write(notebook, copy)
    return copy


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Of the library's files only those with public names; the font whole."""
    files = {source_file(entry.module) for entry in public_entries().values()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web_stage, "source_modules", lambda: sorted(files))
        patch.setattr(sources, "source_modules", lambda: sorted(files))
        patch.setattr(extension, "write_font", lambda target: shutil.copy(extension.FONT, target))
        yield build_site(tmp_path_factory.mktemp("site"))


def build_site(folder: Path) -> Path:
    labs = []
    for path in lab_files(extensions=True):
        labs.append(path if lab_number(path) == WHOLE else text_alone(path, folder))
    stage(folder / "source", labs)
    assert build(folder / "source", folder / "site") == 0  # a warning is a failure
    return folder / "site"


def page(site, name: str) -> str:
    return (site / name).read_text(encoding="utf-8")


def test_nothing_leads_nowhere_and_nothing_comes_from_the_network(site):
    assert broken_links(site) == []


def test_the_check_of_links_finds_what_is_broken(tmp_path):
    (tmp_path / "a.html").write_text(
        '<a href="b.html#there">1</a><a href="b.html#gone">2</a><a href="c.html">3</a>'
        '<img src="x.png"><script src="https://cdn.example/x.js"></script>'
        '<a href="https://arxiv.org">4</a><a href="../outside.html">5</a>'
    )
    (tmp_path / "b.html").write_text('<p id="there"></p>')
    assert broken_links(tmp_path) == [
        "a.html: b.html#gone: no such place in that page",
        "a.html: c.html: is not there",
        "a.html: x.png: is not there",
        "a.html: https://cdn.example/x.js: is fetched from the network",
        "a.html: ../outside.html: is not there",
        "a.html: 1 pictures without a text",
    ]


def test_a_lab_has_its_outputs_its_figures_texts_and_its_formulas(site):
    text = page(site, "labs/lab-3.1.3-neftune-magic.html")
    assert "not attempted yet" in text  # an output
    assert 'alt="Figure: One alpha, growing length: only the sequence' in text
    assert "A still. In JupyterLab this figure has handles: token, alpha" in text
    assert "<math" in text and "\\frac" not in re.sub(r"<pre>.*?</pre>", "", text, flags=re.S)
    assert "nbgrader" not in text and "KeyboardInterrupt" in text


def test_a_function_leads_to_its_source_its_paper_and_its_labs(site):
    text = page(site, "reference/training.html")
    entry = text[text.index('id="ftlib.neftune"') :][:6000]
    assert "../source/ftlib/training/neftune.html#neftune" in entry
    assert 'id="neftune"' in page(site, "source/ftlib/training/neftune.html")
    assert "../labs/lab-3.1.3-neftune-magic.html" in entry
    losses = page(site, "reference/losses.html")
    assert (
        "https://arxiv.org/abs/2402.01306" in losses[losses.index('id="ftlib.kto_loss"') :][:8000]
    )


def test_a_name_in_a_lab_leads_to_the_reference(site):
    text = page(site, "labs/lab-3.1.3-neftune-magic.html")
    assert 'href="../reference/training.html#ftlib.neftune"' in text


def test_what_is_searched_has_every_page_and_paragraphs_with_a_title(site):
    script = page(site, "_static/search-data.js")
    data = json.loads(script.removeprefix("window.COURSE = ").rstrip(";\n"))
    urls = [url for url, _, _ in data["pages"]]
    assert {page_of(p).replace(".ipynb", ".html") for p in lab_files(extensions=True)} <= set(urls)
    found = {heading: urls[at] + "#" + anchor for at, anchor, heading, *_ in data["sections"]}
    assert found["ftlib.merge_adapter_gguf"] == "reference/export.html#ftlib.merge_adapter_gguf"
    assert found["A DGX Spark"].startswith("LAB_PREP.html#lead-")
    assert found["A DGX Spark"].split("#")[1] in page(site, "LAB_PREP.html")
    texts = {heading: (above, text) for _, _, heading, above, text in data["sections"]}
    hook = texts["6 · The hook"][1]
    assert "raise NotImplementedError" not in hook and "hook" in hook
    assert texts["A DGX Spark"][0] == "Where you are"
    assert "arXiv 2305.18290" not in texts["Papers, and where each is used"][1]  # an entry's own


def test_a_heading_over_sections_has_the_text_of_the_first_and_code_comes_last():
    def section(name, title, *inside):
        return nodes.section("", nodes.title(text=title), *inside, ids=[name])

    code = nodes.container("", nodes.literal_block(text="x = 1"), classes=["cell_input"])
    first = section("b", "B", code, nodes.paragraph(text="A word."))
    page = new_document("page")
    page += section("top", "Page", section("a", "A", first))
    found = search.parts_of(page)
    assert [(part.anchor, part.above) for part in found] == [("top", ""), ("a", ""), ("b", "A")]
    assert [part.text for part in found] == ["A word. x = 1"] * 3


@pytest.mark.skipif(not BUILT.is_dir(), reason="there is no build/site: make site")
def test_the_site_that_was_built_last():
    assert broken_links(BUILT) == []
