"""(IA)³: learned vectors that scale keys, values and the MLP's intermediate activations.

Liu et al. 2022, arXiv 2205.05638, section 3.3: ``l_k ⊙ K`` and ``l_v ⊙ V`` in attention, and in the
MLP ``W_down(l_ff ⊙ γ)``, γ what the layer before the last gives. Each l starts at one, so the start
is exactly the base model. A vector stands at a linear layer: on its output, (out,) parameters, or
where the layer is one of `feedforward_modules` on its input, (in,). The files are PEFT's, both
ways.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ftlib.adapters import hooked as baselines
from ftlib.adapters.targets import target_names
from ftlib.core.dtypes import master_like
from ftlib.models.wrapped import unwrapped

# PEFT's options under which its adapter is another one.
UNREAD = ("modules_to_save", "exclude_modules", "fan_in_fan_out")


class IA3(baselines.Baseline):
    """`weight`, fp32 or wider: (out, 1), or (1, in) of a feed-forward layer, as PEFT has them."""

    kind = "IA3"
    key = "base_model.model.{part}"

    def __init__(self, options: dict, layer: nn.Module, scales_input: bool):
        super().__init__(options)
        self.scales_input = scales_input
        shape = (1, layer.in_features) if scales_input else (layer.out_features, 1)
        self.weight = nn.Parameter(torch.ones(shape, **master_like(layer.weight)))

    def register(self, owner: nn.Module) -> list:
        if self.scales_input:
            return [owner.register_forward_pre_hook(self.scale_input)]
        return [owner.register_forward_hook(self.scale_output)]

    def forward(self, x: Tensor) -> Tensor:
        """``l ⊙ x``: (..., n) -> (..., n), in x's dtype."""
        return (x * self.weight.flatten()).to(x.dtype)

    def scale_input(self, layer: nn.Module, args: tuple):
        return (self(args[0]), *args[1:]) if self.enabled else None

    def scale_output(self, layer: nn.Module, args: tuple, output: Tensor):
        return self(output) if self.enabled else output


def _as_given(name: str, value):
    """The names as a list, or the expression as it is."""
    if isinstance(value, str):
        return value
    if not isinstance(value, (list, tuple, set)) or not all(isinstance(v, str) for v in value):
        raise ValueError(f"{name}={value!r}: give a list of module names")
    return sorted(value) if isinstance(value, set) else list(value)


def _build(model: nn.Module, fields: dict) -> dict[str, IA3]:
    """A vector for each layer that `target_modules` names. ValueError names the value that does not
    fit.
    """
    for name in UNREAD:
        if fields.get(name):
            raise ValueError(f"{name}={fields[name]!r} is not implemented in ftlib")
    targets = _as_given("target_modules", fields["target_modules"])
    feedforward = _as_given("feedforward_modules", fields["feedforward_modules"])
    if not targets:
        raise ValueError("target_modules is empty: name at least one linear layer")
    names = target_names(model, targets)
    scaled_before = set(target_names(model, feedforward)) if feedforward else set()
    left_out = sorted(scaled_before - set(names))
    if left_out:
        raise ValueError(
            f"feedforward_modules={feedforward!r}: {left_out[0]!r} is not among target_modules: "
            "name it there too"
        )
    options = {"target_modules": targets, "feedforward_modules": feedforward}
    parts = {}
    for name in names:
        layer = model.get_submodule(name)
        parts[f"{name}.ia3_l"] = IA3(options, layer, name in scaled_before)
    return parts


def add_ia3(
    model: nn.Module,
    target_modules: str | Sequence[str] = ("k_proj", "v_proj", "down_proj"),
    feedforward_modules: str | Sequence[str] = ("down_proj",),
) -> nn.Module:
    """Freeze the model and train a vector at each of these linear layers; returns the model.

    `target_modules`, as in `add_lora`, and those among them whose input is scaled rather than their
    output, `feedforward_modules`; by default Llama's. In Llama's MLP the input of `down_proj` is
    ``silu(W_gate x) ⊙ W_up x``. ValueError for a bad value, an unknown layer and a model that has
    an adapter.
    """
    baselines.refuse_second(model)
    fields = {"target_modules": target_modules, "feedforward_modules": feedforward_modules}
    return baselines.attach(model, _build(unwrapped(model), fields))


def remove_ia3(model: nn.Module) -> nn.Module:
    """Take the vectors away: the base model, bit for bit, still frozen. AdapterError if there are
    none.
    """
    return baselines.remove(model, IA3)


def save_ia3(model: nn.Module, path: str | os.PathLike) -> Path:
    """Write the vectors as PEFT's two files, atomically; returns the folder. AdapterError if there
    are none.
    """
    return baselines.save(
        model,
        path,
        IA3,
        fan_in_fan_out=False,
        init_ia3_weights=True,
        modules_to_save=None,
        inference_mode=True,
    )


def load_ia3(model: nn.Module, path: str | os.PathLike, trainable: bool = True) -> nn.Module:
    """Put saved vectors, ftlib's or PEFT's, onto the model or into the equal ones that it has;
    returns the model.

    AdapterError (a ValueError) for another base, a damaged file or anything that does not fit; the
    model is then untouched.
    """
    return baselines.load(model, path, IA3, _build, trainable)
