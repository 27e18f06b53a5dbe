"""The text in place of a figure, for who does not see it.

A notebook of today's ftlib brings it: `ftlib.course.plots.describe` writes titles and axes beside
each picture. For one that was executed before, the titles are read from the code that draws: those
that the cell itself sets, else those of the function or class that it calls. Where neither says a
title, the section's heading stands for it; what the lab concludes is text under the figure.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COURSE = ROOT / "ftlib" / "course"
SETTERS = {"set_title", "suptitle"}
HANDLES = {"slider", "choice", "switch"}
PLOTS = {"plots", "interval_plots"}  # their second argument is the title
SAID = re.compile(r"^Figure: ")


def alt_text(source: str, shown: str, heading: str, said: str = "") -> str:
    """For a picture of the cell `source`, whose text form is `shown`, in the section `heading`;
    `said` is what the lab says below it.
    """
    if SAID.match(shown):
        return shown
    titles = titles_in(source) or called_titles(source)
    if titles:
        return f"Figure: {'; '.join(dict.fromkeys(titles))}.".replace("$", "")
    message = _first_sentence(said)
    return f"Figure of the section “{heading}”. {message}".strip()


def _first_sentence(markdown: str) -> str:
    """Without marks, at most some 200 characters."""
    plain = re.sub(r"[*`$]|^[-#>] *|\[([^]]+)\]\([^)]+\)", r"\1", markdown, flags=re.M)
    flat = " ".join(plain.split())
    sentence = re.split(r"(?<=[.?!])\s+(?=[A-Z])", flat)[0]
    return sentence if len(sentence) <= 200 else sentence[:200].rsplit(" ", 1)[0] + " …"


def titles_in(source: str) -> list[str]:
    """The titles that this code sets itself, in order; what is computed in them is left open."""
    return _titles(_parse(source))


def _parse(source: str) -> ast.AST:
    plain = [line for line in source.splitlines() if not line.startswith(("%", "!"))]
    return ast.parse("\n".join(plain))


def _titles(tree: ast.AST) -> list[str]:
    found = []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: (node.lineno, node.col_offset)):
        text = _title_of(call)
        if text:
            found.append(text)
    return found


def _title_of(call: ast.Call) -> str:
    for keyword in call.keywords:
        if keyword.arg in ("title", "suptitle"):
            return _text(keyword.value)
    name, owner = _called(call)
    if name in SETTERS and call.args:
        return _text(call.args[0])
    if owner in PLOTS and len(call.args) > 1:
        return _text(call.args[1])
    return ""


def _called(call: ast.Call) -> tuple[str, str]:
    """The function's name, and the name before its dot."""
    if isinstance(call.func, ast.Attribute):
        owner = call.func.value
        return call.func.attr, owner.id if isinstance(owner, ast.Name) else ""
    return (call.func.id, "") if isinstance(call.func, ast.Name) else ("", "")


def _text(node: ast.AST) -> str:
    """A text of the code; “…” stands for what is computed. Empty for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        text = node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "…" for v in node.values]
        text = "".join(parts)
    else:
        return ""
    flat = " ".join(text.split()).rstrip(".…")
    return flat if len(re.findall(r"[^\W\d_]{2,}", flat)) > 1 else ""  # a word may be a key


# --- what the cell calls --------------------------------------------------------------------------
@cache
def _definitions() -> dict[str, list[ast.AST]]:
    """Functions and classes of the course's modules that draw, by name."""
    found: dict[str, list[ast.AST]] = {}
    for path in sorted(COURSE.rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.setdefault(node.name, []).append(node)
    return found


def called_titles(source: str) -> list[str]:
    """Titles that the functions called by this code set, one call deep."""
    found = []
    for definition in _called_definitions(source):
        found += _titles(definition)
    return found


def _called_definitions(source: str) -> list[ast.AST]:
    found = []
    for node in ast.walk(_parse(source)):
        if isinstance(node, ast.Call):
            definitions = _definitions().get(_called(node)[0], [])
            if len(definitions) == 1:  # a name that two labs have says nothing
                found.append(definitions[0])
    return found


def handles_in(source: str) -> list[str]:
    """The labels of the handles of the explorable figure that this code shows; [] if none."""
    labels = []
    for definition in _called_definitions(source):
        if not _is_explorable(definition):
            continue
        for node in ast.walk(definition):
            if isinstance(node, ast.Call) and _called(node)[0] in HANDLES and node.args:
                labels.append(_text_or_value(node.args[0]))
    return [label for label in dict.fromkeys(labels) if label]


def _text_or_value(node: ast.AST) -> str:
    value = node.value if isinstance(node, ast.Constant) else ""
    return value if isinstance(value, str) else ""


def _is_explorable(definition: ast.AST) -> bool:
    if isinstance(definition, ast.ClassDef):
        return any(ast.unparse(base).endswith("Explorable") for base in definition.bases)
    returns = definition.returns
    return returns is not None and ast.unparse(returns).endswith("Explorable")
