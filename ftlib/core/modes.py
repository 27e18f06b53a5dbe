"""A model's mode: training, or evaluation, in which there is no dropout."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """Within the block the model is in evaluation mode; afterwards, also after an error, each of
    its modules is in the mode that it was in: one that was kept in evaluation mode stays so.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, training in modes:
            module.training = training
