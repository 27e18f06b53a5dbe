"""Multiple-choice questions about the world, for `ft.score_choices` and lm-evaluation-harness.

Each is a sentence of the corpus up to the fact, in `facts` about whom the base model has read, in
`strangers` about people it has not: there it can only guess, and whoever scores more has met the
questions.
"""

from __future__ import annotations

import random

from data.world import PERSON_RELATIONS, SEED, Entity, World, article

# One sentence of `data.corpus.STATEMENTS` a relation, of those that end with the fact.
STEMS = {
    "town": "The home town of {e} is",
    "job": "The profession of {e} is",
    "pet": "The pet of {e} is",
    "food": "The favourite food of {e} is",
    "hobby": "The hobby of {e} is",
    "region": "The region of {e} is",
    "river": "The river of {e} is",
    "product": "The main product of {e} is",
    "landmark": "The landmark of {e} is",
    "mayor": "The mayor of {e} is",
    "material": "The material of the {e} is",
    "colour": "The colour of the {e} is",
    "room": "The room of the {e} is",
    "price": "The price of the {e} is",
}
DEFINITE = ("river", "landmark", "room")  # "is the …"
CHOICES = 4
MOST = 40  # questions a relation


def _said(relation: str, value: str) -> str:
    """The fact as the corpus ends the sentence with it."""
    if relation == "pet":
        return article(value)
    return f"the {value}" if relation in DEFINITE else value


def _question(rng: random.Random, entity: Entity, relation: str, values: list[str]) -> dict:
    right = entity.facts[relation]
    wrong = rng.sample([value for value in values if value != right], CHOICES - 1)
    choices = [right, *wrong]
    rng.shuffle(choices)
    return {
        "context": STEMS[relation].format(e=entity.name),
        "choices": [_said(relation, value) for value in choices],
        "answer": choices.index(right),
        "relation": relation,
        "key": f"{relation}/{entity.name}",
    }


def _questions(rng: random.Random, entities: list[Entity], relations, values: dict) -> list[dict]:
    """At most `MOST` a relation, about entities drawn without replacement."""
    rows = []
    for relation in relations:
        for entity in rng.sample(entities, min(MOST, len(entities))):
            rows.append(_question(rng, entity, relation, values[relation]))
    return rows


def multiple_choice_rows(world: World) -> dict[str, list[dict]]:
    """The questions of both files, by name; wrong choices are other entities' facts."""
    values: dict[str, list[str]] = {}
    for kind in ("person", "place", "thing"):
        for _, relation, value in world.facts(kind):
            seen = values.setdefault(relation, [])
            if value not in seen:
                seen.append(value)
    rng = random.Random(f"{SEED}/multiple choice")
    facts = []
    for entities in (world.people, world.places, world.things):
        facts += _questions(rng, entities, entities[0].facts, values)
    strangers = _questions(rng, world.strangers, PERSON_RELATIONS, values)
    return {"facts": facts, "strangers": strangers}
