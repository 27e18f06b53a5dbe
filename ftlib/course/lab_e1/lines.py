"""What the experiments of lab E1 say, read off by code, and its own pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.core.stats import mean_interval, share_interval
from ftlib.course.lab_e1.calibration_error import bin_of
from ftlib.course.lab_e1.readings import DPO, FREE, HELD, at_kl
from ftlib.course.lab_e1.trials import course_of, fault_counter
from ftlib.course.plots import style
from ftlib.course.records.live import Result
from ftlib.data.rows import completion_text
from ftlib.training.run import Run

BINS = 5
ONE_POLICY = 1e-3  # nats per answer: a KL to the start below it is rounding
LETTERS = {"below": "d", "none": "n", "above": "u", "open": "?"}
PRETTY = {"wrong": "false facts", "missing": "left out", "unwanted": "unasked sentences"}


# --- reward models --------------------------------------------------------------------------------
def judges_table(result: Result) -> list[dict[str, str]]:
    """A row a reward model, means over seeds."""
    rows = []
    for arm in result.arms:
        rows.append(
            {
                "training": arm,
                "accuracy": result.interval(arm, "accuracy").as_share(),
                "mean confidence": result.interval(arm, "confidence").as_share(),
                "calibration error": result.interval(arm, "calibration error").as_share(),
            }
        )
    return rows


def reliability(gaps: np.ndarray) -> list[tuple[float, float, int]]:
    """(mean confidence, share right, pairs) of every bin of confidence that is not empty."""
    values = torch.as_tensor(gaps, dtype=torch.float64).flatten()
    likely = torch.sigmoid(values)
    confidence = torch.maximum(likely, 1 - likely)
    places = bin_of(confidence, BINS)
    points = []
    for number in range(BINS):
        inside = places == number
        if inside.any():
            right = (values[inside] > 0).double().mean().item()
            points.append((confidence[inside].mean().item(), right, int(inside.sum())))
    return points


def draw_reliability(result: Result, ax: Axes) -> Figure:
    """Share right over confidence, all seeds' held-out pairs together; the line is calibrated."""
    ax.plot([50, 100], [50, 100], ":", color="grey", label="calibrated")
    for i, arm in enumerate(result.arms):
        points = np.array(reliability(result.values(arm, "gaps")))
        ax.plot(100 * points[:, 0], 100 * points[:, 1], label=arm, **style(i))
    ax.set(
        title=f"Confidence and accuracy ({result.profile.name})",
        xlabel="confidence (%)",
        ylabel="held-out pairs ranked right (%)",
    )
    ax.legend(fontsize="small")
    return cast(Figure, ax.figure)


def differing(pairs: Sequence[dict]) -> dict[str, float]:
    """The share of the pairs in which the two answers differ in each sort of fault: what a judge
    of these pairs could have said something about.
    """
    found = {}
    for part, words in PRETTY.items():
        count = fault_counter(part)
        sides = []
        for side in ("chosen", "rejected"):
            texts = [completion_text(pair[side]) for pair in pairs]
            sides.append(count(list(pairs), texts))
        apart = [one != other for one, other in zip(*sides, strict=True)]
        found[words] = sum(apart) / len(apart)
    return found


# --- policies -------------------------------------------------------------------------------------
def hacked_line(result: Result) -> str:
    """In how many seeds the score rose and the truth fell without a price, and with one."""
    said = []
    for arm in (FREE, HELD):
        found = result.means(arm, "hacked")
        count = round(found.sum())
        share = share_interval(count, len(found))
        said.append(
            f"{arm}: **{count} of {len(found)} seeds** (share in [{share.low:.0%}, "
            f"{share.high:.0%}])"
        )
    return (
        f"Score above the start's and true reward below it, on held-out prompts: {'; '.join(said)}."
    )


def peak_line(result: Result) -> str:
    """Where the mean true reward of the rollouts without a price was highest, and how it ended."""
    course = result.values(FREE, "true on the way")
    means = course.mean(0)
    best = int(means.argmax())
    fall = mean_interval(course[:, -1] - course[:, best])
    return (
        f"Without the KL term the mean true reward of a rollout was highest in rollout {best + 1} "
        f"of {len(means)}, {means[best]:.2f}, and ended at {means[-1]:.2f}: a change of {fall}. "
        "(The highest of several means is a little too high by chance.)"
    )


def methods_table(result: Result) -> list[dict[str, str]]:
    """A row an arm: gains over the start, KL, and what the answers are like."""
    rows = []
    for arm in result.arms:
        rows.append(
            {
                "policy": arm,
                "rate": f"{result.settings(arm)['lr']:.2g}",
                "score gained": f"{result.interval(arm, 'proxy gain')}",
                "fewer faults": f"{result.interval(arm, 'true gain')}",
                "KL (nats)": f"{result.interval(arm, 'kl')}",
                "different answers": f"{result.means(arm, 'distinct').mean():.0%}",
            }
        )
    return rows


def faults_table(result: Result) -> list[dict[str, str]]:
    """A row an arm: each sort of faults in its first and in its last rollout or look."""
    rows = []
    for arm in result.arms:
        row = {"policy": arm}
        for part, words in PRETTY.items():
            course = result.values(arm, f"{part} on the way")
            row[words] = f"{course[:, 0].mean():.2f} → {course[:, -1].mean():.2f}"
        rows.append(row)
    return rows


def cost_table(result: Result) -> list[dict[str, str]]:
    """A row an arm: tokens through a model, and times PPO's with its price."""
    base = result.means(HELD, "passes").mean()
    rows = []
    for arm in result.arms:
        passes = result.means(arm, "passes")
        rows.append(
            {
                "policy": arm,
                "tokens through a model": f"{passes.mean():,.0f}",
                f"relative to {HELD}": f"{passes.mean() / base:.2f}",
                "seconds (where it was recorded)": f"{result.means(arm, 'seconds').mean():.0f}",
            }
        )
    return rows


def answer(result: Result, claim: str) -> str:
    """ "u", "d" or "n": up, down or no difference shown; "?" where it is open."""
    return LETTERS[result.outcome(claim)]


def draw_courses(result: Result, arms: Sequence[str]) -> Figure:
    """Score and true reward over the rollouts, and both over the distance gone: means over seeds
    with bands of 95%.
    """
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(10.2, 3.3))
    for i, arm in enumerate(arms):
        for ax, metric in ((left, "proxy on the way"), (middle, "true on the way")):
            _course(ax, result.values(arm, metric), arm, i)
        kls = result.values(arm, "kl on the way").mean(0)
        trues = result.values(arm, "true on the way").mean(0)
        right.plot(kls, trues, label=arm, **style(i))
    left.set(title="What it is paid for", xlabel="rollout", ylabel="reward model's score")
    middle.set(title="What was wanted", xlabel="rollout", ylabel="true reward (− faults)")
    right.set(title="Further is not better", xlabel="KL to the start (nats)", ylabel="true reward")
    left.legend(fontsize=7)
    plt.close(figure)
    return figure


def _course(ax: Axes, values: np.ndarray, name: str, i: int) -> None:
    """(seeds, rollouts) as a mean with a band."""
    xs = np.arange(1, values.shape[1] + 1)
    ax.plot(xs, values.mean(0), label=name, **style(i))
    if len(values) < 3:
        return
    bands = [mean_interval(column) for column in values.T]
    low = [band.low for band in bands]
    high = [band.high for band in bands]
    ax.fill_between(xs, low, high, color=style(i)["color"], alpha=0.15, linewidth=0)


def equal_kl_line(result: Result) -> str:
    """At which KL DPO is read off, and in how many seeds it has gone as far."""
    reached = 0
    gains = []
    for seed in result.seeds:
        dpo = result.record.entries[DPO, seed].metrics
        kl = result.record.entries[HELD, seed].metrics["kl"]
        reached += max(dpo["kl on the way"]) >= kl
        gains.append(at_kl(dpo, kl))
    kls = result.interval(HELD, "kl")
    return (
        f"{HELD} ends at a KL of {kls} nats. DPO passed it in {reached} of {len(gains)} seeds; in "
        "the others its last measurement is used. There DPO's true reward is "
        f"{np.mean(gains):+.2f} above the start's, PPO's "
        f"{result.means(HELD, 'true gain').mean():+.2f}."
    )


# --- live rollouts --------------------------------------------------------------------------------
def are_one_policy(runs: Mapping[str, Run]) -> bool:
    """Whether the policies of {way: run} are all still the start in their first rollout."""
    distances = [abs(course_of(run, "kl")[0]) for run in runs.values()]
    return max(distances) < ONE_POLICY


def highest_at_first(runs: Mapping[str, Run]) -> str:
    """The first letter of the way with the highest score in the first rollout; "s" where all ways
    still sample from one policy, so that their scores differ by chance alone.
    """
    if are_one_policy(runs):
        return "s"
    scores = {way: course_of(run, "reward")[0] for way, run in runs.items()}
    return max(scores, key=scores.__getitem__)[0]


def first_line(runs: Mapping[str, Run]) -> str:
    """The scores of the first rollout, the highest named, and whether chance explains it."""
    scores = {way: course_of(run, "reward")[0] for way, run in runs.items()}
    listed = ", ".join(f"{way} {score:.2f}" for way, score in scores.items())
    distance = max(abs(course_of(run, "kl")[0]) for run in runs.values())
    text = f"In the first rollout the scores are {listed}; {_highest_text(scores)}. "
    if are_one_policy(runs):
        return (
            f"{text}The KL to the start is at most {distance:.0e}: all still sample from the "
            "start, and the difference is chance (other prompts, other answers)."
        )
    return f"{text}The KL to the start is up to {distance:.2g}: they are no longer one policy."


def _highest_text(scores: Mapping[str, float]) -> str:
    """Which way has the highest score, or which share it, as two decimals show them."""
    highest = f"{max(scores.values()):.2f}"
    ways = [way for way, score in scores.items() if f"{score:.2f}" == highest]
    if len(ways) == 1:
        return f"the highest is that of {ways[0]}"
    return f"the highest is shared by {' and '.join(ways)}"
