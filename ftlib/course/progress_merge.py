"""Two records of progress as one: what both machines know, and nothing lost.

A record is a tree of dictionaries whose leaves are dates. The merge is a join: commutative,
associative and idempotent, so files may come in any order, any number of times, over any number of
machines, and all of them end with the same record.

- An exercise keeps the date of its first solution, and a hint or a solution that was asked for the
  date of the first time: the earlier of two.
- A reading is ticked off where its last tick is not older than its last untick (`unread`): the
  later of two, for each. Machines' clocks decide; in a tie the tick stays.
- Of keys that this version does not know, dictionaries and lists are united, and of two other
  values the one whose JSON is the greater as a text stays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

FIRST_DATES = ("exercises", "hints", "solutions")  # {lab: {exercise: date}}


def merge_records(one: dict, other: dict) -> dict:
    """The join of two records; neither is changed. Both have the shape of
    `ftlib.course.progress.parse_record`.
    """
    joined = _union(one, other, _join_unknown)
    for part in FIRST_DATES:
        if part in joined:
            joined[part] = _join_labs(one.get(part, {}), other.get(part, {}))
    read = _union(one.get("read", {}), other.get("read", {}), max)
    unread = _union(one.get("unread", {}), other.get("unread", {}), max)
    joined["read"] = {key: at for key, at in read.items() if at >= unread.get(key, "")}
    if "unread" in joined:
        joined["unread"] = unread
    return joined


def _union(one: dict, other: dict, join: Callable[[Any, Any], Any]) -> dict:
    """All keys of both; `join` where both have one."""
    joined = dict(one)
    for key, value in other.items():
        joined[key] = join(joined[key], value) if key in joined else value
    return joined


def _join_labs(one: dict, other: dict) -> dict:
    def earlier(a: dict, b: dict) -> dict:
        return _union(a, b, min)

    return _union(one, other, earlier)


# --- keys of other versions -----------------------------------------------------------------------
def _as_json(value) -> str:
    return json.dumps(value, sort_keys=True)


def _rank(value) -> int:
    """A dictionary goes before a list, and a list before what has no parts."""
    if isinstance(value, dict):
        return 2
    return 1 if isinstance(value, list) else 0


def _join_unknown(one, other):
    if _rank(one) != _rank(other):
        return max(one, other, key=_rank)
    if _as_json(one) == _as_json(other):
        return one
    if isinstance(one, dict):
        return _union(one, other, _join_unknown)
    if isinstance(one, list):
        parts = {_as_json(part): part for part in [*one, *other]}
        return [parts[text] for text in sorted(parts)]
    return max(one, other, key=_as_json)
