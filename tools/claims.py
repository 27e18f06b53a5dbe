"""Every number in prose has a source: `python -m tools.claims` lists those that have none, by file,
cell, number and sentence.

A number in a Markdown cell of a lab or in a document must be one of these:
(a) computed: it is found, within its own rounding, in an output or a setting of the same notebook;
    for a document in the measurements and settings of this repository (`computed_here`);
(b) cited: its paragraph (or a neighbour of its list or table) names a source of
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

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = (
    "README",
    "QUICKSTART",
    "STUDY_GUIDE",
    "LAB_PREP",
    "PREREQUISITES",
    "TROUBLESHOOTING",
    "INSTRUCTORS",
    "CONTRIBUTING",
    "data/README",
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
STRUCTURE = [
    re.compile(p)
    for p in (
        r"(?i)(?:\b(?:labs?|sections?|exercises?|eqs?\.|tables?|figures?|appendix|chapter|questions?|algorithm|control)|§+)\s*"
        r"[A-Z]?\d+(?:\.\d+)*(?:(?:, | and | to |–)\d+(?:\.\d+)*)*",  # sections and such
        r"\b3\.1\.\d+\b",
        r"\*\*\d+\. ",
        r"^\s*\d+\. ",
        r"\(\d\)",
        r"^\| \d+ \|",  # labs, numbering
        r"\b(?:199|20[012])\d\b(?:-\d\d-\d\d)?",
        r"#\d+",
        r"\bissue \d+",
        r"(?i)arXiv \d{4}\.\d{5}",  # years, dates, threads
        r"\b(?:Python|torch|CUDA|transformers|AlpacaEval|RFC) ?\d[\d.]*(?: (?:and|or) \d+)?",
        r"\b[A-Za-z][\w+-]*[-_.]?\d[\w.-]*",
        r"\b\d+(?:\.\d+)?[BMGk]\b",  # names: Q4_K_M, fp32, 70B, 4M
        r"· \d+ min\b|\b\d+(?: to \d+)? ?(?:h|hours?)\b",
        r"\| \d?[05] \|$",
        r"\+\d+(?= points|\.| \||$)",  # course times, XP
        r"\b(?:2|3|4|8|16|32|64)[- ]bits?\b",
        r"\bin (?:8|16|32)\b(?! [a-z]+s of)",  # widths of number formats
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
def blocks(text: str) -> list[tuple[str, str]]:
    """(kind, text) of the paragraphs, list items, table rows and headings, in order, without code
    blocks and displayed formulas.
    """
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = re.sub(
        r"\$\$.*?\$\$|<!-- validation -->.*?<!-- end -->|</?\w+[^>]*>", "\n", text, flags=re.S
    )
    found, kinds = [], (("heading", r"#"), ("row", r"\|"), ("item", r"\s*(?:[-*]|\d+\.) "))
    for line in text.splitlines():
        kind = next((k for k, p in kinds if re.match(p, line)), "text")
        if not line.strip():
            found.append(("gap", ""))
        elif kind == "text" and found and found[-1][0] in ("text", "item"):
            found[-1] = (found[-1][0], found[-1][1] + " " + line.strip())
        else:
            found.append((kind, line))
    return [b for b in found if b[0] != "gap"]


def prose(text: str) -> str:
    """Without code spans, formulas and link targets."""
    return re.sub(
        r"\$[^$]*\$", " ", re.sub(r"\]\([^)]*\)|https?://\S+", "]", re.sub(r"`[^`]*`", " ", text))
    )


def scope(all_blocks, i: int) -> str:
    """Where a citation may be: the block; for a row or an item also its list or table and the
    paragraph on either side.
    """
    first = last = i
    if all_blocks[i][0] in ("row", "item"):
        while first > 0 and all_blocks[first][0] == all_blocks[i][0]:
            first -= 1
        while last < len(all_blocks) - 1 and all_blocks[last][0] == all_blocks[i][0]:
            last += 1
    return " ".join(b[1] for b in all_blocks[first : last + 1])


# --- arithmetic -----------------------------------------------------------------------------------
def evaluate(side: str) -> float:
    """The value of a product, quotient, sum, root or power as it is written. SyntaxError where it
    is no expression.
    """
    unit = re.search(r"([kMG]i?B|million|%)\s*$", side)
    code = side[: unit.start()] if unit else side
    code = re.sub(
        r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+",
        lambda m: "**" + m[0].translate(POWERS),
        code.replace(",", "").replace("^", "**"),
    )
    code = re.sub(
        r"√(\d[\d.]*|\([^()]*\))", r"(\1)**0.5", re.sub(r"[·×]", "*", code.replace("−", "-"))
    ).strip()
    if not re.fullmatch(r"[\d\s.e()*/+-]+", code):
        raise SyntaxError(side)
    value = eval(
        compile(ast.parse(code, mode="eval"), "equation", "eval"), {"__builtins__": {}}
    )  # digits and operators only
    return value * {"%": 0.01}.get(unit[1], SCALES.get(unit[1], 1)) if unit else value


def slack(side: str) -> float:
    """Half a unit in the last written place of a plain number, in its own scale; nothing for an
    expression.
    """
    plain = re.fullmatch(r"\s*[-−]?[\d,]+(?:\.(\d+))?(?: ?([kMG]i?B|million|%))?\s*", side)
    if not plain:
        return 0.0
    scale = {"%": 0.01}.get(plain[2], SCALES.get(plain[2], 1)) if plain[2] else 1
    return 0.5 * 10.0 ** -len(plain[1] or "") * scale


def equations(text: str):
    """(the equation, whether it holds) for each chain of numbers joined by = or ≈ in which
    something is computed.
    """
    for latex, plain in (("\\cdot", "·"), ("\\times", "×"), ("\\,", " "), ("$", "")):
        text = text.replace(latex, plain)
    text = re.sub(r"\\tfrac(\d)\{?(\d+)\}?", r"\1/\2", text)
    text = re.sub(r"\\t?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)
    for match in EQUATION.finditer(text):
        sides = re.split(r"[=≈]", match[0])
        if not any(re.search(r"\d\S*\s*[·×*/+−^√⁰¹²³⁴⁵⁶⁷⁸⁹-]\s*√?\(?\d|√", s) for s in sides):
            continue
        try:
            values = [evaluate(re.sub(r" bytes?", "", s)) for s in sides]
        except (SyntaxError, ZeroDivisionError):
            continue
        loose = 0.01 * abs(values[0]) if "≈" in match[0] else 1e-9 * abs(values[0])
        last = values[-1], slack(sides[-1])
        yield (
            match[0].strip(),
            all(
                abs(v - last[0]) <= 1.02 * (slack(s) + last[1]) + loose
                for v, s in zip(values, sides, strict=True)
            ),
        )


# --- sources --------------------------------------------------------------------------------------
def numbers(text: str) -> list[tuple[float, str]]:
    """(value, unit) of all numbers of a text."""
    return [
        (float(m["value"].replace(",", "")), (m["unit"] or "").strip())
        for m in NUMBER.finditer(text)
    ]


def literals(source: str) -> list[tuple[float, str]]:
    """The numbers that a piece of Python names."""
    try:
        nodes = ast.walk(ast.parse(re.sub(r"^[%!].*", "", source, flags=re.M)))
    except SyntaxError:
        return []
    constants = [n.value for n in nodes if isinstance(n, ast.Constant)]
    found = [(float(v), "") for v in constants if type(v) in (int, float)]
    return found + [(100 * v, "%") for v, _ in found if 0 < v < 1]


def computed_in(notebook: dict) -> list[tuple[float, str]]:
    """Numbers in the outputs of a notebook, and those that its code sets."""
    found = []
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            found += literals("".join(cell["source"]))
            for output in cell["outputs"]:
                data = {"text/plain": output.get("text", "")} | output.get("data", {})
                found += numbers(
                    re.sub(
                        r"<[^>]*>",
                        " ",
                        "\n".join("".join(v) for k, v in data.items() if k.startswith("text/")),
                    )
                )
    return found


def computed_here() -> list[tuple[float, str]]:
    """Measurements of the data and the benchmarks, counts of the rows, settings, limits that a test
    asserts.
    """
    files = (
        "validation.json",
        "world-llama-4m/config.json",
        "sft-adapter/adapter_config.json",
        "../benchmarks/RESULTS.md",
    )
    found = numbers("\n".join((ROOT / "data" / p).read_text(encoding="utf-8") for p in files))
    manifest = json.loads((ROOT / "data/world-llama-4m/manifest.json").read_text(encoding="utf-8"))
    found += [
        (v, "")
        for v in (*manifest.values(), round(manifest["wall_seconds"] / 60))
        if isinstance(v, (int, float))
    ]
    for path in sorted((ROOT / "data/rows").glob("*.jsonl")):
        rows = (
            [
                json.loads(line)
                for line in path.read_bytes().splitlines()
                if line.startswith(b"{") and line.endswith(b"}")
            ]
            if path.name != "messy.jsonl"
            else []
        )
        found.append((path.read_bytes().count(b"\n"), ""))
        for field in ("label", "axis", "defect", "family"):
            counts = Counter(str(row[field]) for row in rows if field in row)
            found += [(n, "") for n in (len(counts), *counts.values())]
    for path in [
        *(ROOT / "data").glob("*.py"),
        *(
            ROOT / f"ftlib/{m}.py"
            for m in ("core/profiles", "training/memory_plan", "course/notebooks", "doctor")
        ),
        ROOT / "tests/test_preferences.py",
    ]:
        found += literals(path.read_text(encoding="utf-8"))
    return found


def known_as(value: str, unit: str, known: set[tuple[float, str]]) -> bool:
    """Whether the number is known with its unit, or without one in the unit's scale (7,340,032 for
    7.3 MB).

    Within the rounding of what is written; two digits and no unit must be exact, or nearly every
    small number would be known.
    """
    number, places = float(value.replace(",", "")), len(value.partition(".")[2])
    half = (
        0.0
        if "e" in value or (not unit and sum(map(str.isdigit, value.strip("0."))) < 3 and places)
        else 0.5 * 10.0**-places
    )
    half = half if unit or places else 0.0
    for other, theirs in known:
        same = theirs == unit or (not theirs and unit not in ("%", ""))
        if same and abs(other - number) <= (half if theirs == unit else 0) + 1e-9 * abs(number):
            return True
        scaled = number * SCALES.get(unit, 0)
        if (
            not theirs
            and unit in SCALES
            and unit != "%"
            and abs(other - scaled) <= half * SCALES[unit]
        ):
            return True
    return False


def cited(value: str, text: str, papers: dict, lab: str) -> bool:
    """Whether the text names a source whose entry lists the number."""
    for paper in papers.values():
        own = ["the paper", "The paper", "abstract"] if lab in paper.get("labs", []) else []
        named = [paper.get("arxiv"), *paper["names"], *own]
        if any(n and n in text for n in named) and value.replace(",", "") in {
            n.replace(",", "") for n in paper["numbers"]
        }:
            return True
    return False


# --- checking -------------------------------------------------------------------------------------
def check_text(
    text: str, where: str, known: set, papers: dict, lab: str = "", invented: bool = False
) -> list[Claim]:
    """The claims of one document or Markdown cell that have no source."""
    found, parts = [], blocks(text)
    for i, (kind, raw) in enumerate(parts):
        computed = list(equations(raw.replace("`", "")))
        right = " ".join(e for e, holds in computed if holds)
        found += [
            Claim(where, e, raw.strip(), "the arithmetic is wrong")
            for e, holds in computed
            if not holds
        ]
        if kind == "heading":
            invented = bool(INVENTED.match(raw)) or (invented and not raw.startswith("## "))
        around = scope(parts, i)
        estimated = ESTIMATE.search(around if kind == "row" else raw)
        if (
            kind == "heading"
            or invented
            or GUESS.match(raw)
            or estimated
            or re.fullmatch(r"[|\s:-]+", raw)
        ):
            continue
        bare = prose(raw)
        for pattern in STRUCTURE:
            bare = pattern.sub(lambda m: " " * len(m[0]), bare)
        for m in NUMBER.finditer(bare):
            unit, small = (m["unit"] or "").strip(), m["value"].isdigit() and int(m["value"]) <= 12
            if (
                (small and not unit)
                or m["value"] in re.findall(r"[\d,.]*\d", right)
                or known_as(m["value"], unit, known)
                or cited(m["value"], around, papers, lab)
            ):
                continue
            sentence = next(
                (s for s in re.split(r"(?<=[.:;?!])\s+", raw.strip()) if m["value"] in s),
                raw.strip(),
            )
            found.append(Claim(where, m[0].strip(), sentence))
    return found


def check_notebook(path: Path, papers: dict) -> list[Claim]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    known, lab = (
        set(computed_in(notebook) + settings()),
        re.search(r"lab-(\d+\.\d+\.\d+)", path.name)[1],
    )
    found, invented = [], False
    for i, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            found += check_text(text, f"{path.name} cell {i}", known, papers, lab, invented)
            headings = re.findall(
                r"^## .*", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M), re.M
            )
            invented = bool(INVENTED.match(headings[-1])) if headings else invented
    return found


def settings() -> list[tuple[float, str]]:
    """What the profiles and the known models set: in every lab."""
    return [
        v
        for m in ("core/profiles", "training/memory_plan")
        for v in literals((ROOT / f"ftlib/{m}.py").read_text(encoding="utf-8"))
    ]


def read_papers() -> dict:
    return tomllib.loads((ROOT / "tools/papers.toml").read_text(encoding="utf-8"))


def check_all() -> list[Claim]:
    """All claims without a source in the labs and the documents."""
    papers, found, known = read_papers(), [], set(computed_here())
    for path in sorted((ROOT / "labs").glob("lab-*.ipynb")):
        found += check_notebook(path, papers)
    for name in DOCUMENTS:
        found += check_text(
            (ROOT / f"{name}.md").read_text(encoding="utf-8"), f"{name}.md", known, papers
        )
    return found


def main() -> int:
    found = check_all()
    for claim in found:
        print(f"{claim.where}: {claim.number} ({claim.why})\n    {claim.sentence}")
    print(f"{len(found)} claims without a source" if found else "every number has a source")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
