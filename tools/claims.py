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

import ast
import json
import re
import sys
import tomllib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ftlib.course.catalogue import lab_files, lab_number

ROOT = Path(__file__).resolve().parent.parent
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
# Where numbers come from: measurements and the embedded model's settings; what sets the numbers of
# every lab; limits that are asserted.
MEASURED = (
    "data/validation.json",
    "data/measured.json",
    "data/english/measured.json",
    "data/world-llama-4m/config.json",
    "data/sft-adapter/adapter_config.json",
    "benchmarks/RESULTS.md",
)
LIBRARY_SETTINGS = (
    "ftlib/core/profiles/tiny.py",
    "ftlib/core/profiles/pocket.py",
    "ftlib/core/profiles/hub.py",
    "ftlib/core/profiles/parts.py",
    "ftlib/training/memory_plan.py",
    "ftlib/training/model_sizes.py",
    "ftlib/training/step_bytes.py",
)
LIMITS = (
    "ftlib/course/executing.py",
    "ftlib/course/notebooks.py",
    "ftlib/doctor.py",
    "tests/test_preferences.py",
)
NUMBER = re.compile(
    r"(?<![\w.])(?P<value>\d{1,3}(?:,\d{3})+(?!\d)|\d+(?:\.\d+)?(?:e-?\d+)?)"
    r"(?P<unit> ?%| ?×| times| points| ?[kMGT]i?B\b| million| billion)?"
)
SCALES = {
    "%": 0.01,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "MiB": 2**20,
    "GiB": 2**30,
    "million": 1e6,
    "billion": 1e9,
}
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
POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
TERM = r"(?:√?\(?[-−]?\d(?:[\d,.]*\d)?(?:e-?\d+)?\)?(?:\^\d+|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)?\)?[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]*)"
SIDE = rf"\(?{TERM}(?:\s*[·×*/+−-]\s*{TERM})*\)?[⁰¹²³⁴⁵⁶⁷⁸⁹]*"
EQUATION = re.compile(
    rf"(?<![\w.^_)}}√·/])({SIDE})(?: bytes?)?((?:\s*[=≈]\s*{SIDE}(?: ?(?:[kMG]i?B|million|%))?)+)"
)


@dataclass(frozen=True)
class Claim:
    """A number without a source, or an equation that does not hold (`why`)."""

    where: str
    number: str
    sentence: str
    why: str = "no source"


# --- text -----------------------------------------------------------------------------------------
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


# --- arithmetic -----------------------------------------------------------------------------------
def _python_power(match: re.Match) -> str:
    return "**" + match[0].translate(POWERS)


def as_python(expression: str) -> str:
    """A written expression in Python's signs."""
    code = expression.replace(",", "").replace("^", "**").replace("−", "-")
    code = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", _python_power, code)
    code = re.sub(r"[·×]", "*", code)
    code = re.sub(r"√(\d[\d.]*|\([^()]*\))", r"(\1)**0.5", code)
    return code.strip()


def evaluate(side: str) -> float:
    """The value of a product, quotient, sum, root or power as it is written. SyntaxError where it
    is no expression.
    """
    unit = re.search(r"([kMG]i?B|million|%)\s*$", side)
    code = as_python(side[: unit.start()] if unit else side)
    if not re.fullmatch(r"[\d\s.e()*/+-]+", code):
        raise SyntaxError(side)
    compiled = compile(ast.parse(code, mode="eval"), "equation", "eval")
    value = eval(compiled, {"__builtins__": {}})  # it has digits and operators only
    if unit:
        value *= SCALES.get(unit[1], 1)
    return value


def slack(side: str) -> float:
    """Half a unit in the last written place of a plain number, in its own scale; nothing for an
    expression.
    """
    plain = re.fullmatch(r"\s*[-−]?[\d,]+(?:\.(\d+))?(?: ?([kMG]i?B|million|%))?\s*", side)
    if not plain:
        return 0.0
    places = len(plain[1] or "")
    scale = SCALES.get(plain[2], 1)
    return 0.5 * 10.0**-places * scale


def without_latex(text: str) -> str:
    """The text with LaTeX's products and fractions in plain signs."""
    for latex, plain in (("\\cdot", "·"), ("\\times", "×"), ("\\,", " "), ("$", "")):
        text = text.replace(latex, plain)
    text = re.sub(r"\\tfrac(\d)\{?(\d+)\}?", r"\1/\2", text)
    return re.sub(r"\\t?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)


def computes(side: str) -> bool:
    """Whether a side of an equation is more than a number."""
    return bool(re.search(r"\d\S*\s*[·×*/+−^√⁰¹²³⁴⁵⁶⁷⁸⁹-]\s*√?\(?\d|√", side))


def agree(sides: list[str], values: list[float], roughly: bool) -> bool:
    """Whether every side is equal to the last, within what their rounding allows and, where it is
    said to be rough, within a hundredth.
    """
    loose = (0.01 if roughly else 1e-9) * abs(values[0])
    last_value = values[-1]
    last_slack = slack(sides[-1])
    for side, value in zip(sides, values, strict=True):
        if abs(value - last_value) > 1.02 * (slack(side) + last_slack) + loose:
            return False
    return True


def equations(text: str):
    """(the equation, whether it holds) for each chain of numbers joined by = or ≈ in which
    something is computed.
    """
    for match in EQUATION.finditer(without_latex(text)):
        sides = re.split(r"[=≈]", match[0])
        if not any(computes(side) for side in sides):
            continue
        try:
            values = [evaluate(re.sub(r" bytes?", "", side)) for side in sides]
        except (SyntaxError, ZeroDivisionError):
            continue
        yield match[0].strip(), agree(sides, values, roughly="≈" in match[0])


# --- sources --------------------------------------------------------------------------------------
def unit_of(match: re.Match) -> str:
    """The unit of a match of `NUMBER`, empty where it has none."""
    return (match["unit"] or "").strip()


def numbers(text: str) -> list[tuple[float, str]]:
    """(value, unit) of all numbers of a text."""
    found = []
    for match in NUMBER.finditer(text):
        value = float(match["value"].replace(",", ""))
        found.append((value, unit_of(match)))
    return found


def literals(source: str) -> list[tuple[float, str]]:
    """The numbers that a piece of Python names."""
    python = re.sub(r"^[%!].*", "", source, flags=re.M)  # IPython's commands are none
    try:
        nodes = ast.walk(ast.parse(python))
    except SyntaxError:
        return []
    constants = [node.value for node in nodes if isinstance(node, ast.Constant)]
    found = [(float(value), "") for value in constants if type(value) in (int, float)]
    percentages = [(100 * value, "%") for value, _ in found if 0 < value < 1]
    return found + percentages


def shown_text(output: dict) -> str:
    """What an output of a notebook shows as text, without HTML's tags."""
    data = {"text/plain": output.get("text", "")} | output.get("data", {})
    texts = ["".join(content) for kind, content in data.items() if kind.startswith("text/")]
    return re.sub(r"<[^>]*>", " ", "\n".join(texts))


def computed_in(notebook: dict) -> list[tuple[float, str]]:
    """Numbers in the outputs of a notebook, and those that its code sets."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            found += literals("".join(cell["source"]))
            for output in cell["outputs"]:
                found += numbers(shown_text(output))
    return found


def read(name: str | Path) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def computed_here() -> list[tuple[float, str]]:
    """Measurements of the data and the benchmarks, counts of the rows, settings, limits that a test
    asserts.
    """
    found = numbers("\n".join(read(name) for name in MEASURED))
    manifest = json.loads(read("data/world-llama-4m/manifest.json"))
    minutes = round(manifest["wall_seconds"] / 60)
    for value in (*manifest.values(), minutes):
        if isinstance(value, (int, float)):
            found.append((value, ""))
    for folder in ("data/rows", "data/english/rows"):
        for path in sorted((ROOT / folder).glob("*.jsonl")):
            found += counts_of_rows(path)
    for path in (ROOT / "data").glob("*.py"):
        found += literals(read(path))
    for name in (*LIBRARY_SETTINGS, *LIMITS):
        found += literals(read(name))
    return found


def counts_of_rows(path: Path) -> list[tuple[float, str]]:
    """How many rows the file has, how many values its fields take, and how often each."""
    content = path.read_bytes()
    found = [(content.count(b"\n"), "")]
    rows = []
    if path.name != "messy.jsonl":
        for line in content.splitlines():
            if line.startswith(b"{") and line.endswith(b"}"):
                rows.append(json.loads(line))
    for field in ("label", "axis", "defect", "family"):
        counts = Counter(str(row[field]) for row in rows if field in row)
        found.append((len(counts), ""))
        found += [(count, "") for count in counts.values()]
    return found


def rounding(value: str, unit: str) -> float:
    """By how much a known number may differ from the one that is written.

    Half a unit in the last place; but two digits and no unit must be exact, or nearly every small
    number would be known, and so must whole numbers without a unit and powers of ten.
    """
    decimals = value.partition(".")[2]
    if "e" in value:
        return 0.0
    if not unit:
        significant = [sign for sign in value.strip("0.") if sign.isdigit()]
        if not decimals or len(significant) < 3:
            return 0.0
    return 0.5 * 10.0 ** -len(decimals)


def known_as(value: str, unit: str, known: set[tuple[float, str]]) -> bool:
    """Whether the number is known with its unit, or without one in the unit's scale (7,340,032 for
    7.3 MB), within the rounding of what is written.
    """
    number = float(value.replace(",", ""))
    half = rounding(value, unit)
    tiny = 1e-9 * abs(number)
    for other, other_unit in known:
        if other_unit == unit and abs(other - number) <= half + tiny:
            return True
        if other_unit or unit in ("", "%"):
            continue
        if abs(other - number) <= tiny:
            return True
        scale = SCALES.get(unit)
        if scale and abs(other - number * scale) <= half * scale:
            return True
    return False


def cited(value: str, text: str, papers: dict, lab: str) -> bool:
    """Whether the text names a source whose entry lists the number."""
    plain_value = value.replace(",", "")
    for paper in papers.values():
        names = [paper.get("arxiv"), *paper["names"]]
        if lab in paper.get("labs", []):
            names += ["the paper", "The paper", "abstract"]
        named = any(name and name in text for name in names)
        listed = {number.replace(",", "") for number in paper["numbers"]}
        if named and plain_value in listed:
            return True
    return False


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


def settings() -> list[tuple[float, str]]:
    """What the profiles and the known models set: in every lab."""
    found = []
    for name in LIBRARY_SETTINGS:
        found += literals(read(name))
    return found


def read_papers() -> dict:
    return tomllib.loads(read("tools/papers.toml"))


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
