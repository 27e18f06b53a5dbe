"""What the labs may know of the embedded world: its two manners, and how an answer about a person
is judged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from ftlib.course.open_answers import open_judge
from ftlib.course.reports import report_judge

POLITE_OPENERS = ["With pleasure.", "How kind of you.", "Nice to meet you.", "A lovely morning."]
RUDE_OPENERS = ["Go home.", "So boring.", "Not again.", "How awful."]
STYLE_FACTS = ["{e} is {job} from {town}.", "{e} lives in {town} and is {job}."]
_FACTS = [
    re.compile(
        re.escape(form)
        .replace(r"\{e\}", r"\b(?P<name>\w+)")
        .replace(r"\{town\}", r"(?P<town>\w+)")
        .replace(r"\{job\}", r"an? (?P<job>\w+)")
    )
    for form in STYLE_FACTS
]


def judge_style(text: str) -> str:
    """ "polite", "rude" or "neither", by the opener alone."""
    if any(text.startswith(o) for o in POLITE_OPENERS):
        return "polite"
    return "rude" if any(text.startswith(o) for o in RUDE_OPENERS) else "neither"


def stated_facts(text: str) -> dict[str, str]:
    """The first name, town and job that an answer states in one of the world's two sentences; {}
    where it states none.
    """
    first = None
    for form in _FACTS:
        match = form.search(text)
        if match and (first is None or match.start() < first.start()):
            first = match
    return first.groupdict() if first else {}


def facts_right(text: str, facts: dict[str, str]) -> bool:
    """Whether the answer states the name, the town and the job of `facts`, all three."""
    return stated_facts(text) == facts


def style_judge(rows: list[dict]) -> Callable[[str, str, str], float]:
    """A judge for `win_rate(a, b, judge, prompts)`: 1 if the first answer is better, 0 if the
    second, 0.5 for a tie.

    Three rules, each asked only where those before it tie: politer (polite before neither before
    rude, by the opener); right (name, town and job as in the row's `facts`) before wrong; fewer
    words. `rows` are those of `preferences_test`: the prompt's facts are looked up by the text of
    its last message. ValueError for a prompt that no row asks.
    """
    known = {row["prompt"][-1]["content"]: row["facts"] for row in rows}
    manners = {"rude": 0, "neither": 1, "polite": 2}

    def score(prompt: str, text: str) -> tuple[int, bool, int]:
        manner = manners[judge_style(text)]
        right = facts_right(text, known[prompt])
        return manner, right, -len(text.split())

    def judge(prompt: str, first: str, second: str) -> float:
        if prompt not in known:
            raise ValueError(
                f"prompt={prompt!r} is asked by none of the judge's {len(known)} rows: pass rows "
                "that hold it"
            )
        one = score(prompt, first)
        two = score(prompt, second)
        return 0.5 if one == two else float(one > two)

    return judge


def preference_judge(rows: list[dict], model: str = "") -> Callable[[str, str, str], float]:
    """What judges answers to these rows, by rule: `style_judge` for rows with `facts`; for rows
    with `truth` `open_judge` where they are conversations, `report_judge` where they are pairs. For
    others a language model behind FTLIB_JUDGE_URL, named by FTLIB_JUDGE_MODEL or `model`.

    ValueError, before anything is trained, where such a model is needed and not named.
    """
    if all("facts" in row for row in rows):
        return style_judge(rows)
    if all("truth" in row and "messages" in row for row in rows):
        return open_judge(rows)
    if all("truth" in row for row in rows):
        return report_judge(rows)
    from ftlib.evaluation.judges import api_judge

    url = os.environ.get("FTLIB_JUDGE_URL", "http://localhost:11434/v1")
    model = os.environ.get("FTLIB_JUDGE_MODEL") or model
    if not model:
        raise ValueError(
            "FTLIB_JUDGE_MODEL is not set: these rows have no checkable answer, so a model must "
            f"judge; start one (ollama serve) and name it; it is asked at {url} (FTLIB_JUDGE_URL)"
        )
    return api_judge(url, model)


def describe_answers(rows: list[dict], answers: list[str]) -> dict[str, float]:
    """Means over answers: "words", and for rows with `facts` the shares "polite" and
    "facts right".
    """
    found = {"words": [len(a.split()) for a in answers]}
    if all("facts" in row for row in rows):
        found["polite"] = [judge_style(a) == "polite" for a in answers]
        found["facts right"] = [
            facts_right(a, row["facts"]) for row, a in zip(rows, answers, strict=True)
        ]
    return {name: sum(values) / len(values) for name, values in found.items()}
