"""What the runs of lab 3.1.9 learn from and are judged on: judgements in three forms, and of the
people that no run has met some for the choice of settings and others for the comparison.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

from ftlib.core.profiles import Profile
from ftlib.course.records.kit import rows_of
from ftlib.data.feedback import imbalanced

VALIDATION_SHARE = 3  # every third subject of the test split serves the choice of settings


def subject(row: dict) -> str:
    """Whom a row is about: its `key`, else its question."""
    return row.get("key") or row["prompt"][-1]["content"]


def _drawn(rows: Iterable[dict], count: int, seed: int) -> list[dict]:
    """`count` rows in an order of their own for each seed; all where there are fewer."""
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    return rows[:count]


def pairs_to_train(profile: Profile, count: int, seed: int) -> list[dict]:
    """Pairs drawn for this seed."""
    return _drawn(rows_of(profile, "preferences"), count, seed)


def some_thumbs(profile: Profile, count: int, seed: int) -> list[dict]:
    """Loose thumbs drawn for this seed."""
    return _drawn(rows_of(profile, "feedback"), count, seed)


def other_thumbs(profile: Profile, past: int, count: int, seed: int) -> list[dict]:
    """`count` more loose thumbs: those that follow the `past` first ones of this seed's draw."""
    return some_thumbs(profile, past + count, seed)[past:]


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
    rows = imbalanced(rows_of(profile, "feedback"), ratio, ups=ups, seed=seed)
    return _drawn(rows, len(rows), seed)


def _held_out(profile: Profile) -> tuple[dict[str, list[dict]], dict[str, list[dict]]]:
    """The test split's rows by subject: for the choice of settings, and for the comparison."""
    by_subject: dict[str, list[dict]] = {}
    for row in rows_of(profile, "preferences_test"):
        by_subject.setdefault(subject(row), []).append(row)
    chosen = set(list(by_subject)[::VALIDATION_SHARE])
    validation = {name: rows for name, rows in by_subject.items() if name in chosen}
    test = {name: rows for name, rows in by_subject.items() if name not in chosen}
    return validation, test


def _questions(by_subject: dict[str, list[dict]], wanted: int) -> tuple[dict, ...]:
    """As many rows as are wanted: the first about every subject, then the second, and so on."""
    rounds = itertools.zip_longest(*by_subject.values())
    rows = [row for rows in rounds for row in rows if row is not None]
    return tuple(rows[:wanted])


def validation_rows(profile: Profile) -> tuple[dict, ...]:
    """Questions on which settings are chosen."""
    validation, _ = _held_out(profile)
    return _questions(validation, profile.preference.prompts)


def test_rows(profile: Profile) -> tuple[dict, ...]:
    """Questions about others, on which methods are compared."""
    _, test = _held_out(profile)
    return _questions(test, profile.preference.prompts)
