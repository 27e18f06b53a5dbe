"""Random checkpoints of a real model's shape, in the Hub's layout: to run the code of an 8B or 70B
lab without the weights.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from ftlib.core.atomic import new_folder
from ftlib.models.nf4 import DYNAMIC_LEVELS, SCALE_BLOCK, QuantizedTensor
from ftlib.models.skeleton import empty_model, shapes_of

NF4_BYTES = 0.53  # of a weight in NF4, its scales and their record included
PART = 1 << 26  # numbers that are drawn at a time


class CheckpointError(ValueError):
    """A checkpoint that cannot be written, with the reason and the fix."""


def _linear_weights(model: torch.nn.Module) -> set[str]:
    """Names of the weights that NF4 replaces: those of the linear layers but the head."""
    head = model.get_output_embeddings()
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return linear & shapes_of(model).keys()


def _random_nf4(shape: torch.Size, std: float, dtype: torch.dtype, generator) -> QuantizedTensor:
    """NF4 with random codes. Codes of normal weights are nearly uniform (that is what NF4 is for),
    so nothing need be quantised.
    """
    count = shape.numel()
    blocks = -(count // -64)  # rounded up
    packed = torch.randint(256, ((count + 1) // 2,), dtype=torch.uint8, generator=generator)
    scales = torch.randint(len(DYNAMIC_LEVELS), (blocks,), dtype=torch.uint8, generator=generator)
    # The largest of 64 normal numbers is mostly 2 to 3 deviations.
    outer = torch.full((-(blocks // -SCALE_BLOCK),), 0.5 * std)
    return QuantizedTensor(packed, scales, shape, dtype, outer=outer, mean=torch.tensor(2.5 * std))


def _tensors(
    name: str, shape: torch.Size, as_nf4: bool, std: float, dtype: torch.dtype, generator
) -> dict[str, Tensor]:
    """What a file holds of one parameter: N(0, std²), or for vectors a norm's 1 or a bias's 0."""
    if as_nf4:
        return _random_nf4(shape, std, dtype, generator).state_dict(name)
    if len(shape) == 1:
        fill = 0 if name.endswith("bias") else 1
        return {name: torch.full(shape, fill, dtype=dtype)}
    values = torch.empty(shape, dtype=dtype)
    rows_at_a_time = max(1, PART // shape[1:].numel())
    # Drawn in fp32 by parts: no second copy of a large table.
    for rows in values.split(rows_at_a_time):
        rows.copy_(torch.randn(rows.shape, generator=generator) * std)
    return {name: values}


def _shards(
    shapes: dict[str, torch.Size], nf4: set[str], itemsize: int, limit: float
) -> list[list[str]]:
    """Names of the parameters by file, in order; a file holds at most `limit` bytes, or one
    parameter.
    """
    shards: list[list[str]] = [[]]
    size = 0.0
    for name, shape in shapes.items():
        own = shape.numel() * (NF4_BYTES if name in nf4 else itemsize)
        if shards[-1] and size + own > limit:
            shards.append([])
            size = 0.0
        shards[-1].append(name)
        size += own
    return shards


def _write(folder: Path, shards: list[list[str]], make) -> None:
    """One file a shard, of the tensors that `make(name)` gives, and the index of several."""
    index: dict[str, str] = {}
    total = 0
    for i, names in enumerate(tqdm(shards, desc="random checkpoint", unit="shard"), 1):
        tensors: dict[str, Tensor] = {}
        for name in names:
            tensors |= make(name)
        file = "model.safetensors"
        if len(shards) > 1:
            file = f"model-{i:05d}-of-{len(shards):05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
        total += sum(t.nbytes for t in tensors.values())
    if len(shards) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": index}
        index_file = folder / "model.safetensors.index.json"
        index_file.write_text(json.dumps(content, indent=1), encoding="utf-8")


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
    model = empty_model(config)
    shapes = shapes_of(model)
    nf4 = _linear_weights(model) if quantization else set()
    _check_disk(folder, shapes, nf4, dtype.itemsize)
    shards = _shards(shapes, nf4, dtype.itemsize, shard_gb * 1e9)
    generator = torch.Generator().manual_seed(seed)
    std = getattr(config, "initializer_range", 0.02)

    def make(name: str) -> dict[str, Tensor]:
        return _tensors(name, shapes[name], name in nf4, std, dtype, generator)

    with new_folder(folder) as partial:
        _describe(config, type(model).__name__, partial, quantization, dtype, tokenizer)
        _write(partial, shards, make)
    return folder


def _check_disk(folder: Path, shapes: dict[str, torch.Size], nf4: set[str], itemsize: int) -> None:
    """CheckpointError where the disk has no room for the weights; makes the folder's parents."""
    need = 0
    for name, shape in shapes.items():
        need += shape.numel() * (NF4_BYTES if name in nf4 else itemsize)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if need > free:
        raise CheckpointError(
            f"{folder} needs {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free: "
            "choose another disk, or a smaller config"
        )


def _describe(
    config, architecture: str, folder: Path, quantization: str | None, dtype: torch.dtype, tokenizer
) -> None:
    """config.json and the tokenizer's files."""
    import copy

    from ftlib.core.paths import EMBEDDED, resolve
    from ftlib.models.load import quantization_config, ready_tokenizer

    described = copy.deepcopy(config)
    described.dtype = dtype
    described.architectures = described.architectures or [architecture]
    if quantization:
        described.quantization_config = {
            **quantization_config(quantization).to_dict(),
            "bnb_4bit_compute_dtype": "bfloat16",
        }
    described.save_pretrained(folder)
    tokenizer = tokenizer or ready_tokenizer(resolve(EMBEDDED))
    tokenizer.save_pretrained(folder)
