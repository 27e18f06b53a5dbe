"""How lab 3.1.4 trains: rows in shuffled batches, the schedule, the loop, all of them functions
that the student writes, and looks at the model on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ftlib.core.errors import DataError
from ftlib.course.lab_3_1_4.learning_rate import learning_rate
from ftlib.course.lab_3_1_4.pad_batch import pad_batch
from ftlib.course.lab_3_1_4.sft_loss import sft_loss
from ftlib.course.lab_3_1_4.train_loop import train_loop
from ftlib.training.row_checks import as_in_training

MAX_NORM = 1.0
WARMUP = 0.1  # share of the steps
MICRO = 8  # rows of a micro-batch


def answer_tokens(rows: Iterable[dict]) -> int:
    """The number of tokens of encoded rows on which a loss is taken."""
    return sum(label != -100 for row in rows for label in row["labels"])


def shuffled_batches(
    rows: Sequence[dict], steps: int, batch: int, seed: int, micro: int = MICRO
) -> list[list[tuple]]:
    """A batch a step, each a list of micro-batches (rows, answer tokens): all rows in a new order
    in every round, whatever their lengths. DataError where there are none.
    """
    if not rows:
        raise DataError("rows is empty: there is nothing to train on")
    random = np.random.default_rng(seed)
    order: list[int] = []
    batches = []
    for _ in range(steps):
        while len(order) < batch:
            order += random.permutation(len(rows)).tolist()
        chosen = [rows[i] for i in order[:batch]]
        order = order[batch:]
        parts = [chosen[i : i + micro] for i in range(0, batch, micro)]
        batches.append([(part, answer_tokens(part)) for part in parts])
    return batches


def loss_by(
    model: nn.Module,
    pad_id: int,
    precision: str,
    pad_batch: Callable = pad_batch,
    sft_loss: Callable = sft_loss,
) -> Callable[[list[dict]], Tensor]:
    """`batch_loss(rows)` of encoded rows: the mean loss per answer token."""

    def batch_loss(rows: list[dict]) -> Tensor:
        device = next(model.parameters()).device
        batch = {name: tensor.to(device) for name, tensor in pad_batch(rows, pad_id).items()}
        labels = batch.pop("labels")
        with as_in_training(model, precision):
            logits = model(**batch).logits
        return sft_loss(logits, labels)

    return batch_loss


def segments(places: Sequence[int]) -> list[tuple[int, int]]:
    """From the start to the first place, from there to the next one, …"""
    return list(zip([0, *places[:-1]], places, strict=True))


def fit(
    model: nn.Module,
    batch_loss: Callable,
    batches: Sequence,
    peak: float,
    places: Sequence[int] = (),
    look: Callable[[], Any] | None = None,
    learning_rate: Callable = learning_rate,
    train_loop: Callable = train_loop,
) -> tuple[list[float], list]:
    """Train what requires grad, with AdamW. (the loss of every batch, what `look()` gave after each
    of `places`; the last place is the number of steps).
    """
    steps = len(batches)
    places = list(places) or [steps]
    warmup = round(WARMUP * steps)
    rates = [learning_rate(step, steps, peak, warmup) for step in range(steps)]
    trained = [q for q in model.parameters() if q.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=peak, weight_decay=0.0)
    losses: list[float] = []
    seen = []
    for start, end in segments(places):
        model.train()
        losses += train_loop(
            optimizer, batch_loss, list(batches[start:end]), rates[start:end], MAX_NORM
        )
        model.eval()
        if look is not None:
            seen.append(look())
    return losses, seen
