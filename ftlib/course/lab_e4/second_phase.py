"""Lab E4's second phase: students that have learnt by the forward KL go on with it, or with the
reverse KL, on given text or half of the time on their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_e4.forward_kl import forward_kl as right_forward_kl
from ftlib.course.lab_e4.generalised_jsd import generalised_jsd as right_jsd
from ftlib.course.lab_e4.measures import apart
from ftlib.course.lab_e4.models import student_rows, study_teacher, test_rows
from ftlib.course.lab_e4.names import FORWARD
from ftlib.course.lab_e4.settings import settings_of
from ftlib.course.lab_e4.teachers import Remembering
from ftlib.course.lab_e4.trials import SWEEP_SEED, loss_options, train_student
from ftlib.course.records.kit import held_out_loss
from ftlib.training.distil import distil

LATER = 10_000  # added to the seed that orders the rows of the second phase


def phase_trial(
    profile: Profile,
    seed: int,
    objective: str,
    first_lr: float,
    lr: float,
    steps: int,
    on_policy: float = 0.0,
    forward_kl: Callable = right_forward_kl,
    generalised_jsd: Callable = right_jsd,
) -> dict[str, Any]:
    """Train a student by the forward KL, then for as many steps again by an objective, and measure
    it as `student_trial` does.
    """
    model, tokenizer, _ = train_student(
        profile, seed, FORWARD, first_lr, steps, forward_kl=forward_kl
    )
    teacher, _ = study_teacher(profile)
    settings = settings_of(profile)
    distil(
        model,
        tokenizer,
        teacher if on_policy else Remembering(teacher),
        student_rows(profile, seed),
        steps=steps,
        learning_rate=lr,
        seed=LATER + seed,
        batch_size=settings.batch,
        on_policy=on_policy,
        max_new_tokens=settings.new_tokens,
        max_length=profile.max_length,
        show=False,
        **loss_options(objective, forward_kl, generalised_jsd),
    )
    loss = held_out_loss(model, tokenizer, test_rows(profile, seed), profile.max_length)
    return {"loss": loss, **apart(profile, model, tokenizer, seed)}


def tune_phase_trial(profile: Profile, seed: int, **settings: Any) -> dict[str, Any]:
    """`phase_trial` of a seed that no comparison has: by these runs rates are chosen."""
    return phase_trial(profile, SWEEP_SEED + seed, **settings)
