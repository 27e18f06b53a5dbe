"""Which effects of a model of 4M parameters are there at 135M too: every claim that the profiles
tiny and pocket both have a complete record of, side by side.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from ftlib.core.profiles import Profile, get_profile
from ftlib.course.records.claims import Decision
from ftlib.course.records.experiment import Experiment, experiments_of
from ftlib.course.records.live import open_experiments

SMALL, LARGE = "tiny", "pocket"
HEAD = [
    "| lab | measured | 4M (`tiny`) | 135M (`pocket`) | carries over |",
    "|---|---|---|---|---|",
]
# What the two outcomes say together.
ALIKE = "yes"
TURNED = "no: the other way round"
LOST = "not shown at 135M"
GAINED = "only shown at 135M"
NEITHER = "shown at neither"


@dataclass(frozen=True)
class Pair:
    """One claim, as two profiles decide it."""

    lab: str
    small: Decision
    large: Decision

    @property
    def verdict(self) -> str:
        outcomes = (self.small.outcome, self.large.outcome)
        if outcomes[0] == outcomes[1]:
            return NEITHER if outcomes[0] == "none" else ALIKE
        if outcomes[1] == "none":
            return LOST
        return GAINED if outcomes[0] == "none" else TURNED

    @property
    def line(self) -> str:
        cells = [self.lab, self.small.claim.text, _cell(self.small), _cell(self.large)]
        return f"| {' | '.join([*cells, self.verdict])} |"


def _cell(decision: Decision) -> str:
    unit = f" {decision.claim.unit}" if decision.claim.unit else ""
    return f"{decision.interval}{unit}, {len(decision.values)} seeds"


def claims_at_both_scales(labs: list[str]) -> list[Pair]:
    """The claims that both profiles decide, in the order of labs and experiments."""
    small = get_profile(SMALL)
    large = get_profile(LARGE)
    pairs = []
    for lab in labs:
        for experiment in experiments_of(lab):
            if LARGE not in experiment.profiles:
                continue
            here = _decisions(lab, experiment, small)
            there = _decisions(lab, experiment, large)
            for name, decision in here.items():
                if name in there and "open" not in (decision.outcome, there[name].outcome):
                    pairs.append(Pair(lab, decision, there[name]))
    return pairs


def _decisions(lab: str, experiment: Experiment, profile: Profile) -> dict[str, Decision]:
    """What a profile's own complete record says; empty where it has none."""
    result = open_experiments(lab, profile).show(experiment.name)
    if not result.is_recorded or result.profile.name != profile.name:
        return {}
    between = replace(result, experiment=replace(experiment, claims=experiment.scale_claims))
    return {**result.decisions(), **between.decisions()}


def scales_table(labs: list[str]) -> str:
    """A line a claim, and a last one that counts what carries over; a sentence where there is
    nothing to compare yet.
    """
    pairs = claims_at_both_scales(labs)
    if not pairs:
        return (
            f"no claim is decided in {SMALL} and in {LARGE}: "
            f"`ftlib record --state --profile {LARGE}` says what is missing"
        )
    counts = Counter(pair.verdict for pair in pairs)
    verdicts = (ALIKE, TURNED, LOST, GAINED, NEITHER)
    counted = "; ".join(f"{counts[verdict]} {verdict}" for verdict in verdicts if counts[verdict])
    lines = [*HEAD, *(pair.line for pair in pairs), "", f"Of {len(pairs)} claims: {counted}."]
    return "\n".join(lines)
