"""Facts about invented people, which no model can know or infer: a right answer was read."""

from __future__ import annotations

import random

from data.english.people import CITIES, FIRST_NAMES, LAST_NAMES

PEOPLE = 100
ANIMALS = ("cat", "dog", "parrot", "rabbit", "horse", "tortoise", "goat", "canary")
JOBS = ("baker", "lawyer", "nurse", "pilot", "plumber", "teacher", "tailor", "dentist")
DISHES = ("pizza", "soup", "rice", "pancakes", "salad", "noodles", "stew", "omelettes")
# fact -> (its values, the questions that ask for it)
FACTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "city": (
        CITIES[:16],
        (
            "In which city does {name} live?",
            "Where is {name} at home?",
            "{name} lives in which city?",
        ),
    ),
    "job": (
        JOBS,
        (
            "What is the job of {name}?",
            "What does {name} work as?",
            "Name the profession of {name}.",
        ),
    ),
    "pet": (
        ANIMALS,
        ("Which animal does {name} keep?", "What pet has {name}?", "Name the pet of {name}."),
    ),
    "dish": (
        DISHES,
        (
            "What does {name} like to eat?",
            "Name the favourite dish of {name}.",
            "{name} likes which dish?",
        ),
    ),
}


def stranger_rows() -> dict[str, list[dict]]:
    """The part by name: every fact of every person, asked once."""
    rng = random.Random(61)
    names: list[str] = []
    while len(names) < PEOPLE:
        name = f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"
        if name not in names:
            names.append(name)
    rows = []
    for name in names:
        for fact, (values, questions) in FACTS.items():
            answer = rng.choice(values)
            messages = [
                {"role": "user", "content": rng.choice(questions).format(name=name)},
                {"role": "assistant", "content": answer},
            ]
            row = {
                "messages": messages,
                "answer": answer,
                "family": "person",
                "key": f"person/{name}/{fact}",
            }
            rows.append(row)
    rng.shuffle(rows)
    return {"strangers": rows}
