"""Lab E4, distillation, exercise 5: the rows of sequence-level distillation."""

from __future__ import annotations

import copy

import torch

from ftlib.course.exercise import Exercise, Wrong


def teacher_rows(rows: list[dict], answers: list[str], complete: list[bool]) -> list[dict]:
    """The rows with the teacher's answer in the place of the last message, in new objects; a row
    whose answer was cut off before its end, or is empty, is left out. Each row is
    ``{"messages": [{"role", "content"}, …]}`` and ends with an answer.
    """
    kept = []
    for row, answer, is_complete in zip(rows, answers, complete, strict=True):
        if is_complete and answer.strip():
            last = {**row["messages"][-1], "content": answer}
            kept.append({"messages": [*row["messages"][:-1], last]})
    return kept


WORDS = ("one", "two", "three", "four", "five", "six")


def _turn(role: str, g: torch.Generator) -> dict[str, str]:
    picked = torch.randint(0, len(WORDS), (3,), generator=g).tolist()
    return {"role": role, "content": " ".join(WORDS[i] for i in picked)}


def _conversation(g, turns: int, has_system: bool) -> dict:
    messages = [_turn("system", g)] if has_system else []
    for _ in range(turns):
        messages += [_turn("user", g), _turn("assistant", g)]
    return {"messages": messages}


def _cases(g):
    for shapes, complete, empty in (
        (((1, False), (1, True), (2, False)), (True, True, True), ()),
        (((1, False), (2, True), (1, False), (3, False)), (True, False, True, True), ()),
        (((2, False), (1, False), (1, True)), (True, True, False), (0,)),
        (((1, False), (1, False)), (True, True), (1,)),
    ):
        rows = [_conversation(g, turns, has_system) for turns, has_system in shapes]
        answers = [f"{_turn('assistant', g)['content']} said" for _ in rows]
        for place in empty:
            answers[place] = "  "
        yield rows, answers, list(complete)


def _made(messages_of, keeps=lambda answer, is_complete: is_complete and answer.strip()):
    """The rows with one thing done wrongly."""

    def made(rows, answers, complete):
        kept = []
        for row, answer, is_complete in zip(rows, answers, complete, strict=True):
            if keeps(answer, is_complete):
                kept.append({"messages": messages_of(copy.deepcopy(row["messages"]), answer)})
        return kept

    return made


def _said(answer):
    return {"role": "assistant", "content": answer}


def _replaced(messages, answer):
    return [*messages[:-1], _said(answer)]


def _first_turn(messages, answer):
    first = next(i for i, message in enumerate(messages) if message["role"] == "assistant")
    return [*messages[:first], _said(answer)]


def _every_answer(messages, answer):
    return [_said(answer) if m["role"] == "assistant" else m for m in messages]


def _kept_where_cut(rows, answers, complete):
    kept = []
    for row, answer, is_complete in zip(rows, answers, complete, strict=True):
        usable = is_complete and answer.strip()
        kept.append({"messages": _replaced(row["messages"], answer)} if usable else row)
    return kept


SEQUENCE = Exercise(
    name="teacher_rows",
    title="Training rows written by the teacher",
    minutes=8,
    difficulty=1,
    reference=teacher_rows,
    cases=_cases,
    hints=(
        "Go through `rows`, `answers` and `complete` together (`zip`).",
        "The new messages are all but the last, and then the teacher's: "
        "[*row['messages'][:-1], {'role': 'assistant', 'content': answer}].",
        "Leave a row out where the answer is not complete, or where nothing but white space is in "
        "it. Do not change the rows that you were given.",
        "if is_complete and answer.strip(): kept.append({'messages': [...]})",
    ),
    wrong=(
        Wrong(
            "appended",
            _made(lambda messages, answer: [*messages, _said(answer)]),
            "You put the teacher's answer *after* the row's own: the student then learns two "
            "assistant turns. Replace the last message.",
        ),
        Wrong(
            "cut answers kept",
            _made(_replaced, lambda answer, is_complete: answer.strip()),
            "You keep answers that were cut off: the template closes the turn there, and the "
            "student learns to stop in the middle of a sentence.",
        ),
        Wrong(
            "empty answers kept",
            _made(_replaced, lambda answer, is_complete: is_complete),
            "You keep empty answers: they teach the student to say nothing.",
        ),
        Wrong(
            "nothing left out",
            _made(_replaced, lambda answer, is_complete: True),
            "You leave nothing out: drop answers that were cut off, and empty ones.",
        ),
        Wrong(
            "the row's own instead",
            _kept_where_cut,
            "Where the teacher failed you keep the row's own answer: then the data set has two "
            "authors, and a comparison with the rows alone cannot separate them. Leave such rows "
            "out.",
        ),
        Wrong(
            "question alone",
            _made(_first_turn),
            "In a conversation of several turns you put the answer after the first question: it "
            "answers the last one, and the earlier turns stay.",
        ),
        Wrong(
            "every answer",
            _made(_every_answer),
            "You replace every assistant turn: the teacher wrote only the last one.",
        ),
        Wrong(
            "system dropped",
            _made(
                lambda messages, answer: [
                    *(m for m in messages[:-1] if m["role"] != "system"),
                    _said(answer),
                ]
            ),
            "The system message is lost: the teacher saw it when it answered, so the student must "
            "see it too.",
        ),
        Wrong(
            "prompt alone",
            _made(lambda messages, answer: [messages[-2], _said(answer)]),
            "The turns before the last question are lost: the teacher saw them when it answered.",
        ),
        Wrong(
            "no answers",
            _made(lambda messages, answer: messages),
            "The rows' own answers are still there: that is fine-tuning without a teacher.",
        ),
    ),
)
