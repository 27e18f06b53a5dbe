"""Lines and tables over the records of lab 3.1.4 beside its claims: differences that were not
stated beforehand, with their intervals, which are neither tests nor conclusions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.core.stats import Interval, mean_interval
from ftlib.course.lab_3_1_4 import form_readings as form
from ftlib.course.lab_3_1_4 import form_trials, readings, trials
from ftlib.course.lab_3_1_4.marker_readings import UNTIED, marker_arm
from ftlib.course.records.live import Result

UNTESTED = "Looked at afterwards and not tested, each interval by itself"
COMPARED = (  # (what the table says, an arm, the arm it is compared with)
    ("own − other examples, in the prompt", form.OWN_SHOWN, form.OTHERS_SHOWN),
    ("three rows, trained − in the prompt", form.FEW_TRAINED, form.OWN_SHOWN),
    ("all rows − three in the prompt", form.ALL_TRAINED, form.OWN_SHOWN),
    ("all rows − three rows, trained", form.ALL_TRAINED, form.FEW_TRAINED),
    ("all rows − other families, trained", form.ALL_TRAINED, form.OTHERS_TRAINED),
    ("other families, trained − in the prompt", form.OTHERS_TRAINED, form.OTHERS_SHOWN),
)


def _gap(result: Result, metric: str, arm: str, other: str) -> Interval:
    """The metric of one arm − that of another, paired by seed."""
    return mean_interval(result.means(arm, metric) - result.means(other, metric))


def _factor(result: Result, arm: str, other: str) -> Interval | None:
    """How many times as much one arm forgets as the other, the geometric mean over seeds with its
    interval; None where a run of either forgets nothing and no factor exists.
    """
    mine = result.means(arm, "forgotten")
    others = result.means(other, "forgotten")
    if min(mine.min(), others.min()) <= 0:
        return None
    whole = mean_interval(np.log(mine / others))
    mean, low, high = np.exp([whole.mean, whole.low, whole.high])
    return Interval(float(mean), float(low), float(high))


def _forgets(result: Result, arm: str, other: str, than: str = "") -> str:
    """How many times as much one arm forgets as the other; the difference, where no factor
    exists.
    """
    factor = _factor(result, arm, other)
    if factor is None:
        more = f"forgets {_gap(result, 'forgotten', arm, other)} nats per token more"
        return f"{more} than {than}" if than else more
    shown = f"{factor.mean:.2g} [{factor.low:.2g}, {factor.high:.2g}]"
    times = f"forgets {shown} times as much"
    return f"{times} as {than}" if than else times


def _two_verdicts(result: Result, arm: str, other: str) -> str:
    """A note where the factor of what is forgotten shows what its difference does not."""
    factor = _factor(result, arm, other)
    if factor is None or not factor.excludes(1):
        return ""
    if _gap(result, "forgotten", arm, other).excludes(0):
        return ""
    return (
        " (The ratio excludes 1 and the tested difference does not exclude 0: they weigh the "
        "seeds differently. The ratio was looked at afterwards, so take it as a hint.)"
    )


def _has(result: Result, arms: Sequence[str]) -> bool:
    return all(result.has(arm) for arm in arms)


def _absent(result: Result, what: str) -> str:
    """Why there is no line: no record, or one that holds fewer arms."""
    return result.why or f"Not in the record of {result.profile.name}: {what}."


def whose(result: Result) -> str:
    """Which profile's runs a line speaks of, where the session has another."""
    return f"In {result.profile.name}: " if result.shown_in else ""


# --- markers --------------------------------------------------------------------------------------
def markers_line(result: Result) -> str:
    """What spare turns and a spare stop cost beside the tested numbers, and which arms are one."""
    own = marker_arm("own", "own")
    turns = marker_arm("spare", "own")
    stop = marker_arm("own", "spare")
    if not _has(result, (own, turns, stop, UNTIED)):
        return _absent(result, "the crossed markers")
    apart = _gap(result, "right", stop, turns)
    told = "" if apart.excludes(0) else ", no difference shown"
    losses = {}
    for name, arm in (("all own", own), ("spare turns", turns), ("spare stop", stop)):
        losses[name] = f"{name} {result.means(arm, 'loss').mean():.2f}"
    equal = 0
    for metric in ("right", "stopped"):
        pairs = zip(result.values(turns, metric), result.values(UNTIED, metric), strict=True)
        same = [bool(np.array_equal(one, other)) for one, other in pairs]
        equal += all(same)
    twins = "equal" if equal == 2 else "not equal"
    return (
        f"{whose(result)}{UNTESTED}. "
        f"Right answers, spare stop − spare turns: {apart}{told}; spare stop − all "
        f"own: {_gap(result, 'right', stop, own)}. Golden loss in nats per token: "
        f"{', '.join(losses.values())}; spare turns − all own {_gap(result, 'loss', turns, own)}. "
        f"The arm with the known output row and *{turns}* are {twins}, answer for answer, in what "
        f"is right and what ends, in all {len(result.seeds)} seeds."
    )


# --- words or families ----------------------------------------------------------------------------
def weighed_gap(
    alike: Mapping[str, Sequence[float]], golden: Mapping[str, Sequence[float]], draws: int = 1000
) -> Interval:
    """Right answers on other rows, {family: [0 or 1]}, weighed by the golden set's families − those
    on the golden set, over the families of both; the interval is a bootstrap over the questions
    within each family.
    """
    random = np.random.default_rng(0)
    both = [family for family in golden if family in alike]
    total = sum(len(golden[family]) for family in both)
    gaps = np.zeros(draws)
    mean = 0.0
    for family in both:
        weight = len(golden[family]) / total
        for sign, values in ((1, alike[family]), (-1, golden[family])):
            picked = random.choice(np.array(values), (draws, len(values)))
            gaps += sign * weight * picked.mean(1)
            mean += sign * weight * float(np.mean(values))
    low = float(np.quantile(gaps, 0.025))
    high = float(np.quantile(gaps, 0.975))
    return Interval(mean, low, high)


# --- form and content -----------------------------------------------------------------------------
def gains_line(result: Result) -> str:
    """What each arm alone gains over the bare base: overlapping parts, and no split."""
    if not _has(result, (form.BARE, form.ALL_TRAINED)):
        return _absent(result, "the gains over the bare base")
    parts = []
    for arm in result.arms:
        if arm != form.BARE:
            parts.append(f"{arm} {_gap(result, 'right', arm, form.BARE).percent()}")
    return (
        f"{whose(result)}Gain in right answers over the bare base, each arm alone: "
        f"{'; '.join(parts)}. The gains overlap and do not add up."
    )


def form_line(result: Result) -> str:
    """Between which shares the answers are in form, but for the bare base."""
    shares = [result.means(arm, "form").mean() for arm in result.arms if arm != form.BARE]
    if not shares:
        return result.why
    return (
        f"{whose(result)}In form: {100 * min(shares):.0f} to {100 * max(shares):.0f}% of the "
        "answers, in all arms but the bare base."
    )


def rereading_line(few: Result) -> str:
    """What section 8 says of reading a few rows often."""
    profile = few.profile
    if not few.has(readings.FEW_ROWS):
        return few.why
    right = few.values(readings.FEW_ROWS, "held_out_right").mean(0)
    places = form_trials.few_places(profile)
    best = int(np.argmax(right))
    reads = [place * trials.short_batch(profile) / form_trials.FEW for place in places]
    return (
        f"{whose(few)}Section 8, with {form_trials.FEW} rows and a higher rate: "
        f"{100 * right[best]:.0f}% of other rows were right when each row had been read "
        f"{reads[best]:.1f} times, {100 * right[-1]:.0f}% after {reads[-1]:.1f} reads."
    )


def shares_by_family(result: Result, profile: Profile, arm: str) -> list[dict[str, float]]:
    """{family: share of right answers} of each seed, for the families that the seed asks."""
    found = []
    for seed in result.seeds:
        right = result.record.entries[arm, seed].metrics["right"]
        tested = form_trials.asked_families(profile, seed)
        asked = form_trials.of_families(form_trials.golden_rows(profile), tested)
        own: dict[str, list[float]] = {family: [] for family in tested}
        for row, is_right in zip(asked, right, strict=True):
            own[row["family"]].append(is_right)
        found.append({family: float(np.mean(values)) for family, values in own.items()})
    return found


def by_family_rows(result: Result) -> list[dict[str, str]]:
    """A line a comparison: weighed by question, and as the mean of the asked families."""
    profile = result.profile
    rows = []
    for text, arm, other in COMPARED:
        if not _has(result, (arm, other)):
            continue
        means = []
        for name in (arm, other):
            seeds = shares_by_family(result, profile, name)
            means.append(np.array([np.mean(list(shares.values())) for shares in seeds]))
        by_question = _gap(result, "right", arm, other)
        by_family = mean_interval(means[0] - means[1])
        rows.append(
            {
                "right answers": text,
                "mean over questions": str(by_question),
                "mean of families": str(by_family),
            }
        )
    return rows


def prompt_families_line(result: Result) -> str:
    """The families that gain and lose most where the prompt's examples are their own."""
    profile = result.profile
    if not _has(result, (form.OWN_SHOWN, form.OTHERS_SHOWN)):
        return _absent(result, "a prompt with examples of other families")
    shares: dict[str, list[float]] = {}
    for arm in (form.OTHERS_SHOWN, form.OWN_SHOWN):
        seeds = shares_by_family(result, profile, arm)
        for family in sorted({family for own in seeds for family in own}):
            mean = np.mean([own[family] for own in seeds if family in own])
            shares.setdefault(family, []).append(100 * float(mean))
    gain = {family: own - other for family, (other, own) in shares.items()}
    parts = []
    for family in (max(gain, key=gain.__getitem__), min(gain, key=gain.__getitem__)):
        other, own = shares[family]
        parts.append(f"`{family}` {{}} ({other:.0f}% to {own:.0f}%)")
    golden = [row["family"] for row in form_trials.golden_rows(profile)]
    largest = max(set(golden), key=golden.count)
    return (
        "With examples of the question's own family in the prompt, in place of others, "
        f"{parts[0].format('gains most')}, {parts[1].format('least')}. In the mean over questions "
        f"`{largest}` weighs most, with {golden.count(largest)} of {len(golden)} golden questions."
    )


# --- methods --------------------------------------------------------------------------------------
def half_rate_line(result: Result) -> str:
    """What LoRA's best rate decides: half of it against it, and against full fine-tuning."""
    lora, full = readings.TWO
    half = readings.frontier_arms(lora)[-1]
    if not _has(result, (lora, full, half)):
        return _absent(result, "half of the best rates")
    loss = _gap(result, "loss", half, lora)
    told = "" if loss.excludes(0) else ", no difference shown"
    return (
        f"{whose(result)}{UNTESTED}. "
        f"LoRA at half of its best rate − at its best: golden loss {loss}{told}; it "
        f"{_forgets(result, half, lora)}. LoRA at half of its best rate − full fine-tuning at "
        f"its best: golden loss {_gap(result, 'loss', half, full)}, forgotten "
        f"{_gap(result, 'forgotten', half, full)}. Each at its best rate, LoRA "
        f"{_forgets(result, lora, full, 'full fine-tuning')}.{_two_verdicts(result, lora, full)}"
    )


def beside_loss_line(result: Result, method: str) -> str:
    """Right answers and forgetting of a method against LoRA."""
    if not _has(result, (method, "LoRA")):
        return _absent(result, method)
    named = method[0].upper() + method[1:]  # it begins a sentence
    return (
        f"{whose(result)}{UNTESTED}. "
        f"{named} − LoRA: right {_gap(result, 'right', method, 'LoRA')} of the "
        f"questions; it {_forgets(result, method, 'LoRA')}."
    )


def last_looks_line(result: Result, methods: Sequence[str]) -> str:
    """How far each method's golden loss still moves between its last two looks."""
    parts = []
    for method in methods:
        if result.has(method):
            runs = result.values(method, "loss_by_step")
            parts.append(f"{method} {mean_interval(runs[:, -1] - runs[:, -2])}")
    if not parts:
        return _absent(result, "looks on the way")
    return f"{whose(result)}Golden loss, from half of the steps to the end: {'; '.join(parts)}."


def memory_line(costs: Result, planned: Mapping[str, float], frozen: float) -> str:
    """The order of the methods by memory, here and at a larger model. `planned`: {method: bytes at
    the larger model}; `frozen`: bytes of its weights as a 16-bit base.
    """
    sums = {}
    for arm in costs.arms:
        parts = ("weights_mb", "optimizer_mb", "step_mb")
        sums[arm] = sum(costs.means(arm, part).mean() for part in parts)
    here = [f"{arm} {sums[arm]:.0f} MB" for arm in sorted(sums, key=sums.__getitem__)]
    there = []
    for method in sorted(planned, key=planned.__getitem__):
        there.append(f"{method} {planned[method] / 1e9:.1f} GB")
    where = f"in {costs.profile.name}" if costs.shown_in else "here"
    listed = ", ".join(here) or costs.why
    return (
        f"Weights, optimizer and step together, {where}: {listed}. At 8B, one row of 1,024 tokens, "
        f"by `ft.plan_memory`: {', '.join(there)}. A prefix or a bottleneck "
        f"holds {frozen / 1e9:.1f} GB of 16-bit weights there, whatever it trains."
    )
