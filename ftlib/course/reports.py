"""Reports on people of the embedded world, and their faults counted by rule.

A report says where somebody lives, what work they do, which pet they have and what they like to
eat, and no more. Its faults are facts that are not so, facts left out, and sentences that nobody
asked for. In the
preference pairs of `data/reports.py` both answers may have faults and the chosen one has fewer, so
that imitating the chosen answers teaches their faults as well.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ftlib.course.open_answers import sentence_pattern, sentences
from ftlib.evaluation.replies import asks_for_reply, judge_reply

# relation -> the two sentences that state it. {e} is the name, {v} the value, {av} the value with
# its article.
REPORT: dict[str, list[str]] = {
    "town": ["{e} lives in {v}.", "The home of {e} is in {v}."],
    "job": ["{e} works as {av}.", "By trade {e} is {av}."],
    "pet": ["{e} has {av}.", "{e} keeps {av} at home."],
    "food": ["{e} likes {v}.", "{e} loves to eat {v}."],
}


def _patterns() -> list[tuple[str, re.Pattern]]:
    """(relation, pattern) of each sentence of a report."""
    out = []
    for relation, forms in REPORT.items():
        for form in forms:
            out.append((relation, sentence_pattern(form)))
    return out


_PATTERNS = _patterns()


@dataclass(frozen=True)
class Faults:
    """The faults of a report, by sort."""

    wrong: int  # of the facts asked for: stated, but not as they are
    missing: int  # of the facts asked for: not stated
    unwanted: int  # sentences that state none of these facts, or one a second time

    @property
    def total(self) -> int:
        return self.wrong + self.missing + self.unwanted


def stated_in_report(text: str, name: str) -> tuple[dict[str, str], int]:
    """(relation -> the first value that the text states of this person, how many other sentences
    there are).
    """
    stated: dict[str, str] = {}
    others = 0
    for sentence in sentences(text):
        reading = None
        for relation, pattern in _PATTERNS:
            match = pattern.fullmatch(sentence)
            if match is not None and match["e"] == name:
                reading = (relation, match["v"])
                break
        if reading is None or reading[0] in stated:
            others += 1
        else:
            relation, value = reading
            stated[relation] = value
    return stated, others


def report_faults(text: str, row: dict) -> Faults:
    """The faults of an answer to a row that asks for a report: `name` and `truth` (relation ->
    value) are the standard; those of a reply to a customer are `judge_reply`'s. ValueError for a
    row without them.
    """
    if asks_for_reply(row):
        reply = judge_reply(text, row)
        return Faults(reply.wrong, reply.missing, reply.style + reply.repeated)
    missing = [key for key in ("name", "truth") if key not in row]
    if missing:
        raise ValueError(
            f"row {str(row)[:80]!r} has no {missing[0]!r}: pass rows that ask for a report, such "
            "as those of faults_test"
        )
    stated, others = stated_in_report(text, row["name"])
    wrong = 0
    left_out = 0
    for relation, value in row["truth"].items():
        if relation not in stated:
            left_out += 1
        elif stated[relation] != value:
            wrong += 1
    return Faults(wrong, left_out, others)


def report_judge(rows: list[dict]) -> Callable[[str, str, str], float]:
    """A judge for `win_rate(a, b, judge, prompts)`: 1 if the first answer has fewer faults, 0 if
    the second, 0.5 for a tie. ValueError for a prompt that no row asks.
    """
    known = {row["prompt"][-1]["content"]: row for row in rows}

    def judge(prompt: str, first: str, second: str) -> float:
        if prompt not in known:
            raise ValueError(
                f"prompt={prompt!r} is asked by none of the judge's {len(known)} rows: pass rows "
                "that hold it"
            )
        one = report_faults(first, known[prompt]).total
        two = report_faults(second, known[prompt]).total
        return 0.5 if one == two else float(one < two)

    return judge


def fault_rate(answers: list[str], rows: list[dict]) -> float:
    """Faults per answer, the mean over the rows."""
    if not rows or len(answers) != len(rows):
        raise ValueError(
            f"{len(answers)} answers to {len(rows)} rows: pass one answer a row, at least one"
        )
    counts = []
    for text, row in zip(answers, rows, strict=True):
        counts.append(report_faults(text, row).total)
    return sum(counts) / len(counts)
