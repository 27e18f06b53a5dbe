"""The self-check: what is right, wrong and unreadable; answers hidden until wrong or asked; one
source for page and terminal.
"""

import sys

import pytest
from conftest import ROOT

from ftlib import cli
from ftlib.course.prerequisites import TASKS, UnreadableAnswerError, ask, tasks_markdown, verdict

RIGHT = ["(1024, 256)", "10,485,760", "-2", "4", "3", "b", "8", "1.386", "16 bytes", "65536"]
WRONG = ["(256, 1024)", "10240", "4", "8", "2", "a", "2.08", "0.25", "4", "32768"]
UNREADABLE = ["x", "", "2 and 3", "four", "1 2", "d", "e", "1 or 2", "many", "__import__('os')"]
# Rank, SVD, norm.
RIGHT += ["2", "80%", "5.0"]
WRONG += ["256", "50%", "25"]
UNREADABLE += ["two", "20 of 25", "√25 = 5"]


@pytest.mark.parametrize(
    "task, right, wrong, unreadable",
    zip(TASKS, RIGHT, WRONG, UNREADABLE, strict=True),
    ids=[t.topic for t in TASKS],
)
def test_judging(task, right, wrong, unreadable):
    assert task.judge(right) and not task.judge(wrong)
    with pytest.raises(UnreadableAnswerError):
        task.judge(unreadable)


@pytest.mark.parametrize(
    "text", ["1024", "(1024, 256, 1)", "(0, 256)", "(1024.5, 256)", "9" * 400, " ".join("1" * 9)]
)
def test_shapes_that_cannot_be_read(text):
    with pytest.raises(UnreadableAnswerError):
        TASKS[0].judge(text)


def test_autograd_judges_any_right_answer():
    """3x² = 12 at 2 and at −2 alone."""
    assert (
        TASKS[2].judge("2")
        and TASKS[2].judge("x = -2.0")
        and not TASKS[2].judge("-4")
        and not TASKS[2].judge("0")
    )


def test_a_share_may_be_typed_in_percent():
    """(16 + 4)/(16 + 4 + 4 + 1) = 0.8; without the squares it would be 6/9."""
    task = TASKS[11]
    assert task.judge("0.8") and task.judge(".80") and task.judge("80 %")
    assert not task.judge("0.67") and not task.judge("2") and not task.judge("0.008")


@pytest.fixture
def feed(monkeypatch):
    """Lines that a user types, then the end of input."""

    def feed(*lines):
        left = iter(lines)

        def read(prompt):
            try:
                return next(left)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", read)

    return feed


def test_answers_stay_hidden_until_wrong_or_asked(feed, capsys):
    task = TASKS[5]
    feed("q")
    assert ask(task) is None and ask(task) is None  # the second at the end of input
    assert task.answer not in capsys.readouterr().out
    feed("z", "7", "B")
    assert ask(task) is True
    out = capsys.readouterr().out
    assert (
        out.count("type one letter, a to c, ? for the answer") == 2
        and out.splitlines()[-1] == f"  Right. {task.answer}"
    )
    for typed in ("c", "?", ""):
        feed(typed)
        assert ask(task) is False
        assert task.answer in capsys.readouterr().out


def test_the_score_names_what_to_read():
    text = verdict([True] * 8 + [False] + [True] * 4)
    assert "12 of 13 right." in text and TASKS[8].url in text and TASKS[0].url not in text
    assert "You are ready" in verdict([True] * 13)
    few = verdict([True, False])
    assert "1 of 2 right; 11 not asked." in few and TASKS[1].url in few
    assert "ready" not in verdict([True] * 2)


def test_in_a_terminal(feed, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    feed(*RIGHT[:9], WRONG[9], *RIGHT[10:])
    assert cli.main(["prerequisites"]) == 0
    out = capsys.readouterr().out
    assert (
        "12 of 13 right." in out
        and f"PEFT: {TASKS[9].read_up}" in out
        and "a) it answers with an empty text" in out
    )


def test_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    assert cli.main(["prerequisites"]) == 2
    out = capsys.readouterr()
    assert not out.out and "ftlib prerequisites --answers" in out.err
    assert cli.main(["prerequisites", "--answers"]) == 0
    out = capsys.readouterr().out
    assert all(t.question in out and t.answer in out and t.url in out for t in TASKS)


def test_the_page_holds_the_same_tasks_with_answers_folded_away():
    page = (ROOT / "PREREQUISITES.md").read_text(encoding="utf-8")
    assert tasks_markdown() in page
    shown = [part.split("<details>")[0] for part in page.split("</details>")]
    assert not any(t.answer in part for t in TASKS for part in shown) and page.count(
        "<details>"
    ) == len(TASKS)


def test_the_tasks_cover_what_the_course_builds_on():
    topics = " ".join(t.topic for t in TASKS).lower()
    built_on = "pytorch transformers tokenization loss memory peft rank svd norm"
    assert all(word in topics for word in built_on.split())
    assert 8 <= len(TASKS) <= 13
