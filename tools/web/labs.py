"""Executed notebooks, as the site shows them: nothing is run, no figure changes.

What a page has no use for goes (nbgrader's marks, the quiz's script); what it lacks is added: the
text of each figure, header cells of tables, the quiz as text, what an explorable figure can do.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from ftlib.course.catalogue import NAMES, is_extension, lab_number
from tools.web.alt import alt_text, handles_in

ROOT = Path(__file__).resolve().parents[2]
QUIZZES = ROOT / "ftlib" / "course" / "quizzes"
QUIZ = 'data-shufflequestions="'  # only the quiz has it


def read_lab(path: Path) -> NotebookNode:
    """The notebook of `path`, made ready for the site."""
    notebook = nbformat.read(path, as_version=4)
    number = lab_number(path)
    ran = notebook.metadata.get("ftlib", {})
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "python"},
        }
    )
    heading = ""
    for index, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "markdown":
            heading = last_heading(cell.source) or heading
        if cell.cell_type == "code":
            said = said_below(notebook.cells, index)
            _prepare(cell, heading, said, number)
    notebook.cells = one_picture_a_cell(notebook.cells)
    notebook.cells[0].source = with_facts(notebook.cells[0].source, path, ran)
    return notebook


def last_heading(markdown: str) -> str:
    """The last heading of a Markdown cell, without its marks; empty if it has none."""
    outside = re.sub(r"```.*?```", "", markdown, flags=re.S)
    found = re.findall(r"^#+ +(.+?)\s*$", outside, re.M)
    return re.sub(r"[*`$]", "", found[-1]) if found else ""


def said_below(cells: list[NotebookNode], index: int) -> str:
    """The text that this cell puts out, else the next code cell."""
    for cell in cells[index : index + 2]:
        for output in cell.get("outputs", ()):
            if "text/markdown" in output.get("data", {}):
                return output.data["text/markdown"]
    return ""


def _prepare(cell: NotebookNode, heading: str, said: str, number: str) -> None:
    pictures = 0
    for output in cell.outputs:
        data = output.get("data", {})
        if "image/png" in data:
            pictures += 1
            alt = alt_text(cell.source, data.get("text/plain", ""), heading, said)
            cell.metadata["mystnb"] = {"image": {"alt": alt}}
        if "text/html" in data and QUIZ in data["text/html"]:
            output.data = nbformat.from_dict({"text/markdown": quiz_text(number)})
        elif "text/html" in data:
            data["text/html"] = better_html(data["text/html"])
        if len(data) > 1:
            data.pop("text/plain", None)  # such as <IPython.core.display.HTML object>
    handles = handles_in(cell.source) if pictures else []
    if handles:
        still = f"*A still. In JupyterLab this figure has handles: {', '.join(handles)}.*"
        cell.outputs.append(_markdown_output(still))


def _markdown_output(text: str) -> NotebookNode:
    return nbformat.v4.new_output("display_data", {"text/markdown": text})


def one_picture_a_cell(cells: list[NotebookNode]) -> list[NotebookNode]:
    """A cell's text for pictures is of one picture: the second one gets a cell without code."""
    found = []
    for cell in cells:
        found.append(cell)
        while cell.cell_type == "code":
            places = [
                i for i, output in enumerate(cell.outputs) if "image/png" in output.get("data", {})
            ]
            if len(places) < 2:
                break
            rest = nbformat.v4.new_code_cell(
                cell.source,
                outputs=cell.outputs[places[1] :],
                metadata={**cell.metadata, "tags": ["remove-input"]},
            )
            cell.outputs = cell.outputs[: places[1]]
            found.append(rest)
            cell = rest
    return found


# --- tables, and the marked texts -----------------------------------------------------------------
def better_html(markup: str) -> str:
    """A table with header cells that say so, in a box that scrolls by itself; and the texts with
    coloured tokens, which are made for a white page, on one.
    """
    if markup.startswith("<table>"):
        plain = re.sub(r" style='text-align:left'", "", markup)
        plain = plain.replace("<th>", "<th scope='col'>").replace("<caption></caption>", "")
        plain = plain.replace("<table>", "<table class='result'>")
        return f"<div class='table-wrapper'>{plain}</div>"
    if markup.startswith("<div style="):
        return f"<div class='on-white'>{markup}</div>"
    return markup.replace("<svg ", "<svg aria-hidden='true' ")


# --- the quiz -------------------------------------------------------------------------------------
def quiz_text(number: str) -> str:
    """The lab's quiz as text: each question, its choices, and the answer folded away."""
    questions = json.loads((QUIZZES / f"{number}.json").read_text(encoding="utf-8"))
    parts = []
    for place, question in enumerate(questions, 1):
        parts.append(f"**{place}.** {question['question']}")
        if "code" in question:
            parts.append(f"```python\n{question['code']}\n```")
        choices = [answer for answer in question["answers"] if "answer" in answer]
        parts.append("\n".join(f"- {choice['answer']}" for choice in choices))
        parts.append(_folded(_right_answers(question)))
    return "\n\n".join(part for part in parts if part)


def _right_answers(question: dict) -> str:
    lines = []
    for answer in question["answers"]:
        if not answer.get("correct"):
            continue
        if "answer" in answer:
            lines.append(f"{answer['answer']}: {answer['feedback']}")
        elif "range" in answer:
            low, high = answer["range"]
            lines.append(f"between {low:g} and {high:g}: {answer['feedback']}")
        else:
            lines.append(f"{answer['value']:g}: {answer['feedback']}")
    return "\n\n".join(lines)


def _folded(text: str) -> str:
    return f"<details><summary>Answer</summary>\n\n{text}\n\n</details>"


# --- the top of a page ----------------------------------------------------------------------------
def with_facts(markdown: str, path: Path, ran: dict) -> str:
    """The first cell with a line below its title: where the outputs are from, how to run it."""
    title, _, rest = markdown.partition("\n")
    versions = ran.get("versions", {})
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    folder = "labs/extensions" if is_extension(lab_number(path)) else "labs"
    line = (
        f"The outputs are those of a run in the profile `{ran.get('profile', 'tiny')}`"
        + (f" ({html.escape(made)})" if made else "")
        + f". To work in it, answers checked: `make lab`, then `{folder}/{path.name}`."
    )
    return f"{title}\n\n:::{{container}} facts\n{line}\n:::\n{rest}"


def short_title(number: str) -> str:
    """A lab's name in the site's navigation."""
    name = NAMES[number]
    return f"{number} {name[0].upper()}{name[1:]}"
