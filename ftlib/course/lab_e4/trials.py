"""The trials of lab E4: train one student, and measure how far it is from its teacher. They take
the student's functions as keyword parameters, with ftlib's own as the default.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ftlib.batches.stops import model_stops
from ftlib.core.profiles import Profile
from ftlib.course.lab_e4.forward_kl import forward_kl as right_forward_kl
from ftlib.course.lab_e4.generalised_jsd import generalised_jsd as right_jsd
from ftlib.course.lab_e4.measures import apart
from ftlib.course.lab_e4.models import (
    fresh_student,
    student_rows,
    study_teacher,
    test_rows,
)
from ftlib.course.lab_e4.names import DRAWN, FORWARD, JSD, REVERSE, ROWS_ALONE, SHUFFLED
from ftlib.course.lab_e4.settings import settings_of
from ftlib.course.lab_e4.teacher_rows import teacher_rows as right_rows
from ftlib.course.lab_e4.teachers import Remembering, Shuffled
from ftlib.course.records.kit import held_out_loss, train_study
from ftlib.training.distil import distil
from ftlib.training.run import Run
from ftlib.training.sampling import answer_texts, generate_ids

BETA = 0.5  # of the JSD
SWEEP_SEED = 500  # added to a sweep's seeds: a comparison's own runs have not chosen its rates


# --- rows that the teacher wrote ------------------------------------------------------------------
def written_rows(
    profile: Profile,
    rows: list[dict],
    temperature: float,
    seed: int,
    teacher_rows: Callable = right_rows,
) -> list[dict]:
    """The rows with the teacher's answers: at temperature 0 its greedy ones, at 1 drawn ones."""
    teacher, tokenizer = study_teacher(profile)
    questions = [row["messages"][:-1] for row in rows]
    longest = settings_of(profile).new_tokens
    options = (longest, len(rows), temperature, seed)
    _, answers = generate_ids(teacher, tokenizer, questions, *options)
    stops = set(model_stops(teacher, tokenizer))
    complete = [bool(ids) and ids[-1] in stops for ids in answers]
    return teacher_rows(rows, answer_texts(teacher, tokenizer, answers), complete)


# --- training -------------------------------------------------------------------------------------
def train_student(
    profile: Profile,
    seed: int,
    objective: str,
    lr: float,
    steps: int,
    on_policy: float = 0.0,
    temperature: float = 1.0,
    forward_kl: Callable = right_forward_kl,
    generalised_jsd: Callable = right_jsd,
    teacher_rows: Callable = right_rows,
) -> tuple[nn.Module, Any, Run]:
    """(student, tokenizer, run): one student trained on the seed's rows for an objective."""
    settings = settings_of(profile)
    model, tokenizer = fresh_student(profile)
    rows = student_rows(profile, seed)
    if objective == DRAWN:
        rows = written_rows(profile, rows, 1.0, seed, teacher_rows)
    if objective in (ROWS_ALONE, DRAWN):
        options = {"steps": steps, "batch_size": settings.batch}
        run = train_study(profile, model, tokenizer, rows, seed, lr, **options)
        return model, tokenizer, run
    run = distil(
        model,
        tokenizer,
        _teacher_of(profile, objective, on_policy),
        rows,
        steps=steps,
        learning_rate=lr,
        seed=seed,
        batch_size=settings.batch,
        on_policy=on_policy,
        temperature=temperature,
        max_new_tokens=settings.new_tokens,
        max_length=profile.max_length,
        show=False,
        **loss_options(objective, forward_kl, generalised_jsd),
    )
    return model, tokenizer, run


def _teacher_of(profile: Profile, objective: str, on_policy: float) -> nn.Module:
    """The teacher, or the one that says the wrong things; where texts come again, remembering."""
    teacher, _ = study_teacher(profile)
    if objective == SHUFFLED:
        teacher = Shuffled(teacher)
    return teacher if on_policy else Remembering(teacher)


def loss_options(objective: str, forward_kl: Callable, generalised_jsd: Callable) -> dict[str, Any]:
    """The arguments of `distil` that say what is compared."""
    if objective in (FORWARD, SHUFFLED):
        return {"loss_function": forward_kl}
    if objective == JSD:

        def jsd(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
            hot = (student / temperature, teacher / temperature)
            return temperature**2 * generalised_jsd(*hot, BETA).mean()

        return {"loss_function": jsd}
    if objective == REVERSE:
        return {"divergence": "reverse_kl"}
    raise ValueError(f"objective={objective!r}: it is none of the lab's")


# --- trials ---------------------------------------------------------------------------------------
def student_trial(
    profile: Profile,
    seed: int,
    objective: str,
    lr: float,
    steps: int,
    on_policy: float = 0.0,
    temperature: float = 1.0,
    forward_kl: Callable = right_forward_kl,
    generalised_jsd: Callable = right_jsd,
    teacher_rows: Callable = right_rows,
) -> dict[str, Any]:
    """Train a student, and measure how far it is from its teacher on held-out questions, and its
    loss on the answers that the rows give to them.
    """
    model, tokenizer, _ = train_student(
        profile,
        seed,
        objective,
        lr,
        steps,
        on_policy,
        temperature,
        forward_kl,
        generalised_jsd,
        teacher_rows,
    )
    loss = held_out_loss(model, tokenizer, test_rows(profile, seed), profile.max_length)
    return {"loss": loss, **apart(profile, model, tokenizer, seed)}


def tune_trial(profile: Profile, seed: int, **settings: Any) -> dict[str, Any]:
    """`student_trial` of a seed that no comparison has: by these runs rates are chosen."""
    return student_trial(profile, SWEEP_SEED + seed, **settings)
