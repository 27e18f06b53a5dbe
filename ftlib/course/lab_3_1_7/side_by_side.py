"""Numbers of lab 3.1.7 that must be read beside each other, in words that the numbers choose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import shorten
from typing import Any

import numpy as np

from ftlib.core.stats import Interval, mean_interval
from ftlib.course.lab_3_1_7.measures import asked_rows
from ftlib.course.lab_3_1_7.starts import TEST
from ftlib.course.open_answers import sentences
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose

PROMPT = 400  # characters of a prompt that are shown,
ANSWER = 300  # and of an answer in a table


def points(difference: Interval) -> str:
    """A difference of shares, in percentage points."""
    low, high = 100 * difference.low, 100 * difference.high
    return f"{100 * difference.mean:+.2g} points [{low:.2g}, {high:.2g}]"


def told_apart(difference: Interval) -> str:
    """What an interval of a difference lets one say."""
    return "a difference" if difference.excludes(0) else "no difference shown"


def measures(result: Result, arm: str, metric: str) -> bool:
    """Whether the runs of this arm have this number: some cannot be counted in every profile."""
    runs = result.record.entries.values()
    return result.has(arm) and all(metric in run.metrics for run in runs if run.arm == arm)


def weight(beta: float, margin: float) -> float:
    """σ(−beta·margin): how much a pair with this margin, in nats, still pulls."""
    return 1 / (1 + math.exp(beta * margin))


def weight_line(result: Result, arms: Sequence[str]) -> str:
    """How far each beta has gone at its rate, and what its pairs weigh there."""
    if not all(result.has(arm) for arm in arms):
        return result.why
    texts = []
    for arm in arms:
        own = result.settings(arm)
        margin = result.interval(arm, "margin")
        texts.append(
            f"beta {own['beta']:g} at rate {own['lr']:.2g}: margin {margin} nats, "
            f"KL {result.interval(arm, 'kl')} nats, "
            f"weight at this margin {weight(own['beta'], margin.mean):.2g}, "
            f"at a margin of one nat {weight(own['beta'], 1.0):.2g}"
        )
    return (
        f"{whose(result)}Weights σ(−beta·margin), and where the runs end: {'; '.join(texts)}. "
        "Adam divides a gradient by its size, so that small weights do not by themselves make "
        "small steps: how far a run goes depends on the rate as much as on beta."
    )


def distance_line(result: Result) -> str:
    """By how much the right answers of the probe have moved in each arm, and which way."""
    if not result.arms:
        return result.why
    texts = []
    for arm in result.arms:
        texts.append(f"{arm}: {result.interval(arm, 'chosen')}")
    moved = [result.interval(arm, "chosen") for arm in result.arms]
    said = f"{whose(result)}Right answers, log π − log π_ref in nats: {'; '.join(texts)}. "
    if all(interval.low > 0 for interval in moved):
        return said + (
            "All are above 0: they have become more likely in every arm, so that a lower number is "
            "a smaller gain and not a loss."
        )
    if all(interval.high < 0 for interval in moved):
        return said + "All are below 0: they have become less likely in every arm."
    return said + "Not all lie on one side of 0: an arm may have lost where another has gained."


def cooler_line(sharpened: Result, methods: Result, drawn: str, arm: str) -> str:
    """The start drawn cooler beside a policy drawn at 1, both over the start at 1."""
    if not sharpened.has(drawn) or not methods.has(arm):
        return sharpened.why or methods.why
    cool = sharpened.interval(drawn, "win").as_share()
    trained = methods.interval(arm, "win").as_share()
    said = (
        f"{whose(sharpened)}"
        f"Beside it: the *untrained* start, drawn at {drawn}, wins {cool} over the start at T 1; "
        f"{arm}, drawn at T 1, {trained}."
    )
    pairs = sharpened.means(drawn, "win"), methods.means(arm, "win")
    if len(pairs[0]) != len(pairs[1]):
        return said
    apart = mean_interval(pairs[0] - pairs[1])
    if apart.low > 0:
        end = f"So cooling alone wins more than {arm} does at T 1, and costs no training."
    elif apart.high < 0:
        end = f"So cooling alone wins less than {arm} does at T 1."
    else:
        end = "No difference between the two is shown."
    return f"{said} The difference, seed by seed: {points(apart)}. {end}"


def faults_line(sharpened: Result, draws: Result) -> str:
    """Faults per answer at each temperature, beside those of the chosen answers; empty where faults
    cannot be counted.
    """
    arms = [arm for arm in sharpened.arms if measures(sharpened, arm, "faults")]
    rows = asked_rows(sharpened.profile, TEST)
    if not arms or not draws.arms or not all("chosen_faults" in row for row in rows):
        return ""
    chosen = float(np.mean([row["chosen_faults"] for row in rows]))
    at_one = mean_interval(draws.means("the start", "faults"))
    texts = [f"the start at T 1: {at_one}"]
    for arm in arms:
        name = f"the start at {arm}" if arm.startswith("T ") else arm
        texts.append(f"{name}: {sharpened.interval(arm, 'faults')}")
    fewer = [arm for arm in arms if sharpened.interval(arm, "faults").high < chosen]
    return (
        f"{whose(sharpened)}Faults per answer: {'; '.join(texts)}. The chosen answers of these "
        f"prompts have {chosen:.2f}. Fewer than those: {', '.join(fewer) or 'nobody'}. What goes "
        "away with the temperature is slips; what stays at the lowest one is mostly what a policy "
        "considers likely."
    )


def turn_line(result: Result, arm: str, other: str) -> str:
    """An arm's wins halfway and at the end, which one number for the end hides; `other` beside."""
    if not result.has(arm) or not result.has(other):
        return result.why
    wins = result.values(arm, "win by step")
    kls = result.values(arm, "kl by step").mean(0)
    half, end = mean_interval(wins[:, -2]), mean_interval(wins[:, -1])
    change = mean_interval(wins[:, -1] - wins[:, -2])
    fell = int((wins[:, -1] < wins[:, -2]).sum())
    beside = result.values(other, "win by step")
    said = (
        f"{whose(result)}"
        f"The path of the arm “{arm}”: {half.as_share()} halfway, at {kls[-2]:.2f} nats, and "
        f"{end.as_share()} at the end, at {kls[-1]:.2f}. End minus halfway: {points(change)}, "
        f"{told_apart(change)}; {fell} of {len(wins)} seeds fell. {other} over the same half: "
        f"{points(mean_interval(beside[:, -1] - beside[:, -2]))}."
    )
    if half.low > 0.5:
        said += (
            f" Halfway the interval lies above one half: then a part of {other}'s wins may be what "
            "both arms share. This was looked at afterwards, without correction for looking."
        )
    return said


def ranking_line(result: Result, arm: str) -> str:
    """What a policy's ranking of given pairs says of its own answers."""
    if not result.has(arm):
        return result.why
    win = result.interval(arm, "win")
    said = (
        f"{whose(result)}"
        f"{arm}: ranked right by ratio {result.interval(arm, 'right by ratio').as_share()}, by "
        f"log π {result.interval(arm, 'right by log p').as_share()}; its own answers win "
        f"{win.as_share()} over the start."
    )
    if win.high >= 0.5:
        return said
    return (
        f"{said} So ranking by log π itself, without the reference, is no measure of answers "
        "either: it compares two given answers, and says nothing of the probability that has gone "
        "to answers nobody compared."
    )


def closing_line(pairs: Sequence[dict], name: str) -> str:
    """Sentences of chosen and rejected answers: what makes the longer ones longer. Empty for pairs
    that are not from the embedded world.
    """
    if not all("facts" in pair for pair in pairs):
        return ""
    counts = {}
    for side in ("chosen", "rejected"):
        counts[side] = {len(sentences(pair[side][-1]["content"])) for pair in pairs}
    texts = []
    for side, found in counts.items():
        texts.append(f"{' or '.join(map(str, sorted(found)))} sentences in the {side} answers")
    said = f"{name}: {', '.join(texts)}."
    if min(counts["chosen"]) <= max(counts["rejected"]):
        return said
    return (
        f"{said} Every chosen answer has a closing sentence and no rejected one has: “longer” and "
        "“with a closing sentence” are one thing in these pairs."
    )


def shortened(text: str, most: int = PROMPT) -> str:
    """A prompt or an answer in one line of at most so many characters."""
    return shorten(text, most)


def answer_rows(shown: Sequence[tuple[Result, str]]) -> list[dict[str, Any]]:
    """A row of a table for each arm that has runs: its answer to the first held-out prompt, of the
    live run, else of the first seed.
    """
    rows = []
    for result, arm in shown:
        if not result.has(arm):
            continue
        seed = "live" if arm in result.live else result.seeds[0]
        answer = result.sample(arm, "samples")[0]
        rows.append({"model": arm, "seed": seed, "answer": shortened(answer, ANSWER)})
    return rows


def sample_line(result: Result, arm: str) -> str:
    """What one run of the arm answered to the first held-out prompt of its profile."""
    if not result.has(arm):
        return result.why
    prompt = asked_rows(result.profile, TEST)[0]["prompt"][-1]["content"]
    answer = result.sample(arm, "samples")[0]
    return (
        f"{whose(result)}“{shortened(prompt)}” is answered by the run “{arm}”: "
        f"*{shortened(answer, ANSWER)}*"
    )
