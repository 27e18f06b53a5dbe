"""What a run is to keep while it learns something else: the loss on the base's own domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ftlib.core.checks import check_above_zero, check_positive_integer
from ftlib.data.rows import fingerprint
from ftlib.evaluation.metrics import mean_nll


@dataclass(frozen=True)
class ForgettingWatch:
    """``finetune(…, watch=ForgettingWatch(texts, every=10, threshold=0.1))``: every so many steps
    the mean loss a token (nats) on `texts` of the base's domain, held out from replay; where it has
    risen by more than `threshold` nats the run stops (None: it only watches).

    The model stays as it is at the measurement that stopped it, already above the threshold by what
    `every` steps cost; `ftlib.interpolate_weights` goes back from there. The learning rate's
    schedule is that of the full number of steps. ValueError for values that no watch can have.
    """

    texts: Sequence[str]
    every: int
    threshold: float | None = None
    batch_size: int = 32
    max_length: int = 1024

    def __post_init__(self):
        if isinstance(self.texts, str) or not len(self.texts):
            raise ValueError(f"texts={self.texts!r}: pass a list of texts, at least one")
        for name in ("every", "batch_size", "max_length"):
            value = check_positive_integer(name, getattr(self, name))
            object.__setattr__(self, name, value)  # frozen
        if self.threshold is not None:
            check_above_zero("threshold", self.threshold)

    @property
    def settings(self) -> dict:
        """What a run records of it."""
        return {
            "every": self.every,
            "threshold": self.threshold,
            "max_length": self.max_length,
            "texts": fingerprint(list(self.texts)),
        }

    def measure(self, model: nn.Module, tokenizer) -> float:
        """The mean loss per token of the texts, in nats."""
        return mean_nll(model, tokenizer, list(self.texts), self.batch_size, self.max_length)
