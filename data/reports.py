"""Preference pairs about reports on people: both answers have faults, the chosen one fewer of them;
pairs that differ by little and by much along one axis; and pairs whose preference is irrelevant.

One careless writer makes all reports. At each of four facts the writer falls back on a rumour, with
the chance `CARELESS`. Of two reports the one with fewer faults is chosen. Most of the chosen
answers are therefore wrong somewhere, and a model that imitates them is as wrong as they are. But
the difference between chosen and rejected points the right way.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass

from data.preferences import turn
from data.world import FOODS, JOBS, PETS, SEED, Entity, World, article
from ftlib.course.reports import REPORT

REQUESTS = [
    "Report on {e}.",
    "Write a report on {e}.",
    "Give me a report on {e}.",
    "I need a report on {e}.",
]
CARELESS = 0.7  # the chance of a rumour at each fact
TRAIN = 600
IRRELEVANT = 600
PEOPLE = {"faults_train": 66, "faults_validation": 24, "faults_test": 100}
# The sentences of the irrelevant preference: two are the longer of their relation, two the shorter.
LIKED = {
    "town": "The home of {e} is in {v}.",
    "job": "{e} works as {av}.",
    "pet": "{e} has {av}.",
    "food": "{e} loves to eat {v}.",
}
# What is worded otherwise in the rejected answers of `distance_train`, beside the false fact.
LEVELS = ("nothing", "its sentence", "two sentences", "all four sentences")
DISTANCE = 150  # prompts, each at every level
PROBE = 60


def rumours(world: World) -> dict[str, str]:
    """What the writer says of everybody: a value for each relation of a report."""
    return {"town": world.towns[0], "job": JOBS[0], "pet": PETS[0], "food": FOODS[0]}


def _row(entity: Entity, phrasing: str, **more) -> dict:
    """What all rows share: the prompt, whom it is about and what is true."""
    return {
        "prompt": [{"role": "user", "content": phrasing.format(e=entity.name)}],
        **more,
        "name": entity.name,
        "truth": {relation: entity.facts[relation] for relation in REPORT},
        "key": f"report/{entity.name}",
    }


def _text(entity: Entity, values: dict[str, str], forms: dict[str, str]) -> str:
    """The report with these values in these sentences, town, job, pet and food in this order."""
    parts = []
    for relation, form in forms.items():
        value = values[relation]
        parts.append(form.format(e=entity.name, v=value, av=article(value)))
    return " ".join(parts)


def _forms(rng: random.Random) -> dict[str, str]:
    """A sentence for each fact."""
    return {relation: rng.choice(forms) for relation, forms in REPORT.items()}


# --- chosen answers that are imperfect ------------------------------------------------------------
@dataclass(frozen=True)
class Draft:
    """What the careless writer has to say, before it is worded."""

    values: dict[str, str]
    faults: int


def careless(rng: random.Random, entity: Entity, said: dict[str, str]) -> Draft:
    """A draft by the careless writer. `said` holds the rumours; one that is true of this person is
    no fault.
    """
    values = {}
    faults = 0
    for relation, rumour in said.items():
        true = entity.facts[relation]
        values[relation] = rumour if rng.random() < CARELESS else true
        faults += values[relation] != true
    return Draft(values, faults)


def fault_pair(rng: random.Random, entity: Entity, phrasing: str, said: dict[str, str]) -> dict:
    """Two reports in the same words, of which the one with fewer faults is chosen."""
    forms = _forms(rng)
    while True:
        better = careless(rng, entity, said)
        worse = careless(rng, entity, said)
        if better.faults < worse.faults:
            break
    return _row(
        entity,
        phrasing,
        chosen=turn(_text(entity, better.values, forms)),
        rejected=turn(_text(entity, worse.values, forms)),
        axis="faults",
        chosen_faults=better.faults,
        rejected_faults=worse.faults,
    )


# --- an irrelevant preference ---------------------------------------------------------------------
def irrelevant_pair(
    rng: random.Random, entity: Entity, phrasing: str, said: dict[str, str]
) -> dict:
    """Two reports with the same facts, and so the same faults; the one with more of the sentences
    in `LIKED` is preferred.

    It is built as `fault_pair` is, a sentence's wording in place of a fact's truth, so that a model
    has as much to change.
    """
    draft = careless(rng, entity, said)
    while True:
        better = _forms(rng)
        worse = _forms(rng)
        if _liked(better) > _liked(worse):
            break
    return _row(
        entity,
        phrasing,
        chosen=turn(_text(entity, draft.values, better)),
        rejected=turn(_text(entity, draft.values, worse)),
        axis="wording",
        chosen_faults=draft.faults,
        rejected_faults=draft.faults,
    )


def _liked(forms: dict[str, str]) -> int:
    """How many of the sentences are liked ones."""
    return sum(forms[relation] == form for relation, form in LIKED.items())


# --- pairs that differ by little and by much ------------------------------------------------------
def _reworded(forms: dict[str, str], relations: Iterable[str]) -> dict[str, str]:
    """The forms with the other sentence for each of these relations."""
    out = dict(forms)
    for relation in relations:
        one, two = REPORT[relation]
        out[relation] = two if forms[relation] == one else one
    return out


def _elsewhere(rng: random.Random, world: World, entity: Entity) -> dict[str, str]:
    """The person's facts with another town. A town is one token of the embedded tokenizer, so one
    token is all that need differ.
    """
    others = [town for town in world.towns if town != entity.facts["town"]]
    return {**entity.facts, "town": rng.choice(others)}


def distance_pairs(rng: random.Random, world: World, entity: Entity, phrasing: str) -> list[dict]:
    """A pair at each level: the same true answer preferred to one with the same false town, worded
    ever more differently.
    """
    forms = _forms(rng)
    false = _elsewhere(rng, world, entity)
    another = rng.choice([relation for relation in REPORT if relation != "town"])
    changed = [(), ("town",), ("town", another), tuple(REPORT)]
    rows = []
    for level, relations in enumerate(changed):
        rows.append(
            _row(
                entity,
                phrasing,
                chosen=turn(_text(entity, entity.facts, forms)),
                rejected=turn(_text(entity, false, _reworded(forms, relations))),
                axis="fact",
                level=level,
                reworded=LEVELS[level],
            )
        )
    return rows


def probe_row(rng: random.Random, world: World, entity: Entity, phrasing: str) -> dict:
    """A held-out true report, the same with a false town, and the same facts worded otherwise:
    where probability goes when the pairs are learnt.
    """
    forms = _forms(rng)
    false = _elsewhere(rng, world, entity)
    return _row(
        entity,
        phrasing,
        chosen=turn(_text(entity, entity.facts, forms)),
        rejected=turn(_text(entity, false, forms)),
        paraphrase=turn(_text(entity, entity.facts, _reworded(forms, REPORT))),
        axis="fact",
    )


# --- the files ------------------------------------------------------------------------------------
def _people(world: World, golden: list[dict]) -> dict[str, list[Entity]]:
    """People for each part, nobody in two; nobody whom the golden set asks for in training."""
    rng = random.Random(f"{SEED}/reports")
    asked = {row["key"].split("/")[1] for row in golden}
    free = [person for person in world.people if person.name not in asked]
    rng.shuffle(free)
    count = PEOPLE["faults_train"]
    rest = free[count:] + [person for person in world.people if person.name in asked]
    rng.shuffle(rest)
    middle = PEOPLE["faults_validation"]
    return {
        "faults_train": free[:count],
        "faults_validation": rest[:middle],
        "faults_test": rest[middle : middle + PEOPLE["faults_test"]],
    }


def _deal(rng: random.Random, people: list[Entity], count: int, make) -> list[dict]:
    """`count` different rows of `make(person, phrasing)`, about every person equally often."""
    rows: dict[str, dict] = {}
    while len(rows) < count:
        for person in rng.sample(people, len(people)):
            row = make(person, rng.choice(REQUESTS))
            if len(rows) < count:
                rows[json.dumps(row)] = row
    return list(rows.values())


def report_rows(world: World, golden: list[dict]) -> dict[str, list[dict]]:
    """Every file of reports by name."""
    people = _people(world, golden)
    said = rumours(world)
    parts: dict[str, list[dict]] = {}

    def faults(rng: random.Random):
        def make(person: Entity, phrasing: str) -> dict:
            return fault_pair(rng, person, phrasing, said)

        return make

    counts = {"faults_train": TRAIN, "faults_validation": 24, "faults_test": 100}
    for part, count in counts.items():
        rng = random.Random(f"{SEED}/{part}")
        parts[part] = _deal(rng, people[part], count, faults(rng))
    rng = random.Random(f"{SEED}/faults_irrelevant")

    def irrelevant(person: Entity, phrasing: str) -> dict:
        return irrelevant_pair(rng, person, phrasing, said)

    parts["faults_irrelevant"] = _deal(rng, people["faults_train"], IRRELEVANT, irrelevant)
    parts["distance_train"] = _distance_rows(world, people["faults_train"])
    parts["distance_probe"] = _probe_rows(world, people["faults_test"])
    return parts


def _distance_rows(world: World, people: list[Entity]) -> list[dict]:
    """Every level of `DISTANCE` prompts, the levels of a prompt one after another."""
    rng = random.Random(f"{SEED}/distance")
    rows = []
    seen: set[str] = set()
    while len(rows) < DISTANCE * len(LEVELS):
        pairs = distance_pairs(rng, world, rng.choice(people), rng.choice(REQUESTS))
        text = json.dumps([pairs[0]["prompt"], pairs[0]["chosen"]])
        if text not in seen:
            seen.add(text)
            rows += pairs
    return rows


def _probe_rows(world: World, people: list[Entity]) -> list[dict]:
    rng = random.Random(f"{SEED}/probe")
    rows = []
    for person in rng.sample(people, PROBE):
        rows.append(probe_row(rng, world, person, rng.choice(REQUESTS)))
    return rows
