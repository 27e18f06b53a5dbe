"""Formulas of docstrings: what is one, what it becomes."""

import html
import re

import pytest

pytest.importorskip("latex2mathml", reason="latex2mathml is not installed: make site")

from tools.web.formulas import is_formula, to_latex, to_mathml
from tools.web.reference import DOUBLE, public_entries


@pytest.mark.parametrize(
    "text, latex",
    [
        ("σ(β·(r_c - r_r))", r"σ(β\cdot (r_{c} - r_{r}))"),
        ("mean ± t·s/√n", r"\mathrm{mean} \pm  t\cdot s/\sqrt{n}"),
        ("√(p(1-p)/n)", r"\sqrt{p(1-p)/n}"),
        ("W ← W + sBA", r"W \leftarrow  W + sBA"),
        ("log π_ref", r"\log  π_{\mathrm{ref}}"),
        ("γ = β·gamma_beta_ratio", r"γ = β\cdot \mathrm{gamma\_beta\_ratio}"),
        ("p̄_c - e^p̄", r"\bar{p}_{c} - e^{\bar{p}}"),  # a bar over the letter
        ("½·(V - R)²", r"\tfrac12 \cdot (V - R)^{2}"),
        ("δ_t + γλ·A_t'", r"δ_{t} + γλ\cdot A_{t'}"),  # the index of the next position
        ("n·share of rows", r"n\cdot \mathrm{share}\ \mathrm{of}\ \mathrm{rows}"),
    ],
)
def test_the_notation_of_docstrings_as_latex(text, latex):
    assert is_formula(text) and to_latex(text) == latex


@pytest.mark.parametrize(
    "text",
    ["labels[:, t + 1]", "finetune(…, penalty=EWC(f, a, 1))", '{"messages": […]}', "<|end|>", "B"],
)
def test_code_is_no_formula(text):
    assert not is_formula(text)


def test_every_formula_of_the_public_docstrings_becomes_mathml():
    """And there are many: if none were found, nothing would be shown as one."""
    formulas = 0
    for entry in public_entries().values():
        for text in DOUBLE.findall(entry.doc):
            text = " ".join(text.split())
            if is_formula(text):
                formulas += 1
                assert to_mathml(to_latex(text)).startswith("<math"), entry.name
    assert formulas > 40


def test_dpos_loss_is_read_out_in_order():
    """The text of -log σ(β·(r_c - r_r)), signs in their order."""
    markup = to_mathml(to_latex("-log σ(β·(r_c - r_r))"))
    text = html.unescape(re.sub(r"<[^>]+>|\s", "", markup))
    assert text == "−logσ(β·(rc−rr))"


SPACE = '<mspace width="0.17em"></mspace>'


@pytest.mark.parametrize(
    ("latex", "inside"),
    [
        (r"-\log z", f"<mrow><mi>log</mi>{SPACE}</mrow><mi>z</mi>"),
        (r"\beta\log z", f"<mrow>{SPACE}<mi>log</mi>{SPACE}</mrow><mi>z</mi>"),
        (r"-\log(z)", "<mi>log</mi><mo stretchy"),  # the bracket is space enough
        (r"\log_2 z", "<msub><mi>log</mi><mn>2</mn></msub>"),
        (r"\frac{1}{\log}", "<mrow><mi>log</mi></mrow>"),
    ],
)
def test_a_function_stands_apart_from_what_it_is_of(latex, inside):
    """log z is not logz, as a browser would set two names side by side."""
    assert inside in to_mathml(latex)


def test_a_minus_that_begins_a_bracket_is_a_sign():
    """σ(−z), not σ( − z): between a bracket and a name a browser takes it for a difference."""
    assert '<mo form="prefix">&#x02212;</mo><mi>z</mi>' in to_mathml("σ(-z)")
    assert "prefix" not in to_mathml("a - z")


def test_aligned_lines_are_rows():
    """Two lines of two columns: four cells, the left ones set to the right."""
    markup = to_mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", display=True)
    assert markup.count("<mtr>") == 2 and markup.count('<mtd columnalign="right">') == 2


@pytest.mark.parametrize("latex", [r"\nosuchcommand x", r"\begin{gathered} a & b \end{gathered}"])
def test_what_is_unknown_is_an_error_and_no_text_on_a_page(latex):
    with pytest.raises(ValueError, match="is not known"):
        to_mathml(latex)
