"""Replies to customers, judged by rules that run: what they state, and the house style.

A row that asks for a reply says in `reply` what is so: {"name": first name, "order": number,
"item": text, "step": one of `STEPS`, "days": number, "most_words": limit}. The prompt holds these
facts too, so a model need not know them. Checkable constraints in the manner of IFEval (Zhou et al.
2023, arXiv 2311.07911), with facts beside the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftlib.core.errors import DataError

# What may be done for a customer -> the words that say it.
STEPS: dict[str, tuple[str, ...]] = {
    "refund": ("refund", "money back"),
    "replacement": ("replacement", "replace", "new one"),
    "repair": ("repair", "fix"),
    "voucher": ("voucher", "gift card"),
}
FACTS = ("order", "item", "step", "days")
GREETINGS = ("Dear", "Hello", "Good morning", "Good evening", "Hi")
PROMISES = ("promise", "guarantee", "certainly", "definitely", "never again", "always")
KEYS = ("name", *FACTS, "most_words")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")


@dataclass(frozen=True)
class ReplyVerdict:
    """What is right and wrong about a reply."""

    right: int  # of the four facts: stated as they are
    wrong: int  # stated otherwise
    missing: int  # not stated
    style: int  # rules of style that are broken, of four
    repeated: int  # sentences that stand there twice
    sentences: int


def asks_for_reply(row: Mapping[str, Any]) -> bool:
    """Whether a row's answers are judged here."""
    return "reply" in row


def judge_reply(text: str, row: Mapping[str, Any]) -> ReplyVerdict:
    """The verdict on a reply.

    A fact is right if the reply names it and no other of its kind (another order number, number of
    days, or step), wrong if it names another, else missing. Style: it begins with a greeting and
    the customer's name, makes no promise (`PROMISES`), has at most `most_words` words, and ends
    with a question. DataError for a row without these.
    """
    wanted = row["reply"]
    lacking = [key for key in KEYS if key not in wanted]
    if lacking:
        raise DataError(f"reply={wanted!r} has no {lacking[0]!r}: {', '.join(KEYS)} are needed")
    stated = {
        "order": _named(re.findall(r"\b\d{5}\b", text), str(wanted["order"])),
        "item": "right" if wanted["item"].lower() in text.lower() else "missing",
        "step": _named(_steps(text), wanted["step"]),
        "days": _named(re.findall(r"\b(\d+) (?:working )?days?\b", text), str(wanted["days"])),
    }
    found = [part for part in _SENTENCE_END.split(text.strip()) if part]
    results = list(stated.values())
    return ReplyVerdict(
        right=results.count("right"),
        wrong=results.count("wrong"),
        missing=results.count("missing"),
        style=_style_faults(text, wanted),
        repeated=len(found) - len(set(found)),
        sentences=len(found),
    )


def _named(values: list[str], right: str) -> str:
    if not values:
        return "missing"
    return "right" if set(values) == {right} else "wrong"


def _steps(text: str) -> list[str]:
    """The steps that a text speaks of."""
    lowered = text.lower()
    named = []
    for step, words in STEPS.items():
        if any(re.search(rf"\b{word}", lowered) for word in words):
            named.append(step)
    return named


def _style_faults(text: str, wanted: Mapping[str, Any]) -> int:
    lowered = text.lower()
    greeting = rf"\s*(?:{'|'.join(GREETINGS)})\W+(?:\w+\W+)?{re.escape(wanted['name'])}\b"
    broken = [
        not re.match(greeting, text, re.IGNORECASE),
        any(re.search(rf"\b{word}", lowered) for word in PROMISES),
        len(text.split()) > wanted["most_words"],
        not text.rstrip().endswith("?"),
    ]
    return sum(broken)
