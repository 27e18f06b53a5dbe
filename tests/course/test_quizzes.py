"""The quizzes: their form, feedback everywhere, numbers worked out again, an output that does not
change and needs no network.
"""

import math
import random
import re
import tomllib

import pytest
from conftest import ROOT
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import ftlib as ft
from ftlib.course.catalogue import MODULES
from ftlib.course.quiz import COLOURS, load_quiz, quiz

QUESTIONS = {f"{lab} {i}": q for lab in MODULES for i, q in enumerate(load_quiz(lab), 1)}
NUMERIC = {  # every numeric question's answer, worked out again
    "3.1.1 2": 8 * (4096 + 14336),
    "3.1.2 2": 16 * (1024 + 4096) + 1024,
    "3.1.3 1": 5 / math.sqrt(100 * 4096),
    "3.1.3 3": 10 * math.sqrt(16 / 64),
    "3.1.4 1": 41.9e6 * (4 + 4 + 8) / 1e9,
    "3.1.5 1": 4 + 8 / 64 + 32 / (64 * 256),
    "3.1.6 1": 5 / (12 + 8 - 5),
    "3.1.6 5": math.sqrt(0.5 * 0.5 / 100),
    "3.1.7 1": 0.1 * (4 - -2),
    "3.1.8 1": 2 * (-0.4 - -1.1) - 0.5 * 2,
    "3.1.8 3": 0.8 / (1 - 0.8),
    "3.1.9 1": 600 * 1 / 200,
    "3.1.9 5": 1 - 1 / (1 + math.exp(0)),
    "3.1.10 1": 34 * 8 / 32,
    "3.1.10 3": 120 / (2_500_000_000 / 1e9),
    "E1 1": 1 / (1 + math.exp(-(1.2 - 0.1))),
    "E1 3": 0.8 - 0.1 * (-12 - -17),
    "E2 1": 100 / 2 * 0.5 * 0.2**2,
    "E3 1": 32 * 4 * (2 * 4096 + 1),
    "E4 1": 2 * 0.5 * math.log(0.5 / 0.25),
    "E5 1": math.log(0.5) + math.log(0.25),
    "E5 5": (0.8 - 0.5) / (1 - 0.5),
    "E6 1": 0.5 * 32,
    "E6 4": (10 * 3.0 + 40 * 1.0) / (10 + 40),
    "E7 1": (2 + 2 + 12) * 8e9 / 8 / 1e9,
}
each = pytest.mark.parametrize("key", QUESTIONS)


def texts(question):
    return [
        question["question"],
        *(a[k] for a in question["answers"] for k in ("answer", "feedback") if k in a),
    ]


def accepts(answer, number) -> bool:
    """As jupyterquiz does: an equal value, or a range without its upper end."""
    return (
        answer["range"][0] <= number < answer["range"][1]
        if "range" in answer
        else math.isclose(answer["value"], number)
    )


@pytest.mark.parametrize("lab", MODULES)
def test_a_lab_has_four_to_six_questions_of_several_kinds(lab):
    questions = load_quiz(lab)
    assert 4 <= len(questions) <= 6 and {q["type"] for q in questions} == {
        "multiple_choice",
        "many_choice",
        "numeric",
    } - ({"many_choice"} if lab == "3.1.8" else set())
    assert len({q["question"] for q in questions}) == len(questions)


@each
def test_form(key):
    """One right choice, or several; feedback on all; HTML that is whole; nothing that needs
    MathJax, a script or the network.
    """
    question = QUESTIONS[key]
    assert set(question) <= {"question", "type", "answers", "code"}
    right = [a for a in question["answers"] if a.get("correct")]
    assert all(a["feedback"].strip() for a in question["answers"])
    if question["type"] == "numeric":
        assert (
            len(right) == 1
            and question["answers"][0] is right[0]
            and question["answers"][-1]["type"] == "default"
        )
    else:
        choices = [a["answer"] for a in question["answers"]]
        assert len(set(choices)) == len(choices) >= 4 and all(
            isinstance(a["correct"], bool) for a in question["answers"]
        )
        assert (
            len(right) == 1
            if question["type"] == "multiple_choice"
            else 2 <= len(right) < len(choices)
        )
    for text in texts(question):
        assert (
            "$" not in text
            and set(re.findall(r"<[^>]*>?", text)) <= {"<code>", "</code>"}
            and text.count("<code>") == text.count("</code>")
        )


def test_every_numeric_answer_is_worked_out_again():
    assert NUMERIC.keys() == {k for k, q in QUESTIONS.items() if q["type"] == "numeric"}
    for key, number in NUMERIC.items():
        taken = [
            a["correct"]
            for a in QUESTIONS[key]["answers"]
            if a["type"] != "default" and accepts(a, number)
        ]
        assert taken == [True], key


def test_memory_claims_agree_with_the_plan():
    """Rank 16 on all linears of Llama-3.1-8B is the 41.9 million; NF4's linear layers of 70B are
    about 35 GB; 24 GB hold no 70B.
    """
    from ftlib.training.memory_plan import NF4_BITS, count_config, read_config

    assert ft.plan_memory("llama-3.1-8b", "lora", r=16).parts["adapter"] == pytest.approx(
        4 * 41.9e6, rel=0.002
    )
    assert count_config(read_config("llama-3.1-70b"))["linear"] * NF4_BITS / 8e9 == pytest.approx(
        35, abs=0.5
    )
    assert not ft.plan_memory("llama-3.1-70b", "qlora", r=1, seq_len=1).fits(24e9)


def show(lab):
    InteractiveShell.instance()
    with capture_output() as shown:
        quiz(lab)
    return shown.stdout, [dict(o.data) for o in shown.outputs]


def test_shown_alike_at_every_run_and_offline(monkeypatch):
    import socket

    monkeypatch.setattr(
        socket, "socket", lambda *a, **k: pytest.fail("a quiz asked for the network")
    )
    random.seed(1)
    want = random.random()
    random.seed(1)
    first = show("3.1.1")
    assert random.random() == want  # the caller's random numbers are left alone
    assert first == show("3.1.1") and first != show("3.1.2")
    text, (page, script) = first
    assert text == "5 questions. If you see none, run this cell in JupyterLab.\n"
    assert all(f"{name}: {colour};" in page["text/html"] for name, colour in COLOURS.items())
    assert QUESTIONS["3.1.1 1"]["answers"][0]["feedback"] in script[
        "application/javascript"
    ].encode().decode("unicode_escape", "ignore")
    assert sum(len(str(data)) for data in (page, script)) < 80_000
    # jupyterquiz's script sees no MathJax: it would replace JupyterLab's by one from a CDN
    assert re.fullmatch(
        r"\(function \(MathJax\) \{.*\}\)\(\);", script["application/javascript"], re.S
    )


def test_committed_notebooks_leave_the_script_out():
    """`clean` drops what works only in a running notebook: a quiz's script and a widget's view;
    pictures and text stay.
    """
    import nbformat

    from ftlib.course.stored_notebook import clean

    def output(**data):
        return nbformat.v4.new_output(
            "display_data", data={k.replace("__", "/"): v for k, v in data.items()}
        )

    widget = nbformat.v4.new_output(
        "display_data",
        data={
            "application/vnd.jupyter.widget-view+json": {"model_id": "1"},
            "text/plain": "VBox()",
        },
    )
    cell = nbformat.v4.new_code_cell(
        "x",
        outputs=[
            output(text__html="<div>"),
            output(application__javascript="x()", text__plain="<J>"),
            widget,
            output(text__plain="kept"),
        ],
    )
    kept = clean(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    assert [dict(o.data) for o in kept] == [{"text/html": "<div>"}, {"text/plain": "kept"}]


@pytest.mark.parametrize("lab", MODULES)
def test_the_notebook_shows_its_quiz_before_the_reading(lab):
    import nbformat

    from ftlib.course.catalogue import lab_files

    cells = [c.source for c in nbformat.read(lab_files([lab])[0], as_version=4).cells]
    at = [i for i, source in enumerate(cells) if f'quiz("{lab}")' in source]
    reading = next(i for i, source in enumerate(cells) if "## Further reading" in source)
    assert len(at) == 1 and cells[at[0] - 1].startswith("## Quiz") and at[0] < reading


def test_the_questions_are_package_data():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "quizzes/*.json" in package["tool"]["setuptools"]["package-data"]["ftlib.course"]
    assert any(
        d.startswith("jupyterquiz") for d in package["project"]["optional-dependencies"]["labs"]
    )


def test_unknown_lab():
    with pytest.raises(ValueError, match=r"lab '3\.1\.11' is unknown: use one of 3\.1\.1"):
        quiz("3.1.11")
