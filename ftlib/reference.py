"""Log-probabilities of the reference policy, computed once before training and kept on disk.

A folder holds `reference.safetensors` (`train` and `eval`, each (rows, 2): nats of the two completions of a row) and
`reference.json`, which says what they were computed from. A folder made from something else is refused by name.
"""
from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ftlib.adapter_io import base_name
from ftlib.datasets import fingerprint
from ftlib.train import RunError, _write_json

LOGPS, MANIFEST = "reference.safetensors", "reference.json"
SAMPLE = 64  # values of every frozen tensor in its fingerprint: enough to tell a merged or another base, at any size


def _digest(parameters) -> str:
    digest = hashlib.sha256()
    for name, p in parameters:
        values = p.detach().flatten()
        if not p.requires_grad:
            values = values[:: max(1, len(values) // SAMPLE)]
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode() + values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def describe(model, tokenizer, rows, eval_rows, items: dict[str, list[dict]], max_length: int) -> dict:
    """What log-probabilities depend on: fingerprints of rows, chat template and tokens, of the base's weights (a sample of each
    tensor) and of the weights that train (all)."""
    trained, frozen = ([(n, p) for n, p in model.named_parameters() if p.requires_grad is wanted] for wanted in (True, False))
    return {"data": fingerprint(rows), "eval_data": fingerprint(eval_rows or []), "max_length": max_length,
            "chat_template": hashlib.sha256(tokenizer.chat_template.encode()).hexdigest(),
            "tokens": {name: fingerprint(part) for name, part in items.items()},
            "base": base_name(model), "base_weights": _digest(frozen), "adapter": _digest(trained)}


def load_reference(folder: Path, described: dict, resumed: bool) -> dict[str, torch.Tensor] | None:
    """The folder's log-probabilities; None if there are none. RunError if they were computed from something else; when a run is
    `resumed` its adapter has moved on from the start, so that the adapter is not compared."""
    if not (folder / MANIFEST).is_file():
        return None
    try:
        recorded, logps = json.loads((folder / MANIFEST).read_text()), load_file(folder / LOGPS)
    except (OSError, ValueError, SafetensorError) as error:
        raise RunError(f"{folder}: the reference's log-probabilities are damaged ({error}): delete that folder") from None
    for key, value in described.items():
        if recorded.get(key) != value and not (key == "adapter" and resumed):
            raise RunError(f"{folder} holds log-probabilities of another reference ({key}: {recorded.get(key)!r} there, {value!r} "
                           "now): start from the model that they were computed with, or choose another folder")
    return logps


def save_reference(folder: Path, described: dict, logps: dict[str, torch.Tensor]) -> None:
    """Written beside and renamed, the manifest last: a folder with a manifest is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{LOGPS}.{os.getpid()}.tmp"
    save_file(logps, temporary)
    os.replace(temporary, folder / LOGPS)
    _write_json(folder / MANIFEST, described)
