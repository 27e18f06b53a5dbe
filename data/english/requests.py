"""Everyday requests with one or two constraints that a rule can judge, and answers that keep them.

Validation rows have known scenarios and unknown people, places and things; test rows have unknown
scenarios and wordings too, and in half of them a constraint of a kind that training never has.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable

from data.english.people import Pool, deal
from data.english.scenarios import KNOWN, UNKNOWN, Scenario
from data.english.wordings import HELD_OUT_KINDS, TRAINED_KINDS, WORDED, asked_for

Constraint = dict
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
# What does not go together. A list or an object leaves no room for what is said of sentences.
_CASES = ("lower_case", "upper_case")
_PROSE = ("sentences", "least_words", "use_words", "paragraphs", "begin_with", "end_with", "quoted")
_COMMON = (
    "that this with from have will would they them there what when where which while your ours "
    "ever into more most before after until should could every been does were here again like"
)
COMMON = frozenset(_COMMON.split())  # most answers have such words anyway
CLASHES: dict[str, tuple[str, ...]] = {
    "bullets": (*_PROSE, "json_keys"),
    "json_keys": (*_PROSE, "most_words", "upper_case", "no_commas"),
    "begin_with": (*_CASES, "quoted"),
    "end_with": (*_CASES, "quoted"),
    "upper_case": ("lower_case",),
    "most_words": ("least_words",),
    "paragraphs": ("quoted", "most_words"),
}


def _clash(one: str, other: str) -> bool:
    return one == other or other in CLASHES.get(one, ()) or one in CLASHES.get(other, ())


def _kinds(rng: random.Random, first: str, others: tuple[str, ...]) -> list[str]:
    """One kind, or two that go together."""
    if rng.random() < 0.4:
        return [first]
    return [first, rng.choice([kind for kind in others if not _clash(first, kind)])]


# --- the answer -----------------------------------------------------------------------------------
def _prose(
    rng: random.Random, scenario: Scenario, kinds: list[str], values: dict
) -> tuple[str, str, str]:
    """(the text, its first words, its last words)."""
    said = [sentence.format(**values) for sentence in scenario.sentences]
    opener = rng.choice(scenario.openers) if "begin_with" in kinds else ""
    closer = rng.choice(scenario.closers) if "end_with" in kinds else ""
    if "no_commas" in kinds:
        said = [sentence for sentence in said if "," not in sentence]
    fewest = 1 if {"sentences", "most_words"} & set(kinds) and "paragraphs" not in kinds else 2
    count = rng.randint(fewest, min(4, len(said)))
    others = sorted(rng.sample(range(1, len(said)), count - 1))
    chosen = [opener, said[0], *[said[i] for i in others], closer]
    chosen = [sentence for sentence in chosen if sentence]
    if "paragraphs" not in kinds:
        return " ".join(chosen), opener, closer
    parts = rng.randint(2, min(3, len(chosen)))
    starts = [0, *sorted(rng.sample(range(1, len(chosen)), parts - 1)), len(chosen)]
    texts = [" ".join(chosen[starts[i] : starts[i + 1]]) for i in range(parts)]
    return "\n\n".join(texts), opener, closer


def _in_case(text: str, kinds: list[str]) -> str:
    if "lower_case" in kinds:
        return text.lower()
    if "upper_case" in kinds:
        return text.upper()
    return text


def _words_to_use(rng: random.Random, request: str, answer: str) -> list[str]:
    """One or two longer words of the answer that the request has not said; none where there are
    none.
    """
    told = set(re.findall(r"\w+", request.lower()))
    found: list[str] = []
    for word in re.findall(r"\b[a-z]{4,}\b", answer):
        if word not in told and word not in found and word not in COMMON:
            found.append(word)
    return rng.sample(found, min(len(found), rng.choice([1, 2])))


def _count_of(kind: str, answer: str, rng: random.Random) -> int:
    """The number that a constraint on this answer names."""
    if kind == "bullets":
        return len(answer.splitlines())
    if kind == "paragraphs":
        return len(answer.split("\n\n"))
    if kind == "sentences":
        return len(re.findall(r"[.!?](?=\s|\"|$)", answer))
    words = len(answer.split())
    if kind == "most_words":
        return 5 * (words // 5 + rng.choice([1, 1, 2]))
    return max(5, 5 * (words // 5 - rng.choice([0, 1])))


# --- rows -----------------------------------------------------------------------------------------
def _draw(rng: random.Random, pool: Pool) -> dict[str, str]:
    return {
        "name": rng.choice(pool.first_names),
        "city": rng.choice(pool.cities),
        "items": rng.choice(pool.items),
        "topic": rng.choice(pool.topics),
        "day": rng.choice(DAYS),
        "hour": f"{rng.randint(8, 19)}:{rng.choice(['00', '15', '30'])}",
    }


def _answer(
    rng: random.Random, scenario: Scenario, kinds: list[str], values: dict
) -> tuple[str, dict[str, Constraint]]:
    """(an answer, what its constraints say of it as far as that was drawn with it)."""
    drawn: dict[str, Constraint] = {}
    if "bullets" in kinds:
        points = [point.format(**values) for point in scenario.points]
        chosen = sorted(rng.sample(range(len(points)), rng.randint(2, 5)))
        text = "\n".join(f"- {points[i]}" for i in chosen)
    elif "json_keys" in kinds:
        count = rng.randint(2, len(scenario.fields))
        keys = list(scenario.fields)[:count]
        filled = {key: scenario.fields[key].format(**values) for key in keys}
        text = json.dumps(filled)
        drawn["json_keys"] = {"keys": keys}
    else:
        text, opener, closer = _prose(rng, scenario, kinds, values)
        drawn["begin_with"] = {"phrase": opener}
        drawn["end_with"] = {"phrase": closer}
    text = _in_case(text, kinds)
    if "quoted" in kinds:
        text = f'"{text}"'
    return text, drawn


def _constraints(
    rng: random.Random, scenario: Scenario, kinds: list[str], request: str, made: tuple[str, dict]
) -> list[Constraint]:
    """The constraints of these kinds that the answer keeps."""
    answer, drawn = made
    found = []
    for kind in kinds:
        constraint = {"kind": kind, **drawn.get(kind, {})}
        if kind in ("sentences", "most_words", "least_words", "bullets", "paragraphs"):
            constraint["count"] = _count_of(kind, answer, rng)
        elif kind == "use_words":
            constraint["words"] = _words_to_use(rng, request, answer)
        elif kind == "avoid_words":
            constraint["words"] = rng.sample(scenario.avoid, rng.choice([1, 2]))
        found.append(constraint)
    return found


Choose = Callable[[random.Random, tuple[str, ...]], str]


def _row(
    rng: random.Random, pool: Pool, scenario: Scenario, kinds: list[str], choose: Choose
) -> dict | None:
    """One row; None where the answer has no word to ask for."""
    values = _draw(rng, pool)
    request = rng.choice(scenario.asks).format(**values)
    made = _answer(rng, scenario, kinds, values)
    constraints = _constraints(rng, scenario, kinds, request, made)
    if any(constraint.get("words") == [] for constraint in constraints):
        return None
    rules = [asked_for(each, choose(rng, WORDED[each["kind"]])) for each in constraints]
    prompt = " ".join([request, *rules])
    answer = made[0]
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": answer},
        ],
        "answer": answer,
        "constraints": constraints,
        "family": scenario.name,
        "key": f"request/{prompt}",
    }


def _known_wording(rng: random.Random, wordings: tuple[str, ...]) -> str:
    return rng.choice(wordings[:-1])


def _new_wording(rng: random.Random, wordings: tuple[str, ...]) -> str:
    return wordings[-1]


def _rows(
    seed: int,
    count: int,
    pool: Pool,
    scenarios: tuple[Scenario, ...],
    firsts: tuple[str, ...],
    choose: Choose,
) -> list[dict]:
    """`count` rows, no two with one prompt; the kinds of the first constraint take turns."""
    rng = random.Random(seed)
    rows: list[dict] = []
    seen: set[str] = set()
    while len(rows) < count:
        scenario = rng.choice(scenarios)
        kinds = _kinds(rng, firsts[len(rows) % len(firsts)], TRAINED_KINDS)
        row = _row(rng, pool, scenario, kinds, choose)
        if row is not None and row["key"] not in seen:
            seen.add(row["key"])
            rows.append(row)
    return rows


def request_rows() -> dict[str, list[dict]]:
    """The parts by name."""
    known, held_out = deal()
    old = _rows(12, 50, held_out, UNKNOWN, TRAINED_KINDS, _new_wording)
    new = _rows(13, 50, held_out, UNKNOWN, HELD_OUT_KINDS, _new_wording)
    test: list[dict] = []
    for pair in zip(old, new, strict=True):
        test += pair
    return {
        "requests_train": _rows(10, 300, known, KNOWN, TRAINED_KINDS, _known_wording),
        "requests_validation": _rows(11, 60, held_out, KNOWN, TRAINED_KINDS, _known_wording),
        "requests_test": test,
    }
