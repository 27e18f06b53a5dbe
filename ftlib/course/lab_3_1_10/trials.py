"""What one trial of lab 3.1.10 does: write a file, read it beside the f16 file, and measure."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ftlib.adapters.io import save_adapter
from ftlib.adapters.lora import disable_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_10.files import (
    KINDS,
    Reading,
    dense,
    export_f16,
    quantised,
    read_file,
    split_kl,
    split_loss,
)
from ftlib.course.lab_3_1_10.held_out import (
    Sample,
    is_right,
    lab_model,
    lab_tokenizer,
    own_model,
    sample_of,
)
from ftlib.course.lab_3_1_10.kl_per_token import kl_per_token
from ftlib.course.records.kit import rows_of
from ftlib.data.load import load_base_text
from ftlib.export.gguf_adapter import export_adapter_gguf
from ftlib.export.gguf_file import read_gguf, tensor_types
from ftlib.export.gguf_merge import merge_adapter_gguf
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.importance import importance_matrix

CALIBRATION_TEXTS = 40  # that an importance matrix is collected on
CALIBRATION_TOKENS = 60  # of each, at most


# --- whole files ----------------------------------------------------------------------------------
def file_trial(
    profile: Profile, seed: int, quantization: str, kl_per_token: Callable = kl_per_token
) -> dict[str, Any]:
    """One quantisation beside the f16 file: KL and log-loss, on answers and prompts apart, and
    greedy answers.
    """
    sample = sample_of(profile, seed)
    with tempfile.TemporaryDirectory() as folder:
        f16 = export_f16(profile, seed, folder)
        before = read_file(f16, sample, profile.max_new_tokens)
        file = quantised(f16, quantization)
        after = read_file(file, sample, profile.max_new_tokens)
    on_answers, on_prompts = split_kl(before.logits, after.logits, sample, kl_per_token)
    answers_before, prompts_before = split_loss(before.logits, sample)
    answers_after, prompts_after = split_loss(after.logits, sample)
    return {
        "answer_kl": np.mean(on_answers),
        "prompt_kl": np.mean(on_prompts),
        "answer_loss": np.mean(answers_after) - np.mean(answers_before),
        "prompt_loss": np.mean(prompts_after) - np.mean(prompts_before),
        "same": _share_equal(before, after),
        "right": _share_right(profile, after, sample),
    }


def _share_equal(before: Reading, after: Reading) -> float:
    pairs = zip(before.answers, after.answers, strict=True)
    return float(np.mean([ours == theirs for ours, theirs in pairs]))


def _share_right(profile: Profile, reading: Reading, sample: Sample) -> float:
    tokenizer = lab_tokenizer(profile)
    texts = [tokenizer.decode(ids, skip_special_tokens=True) for ids in reading.answers]
    return float(np.mean([is_right(t, row) for t, row in zip(texts, sample.rows, strict=True)]))


# --- one kind of matrix at a time -----------------------------------------------------------------
def kinds_trial(
    profile: Profile, seed: int, quantization: str, kl_per_token: Callable = kl_per_token
) -> dict[str, Any]:
    """KL where one kind of matrix alone has this type and all others are f16, one number a kind, in
    the order of `KINDS`.
    """
    sample = sample_of(profile, seed)
    kind_type = quantization.removesuffix("_M")
    on_answers = []
    on_prompts = []
    with tempfile.TemporaryDirectory() as folder:
        f16 = export_f16(profile, seed, folder)
        before = read_file(f16, sample)
        for pattern in KINDS:
            file = quantised(f16, quantization, types={pattern: kind_type, ".": "F16"})
            after = read_file(file, sample)
            answers, prompts = split_kl(before.logits, after.logits, sample, kl_per_token)
            on_answers.append(np.mean(answers))
            on_prompts.append(np.mean(prompts))
    return {"answer_kl": on_answers, "prompt_kl": on_prompts}


# --- where the larger type goes -------------------------------------------------------------------
ELSEWHERE = {"attn_v": "attn_k", "ffn_down": "ffn_up"}  # of the same shape in models of the family


def mix_types(recipe: dict[str, str], mix: str) -> dict[str, str]:
    """Types by pattern that turn the recipe of a Q4_K_M, {matrix: type}, into another mix.

    "recipe": as it is. "elsewhere": what v and down got goes to k and up of the same layers. "other
    layers": it goes to v and down of as many other layers. "plain": nobody gets it.
    """
    larger = [n for n, kind in recipe.items() if kind == "Q6_K" and n.startswith("blk.")]
    if mix == "recipe":
        return {}
    types = {}
    for name in larger:
        _, layer, matrix, _ = name.split(".")
        if mix == "elsewhere":
            types[_exactly(layer, ELSEWHERE[matrix])] = "Q6_K"
        elif mix == "other layers":
            types[_exactly(_other_layer(recipe, int(layer), matrix), matrix)] = "Q6_K"
    for name in larger:
        _, layer, matrix, _ = name.split(".")
        types[_exactly(layer, matrix)] = "Q4_K"
    return types


def _exactly(layer: int | str, matrix: str) -> str:
    return rf"^blk\.{layer}\.{matrix}\.weight$"


def _other_layer(recipe: dict[str, str], layer: int, matrix: str) -> int:
    """The layer that has its place from the other end among those that got the smaller type."""
    of_kind = [name for name in recipe if re.search(rf"\.{matrix}\.weight$", name)]
    layers = {int(name.split(".")[1]): recipe[name] for name in of_kind}
    larger = sorted(number for number, kind in layers.items() if kind == "Q6_K")
    smaller = sorted(number for number, kind in layers.items() if kind != "Q6_K")
    return smaller[larger.index(layer)]


def mix_trial(
    profile: Profile, seed: int, mix: str, kl_per_token: Callable = kl_per_token
) -> dict[str, Any]:
    """A Q4_K_M whose larger matrices are others."""
    sample = sample_of(profile, seed)
    with tempfile.TemporaryDirectory() as folder:
        f16 = export_f16(profile, seed, folder)
        before = read_file(f16, sample)
        recipe = tensor_types(read_gguf(quantised(f16, "Q4_K_M")))
        file = quantised(f16, "Q4_K_M", types=mix_types(recipe, mix))
        nbytes = sum(int(tensor.n_bytes) for tensor in read_gguf(file).tensors)
        after = read_file(file, sample)
    on_answers, on_prompts = split_kl(before.logits, after.logits, sample, kl_per_token)
    return {
        "answer_kl": np.mean(on_answers),
        "prompt_kl": np.mean(on_prompts),
        "megabytes": nbytes / 1e6,
    }


# --- an importance matrix -------------------------------------------------------------------------
def calibration_of(profile: Profile, seed: int, calibration: str) -> dict[str, np.ndarray]:
    """The importance matrix of a calibration, on texts that the seed draws; empty for "none".

    "own": training rows. "other": texts of pretraining. "shuffled": that of "own", the columns of
    each matrix in a drawn order: the same numbers in the wrong places.
    """
    if calibration == "none":
        return {}
    model = lab_model(profile, seed)
    tokenizer = lab_tokenizer(profile)
    rng = np.random.default_rng(seed)
    if calibration == "other":
        texts = [tokenizer(text)["input_ids"] for text in load_base_text(profile, 300)]
    else:
        rows = rows_of(profile, "train")
        texts = [
            tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
            for row in (rows[i] for i in rng.choice(len(rows), CALIBRATION_TEXTS, replace=False))
        ]
    chosen = rng.permutation(len(texts))[:CALIBRATION_TEXTS]
    found = importance_matrix(model, [texts[i][:CALIBRATION_TOKENS] for i in chosen])
    if calibration == "shuffled":
        return {name: values[rng.permutation(len(values))] for name, values in found.items()}
    return found


def weighed_rounding(f16: Path, file: Path, importance: dict[str, np.ndarray]) -> float:
    """``Σ E[x_j²]·ΔW_ij² / Σ E[x_j²]·W_ij²``, mean over the matrices that have an importance: the
    share of each layer's output that rounding changes, as far as its inputs do not correlate.
    """
    plain = {tensor.name: tensor for tensor in read_gguf(f16).tensors}
    shares = []
    for tensor in read_gguf(file).tensors:
        if tensor.name in importance:
            weight = dense(plain[tensor.name])
            rounding = dense(tensor) - weight
            use = importance[tensor.name]
            shares.append((rounding**2 @ use).sum() / (weight**2 @ use).sum())
    return float(np.mean(shares))


def importance_trial(
    profile: Profile,
    seed: int,
    quantization: str,
    calibration: str,
    kl_per_token: Callable = kl_per_token,
) -> dict[str, Any]:
    """A quantisation with an importance matrix: KL, and the rounding that it was to make smaller,
    weighed by the inputs of held-out texts.
    """
    sample = sample_of(profile, seed)
    held_out = importance_matrix(lab_model(profile, seed), sample.texts)
    importance = calibration_of(profile, seed, calibration)
    with tempfile.TemporaryDirectory() as folder:
        f16 = export_f16(profile, seed, folder)
        before = read_file(f16, sample)
        file = quantised(f16, quantization, importance=importance)
        after = read_file(file, sample)
        rounding = weighed_rounding(f16, file, held_out)
    on_answers, on_prompts = split_kl(before.logits, after.logits, sample, kl_per_token)
    return {
        "answer_kl": np.mean(on_answers),
        "prompt_kl": np.mean(on_prompts),
        "rounding": rounding,
    }


# --- an adapter and a base in four bits -----------------------------------------------------------
# Merged into a quantised file: the base's type, that of the changed weights, and the type to which
# llama.cpp then brings the file.
INTO = {
    "into Q4_K_M, as F16": ("Q4_K_M", "f16", None),
    "into Q4_K_M, as Q8_0": ("Q4_K_M", "q8_0", None),
    "into Q4_K_M, again Q4_K_M": ("Q4_K_M", "f16", "Q4_K_M"),
    "into Q8_0, then Q4_K_M": ("Q8_0", "f16", "Q4_K_M"),
}
WAYS = ("merged", "apart", *INTO)


def way_trial(
    profile: Profile, seed: int, way: str, kl_per_token: Callable = kl_per_token
) -> dict[str, Any]:
    """A way to a model in four bits with an adapter, beside the merged f16 file.

    "merged": merged in 16 bits, then quantised. "apart": the base quantised, the adapter beside it,
    never rounded. The others (`INTO`) merge it into a file that is quantised already.
    """
    sample = sample_of(profile, seed)
    with tempfile.TemporaryDirectory() as folder:
        f16 = export_f16(profile, seed, folder)
        before = read_file(f16, sample)
        adapter = None
        if way == "merged":
            file = quantised(f16, "Q4_K_M")
        else:
            file, adapter = _over_base(profile, seed, Path(folder), way)
        after = read_file(file, sample, adapter=adapter)
        size = file.stat().st_size + (adapter.stat().st_size if adapter else 0)
    on_answers, on_prompts = split_kl(before.logits, after.logits, sample, kl_per_token)
    return {
        "answer_kl": np.mean(on_answers),
        "prompt_kl": np.mean(on_prompts),
        "megabytes": size / 1e6,
    }


def _over_base(profile: Profile, seed: int, folder: Path, way: str) -> tuple[Path, Path | None]:
    """(the model's file, the adapter's if it is apart) where the base was quantised first."""
    model = own_model(profile, seed)
    with disable_adapter(model):
        base = export_gguf(model, lab_tokenizer(profile), folder / "base.gguf")
    if way == "apart":
        return quantised(base, "Q4_K_M"), export_adapter_gguf(model, folder / "adapter.gguf")
    kind, dtype, again = INTO[way]
    adapter = save_adapter(model, folder / "adapter")
    target = folder / "into.gguf"
    return merge_adapter_gguf(quantised(base, kind), adapter, target, dtype, quant=again), None
