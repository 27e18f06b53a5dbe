"""Sentences of lab 3.1.3 on what its records hold beside their claims. Differences are paired by
seed, with 95% t intervals of their own, adjusted for nothing; a reading follows where they allow
one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ftlib.core.stats import Interval, mean_interval, paired_difference
from ftlib.course.lab_3_1_3.answers import COPIED_RUN
from ftlib.course.open_answers import SENTENCES, sentence_pattern, sentences
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose

LONG = 512  # tokens of the rows to which an alpha is converted
PAPERS_ROWS = (
    f"The paper's rows are cut at {LONG} tokens and most of Alpaca's are far shorter, so this "
    "conversion overstates the distance from the paper's doses."
)
CURES = {
    "fast, noise": "noise",
    "half fast": "half the rate",
    "fast, short": "four epochs",
    "fast, dropout": "dropout",
}


def gap(result: Result, metric: str, one: str, other: str) -> Interval:
    """One arm less the other, paired by seed."""
    return paired_difference(result.means(one, metric), result.means(other, metric))


def in_a_line(text: str) -> str:
    """A text without its line breaks."""
    return " ".join(text.split())


def nats(value: float) -> str:
    """A change of a loss with its sign: two decimals, or one digit where these would be 0."""
    return f"{value:+.2f}" if abs(value) >= 0.01 else f"{value:+.1g}"


# --- the dose -------------------------------------------------------------------------------------
def at_length(alpha: float, length: float, other: float) -> float:
    """The alpha that treats a token in a row of `other` tokens as `alpha` does in one of `length`,
    by length alone.
    """
    return alpha * (other / length) ** 0.5


def dose_line(alpha: float, length: float, ratio: float, left: float) -> str:
    """How an alpha on these rows compares with the paper's. `ratio`: noise by embedding; `left`:
    share of the signal behind the first norm.
    """
    there = at_length(alpha, length, LONG)
    return (
        f"The dose: alpha {alpha:g} on rows of {length:.0f} tokens blurs a token as much as alpha "
        f"**{there:.0f}** would on rows of {LONG} (estimate, by length alone). "
        f"{PAPERS_ROWS} The noise has {ratio:.2f} times the embedding's norm, and {left:.0%} of "
        "the signal remains after the first norm."
    )


def compared_line(noises: Result, cures: Result) -> str:
    """Which doses of noise the two comparisons on test rows have, each at its own rate."""
    if not cures.arms:
        return cures.why
    noised = cures.settings("fast, noise")
    text = (
        f"{whose(cures)}Compared at the fast rate, {noised['lr']:.2g}: **alpha "
        f"{noised['alpha']:g}**, chosen above on validation rows, against no noise. No other alpha "
        "was run at this rate on test rows."
    )
    alphas = [f"{noises.settings(arm)['alpha']:g}" for arm in noises.arms if arm != "no noise"]
    if alphas:
        rate = noises.settings("no noise")["lr"]
        text += f" The figure before this one has alpha {', '.join(alphas)}, at the best rate, "
        text += f"{rate:.2g}."
    return text


# --- losses ---------------------------------------------------------------------------------------
def fits_line(cures: Result) -> str:
    """How closely each arm fits its own rows, and whether a looser fit goes with a better loss."""
    if not cures.arms:
        return cures.why
    levels = [f"{arm} {cures.means(arm, 'own_loss').mean():.3f}" for arm in cures.arms]
    looser = gap(cures, "own_loss", "fast, noise", "half fast")
    worse = gap(cures, "loss", "fast, noise", "half fast")
    text = (
        f"{whose(cures)}Mean loss on the rows trained on: {'; '.join(levels)}. Noise at the fast "
        f"rate minus no noise at the best rate: "
        f"{gap(cures, 'own_loss', 'fast, noise', 'best rate')} on these rows, "
        f"{gap(cures, 'loss', 'fast, noise', 'best rate')} on unseen requests; "
        f"minus no noise at half the fast rate: {looser} and {worse}."
    )
    if looser.low > 0 and worse.low > 0:
        text += " A looser fit than at half the rate, and a worse loss on unseen requests: "
        text += "looseness by itself is not what helps."
    return text


def taken_back_line(cures: Result) -> str:
    """What the fast rate costs, and how much of it each cure takes back."""
    if not cures.arms:
        return cures.why
    backs = [f"{name} **{gap(cures, 'loss', 'fast', arm)}**" for arm, name in CURES.items()]
    return (
        f"{whose(cures)}In one sentence: beside the best rate the fast one costs "
        f"{gap(cures, 'loss', 'fast', 'best rate')} nats per token, of which are taken back by "
        f"{'; by '.join(backs)}."
    )


def penalty_line(noises: Result, answers: Result) -> str:
    """What noise does to the loss on the rows trained on, without and after training under it."""
    if not (noises.arms and answers.arms):
        return noises.why or answers.why
    untrained = noises.interval("no noise", "own_rise")
    fast = answers.interval("fast, noise", "own_rise")
    if noises.profile.name != answers.profile.name or not noises.has("alpha 10"):
        return (
            f"In {noises.profile.name}, noise on the rows trained on changes their loss by "
            f"{untrained} where training had none; in {answers.profile.name}, by {fast} after "
            "training with noise at the fast rate."
        )
    trained = noises.interval("alpha 10", "own_rise")
    text = (
        f"{whose(noises)}The same noise on the rows trained on changes their loss by "
        f"{untrained} where training had none, by {trained} after training at alpha 10, and by "
        f"{fast} after training with noise at the fast rate."
    )
    if trained.high < 0 and fast.high < 0:
        text += " Trained under noise, the model reads noised training rows *better* than clean "
        text += "ones: training has removed the penalty, and more."
    return text


def unshifted_line(controls: Result) -> str:
    """Frozen noise that is tested without its shift, beside no noise."""
    if not controls.arms:
        return controls.why
    frozen = controls.means("fast, frozen", "loss_without_shift")
    less = paired_difference(frozen, controls.means("fast", "loss"))
    return (
        f"{whose(controls)}Test loss, frozen noise without its shift at test − no noise: {less} "
        "nats per token. Test loss, Gaussian − no noise: "
        f"{gap(controls, 'loss', 'fast, Gaussian', 'fast')}; uniform − no noise: "
        f"{gap(controls, 'loss', 'fast, noise', 'fast')}."
    )


def seconds_line(cures: Result) -> str:
    """What the noise costs in time."""
    if not cures.arms:
        return cures.why
    spent = {}
    for arm in ("fast", "fast, noise"):
        spent[arm] = [cures.record.entries[arm, seed].seconds for seed in cures.seeds]
    more = paired_difference(spent["fast, noise"], spent["fast"])
    return (
        f"{whose(cures)}Time: {np.mean(spent['fast, noise']):.2f} s per run with noise, "
        f"{np.mean(spent['fast']):.2f} s without (difference {more} s, on the machine that made "
        "the record)."
    )


# --- answers --------------------------------------------------------------------------------------
def _alphas(noises: Result) -> list[str]:
    """Of the arms with the paper's alphas those that have runs."""
    return [arm for arm in ("alpha 5", "alpha 10") if noises.has(arm)]


def best_rate_line(noises: Result) -> str:
    """What noise does to the answers at the best rate, at the largest alpha that was run."""
    alphas = _alphas(noises)
    if not alphas:
        return noises.why
    most = alphas[-1]
    score = gap(noises, "score", most, "no noise")
    text = (
        f"{whose(noises)}At the best rate, {most} − no noise: score {score}, right facts per "
        f"answer {gap(noises, 'right', most, 'no noise')}, wrong "
        f"{gap(noises, 'wrong', most, 'no noise')} (each interval by itself)."
    )
    if not score.excludes(0):
        text += " A price in the score is not shown there."
    return text


def runs_copied(result: Result, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Runs of words an answer that are copied, and that are not, means of every run (seeds,)."""
    words = result.values(arm, "words")  # (seeds, answers)
    runs = np.maximum(words - COPIED_RUN + 1, 0)
    copied = result.values(arm, "copied") * runs
    return copied.mean(1), (runs - copied).mean(1)


def copied_line(answers: Result) -> str:
    """Whether fewer runs are copied, or only a smaller share of more."""
    if not answers.arms:
        return answers.why
    with_noise, other_with = runs_copied(answers, "fast, noise")
    without, other_without = runs_copied(answers, "fast")
    fewer = paired_difference(with_noise, without)
    more = paired_difference(other_with, other_without)
    text = (
        f"{whose(answers)}Copied runs of five words per answer: {with_noise.mean():.2f} with "
        f"noise, {without.mean():.2f} without, difference {fewer}. "
        f"Runs that are not copied: {more} more."
    )
    if fewer.low <= 0 <= fewer.high and more.low > 0:
        text += " Fewer copied runs are not shown; what has grown is the rest. So the smaller "
        text += "share supports the paper's explanation weakly."
    return text


def rate_copies_line(answers: Result, noises: Result) -> str:
    """What the lower rate does to the share that is copied, beside what the noise does."""
    if not (noises.arms and answers.arms):
        return noises.why or answers.why
    if noises.profile.name != answers.profile.name:
        return (
            f"{noises.profile.name} has no runs at the fast rate, so what the rate does to the "
            "share that is copied is not measured there."
        )
    shared = [seed for seed in noises.seeds if seed in answers.seeds]
    best = [_mean_of(noises, "no noise", seed, "copied") for seed in shared]
    fast = [_mean_of(answers, "fast", seed, "copied") for seed in shared]
    noised = [_mean_of(answers, "fast, noise", seed, "copied") for seed in shared]
    text = (
        f"{whose(noises)}What the rate does to the share that is copied, without noise, best − "
        f"fast: {paired_difference(best, fast)} over the {len(shared)} seeds that both records "
        f"have; what the noise does on these: {paired_difference(noised, fast)}."
    )
    apart = paired_difference(best, noised)
    if not apart.excludes(0):
        text += f" The two are not shown to differ (difference {apart})."
    return text


def _mean_of(result: Result, arm: str, seed: int, metric: str) -> float:
    return float(np.mean(result.record.entries[arm, seed].metrics[metric]))


def speaks_of_another(text: str, name: str) -> bool:
    """Whether some sentence states a fact of the world about somebody or something else."""
    for forms in SENTENCES.values():
        for form in forms:
            pattern = sentence_pattern(form)
            for sentence in sentences(text):
                match = pattern.fullmatch(sentence)
                if match and match["e"] != name:
                    return True
    return False


def others_line(answers: Result, rows: Sequence[Mapping[str, Any]]) -> str:
    """How many of the answers that the record keeps speak of somebody else. `rows`: those that
    were asked, in their order.
    """
    if not answers.arms or "name" not in rows[0]:
        return answers.why
    shares = {}
    for arm in ("fast, noise", "fast"):
        found = []
        for seed in answers.seeds:
            kept = answers.record.entries[arm, seed].metrics["answers"]
            pairs = zip(kept, rows[: len(kept)], strict=True)
            found.append(np.mean([speaks_of_another(text, row["name"]) for text, row in pairs]))
        shares[arm] = np.array(found)
    more = paired_difference(shares["fast, noise"], shares["fast"])
    return (
        f"{whose(answers)}Of the few answers per run that the record keeps, "
        f"{shares['fast, noise'].mean():.0%} speak of somebody else with noise, "
        f"{shares['fast'].mean():.0%} without (difference {more}); such sentences cannot count as "
        "copied, since only the name asked about is left open."
    )


def length_line(answers: Result, noises: Result) -> str:
    """How much longer the answers get without those that the limit cut, and at the best rate."""
    if not (noises.arms and answers.arms):
        return noises.why or answers.why
    uncut = []
    for seed in answers.seeds:
        one = answers.record.entries["fast, noise", seed].metrics
        other = answers.record.entries["fast", seed].metrics
        whole = (np.array(one["cut"]) == 0) & (np.array(other["cut"]) == 0)
        uncut.append((np.array(one["words"]) - np.array(other["words"]))[whole].mean())
    more = [f"{gap(noises, 'words', arm, 'no noise')} at {arm}" for arm in _alphas(noises)]
    there = "At the best rate"
    if noises.profile.name != answers.profile.name:
        there = f"In {noises.profile.name}, at the best rate"
    return (
        f"{whose(answers)}In pairs where the limit cut neither answer: {mean_interval(uncut)} "
        "words. Cut answers, share with noise − without: "
        f"{gap(answers, 'cut', 'fast, noise', 'fast')}. {there}, words more than "
        f"without noise: {', '.join(more)}."
    )


def distinct_line(answers: Result) -> str:
    """The fourth panel in words."""
    if not answers.arms:
        return answers.why
    less = gap(answers, "distinct", "fast, noise", "fast")
    return (
        f"{whose(answers)}Distinct runs, fast rate, noise − no noise: {less}. The share falls "
        "with the amount of text by itself, so not all of this is less variety; the paper (§5) "
        "looks at pieces of equal length, and finds hardly any change."
    )


# --- all claims -----------------------------------------------------------------------------------
def outcomes(results: Sequence[Result]) -> str:
    """How many claims came out as expected, and all that did not."""
    as_expected = 0
    others = []
    for result in results:
        for decision in result.decisions().values() if result.arms else ():
            if decision.outcome == "open":
                continue
            if decision.as_expected:
                as_expected += 1
            else:
                others.append(f"- {whose(result)}{decision.figure}.")
    count = as_expected + len(others)
    lead = f"Of {count} claims that the runs decide, {as_expected} came out as expected."
    if any(result.shown_in for result in results):
        lead += " (Where this profile has no record, the runs are tiny's.)"
    if not others:
        return lead
    return "\n".join([f"{lead} **Not as expected:**", "", *others])
