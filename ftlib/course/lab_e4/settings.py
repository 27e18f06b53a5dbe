"""What lab E4 runs at in each profile."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ftlib.core.profiles import Profile


@dataclass(frozen=True)
class Settings:
    """`family`: of the rows that teacher and student answer; empty for all. `keep`: the layers of
    the base that the student consists of; empty for all but every third. `teacher_steps`: of the
    teacher's own fine-tuning on those rows; 0 where lab 3.1.4's adapter is enough.
    """

    family: str
    keep: tuple[int, ...]
    teacher_steps: int
    teacher_rate: float
    teacher_batch: int
    warm_steps: int  # of a student, before it meets its teacher
    warm_rate: float
    warm_batch: int
    people: int  # that a student learns about; 0 where rows are not about people
    rows: int  # that a student learns on, and is measured on, where they are not
    steps: int
    batch: int
    rate: float  # the middle of those tried
    draws: int  # answers to each held-out question, after a run
    new_tokens: int
    live_steps: int  # of a run that shows one thing in a cell
    timed_steps: int  # of a run whose steps are timed


TINY = Settings(
    family="about",
    keep=(0,),
    teacher_steps=48,
    teacher_rate=1e-3,
    teacher_batch=16,
    warm_steps=80,
    warm_rate=2e-3,
    warm_batch=8,
    people=14,
    rows=0,
    steps=36,
    batch=8,
    rate=3e-3,
    draws=2,
    new_tokens=36,
    live_steps=30,
    timed_steps=5,
)


# Tried only so far that teacher and student write the form that is asked for.
POCKET = Settings(
    family="",
    keep=(),
    teacher_steps=0,
    teacher_rate=0.0,
    teacher_batch=0,
    warm_steps=16,
    warm_rate=3e-4,
    warm_batch=8,
    people=0,
    rows=24,
    steps=12,
    batch=4,
    rate=3e-4,
    draws=1,
    new_tokens=48,
    live_steps=6,
    timed_steps=2,
)


def settings_of(profile: Profile) -> Settings:
    """The lab's settings in a profile. On the large models nothing was tried: rates to begin with,
    and a start of the student's own where it is cut out of its teacher's base.
    """
    if profile.name in ("tiny", "pocket"):
        return TINY if profile.name == "tiny" else POCKET
    is_cut = profile.study.model == profile.model
    return dataclasses.replace(
        POCKET,
        warm_steps=profile.steps if is_cut else 0,
        warm_rate=profile.lr_full,
        steps=profile.comparison.steps,
        batch=profile.comparison.batch,
        rate=profile.lr_full,
        live_steps=profile.demo_steps,
    )
