"""What the trainer has to know of each preference loss, in one table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ftlib.losses.preference import dpo_loss, kto_loss, orpo_loss, simpo_loss
from ftlib.training.errors import RunError

SIDES = (
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margins",
    "logps/chosen",
    "logps/rejected",
    "lengths/chosen",
    "lengths/rejected",
)
PAIRED = (*SIDES, "rewards/accuracies")


@dataclass(frozen=True)
class LossSpec:
    """A loss of `ftlib.losses.preference` as it is trained with.

    `options`: its options with their defaults. `metrics`: what is logged beside it. `reference`:
    it compares with a reference policy. `averaged`: it takes means a token, not sums. `nll`: it
    takes the chosen answer's negative log-likelihood. `paired`: its rows are pairs, else single
    answers with a label.
    """

    name: str
    function: Callable
    options: dict[str, float]
    metrics: tuple[str, ...]
    reference: bool = False
    averaged: bool = False
    nll: bool = False
    paired: bool = True

    def validate(self, given: dict) -> dict[str, float]:
        """All options: the defaults, and those given in their place, None means the default.

        RunError for an option that the loss does not have, and the loss's own LossError for a value
        that it cannot take: it is asked now, with one example, and not in the first step.
        """
        options = dict(self.options)
        for name, value in given.items():
            if value is None:
                continue
            if name not in options:
                raise RunError(
                    f"{name}={value!r}: loss={self.name!r} takes no such option, only "
                    f"{', '.join(options)}"
                )
            options[name] = value
        self.function(*self._example(), **options)
        return options

    def _example(self) -> list[torch.Tensor]:
        """The tensors that the loss takes, of one row."""
        logp = torch.full((1,), -1.0)
        if not self.paired:
            label = torch.tensor([True])
            return [logp, logp, logp, logp, label]
        tensors = [logp, logp]
        if self.reference:
            tensors += [logp, logp]
        if self.nll:
            tensors.append(-logp)
        return tensors


LOSS_SPECS = {
    "dpo": LossSpec(
        name="dpo",
        function=dpo_loss,
        options={"beta": 0.1, "label_smoothing": 0.0},
        metrics=(*PAIRED, "kl"),
        reference=True,
    ),
    "simpo": LossSpec(
        name="simpo",
        function=simpo_loss,
        options={"beta": 2.0, "gamma_beta_ratio": 0.5},
        metrics=PAIRED,
        averaged=True,
    ),
    "orpo": LossSpec(
        name="orpo",
        function=orpo_loss,
        options={"beta": 0.1},
        metrics=(*PAIRED, "nll_loss"),
        averaged=True,
        nll=True,
    ),
    "kto": LossSpec(
        name="kto",
        function=kto_loss,
        options={"beta": 0.1, "desirable_weight": 1.0, "undesirable_weight": 1.0},
        metrics=(*SIDES, "kl"),
        reference=True,
        paired=False,
    ),
}


def loss_spec(name: str) -> LossSpec:
    """By name; RunError for one that there is not."""
    if name not in LOSS_SPECS:
        raise RunError(f"loss={name!r}: use one of {', '.join(LOSS_SPECS)}")
    return LOSS_SPECS[name]
