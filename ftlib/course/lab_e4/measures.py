"""How far a student's answers are from its teacher's: exact divergences token by token, along
answers that one of the two has drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.batches.collate import SFTCollator, sequence
from ftlib.core.modes import evaluation_mode
from ftlib.core.profiles import Profile
from ftlib.course.lab_e4.models import fresh_student, study_teacher, test_rows
from ftlib.course.lab_e4.settings import settings_of
from ftlib.course.world import judge_style
from ftlib.losses.distillation import scored_logits
from ftlib.training.sampling import answer_texts, generate_ids

AT_ONCE = 100  # answers that are drawn or scored together
TEACHER_DRAWS = 7  # the seed of the teacher's held-out answers, the same for every student


@dataclass(frozen=True)
class Drawn:
    """Answers that a model has drawn, as token ids, after their prompts."""

    prompts: list[list[int]]
    answers: list[list[int]]

    def batch(self, pad_token_id: int) -> dict[str, Tensor]:
        """input_ids, attention_mask and labels, (B, T) each."""
        pairs = zip(self.prompts, self.answers, strict=True)
        rows = [sequence(prompt, answer) for prompt, answer in pairs]
        return SFTCollator(pad_token_id)(rows)


def draw_answers(model: nn.Module, tokenizer, rows: list[dict], longest: int, seed: int) -> Drawn:
    """The model's answers to the rows' questions, from its own distribution."""
    questions = [row["messages"][:-1] for row in rows]
    return Drawn(*generate_ids(model, tokenizer, questions, longest, AT_ONCE, 1.0, seed))


def asked_rows(profile: Profile, seed: int) -> list[dict]:
    """The test rows of a seed, each as often as its question is asked."""
    return test_rows(profile, seed) * settings_of(profile).draws


def prepare(profile: Profile) -> None:
    """Make the teacher and the students' start before runs are forked from this process."""
    study_teacher(profile)
    fresh_student(profile)


@torch.no_grad()
def logps_along(model: nn.Module, tokenizer, drawn: Drawn) -> Tensor:
    """(N, V) log-probabilities of the model at every token of the answers."""
    batch = drawn.batch(tokenizer.pad_token_id)
    tokens = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
    with evaluation_mode(model):
        logits = model(**tokens).logits
    return scored_logits(logits, batch["labels"].to(model.device)).log_softmax(-1)


def kl(p: Tensor, q: Tensor) -> float:
    """The mean of KL(p‖q) over rows of log-probabilities, (N, V) each, nats a token."""
    return (p.exp() * (p - q)).sum(-1).mean().item()


def entropy(p: Tensor) -> float:
    """The mean entropy of rows of log-probabilities (N, V), nats a token."""
    return -(p.exp() * p).sum(-1).mean().item()


def apart(profile: Profile, model: nn.Module, tokenizer, seed: int) -> dict[str, float]:
    """The student beside its teacher: "forward" KL(teacher‖student) along the teacher's answers,
    "reverse" KL(student‖teacher) along the student's own, and the student's "entropy" there; all
    in nats a token. "surprise": reverse plus entropy, what the teacher thinks of those answers.
    """
    teacher, _ = study_teacher(profile)
    rows = asked_rows(profile, seed)
    longest = settings_of(profile).new_tokens
    given = draw_answers(teacher, tokenizer, rows, longest, TEACHER_DRAWS)
    own = draw_answers(model, tokenizer, rows, longest, seed)
    there = [logps_along(one, tokenizer, given) for one in (teacher, model)]
    here = [logps_along(one, tokenizer, own) for one in (model, teacher)]
    reverse = kl(*here)
    spread = entropy(here[0])
    texts = answer_texts(model, tokenizer, own.answers)
    return {
        "forward": kl(*there),
        "reverse": reverse,
        "entropy": spread,
        "surprise": reverse + spread,
        **manners(texts),
    }


def manners(texts: list[str]) -> dict[str, float]:
    """The share of answers that are in one of the world's two manners, "clear", and the share of
    those that are "polite" (0.5 where there are none).
    """
    found = [judge_style(text) for text in texts]
    clear = [manner for manner in found if manner != "neither"]
    polite = float(np.mean([manner == "polite" for manner in clear])) if clear else 0.5
    return {"clear": len(clear) / len(found), "polite": polite}
