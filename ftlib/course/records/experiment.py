"""What an experiment is: one trial, its arms and its seeds, what is measured, and what it is to
show.

A lab's experiments are in `ftlib/course/lab_3_1_N/experiments.py`. Their trials run in three
places with the same code: `ftlib record` computes all seeds, the notebook runs one seed with the
student's own functions, and the tests run a few again.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course import catalogue
from ftlib.course.catalogue import MODULES

SEEDS = 10  # of an experiment that carries a claim
RECORDED = ("tiny", "pocket")  # profiles of an experiment that carries a lab's main claim
LOGS = "in logarithms"  # the unit of a claim on ln(first / second), which is a factor's logarithm
LIVE_SEED = 1000  # that a notebook runs: none of the record's, so that it is a further run


@dataclass(frozen=True)
class Metric:
    """One result of a trial: a number, or one number an item or step.

    `text` and `unit` label an axis; `spoken` is the name within a sentence, where `text` does not
    fit. `resolution`: the smallest step that it can take, such as 1/80 for a share of 80 answers; 0
    where it is continuous. `of_machine`: it is a time, which every machine has its own of, and so
    is not held against a record made elsewhere.
    """

    name: str
    text: str
    unit: str = ""
    lower_is_better: bool = False
    resolution: float = 0.0
    of_machine: bool = False
    spoken: str = ""

    @property
    def label(self) -> str:
        return f"{self.text} ({self.unit})" if self.unit else self.text


@dataclass(frozen=True)
class Contrast:
    """One number a seed, from the metrics of the arms at that seed.

    `function` takes {arm: metrics} and returns the number; `arms` are those it reads.
    """

    arms: tuple[str, ...]
    function: Callable[[Mapping[str, Mapping[str, Any]]], float]

    def __call__(self, by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        return float(self.function(by_arm))


def difference(metric: str, first: str, second: str) -> Contrast:
    """first − second, of the metric's mean where it is a list: a paired difference over seeds."""

    def subtract(by_arm) -> float:
        return float(np.mean(by_arm[first][metric]) - np.mean(by_arm[second][metric]))

    return Contrast((first, second), subtract)


def within(arm: str, first: str, second: str) -> Contrast:
    """first − second, two metrics of the same runs."""

    def subtract(by_arm) -> float:
        return float(by_arm[arm][first] - by_arm[arm][second])

    return Contrast((arm,), subtract)


def level(metric: str, arm: str, zero: float = 0.0) -> Contrast:
    """The metric of one arm, of its mean where it is a list, above `zero`: a rate against a half, a
    change against none.
    """

    def above(by_arm) -> float:
        return float(np.mean(by_arm[arm][metric]) - zero)

    return Contrast((arm,), above)


def log_ratio(metric: str, first: str, second: str) -> Contrast:
    """ln(first / second) of a positive metric: for values that differ by factors, where a
    difference would hear only the largest.
    """

    def divide(by_arm) -> float:
        return float(np.log(np.mean(by_arm[first][metric]) / np.mean(by_arm[second][metric])))

    return Contrast((first, second), divide)


def slope(metric: str, places: Mapping[str, float]) -> Contrast:
    """Least-squares slope of the metric over `places`, {arm: x}; take logarithms of x for a change
    per doubling.
    """
    arms = tuple(places)
    xs = np.array([places[arm] for arm in arms], dtype=float)

    def fit(by_arm) -> float:
        ys = np.array([np.mean(by_arm[arm][metric]) for arm in arms])
        centred = xs - xs.mean()
        return centred @ (ys - ys.mean()) / (centred @ centred)

    return Contrast(arms, fit)


@dataclass(frozen=True)
class Claim:
    """What the experiment is to show, decided by an interval over seeds of one contrast.

    `text` names the number, such as "held-out loss, LoRA − full". `expected` is "above" (0),
    "below" or "none" (no difference that this many runs could show). `above`, `below` and `none`
    are what a reader may conclude in each case: two or three honest sentences, the unexpected case
    included, with what they do not say and what would change them.
    """

    name: str
    text: str
    contrast: Contrast
    expected: str
    above: str
    below: str
    none: str
    unit: str = ""

    def __post_init__(self) -> None:
        if self.expected not in ("above", "below", "none"):
            raise ValueError(f"expected={self.expected!r} of {self.name!r}: above, below or none")

    def reading(self, outcome: str) -> str:
        return {"above": self.above, "below": self.below, "none": self.none}[outcome]


@dataclass(frozen=True)
class Experiment:
    """A trial run for every arm and seed.

    `trial(profile, seed, **settings)` trains and measures: a dict with a value for each of
    `metrics`, and short samples besides. Functions that a student writes are keyword parameters
    with ftlib's own as the default. It uses no state from outside but what it reads from disk.

    `arms(profile)`: {name: settings}, settings being plain JSON values; what another experiment has
    chosen (`records.store.best_arm`) may be among them. `inputs(profile)`: {name: rows, or a
    folder or file} that the trial reads: an entry is stale when one changes. `live`: the arms that
    the notebook runs on one seed (None: all; empty: none). `profiles`: those whose record belongs
    to the course; `seeds_in`: {profile: number of seeds} where it is another than `seeds`.
    `scale_claims`: what is compared between scales alone, because one records fewer arms than the
    lab's own claims need. `without`: the profiles whose data lack rows that it reads, such as
    wordings kept from training.
    `prepare(profile)` makes once what trials share, such as an adapter that is trained where none
    lies, before they run side by side. `rounded`: arms that measure rounding itself, such as bf16's
    difference from fp32, of which every processor has its own: nothing is said against an entry of
    theirs that comes out otherwise on another machine.
    """

    name: str
    title: str
    trial: Callable[..., dict]
    arms: Callable[[Profile], Mapping[str, Mapping[str, Any]]]
    metrics: tuple[Metric, ...]
    inputs: Callable[[Profile], Mapping[str, Any]]
    claims: tuple[Claim, ...] = ()
    seeds: int = SEEDS
    live: tuple[str, ...] | None = None
    profiles: tuple[str, ...] = ("tiny",)
    seeds_in: Mapping[str, int] = field(default_factory=dict)
    scale_claims: tuple[Claim, ...] = ()
    without: tuple[str, ...] = ()
    prepare: Callable[[Profile], object] | None = None
    rounded: tuple[str, ...] = ()

    def metric(self, name: str) -> Metric:
        return _named(self.metrics, name, f"experiment {self.name!r} measures")

    def claim(self, name: str) -> Claim:
        return _named(self.claims, name, f"experiment {self.name!r} claims")

    def is_run_in(self, profile: Profile) -> bool:
        """Whether the profile runs the experiment at all. Where runs take minutes, those alone that
        carry a lab's main claim; the rows of others may not exist there.
        """
        if profile.name in self.without:
            return False
        return profile.runs_unrecorded or profile.name in self.profiles

    def seeds_of(self, profile: Profile) -> int:
        """How many seeds the record of a profile has."""
        return self.seeds_in.get(profile.name, self.seeds)

    def live_arms(self, profile: Profile) -> list[str]:
        """The arms that run in a notebook: at most as many as the profile has time for, those that
        `live` names first.
        """
        arms = list(self.arms(profile))
        wanted = arms if self.live is None else [arm for arm in self.live if arm in arms]
        if profile.most_live_arms:
            wanted = wanted[: profile.most_live_arms]
        return [arm for arm in arms if arm in wanted]


def fewer_where_runs_are_long(
    arms: Callable[[Profile], Mapping[str, Mapping[str, Any]]], *kept: str, every: int = 1
) -> Callable[[Profile], dict[str, Mapping[str, Any]]]:
    """`arms`, and in a profile whose runs take minutes (`runs_unrecorded` is False) those alone
    that carry the lab's claim: `kept` names them, or with a comma at its end how their names begin.
    Of those that begin alike, a sweep, the first, then one in `every`, and the last: a coarser
    sweep over the same range.
    """

    def chosen(profile: Profile) -> dict[str, Mapping[str, Any]]:
        all_arms = dict(arms(profile))
        if profile.runs_unrecorded:
            return all_arms
        wanted: list[str] = []
        for name in kept:
            if name.endswith(","):
                alike = [arm for arm in all_arms if arm.startswith(name)]
                wanted.extend(alike[::every])
                wanted.extend(alike[-1:])
            else:
                wanted.append(name)
        return {arm: settings for arm, settings in all_arms.items() if arm in wanted}

    return chosen


def _named(things: tuple, name: str, said: str):
    for thing in things:
        if thing.name == name:
            return thing
    known = ", ".join(thing.name for thing in things)
    raise ValueError(f"{name!r}: {said} {known or 'nothing'}")


def experiments_of(lab: str) -> tuple[Experiment, ...]:
    """The experiments of a lab such as "3.1.1", in the order in which they are recorded; empty for
    a lab that has none. ValueError for a number that the course does not have.
    """
    if lab not in MODULES:
        raise ValueError(f"lab {lab!r} is unknown: use one of {', '.join(MODULES)}")
    module = catalogue.experiments_module(lab)
    if importlib.util.find_spec(module) is None:
        return ()
    return importlib.import_module(module).EXPERIMENTS


def find_experiment(lab: str, name: str) -> Experiment:
    """One experiment of a lab by its name; ValueError that lists those there are."""
    return _named(experiments_of(lab), name, f"lab {lab} has the experiments")
