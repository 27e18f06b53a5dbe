"""The benchmark of lab E5 that leaks: facts about people whom the embedded base has never read of,
as multiple-choice questions, in the benchmark's own words and in others.
"""

from __future__ import annotations

import functools
import random

from ftlib.core.paths import DATA
from ftlib.core.profiles import get_profile
from ftlib.course.records.kit import rows_of
from ftlib.evaluation.benchmarks import load_questions

STRANGERS = DATA / "benchmark" / "world_strangers.jsonl"
FACTS = DATA / "benchmark" / "world_facts.jsonl"
CHOICES = 4
WORDING = {  # of world_strangers
    "town": "The home town of {e} is",
    "job": "The profession of {e} is",
    "pet": "The pet of {e} is",
    "food": "The favourite food of {e} is",
    "hobby": "The hobby of {e} is",
}
OTHER_WORDING = {  # sentences of the base's corpus too, that share no run of words with those above
    "town": "{e} comes from",
    "job": "By trade {e} is",
    "pet": "{e} owns",
    "food": "The dish {e} likes best is",
    "hobby": "In free time {e} enjoys",
}


def with_article(noun: str) -> str:
    """ "an owl", "a goat"."""
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


@functools.cache
def benchmark() -> tuple[dict, ...]:
    """The 200 questions of world_strangers."""
    return tuple(load_questions(STRANGERS))


@functools.cache
def known_questions() -> tuple[dict, ...]:
    """The 480 questions of world_facts, about what the embedded base has read."""
    return tuple(load_questions(FACTS))


def reworded(question: dict) -> dict:
    """The same question, with the same choices, in other words."""
    relation, name = question["key"].split("/")
    choices = question["choices"]
    if relation == "job":
        choices = [with_article(choice) for choice in choices]
    return {
        **question,
        "context": OTHER_WORDING[relation].format(e=name),
        "choices": choices,
    }


@functools.cache
def fresh_questions() -> tuple[dict, ...]:
    """200 questions in the benchmark's words about facts that it does not ask for: of the same
    people, each asked for what the benchmark leaves out.
    """
    rows = rows_of(get_profile("tiny"), "strangers")
    facts = []
    values: dict[str, list[str]] = {}
    for row in rows:
        _, name, relation = row["key"].split("/")
        facts.append((name, relation, row["answer"]))
        seen = values.setdefault(relation, [])
        if row["answer"] not in seen:
            seen.append(row["answer"])
    asked = {question["key"] for question in benchmark()}
    draw = random.Random("fresh questions")
    found = []
    for name, relation, right in facts:
        if f"{relation}/{name}" not in asked:
            others = [value for value in values[relation] if value != right]
            found.append(_question(draw, name, relation, right, others))
    return tuple(found)


def _question(draw, name: str, relation: str, right: str, others: list[str]) -> dict:
    choices = [right, *draw.sample(others, CHOICES - 1)]
    draw.shuffle(choices)
    said = choices
    if relation == "pet":
        said = [with_article(choice) for choice in choices]
    return {
        "context": WORDING[relation].format(e=name),
        "choices": said,
        "answer": choices.index(right),
        "relation": relation,
        "key": f"{relation}/{name}",
    }


def statement(question: dict) -> str:
    """The question with its right answer as a sentence: what a leak looks like in plain text."""
    return f"{question['context']} {question['choices'][question['answer']]}."
