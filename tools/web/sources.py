"""The library's files as pages with colours, and the way from a name to its line."""

from __future__ import annotations

import ast
import html
import re
from collections.abc import Iterator
from pathlib import Path

from tools.web.reference import Entry, public_entries, source_file
from tools.web.stage import source_modules

BEGINNING = re.compile(r"^(?:.*<pre><span></span>)?")
ROOT = Path(__file__).resolve().parents[2]


def source_link(info: dict[str, str]) -> str | None:
    """Where the page of a public name links for its source, seen from reference/."""
    name, _, method = info["fullname"].partition(".")
    entry = public_entries().get(name)
    if entry is None:
        return None
    page = source_file(entry.module).relative_to(ROOT).with_suffix(".html")
    anchor = f"{name}.{method}" if method else name
    return f"../source/{page}#{anchor}"


def pages(app) -> Iterator[tuple[str, dict, str]]:
    """One page a file (Sphinx's `html-collect-pages`)."""
    if not app.config.site_sources:
        return
    entries: dict[Path, list[Entry]] = {}
    for entry in public_entries().values():
        entries.setdefault(source_file(entry.module), []).append(entry)
    for path in source_modules():
        if not path.stat().st_size:
            continue
        name = path.relative_to(ROOT)
        title = str(name)
        code = path.read_text(encoding="utf-8")
        shown = app.builder.highlighter.highlight_block(code, "python")
        body = f"<h1>{html.escape(title)}</h1>" + _described(name, entries.get(path, []))
        body += _with_anchors(shown, code)
        page = f"source/{name.with_suffix('')}"
        yield page, {"title": title, "body": body, "parents": []}, "page.html"


def _described(name: Path, entries: list[Entry]) -> str:
    """The public names of a file, each with a link to its entry of the reference."""
    if not entries:
        return ""
    up = "../" * len(name.parts)
    links = [f'<a href="{up}{e.page}.html#{e.anchor}">{e.name}</a>' for e in entries]
    return f"<p>In the reference: {', '.join(links)}</p>"


def _with_anchors(shown: str, code: str) -> str:
    """The coloured code with a target at the line of each definition."""
    lines = shown.split("\n")
    for line, name in _definitions(code):
        place = rf'\g<0><span id="{name}"></span>'
        lines[line - 1] = BEGINNING.sub(place, lines[line - 1])
    return "\n".join(lines)


def _definitions(code: str) -> list[tuple[int, str]]:
    """Line and name of each function, class, method and constant of a module."""
    found = []
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found.append((node.lineno, node.targets[0].id))
        for inner in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(inner, ast.FunctionDef):
                found.append((inner.lineno, f"{node.name}.{inner.name}"))
    return found
