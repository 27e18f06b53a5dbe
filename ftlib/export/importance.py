"""An importance matrix: how strongly each column of a weight is used, for llama.cpp's quantiser.

The product of a layer is Wx. A rounding error ΔW changes it by ΔW·x, whose expected square in row i
is ``Σ_jk ΔW_ij ΔW_ik E[x_j x_k]``; of that the importance matrix keeps the diagonal, E[x_j²]. With
it the quantiser minimises ``Σ_j E[x_j²] ΔW_ij²`` in place of its own guess. llama.cpp's program
`llama-imatrix` collects the same numbers; llama-cpp-python has the quantiser that takes them and
not the program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import gguf
import numpy as np
import torch
from torch import Tensor, nn

from ftlib.adapters.lora_layer import LoRALinear
from ftlib.core.modes import evaluation_mode
from ftlib.export.errors import ExportError
from ftlib.export.gguf_names import ARCHITECTURES


def importance_matrix(model: nn.Module, texts: Iterable[Sequence[int]]) -> dict[str, np.ndarray]:
    """{name in the GGUF: (columns,) mean square of the inputs, fp32} of every linear layer in the
    blocks, over all positions of the texts, given as token ids.

    The model is used as it is, adapter on; the head and the embedding are left out, as
    `llama-imatrix` leaves them out. For `quantize_gguf(…, importance=…)`. ExportError for an
    architecture that `export_gguf` does not write, and without a token.
    """
    kind = getattr(model.config, "model_type", None)
    if kind not in ARCHITECTURES:
        raise ExportError(f"model_type={kind!r}: use one of {', '.join(ARCHITECTURES)}")
    squares: dict[str, Tensor] = {}
    tokens = 0
    hooks = [
        module.register_forward_pre_hook(_collector(squares, name))
        for name, module in _block_layers(model).items()
    ]
    device = next(model.parameters()).device
    try:
        with torch.no_grad(), evaluation_mode(model):
            for ids in texts:
                model(input_ids=torch.tensor([list(ids)], device=device))
                tokens += len(ids)
    finally:
        for hook in hooks:
            hook.remove()
    if not tokens:
        raise ExportError("texts has no token: pass lists of token ids")
    names = gguf.get_tensor_name_map(ARCHITECTURES[kind], model.config.num_hidden_layers)
    found = {}
    for name, total in squares.items():
        stored = names.get_name(f"{name}.weight", try_suffixes=(".weight",))
        if stored is not None:
            found[stored] = (total / tokens).float().cpu().numpy()
    return found


def _block_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The linear layers of the blocks, with or without an adapter, by their names."""
    found = {}
    for name, module in model.named_modules():
        is_layer = isinstance(module, (nn.Linear, LoRALinear)) and ".layers." in name
        if is_layer and not name.endswith(".base_layer"):
            found[name] = module
    return found


def _collector(squares: dict[str, Tensor], name: str):
    """A hook that adds the squares of a layer's inputs, summed over positions."""

    def add(module: nn.Module, inputs: tuple) -> None:
        values = inputs[0].detach().double().flatten(0, -2)  # (positions, columns)
        total = values.square().sum(0)
        squares[name] = squares[name] + total if name in squares else total

    return add
