"""What a reference point does to the gradient of one batch: to its length and to its direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ftlib.adapters.lora import disable_adapter
from ftlib.batches.collate import KTOCollator
from ftlib.batches.preference import encode_binary, mismatch
from ftlib.core.modes import evaluation_mode
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_9.binary_loss import binary_loss
from ftlib.training.preference_trainer import kto_logps

NO_GRADIENT = "none: it is 0"  # so far out on the flat end that its slope rounds to 0


def drifting(profile: Profile) -> Profile:
    """The profile with which `trials.drifted` makes the policy that the notebook looks at."""
    shorter = replace(profile.preference, short_steps=profile.drift_steps)
    return replace(profile, preference=shorter)


def kto_batch(tokenizer, rows: list[dict], max_length: int) -> dict[str, Tensor]:
    """The rows as one batch, each with a mismatched completion."""
    items = mismatch(encode_binary(tokenizer, rows, max_length), len(rows))
    return KTOCollator(tokenizer.pad_token_id)(items)


def batch_logps(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the policy, with gradient, and of the reference, which is the model with
    its adapter off; both (B, 2): each row's own completion and the mismatched one.
    """
    device = next(model.parameters()).device
    own = {name: tensor.to(device) for name, tensor in batch.items()}
    with evaluation_mode(model):
        policy, _ = kto_logps(model, own)
        with torch.no_grad(), disable_adapter(model):
            reference, _ = kto_logps(model, own)
    return policy, reference


def gradient(
    model: nn.Module,
    batch: Mapping[str, Tensor],
    point_of: Callable,
    beta: float,
    binary_loss: Callable = binary_loss,
) -> Tensor:
    """The gradient of the batch's mean loss by all that trains, as one vector."""
    policy, reference = batch_logps(model, batch)
    return gradient_of(model, policy, reference, batch["desirable"], point_of, beta, binary_loss)


def gradient_of(
    model: nn.Module,
    policy: Tensor,
    reference: Tensor,
    desirable: Tensor,
    point_of: Callable,
    beta: float,
    binary_loss: Callable = binary_loss,
) -> Tensor:
    """The same from the batch's log-probabilities, which serve for further gradients too."""
    columns = (policy[:, 0], reference[:, 0], policy[:, 1], reference[:, 1])
    z0 = point_of(*columns)
    labels = desirable.to(policy.device)
    losses = binary_loss(columns[0], columns[1], z0, labels, beta, 1.0, 1.0)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    found = torch.autograd.grad(losses.mean(), weights, retain_graph=True)
    return torch.cat([part.flatten() for part in found])


def compared(gradients: Mapping[str, Tensor], with_name: str) -> dict[str, tuple[float, float]]:
    """Of each gradient its length as a multiple of that of `with_name`, and the cosine between
    them. Adam's steps do not depend on a gradient's length.
    """
    right = gradients[with_name].double()
    found = {}
    for name, gradient_of_name in gradients.items():
        other = gradient_of_name.double()
        length = (other.norm() / right.norm()).item()
        cosine = math.nan  # of a gradient that has rounded to 0
        if other.norm() > 0 and right.norm() > 0:
            cosine = torch.dot(other / other.norm(), right / right.norm()).item()
        found[name] = (length, cosine)
    return found


def shorter_and_longer(rows: Sequence[dict], count: int) -> dict[str, list[dict]]:
    """Of the quarter of the rows with the longest answers the first `count`, and of the others as
    many.
    """
    answers = sorted(len(row["completion"][-1]["content"]) for row in rows)
    shortest_of_long = answers[len(answers) - len(answers) // 4]
    found: dict[str, list[dict]] = {"shorter answers": [], "longer answers": []}
    for row in rows:
        is_long = len(row["completion"][-1]["content"]) >= shortest_of_long
        found["longer answers" if is_long else "shorter answers"].append(row)
    return {name: chosen[:count] for name, chosen in found.items()}


def gradients_table(
    model: nn.Module,
    batches: Mapping[str, Mapping[str, Tensor]],
    points: Mapping[str, Callable],
    betas: Sequence[float],
    binary_loss: Callable = binary_loss,
) -> list[dict[str, str]]:
    """For every batch and every z0 but "right": how its gradient compares with that of the right
    z0, at each β.
    """
    table: list[dict[str, str]] = []
    for batch_name, batch in batches.items():
        policy, reference = batch_logps(model, batch)
        z0 = (policy - reference)[:, 1].mean().clamp(min=0).item()
        rows: dict[str, dict[str, str]] = {}
        for beta in betas:
            found = {}
            for name, point_of in points.items():
                found[name] = gradient_of(
                    model, policy, reference, batch["desirable"], point_of, beta, binary_loss
                )
            for name, (length, cosine) in compared(found, "right").items():
                row = rows.setdefault(name, {"batch": batch_name, "right z0 (nats)": f"{z0:.1f}"})
                row["z0 taken"] = name
                row[f"length ÷ right, β = {beta:g}"] = f"{length:.2f}"
                row[f"cosine, β = {beta:g}"] = f"{cosine:.3f}" if length else NO_GRADIENT
        del rows["right"]
        table.extend(rows.values())
    return table
