"""What the runs far from the reference say, read off by code: where the drifted policy begins, of
which kinds its batches are, and how much room its win rates leave for a difference.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from ftlib.core.paths import stand_in
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9.experiments import FAR_BETA, LOOSE, point_arm
from ftlib.course.lab_3_1_9.measures import asked_rows, first_answers
from ftlib.course.lab_3_1_9.reference_points import RIGHT
from ftlib.course.lab_3_1_9.sweeps import NOT_MEASURED, answers_table, has_manners
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose
from ftlib.course.world import facts_right, judge_style

DRIFTED = "drifted, before KTO"
KINDS = ("shorter rows", "longer rows")
MIDDLE = (0.1, 0.9)  # quantiles of a range
LITTLE_ROOM = 0.1  # of a win rate: less is named as little


# --- the batches before the first step ------------------------------------------------------------
def longer_batches(lengths: np.ndarray) -> np.ndarray:
    """Which batches have the longer rows, (seeds, batches): each seed's, which go from short rows
    to long ones, are parted where the lengths have their widest gap.
    """
    first_longer = np.diff(lengths, axis=1).argmax(axis=1) + 1  # (seeds,)
    places = np.arange(lengths.shape[1])
    return places[None, :] >= first_longer[:, None]


def _by_kind(result: Result) -> dict[str, dict[str, np.ndarray]]:
    """{kind: {metric: one value a batch}} of all seeds, and "share": batches per run."""
    arm = point_arm(RIGHT)
    is_longer = longer_batches(result.values(arm, "lengths"))
    found = {}
    for kind, chosen in zip(KINDS, (~is_longer, is_longer), strict=True):
        metrics = {}
        for metric in ("lengths", "z0_before", "pull_right", "pull_zero"):
            metrics[metric] = result.values(arm, metric)[chosen]
        metrics["count"] = chosen.sum(axis=1)
        found[kind] = metrics
    return found


def kinds_line(result: Result) -> str:
    """z0 before the first step, of the batches of shorter and of longer rows each."""
    if not result.has(point_arm(RIGHT)):
        return NOT_MEASURED
    beta = result.settings(point_arm(RIGHT))["beta"]
    texts = []
    for kind, metrics in _by_kind(result).items():
        z0 = metrics["z0_before"]
        low, high = np.quantile(z0, MIDDLE)
        texts.append(
            f"in the {metrics['count'].mean():.0f} batches of {kind} a run has, z0 is "
            f"{z0.mean():.1f} nats on average (middle 80%: {low:.1f} to {high:.1f}), so that β·z0 "
            f"is {beta * z0.mean():.1f}"
        )
    return (
        f"{whose(result)}Far, before the first step: {'; '.join(texts)}. The two kinds are split "
        "where the lengths of a run's batches have their widest gap."
    )


def lengths_table(result: Result) -> list[dict[str, str]]:
    """The batches before the first step, of shorter and of longer rows: z0, and the pull with the
    right z0 and with 0, in per cent of what a row is pulled at where the slope is steepest.
    """
    arm = point_arm(RIGHT)
    if not result.has(arm):
        return [{"batches": NOT_MEASURED}]
    steepest = result.settings(arm)["beta"] / 4 * result.profile.preference.batch  # of a batch
    table = []
    for kind, metrics in _by_kind(result).items():
        z0 = metrics["z0_before"]
        low, high = np.quantile(z0, MIDDLE)
        table.append(
            {
                "batches per run": f"{metrics['count'].mean():.0f} of {kind}",
                "tokens per row": f"{metrics['lengths'].mean():.0f}",
                "z0, mean (nats)": f"{z0.mean():.1f}",
                "z0, middle 80%": f"{low:.1f} to {high:.1f}",
                "mean pull, z0 right": f"{metrics['pull_right'].mean() / steepest:.0%}",
                "mean pull, z0 always 0": f"{metrics['pull_zero'].mean() / steepest:.0%}",
            }
        )
    return table


# --- where the runs begin, and how far they can come ----------------------------------------------
def wins_before(result: Result) -> np.ndarray:
    """Win rate over the start of the drifted policies themselves, one a seed."""
    arm = point_arm(RIGHT)
    entries = result.record.entries
    return np.array([entries[arm, seed].metrics["wins_before"] for seed in result.seeds])


def drift_line(result: Result) -> str:
    """Where the runs begin: the drifted policies' wins with their range over seeds, and z0."""
    if not result.has(point_arm(RIGHT)):
        return NOT_MEASURED
    wins = wins_before(result)
    return (
        f"{kinds_line(result)} Before KTO the drifted policy wins {wins.mean():.0%} against the "
        f"start on average, between {wins.min():.0%} and {wins.max():.0%} over the seeds."
    )


def far_table(result: Result, start: Mapping[str, float] | None) -> list[dict[str, str]]:
    """The answers of all arms, with a row for the policies that they begin with."""
    table = answers_table(result, result.arms, start)
    if start is None or not result.has(point_arm(RIGHT)):
        return table
    wins = wins_before(result)
    own = dict.fromkeys(table[0], "not recorded")
    own["run"] = DRIFTED
    own["win rate"] = f"{wins.mean():.0%} ({wins.min():.0%} to {wins.max():.0%})"
    return [table[0], own, *table[1:]]


def draw_drifted(ax: Axes, result: Result) -> None:
    """One more column in a figure of the arms' win rates: the policies before KTO, a cross a seed,
    a line for their mean.
    """
    if not result.has(point_arm(RIGHT)):
        return
    wins: np.ndarray = 100 * wins_before(result)
    place = len(result.arms)
    ax.plot(np.linspace(place - 0.12, place + 0.12, len(wins)), wins, "x", color="black")
    ax.hlines(wins.mean(), place - 0.3, place + 0.3, color="black")
    ax.set_xticks(range(place + 1), [*result.arms, DRIFTED])
    ax.set_xlim(-0.6, place + 0.6)


def most_wins(profile: Profile) -> float | None:
    """The win rate of answers that are all polite and right, against the start's on the test
    questions: a tie wherever the start's own is. None where answers have no manners, or where the
    profile's model is not here (FTLIB_MODEL).
    """
    rows = asked_rows(profile, "test")
    if not has_manners(profile) or stand_in(profile.model, given=False) != profile.model:
        return None
    ties = 0
    for row, answer in zip(rows, first_answers(profile, "test"), strict=True):
        ties += judge_style(answer) == "polite" and facts_right(answer, row["facts"])
    return 1 - ties / len(rows) / 2


def room_line(result: Result, most: float | None) -> str:
    """How far the arms' win rates are from the highest that there can be."""
    if not result.arms or most is None:
        return f"The highest win rate that answers can reach: {NOT_MEASURED}."
    wins = [result.means(arm, "wins").mean() for arm in result.arms]
    room = most - max(wins)
    text = (
        f"{whose(result)}Answers that are all polite and right would win {most:.0%} and no more, "
        f"since {2 * (1 - most):.0%} of the start's own are polite and right, which are ties then. "
        f"The arms end between {min(wins):.0%} and {max(wins):.0%}: {100 * room:.0f} points of room"
        " above the best."
    )
    if room < LITTLE_ROOM:
        text += (
            " So near the ceiling there is little room for a difference, and finding none says "
            "little."
        )
    return text


# --- the close ------------------------------------------------------------------------------------
def closing_line(usual: Result, far: Result) -> str:
    """What the section has shown of finding a wrong z0, by the outcomes of its comparisons."""
    if not usual.has(LOOSE) or not far.arms:
        return NOT_MEASURED
    near = usual.outcome("usual, zero")
    wins = far.outcome("far, zero")
    pulls = [far.outcome(name) for name in ("far, flat", "far, balance")]
    if "open" in (near, wins, *pulls):
        return "Too few seeds ran for a conclusion on how a wrong z0 is found."
    same = usual.means(LOOSE, "z0_at_0").mean()
    said = " ".join((_near_text(near, same), _far_text(wins), _pulls_text(pulls), LESSON))
    return f"{whose(far)}{said[0].lower() + said[1:]}" if far.shown_in else said


LESSON = (
    "So a win rate that does not fall is no proof of a right z0. The table on paper and a unit "
    "test on the loss find such a bug without any training."
)


def _near_text(outcome: str, same: float) -> str:
    if outcome == "none":
        return (
            f"Near the reference the win rate did not find z0 = 0: in {same:.0%} of the steps the "
            "right loss and the wrong one are the same."
        )
    return "Already near the reference the win rate told z0 = 0 from the right one."


def _far_text(outcome: str) -> str:
    return {
        "none": (
            f"Far from it, at β = {FAR_BETA:g}, the win rate did not find it either, with the room "
            "that it had."
        ),
        "below": f"Far from it, at β = {FAR_BETA:g}, the wrong z0 won less.",
        "above": (
            f"Far from it, at β = {FAR_BETA:g}, the wrong z0 even won more: the win rate does not "
            "say which loss is the right one."
        ),
    }[outcome]


def _pulls_text(outcomes: list[str]) -> str:
    if all(outcome == "none" for outcome in outcomes):
        return "Nor do the two differ in how they divide the pull on the very same rows."
    return "What tells the two apart is how they divide the pull on the very same rows."
