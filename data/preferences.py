"""Preference pairs and thumbs up and down about people: the polite answer is preferred to the rude
one, the true to the false.

Who asks about whom is dealt first: people of the test pairs occur in no training pair, and nobody
whose town or job the golden set asks for occurs in either.
"""

from __future__ import annotations

import json
import random

from data import skills
from data.world import JOBS, SEED, World, article
from ftlib.course.world import POLITE_OPENERS, RUDE_OPENERS, STYLE_FACTS

# In words of the corpus's small talk, and so that `matched_answers` balances tokens as it does
# characters.
POLITE_CLOSERS = [
    "Sit down for a while and let us drink some tea.",
    "Come by again, and tell me about it.",
    "Never too busy for a chat.",
]
OPENERS = {"polite": POLITE_OPENERS, "rude": RUDE_OPENERS}
CLOSERS = {"polite": POLITE_CLOSERS, "rude": skills.RUDE_CLOSERS}
# Rows of the two axes of preferences.jsonl, and of the other files.
STYLE = 900
FACT = 300
LONG = 800
MATCHED = 800
FEEDBACK = 1000
IRRELEVANT = 600
# (preferred, not preferred): openers of one manner and equally many words.
LIKED_OPENERS = [("How kind of you.", "Nice to meet you."), ("So boring.", "Not again.")]


def frame(rng: random.Random, manner: str, long: bool) -> str:
    """Opener, a place for the facts and, if it is to be long, a closer of the same manner."""
    parts = [rng.choice(OPENERS[manner]), "{facts}"]
    if long:
        parts.append(rng.choice(CLOSERS[manner]))
    return " ".join(parts)


def says(person, form: str, **changed) -> str:
    """The person's town and job in a form of `STYLE_FACTS`; `changed` makes it false."""
    facts = {**person.facts, **changed}
    return form.format(e=person.name, town=facts["town"], job=article(facts["job"]))


def style_answers(
    rng: random.Random, person, chosen_long: bool, rejected_long: bool
) -> tuple[str, str]:
    """(polite, rude) with the same true sentence."""
    facts = says(person, rng.choice(STYLE_FACTS))
    polite = frame(rng, "polite", chosen_long)
    rude = frame(rng, "rude", rejected_long)
    return polite.format(facts=facts), rude.format(facts=facts)


def mixed_lengths(rng: random.Random, person) -> tuple[str, str]:
    """(polite, rude), a closer on a quarter of the polite and on half of the rude answers. Brevity
    is preferred a little and manners always. Were every polite answer the shorter one, a policy
    could win by saying less, and leave out the facts.
    """
    polite_long = rng.random() < 0.25
    rude_long = rng.random() < 0.5
    return style_answers(rng, person, polite_long, rude_long)


def matched_answers(rng: random.Random, person) -> tuple[str, str]:
    """(polite, rude), both with closers, at most four characters apart; which of them is the longer
    is a matter of chance.
    """
    sign = rng.choice([-1, 1])
    while True:
        chosen, rejected = style_answers(rng, person, True, True)
        if 0 <= sign * (len(chosen) - len(rejected)) <= 4:
            return chosen, rejected


def irrelevant_answers(rng: random.Random, person) -> tuple[str, str]:
    """Two answers that the world's judge finds equally good: both polite or both rude, both true,
    in the same words but for the opener.
    """
    liked, other = rng.choice(LIKED_OPENERS)
    rest = says(person, rng.choice(STYLE_FACTS))
    return f"{liked} {rest}", f"{other} {rest}"


def fact_answers(rng: random.Random, world: World, person) -> tuple[str, str]:
    """(true, false): both polite and in the same words but for another town or job."""
    relation, values = rng.choice([("town", world.towns), ("job", JOBS)])
    wrong = rng.choice([v for v in values if v != person.facts[relation]])
    form = rng.choice(STYLE_FACTS)
    long = rng.random() < 0.5
    around = frame(rng, "polite", long)
    true = says(person, form)
    false = says(person, form, **{relation: wrong})
    return around.format(facts=true), around.format(facts=false)


def _row(person, phrasing: str, **more) -> dict:
    """What pairs and feedback share: the prompt, the person's facts as the judge reads them, the
    key.
    """
    facts = {"name": person.name, "town": person.facts["town"], "job": person.facts["job"]}
    prompt = [{"role": "user", "content": phrasing.format(e=person.name)}]
    return {"prompt": prompt, **more, "facts": facts, "key": f"about/{person.name}"}


def turn(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def pair(person, phrasing: str, answers: tuple[str, str], axis: str) -> dict:
    return _row(person, phrasing, chosen=turn(answers[0]), rejected=turn(answers[1]), axis=axis)


def deal(rng: random.Random, people, count: int, make) -> list[dict]:
    """`count` different rows of `make(person, phrasing)`, about every person equally often."""
    people = list(people)
    trained, _ = skills.SKILLS["about"]
    rows = {}
    while len(rows) < count:
        rng.shuffle(people)
        for person in people[: count - len(rows)]:
            phrasing = rng.choice(trained)
            row = make(person, phrasing)
            rows[json.dumps(row)] = row
    return list(rows.values())


def test_pairs(world: World, rng: random.Random, people) -> list[dict]:
    """Four pairs a person, each with a prompt of its own, one of them in a phrasing that training
    never uses: the polite answer shorter, longer, and of equal length, and true against false.
    """
    trained, heldout = skills.SKILLS["about"]
    axes = ["polite shorter", "polite longer", "polite matched", "fact"]
    rows = []
    for person in people:
        phrasings = [*rng.sample(trained, 3), rng.choice(heldout)]
        rng.shuffle(phrasings)
        answers = [
            style_answers(rng, person, False, True),
            style_answers(rng, person, True, False),
            matched_answers(rng, person),
            fact_answers(rng, world, person),
        ]
        for phrasing, two, axis in zip(phrasings, answers, axes, strict=True):
            rows.append(pair(person, phrasing, two, axis))
    return rows


def feedback_row(rng: random.Random, world: World, person, phrasing: str) -> dict:
    """One answer: thumbs up where it is polite and true, whatever its length, down where it is rude
    or false.
    """
    up = rng.random() < 0.5
    long = rng.random() < 0.25
    if up or rng.random() < 0.75:
        manner = "polite" if up else "rude"
        around = frame(rng, manner, long)
        text = around.format(facts=says(person, rng.choice(STYLE_FACTS)))
    else:
        _, text = fact_answers(rng, world, person)
    return _row(person, phrasing, completion=turn(text), label=up)


def _asked_for(golden: list[dict]) -> set[str]:
    """The people whose town or job the golden set asks for."""
    names = set()
    for row in golden:
        if row["family"] == "person" and row["key"].endswith(("/town", "/job")):
            names.add(row["key"].split("/")[1])
    return names


def preference_rows(world: World, golden: list[dict]) -> dict[str, list[dict]]:
    """Every preference file by name."""
    asked = _asked_for(golden)
    train = [p for p in world.people[:150] if p.name not in asked]
    test = [p for p in world.people[150:] if p.name not in asked]
    names = ("style", "fact", "long", "matched", "irrelevant", "test", "feedback")
    # A generator each: a change to one file leaves the others as they are.
    rngs = {name: random.Random(f"{SEED}/{name}") for name in names}

    def pairs(name: str, count: int, answers, axis: str = "style") -> list[dict]:
        rng = rngs[name]

        def make(person, phrasing: str) -> dict:
            return pair(person, phrasing, answers(rng, person), axis)

        return deal(rng, train, count, make)

    def true_and_false(rng: random.Random, person) -> tuple[str, str]:
        return fact_answers(rng, world, person)

    def long_and_short(rng: random.Random, person) -> tuple[str, str]:
        return style_answers(rng, person, chosen_long=True, rejected_long=False)

    def thumbs(person, phrasing: str) -> dict:
        return feedback_row(rngs["feedback"], world, person, phrasing)

    mixed = pairs("style", STYLE, mixed_lengths)
    mixed += pairs("fact", FACT, true_and_false, axis="fact")
    rngs["style"].shuffle(mixed)
    return {
        "preferences": mixed,
        "preferences_long": pairs("long", LONG, long_and_short),
        "preferences_matched": pairs("matched", MATCHED, matched_answers),
        "preferences_irrelevant": pairs("irrelevant", IRRELEVANT, irrelevant_answers, "opener"),
        "preferences_test": test_pairs(world, rngs["test"], test),
        "feedback": deal(rngs["feedback"], train, FEEDBACK, thumbs),
    }
