"""SFT without any trainer: a loop over the exercises' own pieces, on the common ground."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.batches.template import IGNORE
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.adamw_step import adamw_step
from ftlib.course.lab_e6.clip_factor import clip_factor
from ftlib.course.lab_e6.linear_factor import linear_factor
from ftlib.course.lab_e6.ours import Trained, adapter_of
from ftlib.course.lab_e6.settings import common_of
from ftlib.course.lab_e6.start import sft_order, sft_rows, sft_start
from ftlib.course.lab_e6.step_loss import step_loss

MAX_NORM = 1.0  # Trainer's max_grad_norm, TRL's and ftlib's alike


class AdamW:
    """The exercise's `adamw_step` over a list of parameters, in place."""

    def __init__(self, parameters: list[nn.Parameter], step: Callable, weight_decay: float):
        self.parameters = parameters
        self.step_of = step
        self.weight_decay = weight_decay
        self.count = 0
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]

    @torch.no_grad()
    def step(self, gradients: list[Tensor], rate: float) -> None:
        self.count += 1
        for i, parameter in enumerate(self.parameters):
            first, second = self.moments[i]
            moved, first, second = self.step_of(
                parameter.detach(),
                gradients[i],
                first,
                second,
                self.count,
                rate,
                self.weight_decay,
            )
            parameter.copy_(moved)
            self.moments[i] = (first, second)


def token_losses(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, T - 1) nats of every next token, and whether it is scored: from the full logits, as a
    loop of one's own has them.
    """
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    scored = labels != IGNORE
    targets = labels.masked_fill(~scored, 0)
    nll = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), targets.flatten(), reduction="none"
    )
    return nll.view_as(targets), scored


def micro_batches(encoded: list[dict], pad: int, batch: int) -> list[dict[str, Tensor]]:
    """The rows of one step as batches of one width, so that their losses lie in one tensor."""
    whole = SFTCollator(pad)(encoded)
    parts = []
    for start in range(0, len(encoded), batch):
        parts.append({name: value[start : start + batch] for name, value in whole.items()})
    return parts


def sft_by_hand(
    profile: Profile,
    seed: int,
    weight_decay: float = 0.0,
    max_norm: float | None = MAX_NORM,
    step_loss: Callable = step_loss,
    linear_factor: Callable = linear_factor,
    clip_factor: Callable = clip_factor,
    adamw_step: Callable = adamw_step,
) -> Trained:
    """The run of `ours.sft_ours`, written out; `max_norm` None: nothing is clipped."""
    common = common_of(profile)
    model, tokenizer = sft_start(profile, seed)
    model.train()
    rows = sft_rows(profile, seed)
    encoded = encode_rows(tokenizer, rows, profile.max_length)
    order = sft_order(tokenizer, rows, common, seed, profile.max_length)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = AdamW(parameters, adamw_step, weight_decay)
    losses = []
    rates = []
    for step in range(common.steps):
        taken = order[step * common.rows_a_step : (step + 1) * common.rows_a_step]
        batches = micro_batches([encoded[i] for i in taken], tokenizer.pad_token_id, common.batch)
        found = [token_losses(model, batch) for batch in batches]
        nll = torch.stack([nll for nll, _ in found])
        scored = torch.stack([scored for _, scored in found])
        loss = step_loss(nll, scored)
        gradients = list(torch.autograd.grad(loss, parameters))
        if max_norm is not None:
            factor = clip_factor(gradients, max_norm)
            gradients = [factor * gradient for gradient in gradients]
        rate = common.rate * linear_factor(step, common.warmup_steps(common.steps), common.steps)
        optimizer.step(gradients, rate)
        losses.append(loss.item())
        rates.append(rate)
    log = []
    for step, (loss_of_step, rate) in enumerate(zip(losses, rates, strict=True), start=1):
        log.append({"step": step, "loss": loss_of_step, "learning_rate": rate})
    return Trained(losses, rates, adapter_of(model.eval()), log)
