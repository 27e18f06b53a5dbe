"""The API reference: a page for each layer, from the sources alone (nothing is imported).

The public names are those of `ftlib/__init__.pyi`. Each gets its signature, its docstring with
formulas as formulas and papers as links, the line of its source, and the labs that call it.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tools.web.formulas import is_formula, to_latex

ROOT = Path(__file__).resolve().parents[2]
STUB = ROOT / "ftlib" / "__init__.pyi"
LAYERS = {  # in the order of the pipeline: title, what it is for
    "data": ("Data", "Rows: reading, checking, cleaning, splitting, pairs, dataset folders."),
    "batches": (
        "Templates and batches",
        "From a conversation to token ids and labels: chat templates, masks, control tokens, "
        "packing.",
    ),
    "models": ("Models", "Loading a model, and weights in four bits (NF4)."),
    "adapters": (
        "Adapters",
        "LoRA and DoRA, ReFT, (IA)³: added, merged, taken off, saved in PEFT's format.",
    ),
    "losses": (
        "Losses",
        "Pure functions: log-probabilities, DPO, SimPO, ORPO, KTO, distillation, EWC, and what "
        "reinforcement learning needs.",
    ),
    "training": (
        "Training",
        "Fine-tuning, preferences, reinforcement learning; NEFTune; memory planned and measured.",
    ),
    "evaluation": (
        "Evaluation",
        "Golden sets, perplexity, win rates and judges, multiple choice, forgetting.",
    ),
    "export": ("Export and serving", "GGUF files, Modelfiles, Ollama and llama.cpp."),
    "core": ("Statistics and profiles", "Intervals over seeds, Pareto fronts, profiles, errors."),
    "doctor": ("Pre-flight", "Whether this machine is ready for a profile."),
}
ARXIV = re.compile(r"arXiv[\s:]+(\d{4}\.\d{4,5})")
SENTENCE_END = re.compile(r"; |(?<! al)\.(?= |$)")
TAG = re.compile(r"<(?=[a-z/][^`\n]*>)(?=[^`]*(?:`[^`]*`[^`]*)*$)")  # outside of backticks
DOUBLE = re.compile(r"(?<!`)``([^`]+)``(?!`)")


@dataclass
class Entry:
    """A public name: where it is defined, and what its page says of it."""

    name: str
    module: str  # dotted, such as ftlib.losses.preference
    kind: str  # function, class, exception or data
    line: int
    signature: str
    doc: str
    methods: list[Entry] = field(default_factory=list)

    @property
    def layer(self) -> str:
        return self.module.split(".")[1]

    @property
    def page(self) -> str:
        """The name of its document."""
        return f"reference/{self.layer}"

    @property
    def anchor(self) -> str:
        return f"ftlib.{self.name}"

    @property
    def link(self) -> str:
        """In MyST's Markdown."""
        return f"{{py:obj}}`{self.name} <{self.anchor}>`"


# --- what there is --------------------------------------------------------------------------------
@cache
def public_entries() -> dict[str, Entry]:
    """The public names in the order of the stub, modules left out."""
    found = {}
    for node in ast.parse(STUB.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.name] = _entry(f"ftlib.{node.module}", alias.name)
    return found


def source_file(module: str) -> Path:
    """The file of a dotted module name."""
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(source_file(module).read_text(encoding="utf-8"))


def _entry(module: str, name: str) -> Entry:
    for node in _tree(module).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _function(module, node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _class(module, node)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return Entry(name, module, "data", node.lineno, "", _comment_above(module, node.lineno))
        if isinstance(node, ast.ImportFrom) and name in _imported(node):
            return _entry(_absolute(module, node), name)
    raise ValueError(f"{STUB.name} names {name} of {module}, which {module} does not define")


def _imported(node: ast.ImportFrom) -> set[str]:
    return {alias.asname or alias.name for alias in node.names}


def _absolute(module: str, node: ast.ImportFrom) -> str:
    """The module that an import, relative or not, is from."""
    if not node.level:
        return node.module
    return ".".join([*module.split(".")[: -node.level], node.module])


def _function(module: str, node: ast.FunctionDef, drop_self: bool = False) -> Entry:
    arguments = node.args
    if drop_self:
        arguments.args = arguments.args[1:]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    signature = f"({ast.unparse(arguments)}){returns}"
    return Entry(
        node.name, module, "function", node.lineno, signature, ast.get_docstring(node) or ""
    )


def _class(module: str, node: ast.ClassDef) -> Entry:
    bases = {ast.unparse(base) for base in node.bases}
    an_error = any(base.endswith(("Error", "Exception")) for base in bases)
    kind = "exception" if an_error else "class"
    doc = ast.get_docstring(node) or ""
    entry = Entry(node.name, module, kind, node.lineno, _constructor(node), doc)
    for inner in node.body:
        public = isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_")
        if public and ast.get_docstring(inner):
            is_property = any(ast.unparse(d) == "property" for d in inner.decorator_list)
            method = _function(module, inner, drop_self=True)
            method.kind = "property" if is_property else "method"
            entry.methods.append(method)
    return entry


def _constructor(node: ast.ClassDef) -> str:
    """The signature of `__init__`, or of a dataclass's fields."""
    for inner in node.body:
        if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
            inner.args.args = inner.args.args[1:]
            return f"({ast.unparse(inner.args)})"
    if not any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        return ""
    fields = []
    for inner in node.body:
        if isinstance(inner, ast.AnnAssign):
            default = f" = {ast.unparse(inner.value)}" if inner.value else ""
            fields.append(f"{ast.unparse(inner.target)}: {ast.unparse(inner.annotation)}{default}")
    return f"({', '.join(fields)})"


def _comment_above(module: str, line: int) -> str:
    """The comment on a constant's line, or in the lines above it."""
    lines = source_file(module).read_text(encoding="utf-8").splitlines()
    at = line - 2
    said = []
    while at >= 0 and lines[at].startswith("#"):
        said.insert(0, lines[at].lstrip("# "))
        at -= 1
    return " ".join(said)


# --- pages ----------------------------------------------------------------------------------------
def to_markdown(doc: str) -> str:
    """A docstring as Markdown: formulas between dollars, arXiv numbers as links."""
    blocks = [_block(block) for block in re.split(r"\n\s*\n", doc)]
    return "\n\n".join(blocks)


def _block(text: str) -> str:
    lines = text.splitlines()
    indented = all(line.startswith("    ") for line in lines)
    if indented and is_formula(text, block=True):
        rows = [to_latex(line.strip().rstrip(",")) for line in lines]
        return "\n\n".join(f"$$\n{row}\n$$" for row in rows)
    if indented:
        return text
    text = DOUBLE.sub(_formula_or_code, text)
    return link_papers(TAG.sub("&lt;", text))


def _formula_or_code(match: re.Match) -> str:
    inside = " ".join(match[1].split())
    return f"${to_latex(inside).strip()}$" if is_formula(inside) else f"``{inside}``"


def link_papers(text: str) -> str:
    """arXiv numbers that are no links yet, as links."""
    return ARXIV.sub(lambda m: f"[arXiv {m[1]}](https://arxiv.org/abs/{m[1]})", text)


def _directive(entry: Entry, used: dict, cited: dict) -> list[str]:
    """An entry as MyST's directive for its kind, with its methods inside."""
    body = to_markdown(entry.doc).splitlines()
    for method in entry.methods:
        body += ["", *_method(method)]
    crossings = []
    labs = used.get(entry.name, [])
    papers = [link for link in cited.get(entry.name, []) if _label(link) not in map(_label, labs)]
    if papers:
        crossings.append(f"Its paper in {', '.join(papers)}.")
    if labs:
        crossings.append(f"Used in {', '.join(labs)}.")
    if crossings:
        body += ["", f"*{' '.join(crossings)}*"]
    return [
        f":::::{{py:{entry.kind}}} {entry.name}{entry.signature}",
        "",
        *body,
        ":::::",
        "",
    ]


def _label(link: str) -> str:
    return link[: link.index("](")]


def _method(method: Entry) -> list[str]:
    signature = "" if method.kind == "property" else method.signature
    return [
        f"::::{{py:{method.kind}}} {method.name}{signature}",
        "",
        *to_markdown(method.doc).splitlines(),
        "::::",
    ]


def layer_page(layer: str, used: dict[str, list[str]], cited: dict[str, list[str]]) -> str:
    """The page of a layer; `used` and `cited`: for each name the links to the labs that call it,
    and to those that go into its paper.
    """
    title, about = LAYERS[layer]
    lines = [f"# {title}", "", about, "", ":::::{py:currentmodule} ftlib", ":::::", ""]
    for entry in public_entries().values():
        if entry.layer == layer:
            lines += _directive(entry, used, cited)
    return "\n".join(lines)


def index_page() -> str:
    """All names, by layer, each with the first sentence of its docstring."""
    lines = [
        "# The library, name by name",
        "",
        "`import ftlib as ft` has these names. Each entry gives formula, paper, shapes, units and "
        "errors, and leads to its source.",
        "",
    ]
    for layer, (title, about) in LAYERS.items():
        entries = [e for e in public_entries().values() if e.layer == layer]
        lines += [f"## {title}", "", about, "", "| name | what it does |", "|---|---|"]
        for entry in entries:
            lines.append(f"| {entry.link} | {_first_sentence(entry.doc)} |")
        lines.append("")
    lines += ["```{toctree}", ":hidden:", "", *LAYERS, "```", ""]
    return "\n".join(lines)


def _first_sentence(doc: str) -> str:
    """In one line, as a table's cell takes it."""
    paragraph = " ".join(doc.split("\n\n")[0].split())
    ends = [match.end() - 1 for match in SENTENCE_END.finditer(paragraph)]
    outside = [end for end in ends if paragraph.count("`", 0, end) % 2 == 0]
    sentence = paragraph[: outside[0]] if outside else paragraph
    text = DOUBLE.sub(_formula_or_code, sentence.rstrip(".;:"))
    return TAG.sub("&lt;", text).replace("|", "\\|")


def undocumented_layers() -> set[str]:
    """Layers of public names that have no page here."""
    return {entry.layer for entry in public_entries().values()} - set(LAYERS)
