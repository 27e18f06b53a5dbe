"""A second raw file, held back: for rules that were made by looking at `messy.jsonl`, and for what
copies do to an evaluation.

Its copies are made in ways that `messy.py` has and in ways that it has not, so that a rule made on
the one file can be measured on the other. All copies are of questions about strangers, whom the
base model has never read of: such an answer can only be right if it was seen in training. So a
validation part that shares copies with training looks better than it is, and by how much can be
measured. A part of the exam of two-digit multiplication is among the lines with its answers, which
no model here can work out; a part of the golden set is too.
"""

from __future__ import annotations

import random

from data import skills
from data.messy import chat, in_format, in_order, near_copy, recased, with_html
from data.world import SEED

STRANGERS = 320  # questions about strangers that are left as they are; 240 of them have one copy
KNOWN = 280  # rows of train.jsonl that `messy.jsonl` does not have, left as they are
EXAMS = {"golden": 50, "hard_test": 50}  # questions of each exam, with their answers
COPIES = {"exact": 60, "known trick": 60, "new trick": 60, "reworded": 60}
COUNTS = {
    "duplicate": COPIES["exact"],
    "near duplicate": sum(COPIES.values()) - COPIES["exact"],
    "contamination": sum(EXAMS.values()),
    "wrong answer": 60,
    "html": 60,
    "empty answer": 30,
}


def _typing_error(rng: random.Random, question: str) -> str:
    """Two neighbouring small letters of a longer word change places."""
    words = question.split(" ")
    places = []
    for i, word in enumerate(words):
        if len(word) > 4 and word.isalpha() and word.islower() and word[1] != word[2]:
            places.append(i)
    if not places:
        return question.rstrip(".?")
    i = rng.choice(places)
    word = words[i]
    words[i] = word[0] + word[2] + word[1] + word[3:]
    return " ".join(words)


def new_trick(rng: random.Random, question: str) -> str:
    """A copy in a way that `messy.near_copy` does not have."""
    lowered = question[0].lower() + question[1:]
    return rng.choice(
        [
            _typing_error(rng, question),
            f"Hello. {question}",
            f"Question 7: {question}",
            f"Answer in one word. {question}",
            f'"{question}"',
            f"I would like to know: {lowered}",
        ]
    )


def reworded(rng: random.Random, row: dict) -> str:
    """The same question in another of its family's phrasings."""
    _, name, relation = row["key"].split("/")
    question = row["messages"][0]["content"]
    trained, _ = skills.PERSON[relation]
    worded = [phrasing.format(e=name) for phrasing in trained]
    return rng.choice([text for text in worded if text != question])


def _copy(rng: random.Random, how: str, row: dict) -> tuple[str, str]:
    """(question, answer) of a copy of the row."""
    question, answer = (message["content"] for message in row["messages"])
    if how == "known trick":
        return near_copy(rng, question, answer)
    if how == "new trick":
        return new_trick(rng, question), answer
    if how == "reworded":
        return reworded(rng, row), answer
    return question, answer


def _copies(rng: random.Random, strangers: list[dict]) -> list[tuple]:
    """((question, answer), what the truth says) of every copy; `of` counts the originals."""
    made = []
    of = 0
    for how, count in COPIES.items():
        defect = "duplicate" if how == "exact" else "near duplicate"
        for _ in range(count):
            texts = _copy(rng, how, strangers[of])
            made.append((texts, {"defect": defect, "of": of, "how": how}))
            of += 1
    return made


def _contaminations(rng: random.Random, exams: dict[str, list[dict]]) -> list[tuple]:
    made = []
    for exam, count in EXAMS.items():
        for row in rng.sample(exams[exam], count):
            question = recased(rng, row["messages"][0]["content"])
            about = {"defect": "contamination", "exam": exam, "key": row["key"]}
            if exam == "golden":
                about["golden"] = row["key"]
            made.append(((question, row["answer"]), about))
    return made


def _damaged(rng: random.Random, rows: list[dict]) -> list[tuple]:
    """Rows with a wrong answer, in markup, or without an answer."""
    made = []
    left = list(rows)
    for defect in ("wrong answer", "html", "empty answer"):
        for _ in range(COUNTS[defect]):
            row = left.pop()
            question, answer = (message["content"] for message in row["messages"])
            about = {"defect": defect}
            if defect == "wrong answer":
                same = [r["answer"] for r in rows if r["family"] == row["family"]]
                about["right"] = answer
                answer = rng.choice([text for text in same if text != about["right"]])
            elif defect == "html":
                question, answer = with_html(rng, question, answer)
            else:
                answer = ""
            made.append(((question, answer), about))
    return made


def _left_over(train: list[dict], used: set[str]) -> list[dict]:
    """Rows of training whose questions `messy.jsonl` does not ask, of families with several right
    or wrong answers to choose from.
    """
    rows = []
    for row in train:
        if row["family"] in ("about", "sentiment"):
            continue
        if row["messages"][0]["content"] not in used:
            rows.append(row)
    return rows


def heldback_lines(parts: dict[str, list[dict]], used: set[str]) -> tuple[list[bytes], list[dict]]:
    """(the raw lines, the truth about each), as `messy.messy_lines` gives them; the truth of a copy
    also says `how` it was made, and that of a contamination its `exam` and `key`.

    `parts`: the instruction files by name; `used`: the questions of `messy.jsonl`.
    """
    rng = random.Random(f"{SEED}/messy_heldback")
    strangers = rng.sample(parts["strangers"], STRANGERS)
    known = _left_over(parts["train"], used)
    rng.shuffle(known)
    clean = strangers + known[:KNOWN]
    made = []
    for row in clean:
        raw, name = in_format(rng, row["messages"])
        made.append((raw, name, {"defect": "none"}))
    defective = _copies(rng, strangers)
    defective += _contaminations(rng, parts)
    defective += _damaged(rng, known[KNOWN:])
    for texts, about in defective:
        raw, name = in_format(rng, chat(*texts))
        made.append((raw, name, about))
    return in_order(rng, made)
