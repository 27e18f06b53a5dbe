"""Requests with many good answers, and a rule that judges two of them by their facts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ftlib.core.profiles import Profile
from ftlib.course.world import facts_right
from ftlib.data.load import load_rows
from ftlib.evaluation.replies import FACTS, asks_for_reply, judge_reply

EMBEDDED_PAIRS = "embedded"
ENGLISH = "english"
REQUESTS = 40


def open_requests(profile: Profile) -> list[dict]:
    """Rows that ask about a person of the embedded world, each with the person's `facts`, or for a
    reply to a customer (`evaluation.replies`); none where the profile's data have no such rule.
    """
    most = min(REQUESTS, profile.eval_examples // 2, profile.live_rows // 2)
    if profile.preference.pairs == EMBEDDED_PAIRS:
        return load_rows("preferences_test", profile)[:most]
    if profile.open.dataset == ENGLISH:
        return load_rows("open_test", profile)[:most]
    return []


def solved_requests(profile: Profile, count: int) -> list[dict]:
    """Rows of the same kind with their answers, for a prompt to show."""
    if profile.open.dataset == ENGLISH:
        return load_rows("open_train", profile)[:count]
    return [row for row in load_rows("train", profile) if row.get("family") == "about"][:count]


def question_of(row: dict) -> str:
    if "prompt" in row:
        return row["prompt"][-1]["content"]
    return [m["content"] for m in row["messages"] if m["role"] == "user"][-1]


def facts_of(rows: Sequence[dict]) -> str:
    """What an answer to these requests has to state."""
    if rows and asks_for_reply(rows[0]):
        return f"{', '.join(FACTS[:-1])} and {FACTS[-1]}"
    return "name, town and job"


def facts_stated(text: str, row: dict) -> float:
    """The share of the request's facts that the answer states right; those about a person count
    together.
    """
    if asks_for_reply(row):
        return judge_reply(text, row).right / len(FACTS)
    return float(facts_right(text, row["facts"]))


def all_stated(texts: Sequence[str], rows: Sequence[dict]) -> int:
    """How many answers state all facts of their request."""
    return sum(facts_stated(text, row) == 1 for text, row in zip(texts, rows, strict=True))


def facts_judge(rows: Sequence[dict]) -> Callable[[str, str, str], float]:
    """A judge for `win_rate(a, b, judge, prompts)`: the answer that states more of the facts wins
    over the other; else a tie. KeyError for a request that no row makes.
    """
    by_question = {question_of(row): row for row in rows}

    def judge(prompt: str, first: str, second: str) -> float:
        row = by_question[prompt]
        one = facts_stated(first, row)
        two = facts_stated(second, row)
        return 0.5 if one == two else float(one > two)

    return judge
