"""Lab E6, exercise: the names of an adapter's tensors in PEFT's file."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong

PREFIX = "base_model.model."
MATRICES = ("lora_A", "lora_B")
MAGNITUDE = "lora_magnitude_vector"


def peft_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a model's state with ftlib's adapter in it the adapter's tensors alone, under the names
    that `adapter_model.safetensors` of PEFT has for them: `base_model.model.` before the module's
    path, `.weight` after lora_A and lora_B, nothing after DoRA's lora_magnitude_vector.
    """
    renamed = {}
    for name, tensor in state.items():
        last = name.rsplit(".", 1)[-1]
        if last in MATRICES:
            renamed[f"{PREFIX}{name}.weight"] = tensor
        elif last == MAGNITUDE:
            renamed[f"{PREFIX}{name}"] = tensor
    return renamed


def _state(g, layers, dora):
    state = {"model.embed_tokens.weight": torch.randn(5, 4, generator=g)}
    for i in range(layers):
        for part in ("self_attn.q_proj", "mlp.down_proj"):
            at = f"model.layers.{i}.{part}"
            state[f"{at}.weight"] = torch.randn(3, 4, generator=g)
            state[f"{at}.lora_A"] = torch.randn(2, 4, generator=g)
            state[f"{at}.lora_B"] = torch.randn(3, 2, generator=g)
            if dora:
                state[f"{at}.{MAGNITUDE}"] = torch.rand(3, generator=g)
    return state


def _cases(g):
    yield (_state(g, 1, False),)
    yield (_state(g, 2, False),)
    yield (_state(g, 1, True),)


def _keys(prefix=PREFIX, matrix=".weight", magnitude="", kept=("lora_",), change=lambda t: t):
    def keys(state):
        renamed = {}
        for name, tensor in state.items():
            last = name.rsplit(".", 1)[-1]
            end = magnitude if last == MAGNITUDE else matrix
            if any(last.startswith(begin) for begin in kept):
                renamed[f"{prefix}{name}{end}"] = change(tensor)
        return renamed

    return keys


def _everything(state):
    found = {f"{PREFIX}{name}": t for name, t in state.items() if "lora_" not in name}
    return {**found, **peft_keys(state)}


KEYS = Exercise(
    name="peft_keys",
    title="The names in PEFT's file",
    minutes=8,
    difficulty=2,
    reference=peft_keys,
    cases=_cases,
    hints=(
        "The last part of a name (`name.rsplit('.', 1)[-1]`) says what the tensor is: lora_A, "
        "lora_B, lora_magnitude_vector, or a weight of the base.",
        "PEFT wraps the model twice, so `base_model.model.` comes before every path. lora_A and "
        "lora_B are modules there and have a `.weight`; the magnitude's name in the file has none.",
        "if last in ('lora_A', 'lora_B'): renamed[f'base_model.model.{name}.weight'] = tensor",
    ),
    wrong=(
        Wrong(
            "names in memory",
            _keys(matrix=".default.weight"),
            "`.default` is the adapter's name in PEFT's memory. The file leaves it out, so that "
            "an adapter can be loaded under another name.",
        ),
        Wrong(
            "no prefix",
            _keys(prefix=""),
            "`base_model.model.` is missing: PEFT finds none of these names, warns, and goes on "
            "with B = 0.",
        ),
        Wrong(
            "half a prefix",
            _keys(prefix="base_model."),
            "PEFT wraps twice, PeftModel around LoraModel around yours: `base_model.model.`, and "
            "then your own model's path, which may begin with `model.` again.",
        ),
        Wrong(
            "no weight",
            _keys(matrix=""),
            "lora_A and lora_B are modules in PEFT: their tensors are called `….weight`.",
        ),
        Wrong(
            "weight for the magnitude",
            _keys(magnitude=".weight"),
            "lora_magnitude_vector has no `.weight` in the file.",
        ),
        Wrong(
            "transposed",
            _keys(change=lambda t: t.T if t.ndim == 2 else t),
            "The names are right, but the matrices are transposed: A is (r, in) and B (out, r) on "
            "both sides.",
        ),
        Wrong(
            "magnitude left out",
            _keys(kept=MATRICES),
            "DoRA's lora_magnitude_vector is missing: PEFT would start again from ‖W‖.",
        ),
        Wrong(
            "the base too",
            _everything,
            "Your result includes the base's weights: an adapter's file has only the adapter.",
        ),
    ),
)
