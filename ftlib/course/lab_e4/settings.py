"""What lab E4 runs at in each profile."""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.core.profiles import Profile


@dataclass(frozen=True)
class Settings:
    """`family`: of the rows that teacher and student answer; empty for all. `keep`: the layers of
    the base that the student consists of. `teacher_steps`: of the teacher's own fine-tuning on
    those rows; 0 where it is tuned to instructions already.
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


def settings_of(profile: Profile) -> Settings:
    """The lab's settings in a profile. Elsewhere than in tiny nothing was tried: a student of
    every third layer, and a rate to begin with.
    """
    if profile.name == "tiny":
        return TINY
    return Settings(
        family="",
        keep=(),
        teacher_steps=0,
        teacher_rate=0.0,
        teacher_batch=0,
        warm_steps=0,
        warm_rate=0.0,
        warm_batch=0,
        people=0,
        rows=min(8, profile.comparison.rows),
        steps=profile.comparison.steps,
        batch=profile.comparison.batch,
        rate=profile.lr_full,
        draws=1,
        new_tokens=24,
        live_steps=profile.demo_steps,
        timed_steps=2,
    )
