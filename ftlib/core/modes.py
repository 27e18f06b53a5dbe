"""A model's evaluation mode for the length of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def evaluation_mode(model) -> Iterator[None]:
    """Within the block the model is in evaluation mode: no dropout. Afterwards, also after an
    exception, it is in the mode that it was in before.
    """
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
