"""A look at the batches of a KTO run before its first step: how long their rows are, where their
z0 lies, and what the right z0 and z0 = 0 pull at in the very same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ftlib.batches.collate import KTOCollator
from ftlib.batches.preference import encode_binary, row_length
from ftlib.course.lab_3_1_9.gradients import batch_logps
from ftlib.course.lab_3_1_9.loss_slope import loss_slope
from ftlib.course.lab_3_1_9.reference_point import reference_point
from ftlib.training.prefer import kto_order


def batches_before(
    model: nn.Module,
    tokenizer,
    rows: Sequence[dict],
    batch: int,
    seed: int,
    max_length: int,
    beta: float,
    reference_point: Callable = reference_point,
) -> dict[str, list[float]]:
    """One number a batch, from the batch with the shortest rows to that with the longest:

    "lengths": tokens a row, the mean; "z0_before": nats; "pull_right" and "pull_zero": the pulls on
    all rows, summed, with the right z0 and with 0; "up_right" and "up_zero": those on thumbs up.
    The batches are those of `prefer` with this seed; dropout is off.
    """
    items = kto_order(encode_binary(tokenizer, list(rows), max_length), batch, seed)
    collate = KTOCollator(tokenizer.pad_token_id)
    found = []
    for start in range(0, len(items), batch):
        block = items[start : start + batch]
        with torch.no_grad():
            policy, reference = batch_logps(model, collate(block))
        labels = torch.tensor([item["label"] for item in block], device=policy.device)
        z0 = reference_point(policy[:, 1], reference[:, 1])
        ratio = policy[:, 0] - reference[:, 0]
        one = _pulls(ratio.double(), z0.double(), labels, beta)
        one["lengths"] = sum(row_length(item) for item in block) / len(block)
        found.append(one)
    found.sort(key=_length_of)
    return {name: [one[name] for one in found] for name in found[0]}


def _length_of(one: Mapping[str, float]) -> float:
    return one["lengths"]


def _pulls(ratio: Tensor, z0: Tensor, labels: Tensor, beta: float) -> dict[str, float]:
    """The pulls on a batch's rows with z0 and with 0, summed. ratio (B,), z0 () in nats; labels
    (B,), True for a thumb up.
    """
    right = loss_slope(ratio, z0, labels, beta).abs()
    zero = loss_slope(ratio, torch.zeros_like(z0), labels, beta).abs()
    return {
        "z0_before": z0.item(),
        "pull_right": right.sum().item(),
        "pull_zero": zero.sum().item(),
        "up_right": right[labels].sum().item(),
        "up_zero": zero[labels].sum().item(),
    }
