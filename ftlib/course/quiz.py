"""A quiz a lab, in jupyterquiz's format: `quiz("3.1.1")` shows it. The questions are in
`quizzes/3.1.1.json` and so on.

Questions and feedback are HTML without formulas, since JupyterLab lends a quiz no MathJax.
"""

from __future__ import annotations

import json
import random
from importlib import resources

from ftlib.course.catalogue import MODULES

# White on these has a contrast of 5 to 1 or more; a verdict is told in words as well.
COLOURS = {
    "--jq-multiple-choice-bg": "#1f4e79",
    "--jq-many-choice-bg": "#5b3a75",
    "--jq-numeric-bg": "#1f4e79",
    "--jq-incorrect-color": "#a83a00",
    "--jq-correct-color": "#00664b",
}


def load_quiz(lab: str) -> list[dict]:
    """The questions of a lab such as "3.1.1". ValueError for a lab that is not in the course."""
    if lab not in MODULES:
        raise ValueError(f"lab {lab!r} is unknown: use one of {', '.join(MODULES)}")
    file = resources.files("ftlib.course").joinpath(f"quizzes/{lab}.json")
    return json.loads(file.read_text(encoding="utf-8"))


def quiz(lab: str) -> None:
    """Show a lab's quiz in the notebook; works offline, and its output is the same at every run."""
    questions = load_quiz(lab)
    state = random.getstate()
    print(f"{len(questions)} questions. If you see none, run this cell in JupyterLab.")
    random.seed(f"quiz {lab}")  # jupyterquiz draws the name of its element
    try:
        _display(questions)
    finally:
        random.setstate(state)


def _display(questions: list[dict]) -> None:
    """jupyterquiz's output with MathJax hidden from its script: JupyterLab's lacks what the script
    calls, so it would fetch another from a CDN into the page.
    """
    from IPython.display import publish_display_data
    from IPython.utils.capture import capture_output
    from jupyterquiz import display_quiz

    with capture_output() as shown:
        display_quiz(questions, colors=COLOURS, max_width=760)
    for output in shown.outputs:
        data = dict(output.data)
        if script := data.get("application/javascript"):
            data["application/javascript"] = f"(function (MathJax) {{\n{script}\n}})();"
        publish_display_data(data, output.metadata)
