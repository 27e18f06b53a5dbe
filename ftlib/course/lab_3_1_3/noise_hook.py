"""Lab 3.1.3, NEFTune, exercise 5: only in training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftlib.course.exercise import Exercise, Wrong


def noise_hook(module: nn.Module, inputs: tuple, output: Tensor, noise_of) -> Tensor:
    """What a forward hook on the embedding does: noise in training mode, nothing otherwise."""
    return output + noise_of(output) if module.training else output


def _some_noise(output):
    return 0.1 * torch.cos(torch.arange(output.numel(), dtype=output.dtype)).reshape(output.shape)


def _hook_cases(g):
    for training, shape in [(True, (2, 3)), (False, (2, 3)), (True, (4, 1)), (False, (1, 5))]:
        ids = torch.randint(0, 7, shape, generator=g)
        yield (
            nn.Embedding(7, 4).train(training),
            (ids,),
            torch.randn(*shape, 4, generator=g),
            _some_noise,
        )


def _hook_returns_nothing(module, inputs, output, noise_of):
    if module.training:
        output = output + noise_of(output)


def _hook_half_return(module, inputs, output, noise_of):
    if module.training:
        return output + noise_of(output)


HOOK = Exercise(
    name="noise_hook",
    title="Only in training",
    minutes=4,
    difficulty=1,
    reference=noise_hook,
    cases=_hook_cases,
    gradient_of=("output",),
    praise="noise in training mode, none in evaluation mode,",
    hints=(
        "A module knows its mode: `module.training` is True after `model.train()` and False after "
        "`model.eval()`.",
        "What a forward hook returns takes the place of the module's output. So return the sum, "
        "or the output as it came.",
        "return output + noise_of(output) if module.training else output",
    ),
    wrong=(
        Wrong(
            "noise at eval time",
            lambda m, i, o, n: o + n(o),
            "You add noise at evaluation time too: the model would be tested and used on blurred "
            "words. Ask `module.training`.",
        ),
        Wrong(
            "the wrong way round",
            lambda m, i, o, n: o if m.training else o + n(o),
            "It is the wrong way round: you noise in evaluation mode and train on clean "
            "embeddings.",
        ),
        Wrong(
            "noise alone",
            lambda m, i, o, n: n(o) if m.training else o,
            "In training you return the noise alone: the embedding itself is lost. Return the sum.",
        ),
        Wrong(
            "nothing returned",
            _hook_returns_nothing,
            "Your hook returns nothing, and PyTorch then keeps the clean output: no noise would "
            "ever reach the model.",
        ),
        Wrong(
            "nothing in evaluation",
            _hook_half_return,
            "In evaluation mode you return None. PyTorch would keep the output, so it works by "
            "luck; "
            "return `output` and mean it.",
        ),
    ),
)
