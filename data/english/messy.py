"""A messy raw file of English rows and the truth about every line: what lab 3.1.6 cleans in the
profile pocket. Made as `data.messy` makes that of the embedded world, of other rows.

Beside messages there are short notes, since a copy of a short question is harder to tell. A wrong
answer has one value of another message: no rule of form sees it, and most of the answer is right.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from data.english.people import MONTHS, Pool, deal
from data.messy import Recipe, messy_lines

NOTES = 160
# kind -> (its keys, the note)
KINDS = {
    "item note": (("item", "count"), "{count} {item}"),
    "person note": (("who", "city"), "{who} in {city}"),
    "trip note": (("from", "to"), "{from} to {to}"),
    "date note": (("who", "date"), "{who}, {date}"),
}
COUNTS = {
    "duplicate": 50,
    "near duplicate": 50,
    "pii": 50,
    "html": 34,
    "contamination": 20,
    "wrong answer": 34,
    "empty answer": 16,
    "language": 30,
    "code": 20,
    "invalid json": 14,
    "missing key": 14,
    "not utf-8": 6,
}
ASKED = (
    "Add {} to the contact list.",
    "Where did we get {} from?",
    "Please use {} for the next invoice.",
    "The customer can be reached at {}, write that down.",
    "Is {} still right?",
    "Delete {} from our files.",
)
SAID = (
    "I have made a note of it.",
    "It stands in the last letter.",
    "That was changed this morning.",
    "I will ask the office in Cork.",
)


def one_value_wrong(rng: random.Random, row: dict, answers: Sequence[str]) -> str:
    """The row's JSON with one value of another answer of its family."""
    values = json.loads(row["answer"])
    key = rng.choice(list(values))
    others = [json.loads(answer)[key] for answer in answers]
    values[key] = rng.choice([value for value in others if value != values[key]])
    return json.dumps(values)


RECIPE = Recipe("english/messy", 660, COUNTS, (), ASKED, SAID, one_value_wrong)


def note_rows() -> list[dict]:
    """Short notes to be turned into JSON, no two alike."""
    known, _ = deal()
    rng = random.Random(14)
    rows: dict[str, dict] = {}
    while len(rows) < NOTES:
        kind = list(KINDS)[len(rows) % len(KINDS)]
        row = _note(rng, known, kind)
        rows.setdefault(row["key"], row)
    return list(rows.values())


def _note(rng: random.Random, pool: Pool, kind: str) -> dict:
    keys, template = KINDS[kind]
    start, goal = rng.sample(pool.cities, 2)
    values = {
        "item": rng.choice(pool.items),
        "count": rng.randint(2, 60),
        "who": rng.choice(pool.first_names),
        "city": start,
        "from": start,
        "to": goal,
        "date": f"{rng.randint(1, 28)} {rng.choice(MONTHS)}",
    }
    note = template.format(**values)
    question = f"{' and '.join(keys).capitalize()} as JSON: {note}."
    answer = json.dumps({key: values[key] for key in keys})
    messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages, "answer": answer, "family": kind, "key": f"note/{note}"}


def messy_parts(train: list[dict], golden: list[dict]) -> tuple[list[bytes], list[dict]]:
    """(the raw lines, the truth about each), of the messages to learn from and the notes."""
    return messy_lines(train + note_rows(), golden, RECIPE)
