"""Lays the site's sources out as Sphinx reads them: repository paths stay what they are, so that
the links between documents hold.
"""

from __future__ import annotations

import re
import shutil
from collections import defaultdict
from pathlib import Path

import nbformat

from ftlib.course.catalogue import is_extension, lab_files, lab_number
from tools.web import crossings, reference
from tools.web.labs import read_lab, short_title
from tools.web.mermaid import without_mermaid
from tools.web.sections import Section, sections_of

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = (
    "README.md",
    "QUICKSTART.md",
    "LAB_PREP.md",
    "PREREQUISITES.md",
    "TROUBLESHOOTING.md",
    "STUDY_GUIDE.md",
    "SCALES.md",
    "INSTRUCTORS.md",
    "CONTRIBUTING.md",
    "benchmarks/RESULTS.md",
    "data/README.md",
    "data/english/README.md",
    "labs/records/README.md",
)
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
PYTHON_LINK = re.compile(r"\[([^]]+)\]\(([^)#\s]+\.py)\)")
LAB_LINK = re.compile(r"\[[^]]+\]\((labs/[^)]+)\)")
CALL = re.compile(r"\bft\.(\w+)\b")


def stage(target: Path, labs: list[Path], documents: tuple[str, ...] = DOCUMENTS) -> None:
    """Write the whole of the site's sources to `target`, which is emptied first.

    `labs`: notebooks with outputs, in the course's order.
    """
    if target.exists():
        shutil.rmtree(target)
    notebooks = {page_of(path): read_lab(path) for path in labs}
    sections: list[Section] = []
    for page, notebook in notebooks.items():
        _write(target / page, nbformat.writes(notebook))
        sections += sections_of(page, markdown_of(notebook))
    texts = {name: document(name) for name in documents}
    for name, text in texts.items():
        _write(target / name, text)
        _copy_linked_files(name, text, target)
    in_documents = [s for name, text in texts.items() for s in sections_of(name, text)]
    _write(target / "index.md", index_page(labs))
    _write(target / "glossary.md", crossings.glossary_page(sections))
    _write(target / "papers.md", crossings.papers_page([*sections, *in_documents]))
    _write(target / "reading.md", crossings.reading_page(sections))
    _write(target / "source.md", source_page())
    _write_reference(target, calls_in(notebooks), crossings.labs_with_papers(sections))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def page_of(lab: Path) -> str:
    """A notebook's path in the site, wherever its executed copy lies."""
    folder = "labs/extensions" if is_extension(lab_number(lab)) else "labs"
    return f"{folder}/{lab.name}"


def executed_labs(folder: Path | None = None) -> list[Path]:
    """All notebooks in the course's order: of `folder`, such as build/ after `make labs`, those
    that it has; else the committed ones.
    """
    found = []
    for path in lab_files(extensions=True):
        inside = path.relative_to(ROOT / "labs")
        other = folder / inside if folder else path
        found.append(other if other.is_file() else path)
    return found


def markdown_of(notebook) -> str:
    """The Markdown cells, one below the other."""
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


# --- documents ------------------------------------------------------------------------------------
def document(name: str) -> str:
    """A document of the repository: its flowcharts as text, its links to files of the library as
    links to their pages.
    """
    text = without_mermaid((ROOT / name).read_text(encoding="utf-8"))
    pages = source_modules()

    def to_page(match: re.Match) -> str:
        file = ((ROOT / name).parent / match[2]).resolve()
        if file not in pages:
            return match[0]
        up = "../" * name.count("/")
        href = f"{up}source/{file.relative_to(ROOT).with_suffix('.html')}"
        return f'<a href="{href}">{match[1].replace("`", "")}</a>'

    return PYTHON_LINK.sub(to_page, text)


def _copy_linked_files(name: str, text: str, target: Path) -> None:
    """Files that a document links to and that are no pages, such as the licence."""
    for linked in LINK.findall(text):
        path = (ROOT / name).parent / linked
        is_page = path.suffix in (".md", ".ipynb")
        if path.is_file() and not is_page:
            copy = target / Path(name).parent / linked
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)


def index_page(labs: list[Path]) -> str:
    """The first page: docs/index.md with README's table of labs, and the lists of the sidebar."""
    text = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    table = readme[readme.index("## The labs") :]
    table = LAB_LINK.sub(_named, table[: table.index("\n## ", 1)])
    lines: dict[bool, list[str]] = defaultdict(list)
    for path in labs:
        number = lab_number(path)
        page = page_of(path).removesuffix(".ipynb")
        lines[is_extension(number)].append(f"{short_title(number)} <{page}>")
    text = text.replace("<!-- labs -->", table)
    text = text.replace("<!-- toctree of labs -->", "\n".join(lines[False]))
    return text.replace("<!-- toctree of extensions -->", "\n".join(lines[True]))


def _named(match: re.Match) -> str:
    """A link to a lab by its name rather than by its file's."""
    number = lab_number(Path(match[1]))
    return f"[{short_title(number).removeprefix(number).strip()}]({match[1]})"


# --- the library ----------------------------------------------------------------------------------
def source_modules() -> list[Path]:
    """The files of the library whose text the site has: all but the labs' own packages."""
    files = sorted((ROOT / "ftlib").rglob("*.py"))
    return [path for path in files if not path.parent.name.startswith("lab_")]


def source_page() -> str:
    """The list of the library's files, by folder. (Their pages are `tools.web.sources`'.)"""
    folders: dict[str, list[str]] = defaultdict(list)
    for path in source_modules():
        inside = path.relative_to(ROOT)
        if path.stat().st_size:
            href = f"source/{inside.with_suffix('.html')}"
            folders[str(inside.parent)].append(f'<li><a href="{href}">{inside.name}</a></li>')
    lines = ["# Source of the library", "", "Read a layer in an evening, a module in one sitting."]
    for folder, items in folders.items():
        lines += ["", f"## {folder}", "", f'<ul class="files">{"".join(items)}</ul>']
    return "\n".join([*lines, ""])


def _write_reference(target: Path, used: dict, cited: dict) -> None:
    for layer in reference.LAYERS:
        _write(target / "reference" / f"{layer}.md", reference.layer_page(layer, used, cited))
    _write(target / "reference" / "index.md", reference.index_page())


def calls_in(notebooks: dict) -> dict[str, list[str]]:
    """For each public name the labs whose code uses it, as links."""
    found: dict[str, list[str]] = defaultdict(list)
    for page, notebook in notebooks.items():
        code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
        for name in dict.fromkeys(CALL.findall(code)):
            found[name].append(f"[{lab_number(Path(page))}](/{page})")
    return found
