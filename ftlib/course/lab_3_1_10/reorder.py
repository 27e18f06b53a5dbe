"""The same function with its numbers in another order, so that rounding is drawn anew.

A quantised file is one draw of rounding errors, and a comparison of two files over many prompts
would take the luck of that draw for a rule. But a model can be written down in many orders: the
numbers of the residual stream, the hidden numbers of an MLP, the numbers of a value head. Put the
rows and columns of all matrices into a matching order, and every output stays as it is, while other
weights share a block. Keys and queries keep theirs, for the rotation fixes it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ftlib.adapters.lora_layer import LoRALinear


@torch.no_grad()
def reorder(model: nn.Module, seed: int) -> nn.Module:
    """Reorder a model of the Llama or Qwen family in place, its LoRA too; returns it."""
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    stream = torch.randperm(config.hidden_size, generator=generator)
    embedding = model.get_input_embeddings().weight
    head = model.get_output_embeddings().weight
    embedding.copy_(embedding[:, stream])
    if head is not embedding:
        head.copy_(head[:, stream])
    core = model.model
    _reorder_vector(core.norm.weight, stream)
    for block in core.layers:
        _reorder_vector(block.input_layernorm.weight, stream)
        _reorder_vector(block.post_attention_layernorm.weight, stream)
        _reorder_attention(block.self_attn, config, stream, generator)
        hidden = torch.randperm(config.intermediate_size, generator=generator)
        for layer in (block.mlp.gate_proj, block.mlp.up_proj):
            _reorder_layer(layer, rows=hidden, columns=stream)
        _reorder_layer(block.mlp.down_proj, rows=stream, columns=hidden)
    return model


def _reorder_attention(attention: nn.Module, config, stream: Tensor, generator) -> None:
    """q and k by their columns alone; v's rows within each head, and o's columns with them."""
    for layer in (attention.q_proj, attention.k_proj):
        _reorder_layer(layer, columns=stream)
    groups = config.num_key_value_heads
    shared = config.num_attention_heads // groups  # query heads that read one value head
    size = len(_weight(attention.v_proj)) // groups
    values = []
    outputs = []
    for group in range(groups):
        within = torch.randperm(size, generator=generator)
        values.append(within + group * size)
        for head in range(group * shared, (group + 1) * shared):
            outputs.append(within + head * size)
    _reorder_layer(attention.v_proj, rows=torch.cat(values), columns=stream)
    _reorder_layer(attention.o_proj, rows=stream, columns=torch.cat(outputs))


def _weight(layer: nn.Module) -> Tensor:
    return layer.base_layer.weight if isinstance(layer, LoRALinear) else layer.weight


def _reorder_vector(vector: Tensor, order: Tensor) -> None:
    vector.copy_(vector[order])


def _reorder_layer(
    layer: nn.Module, rows: Tensor | None = None, columns: Tensor | None = None
) -> None:
    weight = _weight(layer)
    inside, outside = [weight], [weight]
    if isinstance(layer, LoRALinear):
        inside.append(layer.lora_A)
        outside.append(layer.lora_B)
    bias = getattr(layer.base_layer if isinstance(layer, LoRALinear) else layer, "bias", None)
    if bias is not None:
        outside.append(bias)
    if columns is not None:
        for matrix in inside:
            matrix.copy_(matrix[:, columns])
    if rows is not None:
        for matrix in outside:
            matrix.copy_(matrix[rows])
