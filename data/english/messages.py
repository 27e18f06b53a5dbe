"""Short messages, to be turned into JSON with given keys: the task of supervised fine-tuning.

Four kinds of message. Templates and what they speak of are dealt apart: validation rows have known
templates and unknown people, golden rows unknown templates too, and paraphrases ask for the JSON in
unknown words.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass

from data.english.people import MONTHS, Pool, deal

Values = dict[str, str | int]


@dataclass(frozen=True)
class Kind:
    """One kind of message: how its values are drawn, its keys in order, its templates."""

    name: str
    keys: tuple[str, ...]
    draw: Callable[[random.Random, Pool], Values]
    known: tuple[str, ...]
    unknown: tuple[str, ...]  # templates of the golden rows


def _date(rng: random.Random) -> str:
    return f"{rng.randint(1, 28)} {rng.choice(MONTHS)}"


def _meeting(rng: random.Random, pool: Pool) -> Values:
    return {
        "who": pool.person(rng),
        "city": rng.choice(pool.cities),
        "date": _date(rng),
        "topic": rng.choice(pool.topics),
    }


def _order(rng: random.Random, pool: Pool) -> Values:
    return {
        "customer": pool.person(rng),
        "item": rng.choice(pool.items),
        "count": rng.randint(2, 60),
        "price": rng.randint(5, 400),
    }


def _complaint(rng: random.Random, pool: Pool) -> Values:
    return {
        "customer": pool.person(rng),
        "item": rng.choice(pool.items),
        "order": rng.randint(10_000, 99_999),
        "problem": rng.choice(pool.problems),
    }


def _move(rng: random.Random, pool: Pool) -> Values:
    start, goal = rng.sample(pool.cities, 2)
    return {"who": pool.person(rng), "from": start, "to": goal, "date": _date(rng)}


KINDS = (
    Kind(
        "meeting",
        ("who", "city", "date", "topic"),
        _meeting,
        known=(
            "{who} will be in {city} on {date} to talk about {topic}.",
            "On {date} we meet {who} in {city}. The topic is {topic}.",
            "Please book a room in {city} for {date}: {who} wants to discuss {topic}.",
            "{who} has asked for a meeting about {topic}, in {city}, on {date}.",
            "Reminder: {topic} with {who}, {date}, {city}.",
            "Could you join {who} in {city}? It is about {topic}, on {date}.",
            "The talk on {topic} takes place in {city} on {date}, and {who} will lead it.",
            "{date} suits {who}. Let us meet in {city} and go through {topic}.",
        ),
        unknown=(
            "We agreed that {who} presents {topic} when the board comes to {city} on {date}.",
            "If nothing changes, {topic} is on the list for {date}; {who} comes to {city} for it.",
            "In {city}, on {date}, everybody hears from {who} about {topic}.",
        ),
    ),
    Kind(
        "order",
        ("customer", "item", "count", "price"),
        _order,
        known=(
            "{customer} orders {count} {item} for {price} euros.",
            "Please send {count} {item} to {customer}. The total is {price} euros.",
            "New order from {customer}: {count} {item}, {price} euros in all.",
            "{customer} would like {count} {item} and pays {price} euros.",
            "We sold {count} {item} to {customer} at {price} euros.",
            "For {price} euros {customer} gets {count} {item}.",
            "{count} {item}, {price} euros, on the account of {customer}.",
            "Can you confirm {count} {item} for {customer}? We said {price} euros.",
        ),
        unknown=(
            "After some thought {customer} chose {count} {item}, which comes to {price} euros.",
            "An invoice of {price} euros goes to {customer}, who took {count} {item}.",
            "{price} euros have arrived from {customer}; pack {count} {item}, please.",
        ),
    ),
    Kind(
        "complaint",
        ("customer", "item", "order", "problem"),
        _complaint,
        known=(
            "{customer} writes about order {order}, {item}: {problem}.",
            "Order {order} ({item}) came back from {customer}, because {problem}.",
            "I am {customer}. I bought {item}, order {order}, and {problem}.",
            "{customer} is unhappy with the {item} of order {order}: {problem}.",
            "Regarding order {order}: {problem}. The {item} went to {customer}.",
            "{problem}, says {customer} of the {item} in order {order}.",
            "Complaint by {customer}, order {order}, {item}: {problem}.",
            "The {item} of order {order} are no good, {problem}. Please call {customer}.",
        ),
        unknown=(
            "We owe {customer} an answer: with the {item} from order {order}, {problem}.",
            "Somebody named {customer} rang about {item}; {problem}, and the order was {order}.",
            "Look into order {order}, would you? {customer} got {item} and {problem}.",
        ),
    ),
    Kind(
        "move",
        ("who", "from", "to", "date"),
        _move,
        known=(
            "{who} moves from {from} to {to} on {date}.",
            "On {date} {who} leaves {from} for {to}.",
            "From {date} on {who} works in {to} and no longer in {from}.",
            "{who} goes to {to} on {date}; until then the desk is in {from}.",
            "Please change the address of {who}: {from} becomes {to} on {date}.",
            "The office in {to} welcomes {who}, who comes from {from} on {date}.",
            "{from} loses {who} to {to} on {date}.",
            "New in {to} from {date}: {who}, so far in {from}.",
        ),
        unknown=(
            "It is settled that {who} swaps {from} for {to}, with {date} as the first day.",
            "Colleagues in {from} say goodbye to {who}, whom {to} expects on {date}.",
            "Starting {date}, letters to {who} go to {to} rather than {from}.",
        ),
    ),
)
ASKED = (
    "Turn this message into JSON with the keys {keys}.",
    "Write the message as a JSON object with {keys}.",
    "Which JSON with the keys {keys} holds this message?",
    "Give me {keys} of this message as JSON.",
)
ASKED_OTHERWISE = (
    "Extract {keys} from the text below. Answer with one JSON object.",
    "I need a JSON record of the following note. Fields: {keys}.",
    "Read the note, then output nothing but JSON: {keys}.",
)


def _listed(keys: tuple[str, ...]) -> str:
    return f"{', '.join(keys[:-1])} and {keys[-1]}"


def _row(rng: random.Random, pool: Pool, kind: Kind, template: str, asked: str) -> dict:
    values = kind.draw(rng, pool)
    text = template.format(**values)
    message = text[0].upper() + text[1:]
    request = asked.format(keys=_listed(kind.keys))
    answer = json.dumps({key: values[key] for key in kind.keys})
    messages = [
        {"role": "user", "content": f"{request}\n\n{message}"},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages, "answer": answer, "family": kind.name, "key": f"message/{text}"}


def _rows(seed: int, count: int, pool: Pool, is_known: bool, asked: tuple[str, ...]) -> list[dict]:
    """`count` different rows, as many of each kind as of the others."""
    rng = random.Random(seed)
    rows: list[dict] = []
    seen: set[str] = set()
    while len(rows) < count:
        kind = KINDS[len(rows) % len(KINDS)]
        template = rng.choice(kind.known if is_known else kind.unknown)
        row = _row(rng, pool, kind, template, rng.choice(asked))
        if row["key"] not in seen:
            seen.add(row["key"])
            rows.append(row)
    return rows


def message_rows() -> dict[str, list[dict]]:
    """The parts by name."""
    known, held_out = deal()
    return {
        "train": _rows(1, 1200, known, True, ASKED),
        "validation": _rows(2, 200, held_out, True, ASKED),
        "golden": _rows(3, 100, held_out, False, ASKED),
        "paraphrase": _rows(4, 100, held_out, True, ASKED_OTHERWISE),
    }
