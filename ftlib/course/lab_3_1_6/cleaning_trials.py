"""Trials of lab 3.1.6 on what is trained on: the messy file after treatments, and few clean rows
beside many with wrong answers.
"""

from __future__ import annotations

import math
import random
from typing import Any

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_6.trials import (
    answer_losses,
    draw_messy,
    draw_rows,
    is_harmed,
    right_answers,
    trained,
    with_wrong_answers,
    world_rows,
)
from ftlib.course.records.kit import rows_of
from ftlib.data.contamination import Contamination
from ftlib.data.duplicates import ExactDuplicates, NearDuplicates
from ftlib.data.prepare import prepare
from ftlib.data.rules import QUALITY, Clean, Html, Language, Length, MaskPii

MESSY_ROWS = 240
QUESTIONS = 60  # of validation, answered
LOSSES = 100  # rows of validation whose loss is measured


# --- the pipeline ---------------------------------------------------------------------------------
def treated(rows: list[dict], treatment: str, exam: list[dict], seed: int) -> list[dict]:
    """The rows after one of the treatments that are compared. "random drop" leaves as many rows as
    the pipeline, whichever they are; "checked" is the pipeline followed by someone who knows the
    answers.
    """
    if treatment == "random drop":
        kept = len(treated(rows, "pipeline", exam, seed))
        return random.Random(seed).sample(rows, kept)
    if treatment == "checked":
        whole = treated(rows, "pipeline", exam, seed)
        return [row for row in whole if row["truth"]["defect"] != "wrong answer"]
    cleaning = [Clean(), Html(), MaskPii(), *QUALITY, Length(), Language()]
    copies = [ExactDuplicates(), NearDuplicates()]
    rules = {
        "raw": [],
        "copies dropped": copies,
        "cleaned": cleaning,
        "pipeline": [*cleaning, Contamination(exam), *copies],
    }
    return prepare(rows, rules[treatment]).rows  # type: ignore[arg-type]


def exam_questions(exam: list[dict], copied: set[str], seed: int) -> tuple[list[dict], list[dict]]:
    """The golden questions whose copies are among the raw rows, and as many of the others."""
    seen = [row for row in exam if row["key"] in copied]
    others = [row for row in exam if row["key"] not in copied]
    return seen, draw_rows(others, len(seen), seed)


def pipeline_trial(
    profile: Profile, seed: int, treatment: str, dirt: float, steps: int
) -> dict[str, Any]:
    """Train on messy rows after a treatment: `steps`, or one epoch of what is left where it is 0.

    Measured on validation questions, on golden ones of which the raw rows hold a copy, and on as
    many others.
    """
    raw = draw_messy(MESSY_ROWS, dirt, seed)
    exam = list(world_rows("golden"))
    rows = treated(raw, treatment, exam, seed)
    one_epoch = math.ceil(len(rows) / profile.preparation.batch)
    model, tokenizer = trained(profile, rows, seed, steps or one_epoch)
    validation = world_rows("validation")
    copied = {row["truth"]["golden"] for row in raw if "golden" in row["truth"]}
    seen, others = exam_questions(exam, copied, seed)
    right = right_answers(profile, model, tokenizer, [*validation[:QUESTIONS], *seen, *others])
    losses = answer_losses(profile, model, tokenizer, validation[:LOSSES])
    ends = (QUESTIONS, QUESTIONS + len(seen))
    return {
        "loss": losses.mean(),
        "accuracy": right[: ends[0]].mean(),
        "golden_copied": right[ends[0] : ends[1]].mean(),
        "golden_others": right[ends[1] :].mean(),
        "rows": len(rows),
        "harmed": sum(is_harmed(row) for row in rows) / len(rows),
        "steps": steps or one_epoch,
    }


# --- few and clean, or many and messy -------------------------------------------------------------
def quality_trial(
    profile: Profile, seed: int, rows: int, of: int, wrong: float, steps: int
) -> dict[str, Any]:
    """Train on `rows` of a pool of `of` rows, a share `wrong` of which has another one's answer."""
    pool = with_wrong_answers(draw_rows(rows_of(profile, "train"), of, seed), wrong, seed)
    model, tokenizer = trained(profile, pool[:rows], seed, steps)
    validation = rows_of(profile, "validation")
    right = right_answers(profile, model, tokenizer, validation[:QUESTIONS])
    losses = answer_losses(profile, model, tokenizer, validation[:LOSSES])
    return {
        "loss": losses.mean(),
        "accuracy": right.mean(),
        "epochs": steps * profile.preparation.batch / rows,
    }
