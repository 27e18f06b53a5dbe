"""What lab E5's runs say, as lines and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from ftlib.core.stats import share_interval
from ftlib.course.lab_e5.benchmarks import right_answers
from ftlib.course.lab_e5.judge_trials import MANY_FLIPS
from ftlib.course.lab_e5.leak_trials import LEVEL
from ftlib.course.lab_e5.names import (
    BYTES_JUDGE,
    FAIR,
    FIRST,
    LONGER,
    NOTHING,
    REWORDED,
    SHARES,
    leak_arm,
)
from ftlib.course.records import figures
from ftlib.course.records.live import Result
from ftlib.evaluation.multiple_choice import ChoiceScores

CHANCE = 0.25  # of a question with four choices
MOST = 0.5  # of the seeds


def scores_table(scores: Mapping[str, tuple[ChoiceScores, ChoiceScores]]) -> list[dict]:
    """Benchmarks before and after: shares right with Wilson's interval."""
    rows = []
    for name, (before, after) in scores.items():
        rows.append(
            {
                "benchmark": name,
                "questions": len(before),
                "acc before": _share(before.acc),
                "acc after": _share(after.acc),
                "acc_norm before": _share(before.acc_norm),
                "acc_norm after": _share(after.acc_norm),
            }
        )
    return rows


def _share(interval) -> str:
    return f"{interval.mean:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def paired_table(scores: Mapping[str, tuple[ChoiceScores, ChoiceScores]], mcnemar_p) -> list[dict]:
    """For each benchmark the questions that one of both alone has right, and McNemar's p."""
    rows = []
    for name, (before, after) in scores.items():
        old = right_answers(before)
        new = right_answers(after)
        pairs = list(zip(old, new, strict=True))
        rows.append(
            {
                "benchmark": name,
                "right only before": sum(a and not b for a, b in pairs),
                "right only after": sum(b and not a for a, b in pairs),
                "both": sum(a and b for a, b in pairs),
                "neither": sum(not a and not b for a, b in pairs),
                "p (McNemar, exact)": f"{mcnemar_p(old, new):.2g}",
            }
        )
    return rows


def forms_line(by_form: Mapping[str, ChoiceScores]) -> str:
    """The same facts in several forms: the score of each against chance."""
    texts = []
    for name, scores in by_form.items():
        acc = scores.acc
        beyond = "beyond chance" if acc.low > CHANCE else "not beyond chance"
        texts.append(f"{name} **{acc.mean:.0%}** [{acc.low:.0%}, {acc.high:.0%}], {beyond}")
    return (
        f"{'; '.join(texts)}. The facts are the same in all of them; whether the model shows them "
        "depends on the form."
    )


def best_form(by_form: Mapping[str, ChoiceScores]) -> str:
    """The name of the form with the highest share right."""
    return max(by_form, key=lambda name: by_form[name].acc.mean)


# --- leaks ----------------------------------------------------------------------------------------
def leak_table(result: Result) -> list[dict]:
    """What each arm scores, mean over seeds."""
    rows = []
    for arm in result.arms:
        leaked = result.means(arm, "leaked").mean()
        rows.append(
            {
                "training rows": arm,
                "score": f"{result.means(arm, 'score').mean():.0%}",
                "leaked questions": f"{leaked:.0%}" if leaked else "–",
                "the others": f"{result.means(arm, 'rest').mean():.0%}",
                "in other words": f"{result.means(arm, 'reworded').mean():.0%}",
                "fresh twin": f"{result.means(arm, 'twin').mean():.0%}",
            }
        )
    return rows


def _points(gap: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    text = f"{100 * gap:+.0f}"
    return f"{text} {'point' if text in ('+1', '-1') else 'points'}"


def detection_table(result: Result) -> list[dict]:
    """What each of the two checks finds: n-grams in the rows, and the gap to the twin."""
    rows = []
    for arm in result.arms:
        found = result.means(arm, "gap_found")
        rows.append(
            {
                "training rows": arm,
                "planted rows found by n-grams": f"{result.means(arm, 'overlap').mean():.0%}",
                "other rows accused": f"{result.means(arm, 'accused').mean():.1%}",
                "gap to the twin": _points(result.means(arm, "gap").mean()),
                f"runs with p < {LEVEL}": f"{found.sum():.0f} of {len(found)}",
            }
        )
    return rows


def leak_answer(result: Result) -> str:
    """ "u", "d" or "n": what the leak does to the score; "?" where it is open."""
    return {"above": "u", "below": "d", "none": "n"}.get(result.outcome("leak"), "?")


def who_sees_rewording(result: Result) -> str:
    """Which checks notice the leak in other words, in most seeds: "n" n-grams, "p" a paraphrase on
    which the score falls, "t" the gap to the twin.
    """
    seen = ""
    if result.means(REWORDED, "overlap").mean() > MOST:
        seen += "n"
    falls = result.means(REWORDED, "score") > result.means(REWORDED, "reworded")
    if falls.mean() > MOST:
        seen += "p"
    if result.means(REWORDED, "gap_found").mean() > MOST:
        seen += "t"
    return seen or "none"


def draw_leaks(result: Result, axes: Sequence[Axes]) -> None:
    """The score over the share that leaked, and beside it the twin's on the same scale."""
    places = {0.0: NOTHING, **{share: leak_arm(share) for share in SHARES}}
    titles = {"score": "The benchmark: more leaked, more right", "twin": "A fresh twin"}
    for ax, (metric, title) in zip(axes, titles.items(), strict=True):
        series = {title.partition(":")[0].lower(): places}
        figures.sweep(
            result, metric, series, title, "share of the benchmark that leaked", True, False, ax=ax
        )
        ax.axhline(100 * CHANCE, color="grey", linestyle=":", label="chance")
        ax.legend(fontsize="small")
    axes[1].set_ylim(axes[0].get_ylim())


def slope_line(result: Result) -> str:
    """A leaked question's worth beside what it would be if all were memorised."""
    most = 1 - CHANCE
    return (
        f"If every leaked question were answered right and no other better than by chance, the "
        f"slope would be {most:.2f}: from {CHANCE:.0%} to 100%. {result.conclude('dose')}"
    )


# --- judges ---------------------------------------------------------------------------------------
def judge_table(result: Result) -> list[dict]:
    """What the tools say of each judge, mean over seeds, and in how many judgings beyond chance."""
    rows = []
    for arm in result.arms:
        seeds = len(result.seeds)
        rows.append(
            {
                "judge": arm,
                "flips": f"{result.means(arm, 'flips').mean():.0%}",
                "advantage": f"{result.means(arm, 'advantage').mean():+.2f}",
                "found": f"{result.means(arm, 'place_found').sum():.0f} of {seeds}",
                "φ": f"{result.means(arm, 'slope').mean():+.2f}",
                "φ found": f"{result.means(arm, 'length_found').sum():.0f} of {seeds}",
                "win rate": f"{result.means(arm, 'raw').mean():.0%}",
                "at equal length": f"{result.means(arm, 'controlled').mean():.0%}",
                "by the rule": f"{result.means(arm, 'truth').mean():.0%}",
                "κ": f"{result.means(arm, 'kappa').mean():.2f}",
            }
        )
    return rows


def least_agreement(result: Result) -> str:
    """The judge whose mean κ with the rule is the lowest, by a short name."""
    short = {FAIR: "honest", FIRST: "first", LONGER: "longer", BYTES_JUDGE: "byte"}
    return short[min(result.arms, key=lambda arm: result.means(arm, "kappa").mean())]


def most_alarms(result: Result) -> str:
    """The check that accuses the honest judge most often: "a", "l" or "f"."""
    checks = {"a": "place", "l": "length", "f": "flips"}
    return max(checks, key=lambda letter: result.means(FAIR, checks[letter]).mean())


def alarm_table(result: Result) -> list[dict]:
    """Alarms of each check, mean over seeds."""
    heads = {
        "advantage, 95%": "place",
        "φ, 95%": "length",
        f"rule of thumb: more than {MANY_FLIPS:.0%} flips": "flips",
    }
    rows = []
    for arm in result.arms:
        row: dict[str, Any] = {"judge": arm}
        for head, metric in heads.items():
            row[head] = f"{result.means(arm, metric).mean():.1%}"
        rows.append(row)
    return rows


def own_judge_line(flips: float, advantage: float, kappa: float, pairs: int, said: str) -> str:
    """What the tools say of the profile's own model as a judge."""
    flipped = share_interval(round(flips * pairs), pairs)
    return (
        f"Of {pairs} pairs {flips:.0%} [{flipped.low:.0%}, {flipped.high:.0%}] flip with the "
        f"order; the advantage of the first place is {advantage:+.2f}, and κ with the choice in "
        f"the data {kappa:.2f}. {said}"
    )
