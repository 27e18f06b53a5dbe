"""Requests with many good answers, and a rule that judges two of them by their facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlib.core.profiles import Profile
from ftlib.course.world import facts_right
from ftlib.data.load import load_rows

EMBEDDED_PAIRS = "embedded"
REQUESTS = 40


def open_requests(profile: Profile) -> list[dict]:
    """Rows of the embedded world that ask about a person, each with the person's `facts`; none
    where the profile's data have no such rule.
    """
    if profile.preference.pairs != EMBEDDED_PAIRS:
        return []
    return load_rows("preferences_test", profile)[:REQUESTS]


def question_of(row: dict) -> str:
    return row["prompt"][-1]["content"]


def facts_judge(rows: Sequence[dict]) -> Callable[[str, str, str], float]:
    """A judge for `win_rate(a, b, judge, prompts)`: the answer that states the person's name, town
    and job wins over one that does not; else a tie. KeyError for a request that no row makes.
    """
    facts = {question_of(row): row["facts"] for row in rows}

    def judge(prompt: str, first: str, second: str) -> float:
        one = facts_right(first, facts[prompt])
        two = facts_right(second, facts[prompt])
        return 0.5 if one == two else float(one > two)

    return judge
