"""Lab 3.1.4, fine-tuning 8B, exercise 2: the loss mask."""

from __future__ import annotations

import torch

from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong


def build_labels(
    prompt_ids: list[int], answer_ids: list[int], stop_id: int
) -> dict[str, list[int]]:
    """A training row: prompt, answer, stop token; labels are -100 on the prompt and the ids
    themselves after it.
    """
    target = [*answer_ids, stop_id]
    return {"input_ids": prompt_ids + target, "labels": [IGNORE] * len(prompt_ids) + target}


def _labels_no_stop(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    return {"input_ids": ids, "labels": [IGNORE] * len(prompt_ids) + answer_ids + [IGNORE]}


def _labels_on_prompt(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    return {"input_ids": ids, "labels": list(ids)}


def _labels_shifted(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    return {
        "input_ids": ids,
        "labels": [IGNORE] * (len(prompt_ids) - 1) + answer_ids + [stop_id, IGNORE],
    }


def _labels_without_last_token(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids
    return {"input_ids": ids, "labels": [IGNORE] * len(prompt_ids) + answer_ids}


def _labels_by_token_id(prompt_ids, answer_ids, stop_id):
    ids = prompt_ids + answer_ids + [stop_id]
    seen = set(prompt_ids)
    return {"input_ids": ids, "labels": [IGNORE if i in seen else i for i in ids]}


def _labels_cases(g):
    for prompt, answer in ((5, 3), (8, 1), (3, 6), (12, 4)):
        p, a = torch.randint(10, 20, (prompt + answer,), generator=g).split((prompt, answer))
        yield [0, 4, *p.tolist(), 6, 5], a.tolist(), 6


BUILD_LABELS = Exercise(
    "build_labels",
    "The loss mask",
    10,
    1,
    build_labels,
    _labels_cases,
    (
        Wrong(
            "stop outside the mask",
            _labels_no_stop,
            "The stop token is in the input but masked in the labels: the model is never taught "
            "to stop.",
        ),
        Wrong(
            "loss on the prompt",
            _labels_on_prompt,
            "The prompt's tokens carry labels: the model would learn to write questions, and most "
            "of the gradient would go there.",
        ),
        Wrong(
            "shifted by hand",
            _labels_shifted,
            "You shifted the labels by one: transformers and sft_loss shift them, so the model "
            "would learn to skip a token.",
        ),
        Wrong(
            "stop token missing",
            _labels_without_last_token,
            "The stop token is missing from the row altogether: append stop_id after the answer, "
            "in input_ids and in labels.",
        ),
        Wrong(
            "masked by id",
            _labels_by_token_id,
            "You masked by token id: an answer token that also occurs in the prompt, the stop "
            "token first of "
            "all, loses its label. Mask by position.",
        ),
    ),
    (
        "Two lists of equal length come back; `labels[i]` is what `input_ids[i]` should be scored "
        "as, or -100.",
        "The model must learn three things: the answer's first token, the rest of it, and when to "
        "end.",
        "Mask by position: `[-100] * len(prompt_ids)`, then the ids of the answer and of the stop "
        "token.",
        "`target = answer_ids + [stop_id]`, used once in input_ids and once in labels. No shift "
        "here.",
    ),
    dtypes={None: "index"},
)
