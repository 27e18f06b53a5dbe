"""The library's map in CONTRIBUTING.md, drawn from its own imports: `make map` writes it, the tests
hold it.

An arrow goes from a layer to one that it imports from, and says how many imports there are. Tests,
the labs' own packages (`course/lab_…`, which grow with every exercise), and what reads the library
from outside are left out.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE = ROOT / "CONTRIBUTING.md"
BEGIN = "<!-- map: `make map` -->\n"
END = "<!-- end of the map -->\n"
LAYERS = (
    "core",
    "data",
    "batches",
    "models",
    "adapters",
    "losses",
    "training",
    "evaluation",
    "export",
    "doctor",
    "course",
    "cli",
)


def layer_of(module: str) -> str:
    """`training` of `ftlib.training.run`; empty for what is in no layer."""
    first, _, rest = module.partition(".")
    return rest.partition(".")[0] if first == "ftlib" else ""


def imported_modules(path: Path) -> list[str]:
    """What a file imports, inside functions too: `ftlib.core.paths` for `from ftlib.core import
    paths`.
    """
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "ftlib":
                found += [f"ftlib.{name.name}" for name in node.names]
            else:
                found.append(node.module)
    return found


def files_in(folder: Path) -> list[Path]:
    """The Python files below a folder, in order, but for those of the labs' own packages."""
    files = sorted(folder.rglob("*.py"))
    return [path for path in files if not path.parent.name.startswith("lab_")]


def layer_imports() -> Counter:
    """How many times a layer imports from another, by (importing, imported)."""
    count = Counter()
    for path in files_in(ROOT / "ftlib"):
        importing = path.relative_to(ROOT / "ftlib").with_suffix("").parts[0]
        for module in imported_modules(path):
            imported = layer_of(module)
            if imported in LAYERS and importing in LAYERS and imported != importing:
                count[importing, imported] += 1
    return count


def layer_lines(layer: str) -> tuple[int, int]:
    """(files, lines) of a layer."""
    folder = ROOT / "ftlib" / layer
    files = files_in(folder) if folder.is_dir() else [folder.with_suffix(".py")]
    texts = [path.read_text(encoding="utf-8") for path in files if path.name != "__init__.py"]
    return len(texts), sum(text.count("\n") for text in texts)


def draw() -> str:
    """The map as a Mermaid flowchart, upper layers above."""
    lines = ["```mermaid", "flowchart TD"]
    for layer in reversed(LAYERS):
        files, _ = layer_lines(layer)
        noun = "files" if files > 1 else "file"
        lines.append(f'    {layer}["{layer}<br>{files} {noun}"]')
    for (importing, imported), count in sorted(layer_imports().items()):
        lines.append(f"    {importing} -->|{count}| {imported}")
    return "\n".join([*lines, "```", ""])


def with_map(text: str) -> str:
    """The text with the map between its two marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{draw()}{END}{after}"


def main() -> int:
    text = FILE.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        sys.exit(f"map: {FILE.name} lacks the marks {BEGIN.strip()} and {END.strip()}")
    FILE.write_text(with_map(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
