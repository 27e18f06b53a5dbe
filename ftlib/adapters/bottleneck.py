"""Bottleneck adapters: a small two-layer network after each sublayer of a frozen model.

Houlsby et al. 2019, arXiv 1902.00751, section 2.1: ``h ← h + W_up·f(W_down·h + b_down) + b_up`` on
a sublayer's output h (B, T, d), before the residual addition; W_down is (m, d), W_up (d, m), so
each adds 2md + d + m parameters. W_up = 0 and b_up = 0 make the start exactly the base model.
Houlsby puts one after attention and one after the MLP of each layer, Pfeiffer et al. (2021, arXiv
2005.00247) only the second: `sublayers=("mlp",)`. The paper also trains the layer norms; they stay
frozen here. Unlike LoRA's, this update cannot be merged into the weights: f is between its two
matrices.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftlib.adapters import hooked as baselines
from ftlib.core.checks import check_positive_integer
from ftlib.core.dtypes import master_like

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu, "tanh": torch.tanh}


class Bottleneck(baselines.Baseline):
    """`down` (m, d) ~ kaiming_uniform(a=√5), `up` (d, m) = 0 and two biases = 0, all in fp32 or
    wider; computes in h's dtype.
    """

    kind = "BOTTLENECK"

    def __init__(self, options: dict, width: int, like: Tensor):
        super().__init__(options)
        size = options["size"]
        new = master_like(like)
        self.activation = ACTIVATIONS[options["activation"]]
        self.down = nn.Parameter(torch.empty(size, width, **new))  # (m, d)
        self.down_bias = nn.Parameter(torch.zeros(size, **new))
        self.up = nn.Parameter(torch.zeros(width, size, **new))  # (d, m)
        self.up_bias = nn.Parameter(torch.zeros(width, **new))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, h: Tensor) -> Tensor:
        """``h + W_up·f(W_down·h + b_down) + b_up``: h (B, T, d) -> (B, T, d)."""
        low = F.linear(h, self.down.to(h.dtype), self.down_bias.to(h.dtype))  # (B, T, m)
        low = self.activation(low)
        return h + F.linear(low, self.up.to(h.dtype), self.up_bias.to(h.dtype))

    def after(self, sublayer: nn.Module, args: tuple, output):
        """The sublayer's output with the adapter on it; attention returns its weights beside it."""
        if not self.enabled:
            return output
        if isinstance(output, tuple):
            return (self(output[0]), *output[1:])
        return self(output)


def _build(model: nn.Module, fields: dict) -> dict[str, Bottleneck]:
    """One adapter for each module whose last name is in `sublayers`. ValueError names the value
    that does not fit.
    """
    size = check_positive_integer("size", fields["size"])
    activation = fields["activation"]
    sublayers = fields["sublayers"]
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation={activation!r}: use one of {', '.join(ACTIVATIONS)}")
    if isinstance(sublayers, str) or not sublayers:
        raise ValueError(
            f"sublayers={sublayers!r}: give a list of module names, such as ['self_attn', 'mlp']"
        )
    found = {
        name: module
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in sublayers
    }
    last_names = {name.rpartition(".")[2] for name in found}
    for entry in sublayers:
        if entry not in last_names:
            raise ValueError(
                f"sublayers: {entry!r} names no module of this model; print(model) shows the names"
            )
    width = model.config.get_text_config(decoder=True).hidden_size
    options = {"size": size, "activation": activation, "sublayers": list(sublayers)}
    parts = {}
    for name, module in found.items():
        like = next(module.parameters())
        parts[f"{name}.bottleneck"] = Bottleneck(options, width, like)
    return parts


def add_bottleneck(
    model: nn.Module, size: int = 16, activation: str = "gelu", sublayers=("self_attn", "mlp")
) -> nn.Module:
    """Freeze the model and train an adapter of width `size` after each of these sublayers; returns
    the model.

    `sublayers`: last parts of module names, Llama's by default; their output, or the first of it,
    must be (B, T, hidden). Raises ValueError for a bad value, an unknown sublayer and a model that
    has an adapter.
    """
    baselines.refuse_second(model)
    fields = {"size": size, "activation": activation, "sublayers": sublayers}
    return baselines.attach(model, _build(model, fields))


def remove_bottleneck(model: nn.Module) -> nn.Module:
    """Take the adapters away: the base model, bit for bit, still frozen. AdapterError if there are
    none.
    """
    return baselines.remove(model, Bottleneck)


def save_bottleneck(model: nn.Module, path):
    """Write `adapter_config.json` (peft_type "BOTTLENECK": PEFT has no such method) and
    `adapter_model.safetensors`, atomically.
    """
    return baselines.save(model, path, Bottleneck)


def load_bottleneck(model: nn.Module, path, trainable: bool = True) -> nn.Module:
    """Put saved adapters onto the model, or into the equal ones that it has; returns the model.

    AdapterError (a ValueError) for another base, a damaged file or anything that does not fit; the
    model is then untouched.
    """
    return baselines.load(model, path, Bottleneck, _build, trainable)
