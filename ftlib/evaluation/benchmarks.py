"""Rows of public multiple-choice benchmarks, as the Hub has them, turned into questions for
`score_choices` with lm-evaluation-harness's prompts.

The files are local; nothing is downloaded. Prompts are those of the harness 0.4.13, each cited at
its function.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable

from ftlib.core.errors import DataError
from ftlib.data.stream import stream_rows
from ftlib.evaluation.multiple_choice import check_question

LETTERS = "ABCD"


def _field(row: dict, name: str, kind: type | tuple, where: str):
    """The row's value under `name`; DataError where it is missing or of another kind."""
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"{where}: {name} is {value!r}: is this the benchmark's own file?")
    return value


def mmlu_question(row: dict, where: str = "the row") -> dict:
    """A question of MMLU (Hendrycks et al. 2021, arXiv 2009.03300).

    Columns of cais/mmlu: question, subject, choices (four texts), answer (0 to 3). The prompt of
    `tasks/mmlu/default/_default_template_yaml`: the question, the choices under letters,
    "Answer:"; the letters are what is scored. Its description, which names the subject, is that of
    `mmlu_<subject>.yaml`.
    """
    subject = _field(row, "subject", str, where).replace("_", " ")
    question = {
        "context": _field(row, "question", str, where).strip(),
        "choices": _field(row, "choices", list, where),
        "answer": _field(row, "answer", int, where),
        "description": "The following are multiple choice questions (with answers) about "
        f"{subject}.\n\n",
    }
    return lettered(question, where)


def lettered(question: dict, where: str = "the question") -> dict:
    """A question in MMLU's form: its four choices stand in the context, under letters, and the
    letters are what is scored.
    """
    choices = question["choices"]
    if len(choices) != len(LETTERS):
        raise DataError(f"{where}: {len(choices)} choices, letters are for {len(LETTERS)}")
    lines = [question["context"]]
    for letter, choice in zip(LETTERS, choices, strict=True):
        lines.append(f"{letter}. {choice}")
    return {**question, "context": "\n".join([*lines, "Answer:"]), "choices": list(LETTERS)}


def arc_question(row: dict, where: str = "the row") -> dict:
    """A question of ARC, easy or challenge (Clark et al. 2018, arXiv 1803.05457).

    Columns of allenai/ai2_arc: id, question, choices (`text` and `label`, three to five), answerKey
    (a label, letters or digits). The prompt of `tasks/arc/arc_easy.yaml`: "Question: …\\nAnswer:";
    the choices' texts are what is scored.
    """
    choices = _field(row, "choices", dict, where)
    labels = list(_field(choices, "label", list, where))
    key = _field(row, "answerKey", str, where)
    if key not in labels:
        raise DataError(f"{where}: answerKey is {key!r}, the labels are {labels}")
    return {
        "context": f"Question: {_field(row, 'question', str, where)}\nAnswer:",
        "choices": list(_field(choices, "text", list, where)),
        "answer": labels.index(key),
    }


def hellaswag_question(row: dict, where: str = "the row") -> dict:
    """A question of HellaSwag (Zellers et al. 2019, arXiv 1905.07830).

    Columns of Rowan/hellaswag: ind, activity_label, ctx_a, ctx_b, ctx, endings (four), label ("0"
    to "3"; empty in the test part, which is refused). The prompt of `tasks/hellaswag/utils.py`:
    "activity: ctx_a Ctx_b", in it and in the endings WikiHow's marks taken out.
    """
    label = _field(row, "label", (str, int), where)
    if not str(label).isdigit():
        raise DataError(f"{where}: label is {label!r}: the test part has none; take validation")
    second = _field(row, "ctx_b", str, where).capitalize()
    context = f"{_field(row, 'ctx_a', str, where)} {second}"
    activity = _field(row, "activity_label", str, where)
    endings = _field(row, "endings", list, where)
    return {
        "context": without_marks(f"{activity}: {context}"),
        "choices": [without_marks(ending) for ending in endings],
        "answer": int(label),
    }


def without_marks(text: str) -> str:
    """A text of HellaSwag without what WikiHow's pages left in it: "[title]" ends a sentence, other
    brackets and the double spaces they leave go (once: of three spaces two stay, as in the
    harness).
    """
    text = text.strip().replace(" [title]", ". ")
    text = re.sub(r"\[.*?\]", "", text)
    return text.replace("  ", " ")


SHAPES: dict[str, Callable[[dict, str], dict]] = {
    "mmlu": mmlu_question,
    "arc": arc_question,
    "hellaswag": hellaswag_question,
    "questions": check_question,
}


def load_questions(
    paths: str | os.PathLike | Iterable[str | os.PathLike], shape: str = "questions"
) -> list[dict]:
    """Questions for `ftlib.score_choices` from local files, .jsonl, .json, .csv or .parquet.

    shape: "mmlu", "arc" or "hellaswag", whose columns are those on the Hub, or "questions" for rows
    that are questions already (`context`, `choices`, `answer`). Every row is read: a benchmark with
    a row less is another benchmark. DataError names file, line, and what is wrong.
    """
    if shape not in SHAPES:
        raise ValueError(f"shape={shape!r}: use one of {', '.join(map(repr, SHAPES))}")
    make = SHAPES[shape]

    def convert(row: dict, where: str) -> dict:
        return check_question(make(row, where), where)

    return list(stream_rows(paths, check=convert, max_reject_share=0.0, progress=False))
