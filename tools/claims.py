"""Every number in prose has a source: `python -m tools.claims` lists those that have none, by file,
cell, number and sentence.

A number in a Markdown cell of a lab or in a document must be one of these:
(a) computed: it is found, within its own rounding, in an output or a setting of the same notebook;
    for a document in the measurements and settings of this repository (`computed_here`);
(b) cited: its paragraph (or a neighbour in its list or table) names a source of
    `tools/papers.toml`, whose entry has the number;
(c) derived: it is part of an equation of numbers, which is evaluated; or its paragraph says that it
    is an estimate.

Exempt is what states no fact: `STRUCTURE` below (years, versions, names, section numbers, course
times, widths in bits), code, formulas, headings, whole numbers up to 12 without a unit, guesses,
and the invented premises of checkpoint and challenge. An equation of numbers that does not hold is
an error anywhere, also in those.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ftlib.course.catalogue import lab_files, lab_number
from tools.claims_arithmetic import equations
from tools.claims_sources import (
    NUMBER,
    cited,
    computed_here,
    computed_in,
    known_as,
    read,
    read_papers,
    settings,
    unit_of,
)
from tools.claims_text import blocks, prose, scope, without_code

DOCUMENTS = (
    "README",
    "QUICKSTART",
    "STUDY_GUIDE",
    "SCALES",
    "LAB_PREP",
    "PREREQUISITES",
    "TROUBLESHOOTING",
    "INSTRUCTORS",
    "CONTRIBUTING",
    "data/README",
    "data/english/README",
)
# What states no fact.
STRUCTURE = [
    re.compile(pattern)
    for pattern in (
        # Sections and such; labs; numbering.
        r"(?i)(?:\b(?:labs?|sections?|exercises?|eqs?\.|tables?|figures?|appendix|chapter|questions?"
        r"|algorithm|control)|§+)\s*[A-Z]?\d+(?:\.\d+)*(?:(?:, | and | to |–)\d+(?:\.\d+)*)*",
        r"\b3\.1\.\d+\b",
        r"\*\*\d+\. ",
        r"^\s*\d+\. ",
        r"\(\d\)",
        r"^\| \d+ \|",
        # Years and dates; threads; papers.
        r"\b(?:199|20[012])\d\b(?:-\d\d-\d\d)?",
        r"#\d+",
        r"\bissue \d+",
        r"(?i)arXiv \d{4}\.\d{5}",
        # Versions and names: Q4_K_M, fp32, 70B, 4M.
        r"\b(?:Python|torch|CUDA|transformers|AlpacaEval|RFC) ?\d[\d.]*(?: (?:and|or) \d+)?",
        r"\b[A-Za-z][\w+-]*[-_.]?\d[\w.-]*",
        r"\b\d+(?:\.\d+)?[BMGk]\b",
        # Course times, experience points.
        r"· \d+ min\b|\b\d+(?: to \d+)? ?(?:h|hours?)\b",
        r"\| \d?[05] \|$",
        r"\+\d+(?= points|\.| \||$)",
        # Widths of number formats.
        r"\b(?:2|3|4|8|16|32|64)[- ]bits?\b",
        r"\bin (?:8|16|32)\b(?! [a-z]+s of)",
    )
]
GUESS = re.compile(r"^\*\*(?:Guess|Before you)")
INVENTED = re.compile(r"^## (?:Checkpoint|Challenge)|^#+ What you should know")
ESTIMATE = re.compile(r"(?i)\bestimate|rule of thumb|common practice")


@dataclass(frozen=True)
class Claim:
    """A number without a source, or an equation that does not hold (`why`)."""

    where: str
    number: str
    sentence: str
    why: str = "no source"


# --- checking -------------------------------------------------------------------------------------
def states_no_fact(kind: str, raw: str, around: str) -> bool:
    """Whether a block's numbers need no source: headings, guesses, estimates, a table's rule."""
    if kind == "heading" or GUESS.match(raw):
        return True
    if ESTIMATE.search(around if kind == "row" else raw):
        return True
    return bool(re.fullmatch(r"[|\s:-]+", raw))


def _blank(match: re.Match) -> str:
    """As many spaces as what is taken out, so that nothing on either side of it joins."""
    return " " * len(match[0])


def stated_numbers(raw: str) -> list[re.Match]:
    """The numbers of a block that state something; whole numbers up to 12 need a unit to do so."""
    bare = prose(raw)
    for pattern in STRUCTURE:
        bare = pattern.sub(_blank, bare)
    stated = []
    for match in NUMBER.finditer(bare):
        small = match["value"].isdigit() and int(match["value"]) <= 12
        if unit_of(match) or not small:
            stated.append(match)
    return stated


def sentence_with(value: str, raw: str) -> str:
    """The first sentence that has the number; the whole block where it spans two."""
    for sentence in re.split(r"(?<=[.:;?!])\s+", raw.strip()):
        if value in sentence:
            return sentence
    return raw.strip()


def check_text(
    text: str, where: str, known: set, papers: dict, lab: str = "", invented: bool = False
) -> list[Claim]:
    """The claims of one document or Markdown cell that have no source."""
    found = []
    parts = blocks(text)
    for i, (kind, raw) in enumerate(parts):
        right = []
        for equation, holds in equations(raw.replace("`", "")):
            if holds:
                right.append(equation)
            else:
                found.append(Claim(where, equation, raw.strip(), "the arithmetic is wrong"))
        if kind == "heading":
            invented = is_invented(raw, invented)
        around = scope(parts, i)
        if invented or states_no_fact(kind, raw, around):
            continue
        derived = re.findall(r"[\d,.]*\d", " ".join(right))
        for match in stated_numbers(raw):
            value = match["value"]
            if value in derived or known_as(value, unit_of(match), known):
                continue
            if not cited(value, around, papers, lab):
                found.append(Claim(where, match[0].strip(), sentence_with(value, raw)))
    return found


def is_invented(heading: str, before: bool) -> bool:
    """Whether what follows a heading has invented premises: a section's own parts are like it."""
    if INVENTED.match(heading):
        return True
    return before and not heading.startswith("## ")


def check_notebook(path: Path, papers: dict) -> list[Claim]:
    """The claims of a lab's Markdown cells that have no source."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    known = set(computed_in(notebook) + settings())
    lab = lab_number(path)
    found = []
    invented = False
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            found += check_text(text, f"{path.name} cell {i}", known, papers, lab, invented)
            headings = re.findall(r"^## .*", without_code(text), re.M)
            if headings:
                invented = bool(INVENTED.match(headings[-1]))
    return found


def without_tables(text: str) -> str:
    """A document without what a tool has written from records, which a test holds against them."""
    return re.sub(r"<!-- table: .*?<!-- end of table -->\n", "", text, flags=re.S)


def check_all() -> list[Claim]:
    """All claims without a source in the labs and the documents."""
    papers = read_papers()
    found = []
    for path in lab_files(extensions=True):
        found += check_notebook(path, papers)
    known = set(computed_here())
    for name in DOCUMENTS:
        file = f"{name}.md"
        found += check_text(without_tables(read(file)), file, known, papers)
    return found


def main() -> int:
    found = check_all()
    for claim in found:
        print(f"{claim.where}: {claim.number} ({claim.why})\n    {claim.sentence}")
    if found:
        print(f"{len(found)} claims without a source")
        return 1
    print("every number has a source")
    return 0


if __name__ == "__main__":
    sys.exit(main())
