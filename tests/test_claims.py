"""Numbers in prose: the labs and documents have a source for each, and a planted one without is
found.
"""

import json
import tomllib

import pytest
from conftest import ROOT

from tools import claims, claims_arithmetic, claims_sources

PAPERS = {
    "lora": {
        "arxiv": "2106.09685",
        "names": ["Hu et al. 2021"],
        "labs": ["3.1.1"],
        "numbers": {"10,000": "abstract", "37": "Table 2"},
    }
}
KNOWN = {(35.0, "%"), (1.664, ""), (360448.0, ""), (8.4, "GB"), (7340032.0, "")}


def found(text, known=KNOWN, lab=""):
    return [c.number for c in claims.check_text(text, "here", known, PAPERS, lab)]


def test_every_number_of_the_labs_and_documents_has_a_source():
    assert not [f"{c.where}: {c.number} ({c.why}): {c.sentence}" for c in claims.check_all()]


@pytest.mark.parametrize(
    "text",
    [
        "LoRA gets 35% right.",
        "A perplexity of 1.66, with 360,448 parameters.",
        "The file has 8.4 GB.",
        "It has 7.3 MB.",
        "It trains 10,000 times fewer (Hu et al. 2021).",
        "See [LoRA](https://arxiv.org/abs/2106.09685): 10,000× fewer.",
        "- one: 10,000 times fewer\n- two, by Hu et al. 2021",
        "| a | 10,000 |\n|---|---|\n\nHu et al. 2021, abstract.",
        "One layer has 16 · (4096 + 4096) = 131,072.",
        "It holds 4096 · 14336 · 4 bytes = 224 MiB.",
        r"So $8/64 + 32/(64\cdot256) = 0.127$, not 0.127.",
        "In 2019 to 2021, 18 to 77 hours.",
        "About 77 minutes, an estimate.",
        "By common practice 77 rows.",
        "## 77 things",
        "Use `r=77`.",
        "$x^{77}$ and\n\n$$77x$$",
        "In 2019, section 77 of RFC 5737; lab 3.1.7, exercise 4, Table 12; Llama-3.1-8B in 16-bit "
        "on Python 3.12, Q4_K_M.",
        "1. One of 3.",
        "**Guess first.** Is it 77%?",
        "## Checkpoint\n\nAfter 77 steps?",
        "Four runs of 3 seeds each.",
        "```\n77\n```",
    ],
)
def test_what_has_a_source_or_states_no_fact(text):
    assert found(text) == []


@pytest.mark.parametrize(
    "text, number",
    [
        ("LoRA gets 36% right.", "36%"),
        ("A perplexity of 1.68.", "1.68"),
        ("It trains 360,449 numbers.", "360,449"),
        ("It has 9.4 GB.", "9.4 GB"),
        ("It took 77 minutes.", "77"),
        ("The loss is 35.", "35"),
        ("| LoRA | 77.5 |", "77.5"),
        ("- rank 77", "77"),  # a share is not a count
        ("It trains 9,000 times fewer (Hu et al. 2021).", "9,000 times"),
        ("It trains 10,000 times fewer.", "10,000 times"),
        ("Hu et al. 2021.\n\nIt trains 10,000 times fewer.", "10,000 times"),
        ("Another paper, arXiv 2106.00001, has 37.", "37"),
        ("Exercise 3 · 77 min; so 88 rows.", "88"),
        ("An estimate: 77.\n\nIt took 88 steps.", "88"),
        ("It is three times 77.", "77"),
        ("## Checkpoint\n\nAfter 77 steps?\n\n## Next\n\nIt is 88%.", "88%"),
        ("## Results\n\nWe found 5%.", "5%"),
    ],
)
def test_a_planted_number_without_a_source_is_found(text, number):
    assert found(text) == [number]


@pytest.mark.parametrize(
    "text",
    [
        "One layer has 16 · (4096 + 4096) = 131,073.",
        "It holds 4096 · 14336 · 4 bytes = 240 MiB.",
        "7 × 10⁹ × 16 bytes ≈ 128 GB.",
        r"So $8/64 + 32/(64\cdot256) = 0.128$.",
        "5·√(64/1024) = 1.5",
        "## Checkpoint\n\n15/25 = 0.7",
        "**Guess first.** 2 + 2 = 5?",
        "An estimate: 20 · 30 = 700.",
    ],
)
def test_wrong_arithmetic_is_found_everywhere(text):
    assert "the arithmetic is wrong" in [
        c.why for c in claims.check_text(text, "here", KNOWN, PAPERS)
    ]


@pytest.mark.parametrize(
    "side, value",
    [
        ("16 · (1024 + 4096)", 81920),
        ("7 × 10⁹ × 16", 1.12e11),
        ("1 − (1 − 0.8⁶)²¹", 0.99831),
        ("√(0.6·0.4/128)", 0.0433),
        ("112 GB", 1.12e11),
        ("32/64", 0.5),
    ],
)
def test_arithmetic_is_read_as_it_is_written(side, value):
    assert claims_arithmetic.evaluate(side) == pytest.approx(value, rel=1e-3)


def test_the_paper_is_the_labs_own():
    assert found("The paper has 37.", lab="3.1.1") == [] and found(
        "The paper has 37.", lab="3.1.2"
    ) == ["37"]


def test_a_number_planted_into_a_notebook_is_found(tmp_path):
    """An output has 35% and 1.66, a setting 16; 36% is nowhere. A checkpoint's premises stay
    exempt in the next cells too.
    """
    output = {
        "output_type": "display_data",
        "data": {"text/markdown": ["**35%** right, perplexity 1.66"]},
        "metadata": {},
    }
    cells = [
        {"cell_type": "markdown", "source": "35% at rank 16, perplexity 1.66; 36% of them."},
        {"cell_type": "code", "source": "rank = 16", "outputs": [output], "execution_count": 1},
        {"cell_type": "markdown", "source": "## Checkpoint"},
        {"cell_type": "markdown", "source": "Suppose 77%."},
    ]
    path = tmp_path / "lab-3.1.1-x.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    assert [(c.where, c.number) for c in claims.check_notebook(path, PAPERS)] == [
        ("lab-3.1.1-x.ipynb cell 0", "36%")
    ]


def test_every_paper_names_the_place_of_each_number():
    for paper in claims_sources.read_papers().values():
        assert (paper.get("arxiv") or paper["names"]) and all(
            len(place) >= 5 for place in paper["numbers"].values()
        )
    assert (
        tomllib.loads((ROOT / "tools/papers.toml").read_text())["neftune"]["numbers"]["64.69"]
        == "abstract"
    )
