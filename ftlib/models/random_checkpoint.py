"""Random checkpoints of a real model's shape, in the Hub's layout: to run the code of an 8B or 70B
lab without the weights.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ftlib.models.nf4 import DYNAMIC_LEVELS, SCALE_BLOCK, QuantizedTensor


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, with the reason and the mend."""


def _skeleton(config) -> tuple[dict[str, torch.Size], set[str]]:
    """(shapes of all parameters by name, names of those that NF4 replaces: linear layers but the
    head), without storage.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: p.shape for name, p in model.named_parameters()}  # tied parameters once
    linear = {
        f"{name}.weight"
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and m is not model.get_output_embeddings()
    }
    return shapes, linear & set(shapes)


def _random_nf4(shape: torch.Size, std: float, dtype: torch.dtype, generator) -> QuantizedTensor:
    """NF4 with random codes. Codes of normal weights are nearly uniform (that is what NF4 is for),
    so nothing need be quantised.
    """
    count = shape.numel()
    blocks = -(count // -64)
    packed = torch.randint(256, ((count + 1) // 2,), dtype=torch.uint8, generator=generator)
    scales = torch.randint(len(DYNAMIC_LEVELS), (blocks,), dtype=torch.uint8, generator=generator)
    outer = torch.full(
        (-(blocks // -SCALE_BLOCK),), 0.5 * std
    )  # the largest of 64 normal numbers is mostly 2 to 3 deviations
    return QuantizedTensor(packed, scales, shape, dtype, outer=outer, mean=torch.tensor(2.5 * std))


def _tensors(
    name: str, shape: torch.Size, as_nf4: bool, std: float, dtype: torch.dtype, generator
) -> dict[str, Tensor]:
    if as_nf4:
        return _random_nf4(shape, std, dtype, generator).state_dict(name)
    if len(shape) == 1:
        return {
            name: torch.zeros(shape, dtype=dtype)
            if name.endswith("bias")
            else torch.ones(shape, dtype=dtype)
        }
    values = torch.empty(shape, dtype=dtype)
    for rows in values.split(
        max(1, (1 << 26) // shape[1:].numel())
    ):  # drawn in fp32 by parts: no second copy of a large table
        rows.copy_(torch.randn(rows.shape, generator=generator) * std)
    return {name: values}


def _shards(
    shapes: dict[str, torch.Size], nf4: set[str], itemsize: int, limit: float
) -> list[list[str]]:
    shards, size = [[]], 0.0
    for name, shape in shapes.items():
        own = shape.numel() * (0.53 if name in nf4 else itemsize)
        if shards[-1] and size + own > limit:
            shards, size = [*shards, []], 0.0
        shards[-1].append(name)
        size += own
    return shards


def _write(folder: Path, shards: list[list[str]], make) -> None:
    index, total = {}, 0
    for i, names in enumerate(tqdm(shards, desc="random checkpoint", unit="shard"), 1):
        tensors = {k: v for name in names for k, v in make(name).items()}
        file = (
            "model.safetensors"
            if len(shards) == 1
            else f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        )
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
        total += sum(t.nbytes for t in tensors.values())
    if len(shards) > 1:
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1),
            encoding="utf-8",
        )


def write_random_checkpoint(
    config,
    folder,
    quantization: str | None = None,
    dtype: torch.dtype = torch.bfloat16,
    shard_gb: float = 4.0,
    seed: int = 0,
    tokenizer=None,
) -> Path:
    """Write a checkpoint with random weights of `config`'s shape, which transformers and
    `ft.load_model` load; returns the folder.

    config: a transformers config of a causal language model. quantization: None, or "nf4"
    (pre-quantised as bitsandbytes saves it). One shard of at most about `shard_gb` is in memory at
    a time. tokenizer: default the embedded one, whose 1,024 ids every vocabulary holds.
    CheckpointError if the folder is not empty or the disk too small; an interrupted write leaves
    nothing behind.
    """
    if quantization not in (None, "nf4"):
        raise CheckpointError(f"quantization={quantization!r}: use None or 'nf4'")
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(
            f"{folder} exists and is not an empty folder: choose another, or delete it"
        )
    shapes, linear = _skeleton(config)
    nf4 = linear if quantization else set()
    need = sum(s.numel() * (0.53 if n in nf4 else dtype.itemsize) for n, s in shapes.items())
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise CheckpointError(
            f"{folder} needs {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free: "
            "choose another disk, or a smaller config"
        )
    generator, std = torch.Generator().manual_seed(seed), getattr(config, "initializer_range", 0.02)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        partial.mkdir()
        _describe(config, partial, quantization, dtype, tokenizer)
        _write(
            partial,
            _shards(shapes, nf4, dtype.itemsize, shard_gb * 1e9),
            lambda name: _tensors(name, shapes[name], name in nf4, std, dtype, generator),
        )
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _describe(
    config, folder: Path, quantization: str | None, dtype: torch.dtype, tokenizer
) -> None:
    """config.json and the tokenizer's files."""
    import copy

    from ftlib.core.paths import EMBEDDED, resolve
    from ftlib.models.load import quantization_config, ready_tokenizer

    described = copy.deepcopy(config)
    described.dtype = dtype
    described.architectures = described.architectures or [_architecture(config)]
    if quantization:
        described.quantization_config = {
            **quantization_config(quantization).to_dict(),
            "bnb_4bit_compute_dtype": "bfloat16",
        }
    described.save_pretrained(folder)
    (tokenizer or ready_tokenizer(resolve(EMBEDDED))).save_pretrained(folder)


def _architecture(config) -> str:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM._model_mapping[type(config)].__name__
