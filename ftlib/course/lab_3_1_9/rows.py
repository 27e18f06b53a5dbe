"""What the runs of lab 3.1.9 learn from and are judged on: judgements in three forms, people held
back for the choice of settings, and others for the comparison.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable

from ftlib.core.profiles import Profile
from ftlib.course.records.kit import rows_of
from ftlib.data.pairs import imbalanced

HELD_BACK = 24  # people, or prompts where rows name none, that only the choice of settings sees
QUESTIONS = 2  # about each of them


def subject(row: dict) -> str:
    """Whom a row is about: its `key`, else its question."""
    return row.get("key") or row["prompt"][-1]["content"]


@functools.cache
def held_back(profile: Profile) -> frozenset[str]:
    """The subjects that no run trains on: the last ones of the pairs."""
    subjects = list(dict.fromkeys(subject(row) for row in rows_of(profile, "preferences")))
    return frozenset(subjects[-HELD_BACK:])


def _drawn(rows: Iterable[dict], count: int, seed: int) -> list[dict]:
    """`count` rows in an order of their own for each seed; all where there are fewer."""
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows[:count]


def pairs_to_train(profile: Profile, count: int, seed: int) -> list[dict]:
    """Pairs drawn for this seed, none about a subject held back."""
    kept = held_back(profile)
    rows = [row for row in rows_of(profile, "preferences") if subject(row) not in kept]
    return _drawn(rows, count, seed)


def thumbs_to_train(profile: Profile) -> list[dict]:
    """All loose thumbs but those about a subject held back."""
    kept = held_back(profile)
    return [row for row in rows_of(profile, "feedback") if subject(row) not in kept]


def some_thumbs(profile: Profile, count: int, seed: int) -> list[dict]:
    """Loose thumbs drawn for this seed."""
    return _drawn(thumbs_to_train(profile), count, seed)


def shuffled_labels(rows: list[dict], seed: int) -> list[dict]:
    """The rows with their labels dealt anew: as many up and down as before."""
    labels = random.Random(seed).sample([row["label"] for row in rows], len(rows))
    return [{**row, "label": label} for row, label in zip(rows, labels, strict=True)]


def liked(rows: Iterable[dict]) -> list[dict]:
    """A conversation for each thumb up: what SFT on liked answers learns from."""
    found = []
    for row in rows:
        if row["label"]:
            found.append({"messages": [*row["prompt"], *row["completion"]]})
    return found


def uneven_thumbs(profile: Profile, ups: int, ratio: float, seed: int) -> list[dict]:
    """`ups` thumbs up, the same at every ratio, and `ratio` times as many down, in mixed order."""
    rows = imbalanced(thumbs_to_train(profile), ratio, ups=ups, seed=seed)
    return _drawn(rows, len(rows), seed)


def validation_rows(profile: Profile) -> tuple[dict, ...]:
    """Questions about each subject held back, at most `QUESTIONS`: settings are chosen on them."""
    kept = held_back(profile)
    asked: dict[str, dict[str, dict]] = {subject: {} for subject in sorted(kept)}
    for row in rows_of(profile, "preferences"):
        questions = asked.get(subject(row), {})
        if len(questions) < QUESTIONS:
            questions.setdefault(row["prompt"][-1]["content"], row)
    return tuple(row for questions in asked.values() for row in questions.values())


def test_rows(profile: Profile) -> tuple[dict, ...]:
    """Held-out questions on which methods are compared, spread over the split."""
    rows = rows_of(profile, "preferences_test")
    wanted = profile.preference.prompts
    return rows[:: max(1, len(rows) // wanted)][:wanted]
