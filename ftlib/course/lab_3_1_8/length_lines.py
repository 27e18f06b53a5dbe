"""What sums and means did on lab 3.1.8's pairs of unequal length, in words by the numbers."""

from __future__ import annotations

import numpy as np

from ftlib.core.stats import Interval, paired_difference
from ftlib.course.lab_3_1_8.length import weights_of
from ftlib.course.lab_3_1_8.lines import SORTS, not_run
from ftlib.course.open_answers import sentences
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose

ARMS = ("means", "sums", "sums, small β")


def _recorded(result: Result, arm: str, name: str) -> list:
    """What every run of the arm left under this name."""
    return [result.record.entries[arm, seed].metrics[name] for seed in result.record.seeds_of(arm)]


def _share(interval: Interval) -> str:
    """A share in percent; without bounds where all seeds agree."""
    same = interval.low == interval.high
    return f"{100 * interval.mean:.0f}%" if same else interval.as_share()


# --- who is taught --------------------------------------------------------------------------------
def _weights_by_length(result: Result, arm: str) -> tuple[float, float]:
    """Mean weight before training of the pairs whose chosen answer is the longer one, and of those
    whose chosen answer is the shorter.
    """
    settings = result.settings(arm)
    by_seed = []
    for margins, longer, lengths in zip(
        _recorded(result, arm, "margins_before"),
        _recorded(result, arm, "longer"),
        _recorded(result, arm, "lengths"),
        strict=True,
    ):
        tokens = float(np.mean(lengths)) if settings.get("is_scaled") else 1.0
        beta = settings["beta"] / tokens
        weights = weights_of(np.array(margins), beta, settings["ratio"] * tokens)
        is_longer = np.array(longer) > 0
        is_shorter = np.array(longer) < 0
        by_seed.append((weights[is_longer].mean(), weights[is_shorter].mean()))
    longer_mean, shorter_mean = np.mean(by_seed, axis=0)
    return float(longer_mean), float(shorter_mean)


def weights_line(result: Result) -> str:
    """Whom each arm teaches before the first step: r with length, and the mean weights."""
    if not result.arms:
        return result.why
    texts = []
    for arm in result.arms:
        longer, shorter = _weights_by_length(result, arm)
        texts.append(
            f"with {arm} {longer:.3g} where the chosen answer is the longer one and {shorter:.3g} "
            f"where it is the shorter (r of weight and length {result.interval(arm, 'weight')})"
        )
    return f"{whose(result)}Mean weight of a pair before training: {'; '.join(texts)}."


# --- what the answers became ----------------------------------------------------------------------
def ratios_line(result: Result) -> str:
    """Whether the arms whose weights favour the longer answer most also write the longest texts."""
    if not all(result.has(arm) for arm in ARMS):
        return not_run(result, *ARMS)
    ratios = {}
    words = {}
    for arm in ARMS:
        longer, shorter = _weights_by_length(result, arm)
        ratios[arm] = longer / shorter
        words[arm] = float(result.means(arm, "words").mean())
    by_weight = sorted(ARMS, key=ratios.__getitem__)
    listed = "; ".join(f"{arm} {ratios[arm]:.2g} and {words[arm]:.3g} words" for arm in by_weight)
    line = f"{whose(result)}Weight where the chosen answer is longer over where it is shorter: "
    line += f"{listed}."
    by_words = sorted(ARMS, key=words.__getitem__)
    if by_weight != by_words:
        return f"{line} The orders differ: the weights alone do not explain the words."
    line += (
        " The order is the same: that fits length getting in through the weights, but three arms "
        "are no proof."
    )
    links = {arm: float(result.means(arm, "weight").mean()) for arm in ARMS}
    by_link = sorted(ARMS, key=links.__getitem__)
    if by_link != by_words:
        line += " The correlation of weight and length does not have this order."
    return line


def excess_line(result: Result) -> str:
    """How much of the sums' effect on words is left when a smaller β takes the scale away."""
    if not all(result.has(arm) for arm in ARMS):
        return not_run(result, *ARMS)
    means, sums, scaled = ARMS
    whole = paired_difference(result.means(sums, "words"), result.means(means, "words"))
    left = paired_difference(result.means(scaled, "words"), result.means(means, "words"))
    faults = paired_difference(result.means(scaled, "faults"), result.means(means, "faults"))
    share = left.mean / whole.mean
    shown = "more" if faults.low > 0 else "fewer" if faults.high < 0 else ""
    by_faults = f"{shown} than with means" if shown else "no difference to means is shown"
    return (
        f"{whose(result)}"
        f"Words over means: sums {whole.mean:+.3g}, sums with a small β {left.mean:+.3g}, "
        f"{share:.0%} of it; the rest went with the scale. Faults of sums with a small β over "
        f"means: {faults}, {by_faults}."
    )


def answer_rows(result: Result) -> list[dict[str, str]]:
    """A table's rows: words and faults by sort of each arm, how many of its recorded answers are
    cut off by the cap on tokens or repeat a sentence, and one of them.
    """
    rows = []
    for arm in result.arms:
        count, cut, repeating = _counted(result, arm)
        row = {"arm": arm}
        for metric, text in {"words": "words", "faults": "faults", **SORTS}.items():
            row[text] = f"{result.means(arm, metric).mean():.2f}"
        row["cut off"] = f"{cut} of {count}"
        row["repeat a sentence"] = f"{repeating} of {count}"
        row["the second answer of one run"] = result.sample(arm, "answers")[1]
        rows.append(row)
    return rows


def _counted(result: Result, arm: str) -> tuple[int, int, int]:
    """Recorded answers of the arm; how many are cut off by the cap, and how many say a sentence
    twice.
    """
    answers = [text for texts in _recorded(result, arm, "answers") for text in texts]
    cut = sum(not text.rstrip().endswith(".") for text in answers)
    repeating = 0
    for text in answers:
        said = sentences(text)
        repeating += len(set(said)) < len(said)
    return len(answers), cut, repeating


def loops_line(result: Result) -> str:
    """Whether the longer texts of sums are fuller answers or sentences said again and again."""
    if not all(result.has(arm) for arm in ARMS):
        return not_run(result, *ARMS)
    means, sums, _ = ARMS
    count, cut, repeating = _counted(result, sums)
    faults = float(result.means(sums, "faults").mean())
    of_means = float(result.means(means, "faults").mean())
    unwanted = float(result.means(sums, "unwanted").mean())
    line = (
        f"{whose(result)}"
        f"With sums {repeating} of {count} recorded answers say a sentence twice, and {cut} run "
        f"into the cap on tokens. They have {faults:.2f} faults, {unwanted:.2f} of them breaks of "
        f"form; with means there are {of_means:.2f}."
    )
    if repeating > count / 2 and faults > of_means:
        return f"{line} The longer texts are no fuller answers: most of them are loops."
    return line


def by_length_line(result: Result) -> str:
    """Shares of pairs that each score ranks right, before and after, by which answer is longer."""
    if not result.arms:
        return result.why
    texts = []
    for arm in result.arms:
        longer_before, shorter_before = _right_at_start(result, arm)
        longer = result.interval(arm, "accuracy_longer").as_share()
        shorter = result.interval(arm, "accuracy_shorter").as_share()
        idle = _share(result.interval(arm, "idle"))
        texts.append(
            f"with {arm} {longer} of the pairs whose chosen answer is longer ({longer_before} at "
            f"the start) and {shorter} of those whose chosen answer is shorter ({shorter_before}); "
            f"{idle} of the pairs began with a weight below 1%"
        )
    lead = f"{whose(result)}Ranked right after training, by each arm's own score"
    return f"{lead}: {'. And '.join(texts)}."


def _right_at_start(result: Result, arm: str) -> tuple[str, str]:
    """Shares of pairs ranked right before training: chosen answer longer, and shorter."""
    longer_right = []
    shorter_right = []
    for margins, longer in zip(
        _recorded(result, arm, "margins_before"), _recorded(result, arm, "longer"), strict=True
    ):
        is_right = np.array(margins) > 0
        difference = np.array(longer)
        longer_right.append(is_right[difference > 0].mean())
        shorter_right.append(is_right[difference < 0].mean())
    return f"{np.mean(longer_right):.0%}", f"{np.mean(shorter_right):.0%}"
