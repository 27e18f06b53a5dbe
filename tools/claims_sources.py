"""Where the numbers of a text may come from: outputs and settings, measurements, cited papers."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from collections import Counter
from pathlib import Path

from tools.claims_arithmetic import SCALES

ROOT = Path(__file__).resolve().parent.parent
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


def settings() -> list[tuple[float, str]]:
    """What the profiles and the known models set: in every lab."""
    found = []
    for name in LIBRARY_SETTINGS:
        found += literals(read(name))
    return found


def read_papers() -> dict:
    return tomllib.loads(read("tools/papers.toml"))
