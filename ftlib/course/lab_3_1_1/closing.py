"""The table that closes section 6: LoRA against full fine-tuning, under each condition."""

from __future__ import annotations

from typing import NamedTuple

from ftlib.course.records.live import Result

LEARNS = {"above": "LoRA learns less", "below": "LoRA learns more"}
FORGETS = {"above": "LoRA forgets more", "below": "LoRA forgets less"}
UNDECIDED = {"none": "no difference shown", "open": "too few seeds to say"}
IN_TINY = " (in tiny)"  # where the session's profile has no runs of its own


class Line(NamedTuple):
    """One comparison of the table: its claim, and what the table calls it."""

    claim: str
    compared: str
    condition: str
    words: dict[str, str]  # of its outcome


SHORT = (
    Line("learnt", "test loss", "each at its best rate", LEARNS),
    Line("forgotten", "forgotten", "each at its best rate", FORGETS),
    Line("forgotten at equal loss", "forgotten", "at about equal learning", FORGETS),
)
LONGER = (
    Line(
        "forgotten, slower",
        "forgotten",
        "three times the steps, full fine-tuning slower",
        FORGETS,
    ),
)


def closing_rows(short: Result, longer: Result) -> list[dict[str, str]]:
    """A row for each comparison that has runs: what was compared, under which condition, which way
    it came out (by the adjusted test), and LoRA − full with its 95% interval.
    """
    return [*_rows(short, SHORT), *_rows(longer, LONGER)]


def _rows(result: Result, lines: tuple[Line, ...]) -> list[dict[str, str]]:
    decisions = result.decisions()
    place = IN_TINY if result.shown_in else ""
    rows = []
    for line in lines:
        if line.claim not in decisions:
            continue
        decision = decisions[line.claim]
        row = {
            "compared": line.compared,
            "condition": line.condition + place,
            "outcome": {**line.words, **UNDECIDED}[decision.outcome],
            "LoRA − full, nats per token": str(decision.interval),
        }
        rows.append(row)
    return rows


def closing_line(rows: list[dict[str, str]]) -> str:
    """Whether the outcome on forgetting is the same under each condition of the table."""
    if not rows:
        return "None of this section's comparisons has runs here."
    own = [row for row in rows if not row["condition"].endswith(IN_TINY)]
    if own and len(own) < len(rows):
        return "The rows marked “in tiny” are of another model: compare rows of one model."
    found = {row["outcome"] for row in rows if row["compared"] == "forgotten"}
    if set(FORGETS.values()) <= found:
        return (
            "Whether LoRA forgets less or more depends on the condition: “LoRA forgets less” is "
            "true in one row of the table and false in another. Quote it with its condition."
        )
    if len(found) == 1:
        return f"On forgetting every condition says the same: {found.pop()}."
    return "On forgetting the conditions do not agree: quote an outcome with its condition."
