"""What the methods cost when a model answers: products counted in the pass over a prompt and in a
step of generating, times within one run, and (IA)³ folded into the weights.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ftlib.adapters import ia3
from ftlib.adapters.hooked import parts_of
from ftlib.adapters.merging import merge_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_1.shapes import layer_shapes
from ftlib.course.lab_e3.merge_ia3 import merge_ia3
from ftlib.course.lab_e3.trials import prepared
from ftlib.course.records.kit import study_base

BASE = "base"
MERGED = ("LoRA, merged", "(IA)³, merged")
WAYS = (BASE, "LoRA", MERGED[0], "LoReFT", "(IA)³", MERGED[1], "prefix", "bottleneck")
SPREAD = 0.05  # of the numbers that stand in for trained weights


# --- arithmetic -----------------------------------------------------------------------------------
def extra_products(
    config: Mapping[str, int],
    method: str,
    size: int,
    targets: Sequence[str],
    tokens: int,
    edited: int,
) -> int:
    """Multiply-adds that an unmerged adapter adds to a pass over `tokens` tokens, of which LoReFT
    edits `edited`, with the three products of exercise 1 (ftlib's take two: W − R is one matrix).
    (IA)³'s multiplications count as such; R's decomposition is left out.
    """
    d = config["hidden_size"]
    heads = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = layer_shapes(dict(config))
    of_layer = {
        "LoRA": tokens * size * sum(sum(shapes[target]) for target in targets),
        "LoReFT": edited * 3 * size * d,
        "(IA)³": tokens * (2 * kv + config["intermediate_size"]),
        "prefix": tokens * 2 * size * heads,
        "bottleneck": tokens * 2 * size * d,
    }
    return config["num_hidden_layers"] * of_layer[method]


# --- models ---------------------------------------------------------------------------------------
@torch.no_grad()
def fold_ia3(model: nn.Module, merge_ia3: Callable = merge_ia3) -> nn.Module:
    """Put (IA)³'s vectors into the weights that they scale, with your function, and take them away;
    returns the model.
    """
    for path, part in parts_of(model, ia3.IA3).items():
        layer = model.get_submodule(path.rpartition(".")[0])
        scale = part.weight.flatten().to(layer.weight.dtype)
        weight, bias = merge_ia3(layer.weight, layer.bias, scale, part.scales_input)
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return ia3.remove_ia3(model)


def served(
    profile: Profile, way: str, sizes: Mapping[str, int], targets: Sequence[str], **functions
) -> nn.Module:
    """The study's model as it is served this way, one of WAYS, with random numbers in the place of
    trained ones; `functions`: the student's.
    """
    if way == BASE:
        return study_base(profile)[0].eval()
    method = way.partition(",")[0]
    own = {k: v for k, v in functions.items() if k != "merge_ia3"}
    model, _ = prepared(profile, 0, method, sizes[method], targets, **own)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(SPREAD * torch.randn_like(parameter))
    model.eval()
    if way == MERGED[0]:
        return merge_adapter(model)
    if way == MERGED[1]:
        return fold_ia3(model, functions.get("merge_ia3", merge_ia3))
    return model


# --- passes ---------------------------------------------------------------------------------------
@torch.no_grad()
def read_prompt(model: nn.Module, ids: Tensor):
    """The pass over a prompt (1, T); what the model has in its cache after it."""
    return model(input_ids=ids, use_cache=True).past_key_values


@torch.no_grad()
def write_token(model: nn.Module, token: Tensor, cache) -> None:
    """One step of generating, after a prompt; the cache is left as it was found."""
    model(input_ids=token, past_key_values=cache, use_cache=True)
    cache.crop(-1)


def _in_place(_, one, other, **rest) -> int:
    """Operations of a product (m, k) (k, n) that is added in place: torch's counter lacks them."""
    return 2 * one[0] * one[1] * other[1]


def _counter() -> FlopCounterMode:
    return FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _in_place})


def counted(model: nn.Module, ids: Tensor) -> tuple[int, int]:
    """Multiply-adds in matrix products of the pass over a prompt (1, T), and of the step after it;
    products by element and norms are not among them.
    """
    with _counter() as first:
        cache = read_prompt(model, ids)
    with _counter() as second:
        write_token(model, ids[:, -1:], cache)
    return first.get_total_flops() // 2, second.get_total_flops() // 2


def cache_numbers(model: nn.Module, ids: Tensor) -> int:
    """How many numbers the KV cache holds after a prompt (1, T)."""
    cache = read_prompt(model, ids)
    return sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def timed(models: Mapping[str, nn.Module], ids: Tensor, turns: int) -> dict[str, np.ndarray]:
    """{way: (turns, 2)} of seconds for the prompt and for a step; the ways take turns, so that a
    ratio within a turn is of the same moments.
    """
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in models}
    for _ in range(turns + 1):
        for way, model in models.items():
            cache = read_prompt(model, ids)
            prompt = _seconds(partial(read_prompt, model, ids), ids.device)
            step = _seconds(partial(write_token, model, ids[:, -1:], cache), ids.device)
            times[way].append((prompt, step))
    return {way: np.array(found[1:]) for way, found in times.items()}  # the first turn warms up
