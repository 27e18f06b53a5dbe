"""What the site's pages are made of, before Sphinx: texts of figures, quizzes, sections, charts,
the reference, the glossary.
"""

import nbformat
import pytest

pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: make site")

from conftest import ROOT

import ftlib as ft
from ftlib.course.catalogue import MODULES, lab_files
from tools.web import alt, crossings, labs, mermaid, reference, stage
from tools.web.sections import Section, sections_of


@pytest.fixture(scope="module")
def notebooks():
    return {stage.page_of(path): labs.read_lab(path) for path in lab_files(extensions=True)}


@pytest.fixture(scope="module")
def lab_sections(notebooks):
    found = []
    for page, notebook in notebooks.items():
        found += sections_of(page, stage.markdown_of(notebook))
    return found


# --- figures --------------------------------------------------------------------------------------
def test_a_figures_own_text_comes_first():
    said = "Figure: Loss by rank (rank; nats)."
    assert alt.alt_text("plt.title('other words')", said, "Section") == said


def test_titles_of_the_cell_with_what_is_computed_left_open():
    source = 'ax.set(title=f"Quantiles of {len(x)} matrices")\nplots.bars(v, "Loss by rank", "y")'
    shown = "<Figure size 640x272 with 1 Axes>"
    wanted = "Figure: Quantiles of … matrices; Loss by rank."
    assert alt.alt_text(source, shown, "Section") == wanted


def test_titles_of_the_function_that_the_cell_calls():
    """`draw_kto` of lab 3.1.9 sets its own."""
    (title,) = alt.called_titles("draw_kto(settings.batch)")
    assert title.startswith("KTO: each answer against a reference point")


def test_without_a_title_the_section_and_what_is_said_below():
    text = alt.alt_text(
        "f()", "<Figure>", "7 · Does it help?", "- **loss: 1.5.** It is lower. More."
    )
    assert text == "Figure of the section “7 · Does it help?”. loss: 1.5."


def test_handles_of_an_explorable_figure():
    assert alt.handles_in("ball.NoiseBall(table, chosen, names)") == [
        "token",
        "alpha",
        "tokens L",
        "hidden size d",
    ]
    assert alt.handles_in("plots.curves(series, 't', 'x', 'y')") == []


def test_every_figure_of_every_lab_has_a_text(notebooks):
    pictures = 0
    for page, notebook in notebooks.items():
        for cell in notebook.cells:
            own = [o for o in cell.get("outputs", ()) if "image/png" in o.get("data", {})]
            assert len(own) < 2, f"{page}: a text for two pictures"
            if own:
                pictures += 1
                assert len(cell.metadata["mystnb"]["image"]["alt"]) > 12, page
    assert pictures > 100


# --- notebooks ------------------------------------------------------------------------------------
def test_nothing_of_the_graders_is_left_and_no_script(notebooks):
    for page, notebook in notebooks.items():
        text = nbformat.writes(notebook)
        assert (
            "nbgrader" not in text and "<script" not in text and "shufflequestions" not in text
        ), page
        assert "display.HTML object" not in text, page


def test_a_quiz_as_text_has_each_question_and_its_answer_folded():
    text = labs.quiz_text("3.1.3")
    assert text.count("<details>") == 5 and "**1.** alpha 5, a row of 100 tokens" in text
    assert "between 0.0077 and 0.0079: 5 / √(100 · 4096) = 5 / 640." in text
    assert "- each token's norm falls by √2, the whole row's stays" in text


def test_a_table_says_which_cells_are_headers_and_scrolls_by_itself():
    left = " style='text-align:left'"
    markup = f"<table><caption{left}>t</caption><tr><th{left}>a</th></tr></table>"
    better = labs.better_html(markup)
    assert "<th scope='col'>a</th>" in better and better.startswith("<div class='table-wrapper'>")


# --- sections and charts --------------------------------------------------------------------------
def test_sections_have_githubs_anchors_and_code_has_none():
    text = "# A · b\nx\n```\n# no heading\n```\n## The `code` of $x$\ny\n## A · b\n"
    found = [(s.title, s.slug) for s in sections_of("p.md", text)]
    assert found == [("A · b", "a--b"), ("The code of $x$", "the-code-of"), ("A · b", "a--b-1")]


def test_a_chain_is_a_list_and_what_leaves_it_comes_after():
    chart = (
        "```mermaid\nflowchart LR\n"
        '    D["data<br>lab 6"] --> T["SFT"] --> X["GGUF"]\n    T --> E["evaluation"]\n```'
    )
    text = mermaid.without_mermaid(chart)
    assert text.count("<li>") == 3 and "<b>data</b><span>lab 6</span>" in text
    assert "SFT → evaluation" in text and "mermaid" not in text


def test_arrows_with_numbers_are_a_table():
    chart = '```mermaid\nflowchart TD\n    a["core<br>2 files"]\n    b["data"]\n    b -->|3| a\n```'
    assert "| data | a (3) |" in mermaid.without_mermaid(chart)


# --- the reference --------------------------------------------------------------------------------
def test_every_public_name_has_an_entry_with_its_own_docstring():
    entries = reference.public_entries()
    assert reference.undocumented_layers() == set()
    missing = {name for name in ft.__all__ if name not in entries}
    assert missing == {name for name in missing if (ROOT / "ftlib" / name).is_dir()}
    for name in ("dpo_loss", "Interval", "LoadError"):
        first = entries[name].doc.splitlines()[0]
        assert first and getattr(ft, name).__doc__.strip().startswith(first)


def test_an_entry_as_markdown():
    used = {"dpo_loss": ["[3.1.8](/labs/x.ipynb)"]}
    page = reference.layer_page("losses", used, {"dpo_loss": ["[3.1.7](/labs/y.ipynb#a)"]})
    entry = page[page.index("} dpo_loss(") :].split(":::::\n")[0]
    assert "[arXiv 2305.18290](https://arxiv.org/abs/2305.18290)" in entry
    assert r"$-\log  σ(β\cdot (r_{c} - r_{r}))$" in entry and "beta: float=0.1" in entry
    assert "*Its paper in [3.1.7](/labs/y.ipynb#a). Used in [3.1.8](/labs/x.ipynb).*" in entry


def test_tags_in_a_docstring_are_text_and_those_in_code_stay():
    assert reference.to_markdown("Write <name>.jsonl, ``<|end|>``") == (
        "Write &lt;name>.jsonl, ``<|end|>``"
    )


# --- glossary, papers, reading list ---------------------------------------------------------------
def test_every_term_of_the_glossary_is_found_where_it_is_said_to_be(lab_sections):
    page = crossings.glossary_page(lab_sections)
    assert "**NF4**" in page and "*First in lab 3.1.5:* [1 · Which sixteen numbers?]" in page
    assert set(MODULES) >= {"3.1.1"} and page.count("*First in lab") > 50


def test_a_term_that_its_lab_does_not_have_is_an_error():
    sections = [Section("labs/lab-3.1.3-x.ipynb", "Lab", "lab", "noise")]
    assert crossings.introduced("noise", "noise", "3.1.3", sections).slug == "lab"
    with pytest.raises(ValueError, match=r"lab 3\.1\.3 does not have 'KTO'"):
        crossings.introduced("KTO", "KTO", "3.1.3", sections)


def test_a_title_introduces_before_a_text_and_the_opening_comes_last():
    sections = [
        Section("labs/lab-3.1.3-x.ipynb", "Lab", "lab", "packing"),
        Section("labs/lab-3.1.3-x.ipynb", "1", "1", "packing too"),
        Section("labs/lab-3.1.3-x.ipynb", "2 · Packing", "2", ""),
    ]
    assert crossings.introduced("packing", "packing", "3.1.3", sections).slug == "2"
    assert crossings.introduced("packing", "packing", "3.1.3", sections[:2]).slug == "1"
    assert crossings.introduced("packing", "packing", "3.1.3", sections[:1]).slug == "lab"


def test_papers_are_named_and_lead_to_labs_and_functions(lab_sections):
    page = crossings.papers_page(lab_sections)
    dpo = page[page.index("arXiv 2305.18290") :].split("(paper-")[0]
    assert "lab 3.1.7" in dpo and "{py:obj}`dpo_loss <ftlib.dpo_loss>`" in dpo
    assert "**Yoshida 2023** [arXiv 2306.06965]" in page  # whose link's text is the year alone


def test_a_function_leads_to_the_labs_that_go_into_its_paper(lab_sections):
    """DPO's paper is worked through in lab 3.1.7, which writes the loss anew and never calls it."""
    found = crossings.labs_with_papers(lab_sections)
    assert found["dpo_loss"][0].startswith("[3.1.7](/labs/lab-3.1.7-")
    assert found["merge_adapter"] == []  # no paper in its docstring


def test_the_reading_list_has_points_and_labs(lab_sections):
    line = next(x for x in crossings.reading_page(lab_sections).splitlines() if "`qlora`" in x)
    assert "+75" in line and "[3.1.5](/labs/lab-3.1.5" in line
