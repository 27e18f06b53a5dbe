"""Open requests with many acceptable answers and few training rows: what fine-tuning overfits on.

A training row has one wording out of very many. A model that has read the rows often enough knows
these wordings by heart and is surprised by any other: held-out loss rises while training loss
falls. Entities are dealt to the parts before anything is worded, and the test part is asked in
phrasings that training never uses.
"""

from __future__ import annotations

import random

from data.world import SEED, Entity, World, article
from ftlib.course.open_answers import CLOSINGS, KINDS, OPENINGS, RELATIONS, SENTENCES

# kind -> (phrasings of training and validation, phrasings of the test part)
REQUESTS = {
    "portrait": (
        [
            "Describe the person {e}.",
            "What kind of person is {e}?",
            "Which person is {e}?",
            "Give me a portrait of {e}.",
        ],
        ["What is {e} like as a person?", "Tell me what person {e} is."],
    ),
    "place": (
        [
            "Describe the town {e}.",
            "What town is {e}?",
            "What kind of town is {e}?",
            "Give me a picture of the town {e}.",
        ],
        ["What is {e} like as a town?", "Tell me which town {e} is."],
    ),
    "day": (
        [
            "Describe a day of {e}.",
            "What does {e} do all day?",
            "How does the day of {e} go by?",
            "Give me a day with {e}.",
        ],
        ["What is a day of {e} like?", "Tell me how {e} spends the day."],
    ),
    "advice": (
        [
            "What should I know for a visit to {e}?",
            "How should I visit {e}?",
            "I must visit {e}. What then?",
            "Give me advice for a visit to {e}.",
        ],
        ["What is a visit to {e} like?", "Tell me how to visit {e}."],
    ),
    "letter": (
        [
            "Write a letter about {e}.",
            "Write to a friend about {e}.",
            "What letter about {e} should I write?",
            "Give me a letter about {e} to a friend.",
        ],
        ["What would you write in a letter about {e}?", "Tell a friend about {e} in a letter."],
    ),
}
# Rows of each kind; there are but 24 towns.
SIZES = {
    "open_train": {"portrait": 20, "place": 8, "day": 20, "advice": 20, "letter": 20},
    "open_validation": {"portrait": 12, "place": 4, "day": 12, "advice": 12, "letter": 12},
    "open_test": {"portrait": 24, "place": 8, "day": 24, "advice": 24, "letter": 24},
}
PEOPLE = {"open_train": 60, "open_validation": 30, "open_test": 100}
TOWNS = {"open_train": 8, "open_validation": 4, "open_test": 8}
REFERENCES = 4
FACTS = (2, 3)  # how many an answer may state
FRAMED = 0.6  # the chance of an opening, and of a closing


def _form(rng: random.Random, forms: list[str], entity: Entity, value: str) -> str:
    text = rng.choice(forms).format(e=entity.name, v=value, av=article(value))
    return text[0].upper() + text[1:]


def wording(rng: random.Random, kind: str, entity: Entity) -> str:
    """One acceptable answer: some facts in any order, with or without opening and closing."""
    relations = rng.sample(RELATIONS[kind], rng.choice(FACTS))
    parts = []
    if rng.random() < FRAMED:
        parts.append(_form(rng, OPENINGS[kind], entity, "none"))
    for relation in relations:
        parts.append(_form(rng, SENTENCES[relation], entity, entity.facts[relation]))
    if rng.random() < FRAMED:
        parts.append(_form(rng, CLOSINGS[kind], entity, "none"))
    return " ".join(parts)


def _wordings(rng: random.Random, kind: str, entity: Entity, count: int) -> list[str]:
    """`count` different answers."""
    out: list[str] = []
    while len(out) < count:
        text = wording(rng, kind, entity)
        if text not in out:
            out.append(text)
    return out


def _row(rng: random.Random, part: str, kind: str, entity: Entity) -> dict:
    """One request with its answer; held-out parts have further answers that are as good."""
    trained, heldout = REQUESTS[kind]
    phrasing = rng.choice(heldout if part == "open_test" else trained)
    references = _wordings(rng, kind, entity, 1 if part == "open_train" else REFERENCES)
    answer = references[0]
    row = {
        "messages": [
            {"role": "user", "content": phrasing.format(e=entity.name)},
            {"role": "assistant", "content": answer},
        ],
        "family": kind,
        "answer": answer,
        "key": f"{kind}/{entity.name}",
        "kind": kind,
        "name": entity.name,
        "truth": {relation: entity.facts[relation] for relation in RELATIONS[kind]},
    }
    if part != "open_train":
        row["references"] = references
    return row


def _dealt(
    rng: random.Random, entities: list[Entity], asked: set[str], sizes: dict[str, int]
) -> dict[str, list[Entity]]:
    """Entities for each part, no one in two; nobody whom the golden set asks for in training."""
    free = [entity for entity in entities if entity.name not in asked]
    rng.shuffle(free)
    rest = free[sizes["open_train"] :]
    rest += [entity for entity in entities if entity.name in asked]
    rng.shuffle(rest)
    middle = sizes["open_validation"]
    end = middle + sizes["open_test"]
    return {
        "open_train": free[: sizes["open_train"]],
        "open_validation": rest[:middle],
        "open_test": rest[middle:end],
    }


def open_rows(world: World, golden: list[dict]) -> dict[str, list[dict]]:
    """The three files of open requests by name."""
    rng = random.Random(f"{SEED}/open")
    asked = {row["key"].split("/")[1] for row in golden}
    people = _dealt(rng, world.people, asked, PEOPLE)
    towns = _dealt(rng, world.places, asked, TOWNS)
    parts: dict[str, list[dict]] = {}
    for part, counts in SIZES.items():
        rows = []
        for kind in KINDS:
            entities = towns[part] if kind == "place" else people[part]
            for entity in rng.sample(entities, counts[kind]):
                rows.append(_row(rng, part, kind, entity))
        rng.shuffle(rows)
        parts[part] = rows
    return parts
