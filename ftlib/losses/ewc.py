"""Elastic weight consolidation: a quadratic penalty that holds weights where another task needs
them.

Kirkpatrick et al. 2017, arXiv 1612.00796, eq. 3: ``L(θ) = L_B(θ) + λ/2·Σ_i F_i·(θ_i − θ*_i)²``,
with θ* the weights before and F the diagonal of the Fisher information on the data to be kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ftlib.adapters.interpolate import check_names, trained_parameters
from ftlib.core.checks import check_number
from ftlib.core.dtypes import fp32_or_wider
from ftlib.core.modes import evaluation_mode
from ftlib.losses.logps import sequence_logps
from ftlib.losses.preference import LossError


def answer_log_likelihood(model: nn.Module, example: dict[str, Tensor]) -> Tensor:
    """log p(answer | prompt) of one row, (): the sum over the tokens that its labels score."""
    return sequence_logps(model, **example).sum()


def _examples(batches: Iterable[dict[str, Tensor]], device) -> Iterator[dict[str, Tensor]]:
    """The batches' rows, each a batch of one."""
    for batch in batches:
        count = len(next(iter(batch.values())))
        for i in range(count):
            yield {name: tensor[i : i + 1].to(device) for name, tensor in batch.items()}


def fisher_diagonal(
    model: nn.Module,
    batches: Iterable[dict[str, Tensor]],
    log_likelihood: Callable[[nn.Module, dict], Tensor] = answer_log_likelihood,
) -> dict[str, Tensor]:
    """The diagonal of the *empirical* Fisher information, of every parameter that requires grad:
    ``F_i = 1/N·Σ_n (∂ log p(y_n | x_n) / ∂θ_i)²`` over N examples.

    `batches`: input_ids, attention_mask, labels, (B, T) each, as collators make them; plain texts
    are rows whose labels are their tokens. `log_likelihood(model, example)` -> () of one row, by
    default the sum over the tokens that the labels score. Returns tensors by parameter name, in
    fp32 or wider, on the parameter's device; gradients that the model holds are left alone.

    Empirical: the y_n are the data's labels. The Fisher information itself takes the expectation
    over y from the model; the two differ where the model does not fit the data (Kunstner et al.
    2019, arXiv 1905.12558). The square is taken for each example, one backward pass each: the
    square of a batch's mean gradient is another number, and goes to zero at a minimum. Without
    dropout. For LoRA as it starts, B = 0, A's gradients are zero, and with them its F: only B is
    held. LossError if there is no example.
    """
    trained = trained_parameters(model)
    device = next(iter(trained.values())).device
    sums = {}
    for name, parameter in trained.items():
        sums[name] = torch.zeros_like(parameter, dtype=fp32_or_wider(parameter.dtype))
    count = 0
    with evaluation_mode(model), torch.enable_grad():
        for example in _examples(batches, device):
            value = log_likelihood(model, example)
            gradients = torch.autograd.grad(value, list(trained.values()), allow_unused=True)
            for name, gradient in zip(trained, gradients, strict=True):
                if gradient is not None:
                    sums[name] += gradient.to(sums[name].dtype).square()
            count += 1
    if not count:
        raise LossError("batches is empty: a Fisher information needs at least one example")
    return {name: total / count for name, total in sums.items()}


def ewc_penalty(
    model: nn.Module, fisher: dict[str, Tensor], anchor: dict[str, Tensor], weight: float
) -> Tensor:
    """``weight/2·Σ_i F_i·(θ_i − θ*_i)²``, (): of every parameter that requires grad, in fp32 or
    wider; its gradient is ``weight·F_i·(θ_i − θ*_i)``.

    `fisher` from `fisher_diagonal`, `anchor` θ* from `ftlib.trained_weights`, both of this model
    with the same adapter, taken before the training. LossError for names or shapes that do not fit,
    and for a weight below 0.
    """
    check_number("weight", weight, 0, error=LossError)
    trained = trained_parameters(model)
    check_names("fisher", fisher, trained, LossError)
    check_names("anchor", anchor, trained, LossError)
    terms = []
    for name, parameter in trained.items():
        F = fisher[name].to(parameter.device)
        moved = parameter.to(F.dtype) - anchor[name].to(F)
        terms.append((F * moved.square()).sum())
    return weight / 2 * torch.stack(terms).sum()


@dataclass(frozen=True)
class EWC:
    """`ewc_penalty` as `finetune` takes it: ``finetune(…, penalty=EWC(fisher, anchor, weight))``.

    `settings` are what a run records of it, to refuse to go on with another one.
    """

    fisher: dict[str, Tensor]
    anchor: dict[str, Tensor]
    weight: float

    def __post_init__(self):
        check_number("weight", self.weight, 0, error=LossError)

    def __call__(self, model: nn.Module) -> Tensor:
        return ewc_penalty(model, self.fisher, self.anchor, self.weight)

    @property
    def settings(self) -> dict:
        """The weight, ΣF and ‖θ*‖, rounded so that another machine's rounding is no other run."""
        squares = sum(tensor.double().square().sum().item() for tensor in self.anchor.values())
        total = sum(tensor.double().sum().item() for tensor in self.fisher.values())
        return {
            "weight": self.weight,
            "fisher": float(f"{total:.3g}"),
            "anchor": float(f"{squares**0.5:.5g}"),
        }
