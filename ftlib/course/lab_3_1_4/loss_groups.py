"""Which training rows lift the loss of a step: encoded rows in groups."""

from __future__ import annotations

from collections.abc import Sequence

from ftlib.course.lab_3_1_4.loop import answer_tokens

OPEN = "about"  # the family of open requests, which have many good answers
SHORT = 4  # tokens of an answer, its stop included


def groups_of(rows: Sequence[dict], encoded: Sequence[dict]) -> dict[str, list[dict]]:
    """{name: encoded rows}: open requests and all others by the length of their answers; by family
    where there are no open requests.
    """
    if not any(row.get("family") == OPEN for row in rows):
        by_family: dict[str, list[dict]] = {}
        for row, ids in zip(rows, encoded, strict=True):
            by_family.setdefault(f"`{row.get('family', 'all')}`", []).append(ids)
        return by_family
    short, longer = f"others, up to {SHORT} tokens", "others, longer"
    groups: dict[str, list[dict]] = {"open requests": [], short: [], longer: []}
    for row, ids in zip(rows, encoded, strict=True):
        if row.get("family") == OPEN:
            groups["open requests"].append(ids)
        else:
            groups[short if answer_tokens([ids]) <= SHORT else longer].append(ids)
    return {name: group for name, group in groups.items() if group}
