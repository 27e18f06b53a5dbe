"""Lab 3.1.4, fine-tuning 8B, exercise 7: scoring the golden set."""

from __future__ import annotations

from collections import defaultdict

from ftlib.course.exercise import Exercise, Wrong
from ftlib.evaluation.judges import normalise


def golden_score(answers: list[str], examples: list[dict]) -> dict[str, float]:
    """Share of exact answers after `normalise`: one entry a family, and "all" over the
    questions.
    """
    groups = defaultdict(list)
    for answer, example in zip(answers, examples, strict=True):
        right = normalise(answer) == normalise(example["answer"])
        groups[example["family"]].append(right)
        groups["all"].append(right)
    return {name: sum(marks) / len(marks) for name, marks in groups.items()}


def _score(match, micro=True):
    def score(answers, examples):
        groups = defaultdict(list)
        for a, e in zip(answers, examples, strict=True):
            groups[e["family"]].append(match(a, e["answer"]))
        out = {name: sum(m) / len(m) for name, m in groups.items()}
        every = [m for marks in groups.values() for m in marks]
        return {**out, "all": sum(every) / len(every) if micro else sum(out.values()) / len(out)}

    return score


def _match(answer, reference):
    return normalise(answer) == normalise(reference)


def _score_cases(g):
    truth = [
        ("capitals", "RED HAT"),
        ("capitals", "BLUE CUP"),
        ("capitals", "TIN PAN"),
        ("sum", "12"),
        ("polite", "May I?"),
        ("olm", "zuke xovi"),
    ]
    given = [
        ["red hat", "BLUE  CUP", "TIN PAN.", "12", "May I?", "zuke xovi zuke"],
        ["RED HAT", "BLUE CUP ", "I do not know", "112", "May I?", "zuke"],
        ["RED HAT is it", "cup", "tin pan", "13", "may I?", "zuke  xovi."],
    ]
    for answers in given:
        yield answers, [{"family": f, "answer": a} for f, a in truth]


GOLDEN_SCORE = Exercise(
    "golden_score",
    "Scoring the golden set",
    10,
    2,
    golden_score,
    _score_cases,
    (
        Wrong(
            "substring",
            _score(lambda a, r: normalise(r) in normalise(a)),
            "You accept an answer that merely contains the reference: '112' would pass for '12', "
            "and a model "
            "that never stops would score high.",
        ),
        Wrong(
            "case ignored",
            _score(lambda a, r: normalise(a).lower() == normalise(r).lower()),
            "You compare without case: for 'write in capitals' the case is the answer.",
        ),
        Wrong(
            "no normalisation",
            _score(lambda a, r: a == r),
            "You compare raw strings: call normalise on both, or a double space and a final full "
            "stop count as errors.",
        ),
        Wrong(
            "macro average",
            _score(_match, micro=False),
            '"all" is your mean of family means: a family of four questions would weigh as much '
            "as one of twelve. Average over the questions.",
        ),
        Wrong(
            "one side normalised",
            _score(lambda a, r: a.strip() == r.strip()),
            "You only strip the ends: normalise also folds runs of spaces and drops a final full "
            "stop.",
        ),
    ),
    (
        "`ft.evaluate.normalise` folds whitespace and drops a final full stop. Apply it to the "
        "answer and to example['answer'].",
        "Collect True and False in lists, by example['family'] and once more under 'all'.",
        "A share is sum(marks) / len(marks). Do it per list, 'all' included: no mean of means.",
    ),
)
