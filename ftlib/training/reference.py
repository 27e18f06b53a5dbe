"""Log-probabilities of the reference policy, computed once and kept on disk, by sequence.

A folder holds `reference.safetensors` and `reference.json`. The first has a row for every sequence
of prompt and completion: `keys` (n, 16), of its token ids, and `logps` (n,), log π_ref(completion |
prompt) in nats. The second says of which policy they are: the base, its weights, what the adapter
does, and the precision. A folder of another policy is refused by name; sequences that it lacks are
added. So runs over the same rows from the same start share one folder, whatever their loss, their
seed, or the A that was drawn beside a B of zeros.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ftlib.adapters.lora_layer import lora_layers
from ftlib.batches.preference import sequences_of
from ftlib.core.atomic import replacing
from ftlib.data.rows import fingerprint
from ftlib.models.load import base_name
from ftlib.training.errors import RunError
from ftlib.training.folder import write_json
from ftlib.training.identity import digest_parameters

LOGPS = "reference.safetensors"
MANIFEST = "reference.json"
KEY_BYTES = 16


# --- which policy ---------------------------------------------------------------------------------
def _idle_parameters(model) -> set[int]:
    """Ids of the A and B of layers whose B is zero: so is (alpha/r)·BA there, whatever A is."""
    idle: set[int] = set()
    for layer in lora_layers(model).values():
        if not layer.lora_B.any():
            idle.update((id(layer.lora_A), id(layer.lora_B)))
    return idle


def describe(model, precision: str | None) -> dict:
    """What log-probabilities of given tokens depend on: the base's name, a fingerprint of its
    weights (a sample of each tensor) and of the trained ones (all, but for adapters that do nothing
    yet), and the precision they are computed in.
    """
    idle = _idle_parameters(model)
    trained = []
    frozen = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            frozen.append((name, p))
        elif id(p) not in idle:
            trained.append((name, p))
    return {
        "base": base_name(model),
        "base_weights": digest_parameters(frozen),
        "adapter": digest_parameters(trained),
        "precision": precision,
    }


# --- the folder -----------------------------------------------------------------------------------
def sequence_key(prompt_ids: list[int], completion_ids: list[int]) -> bytes:
    """The key of a sequence in a folder: the first 16 bytes of a SHA-256 over its tokens and
    where the prompt ends.
    """
    return hashlib.sha256(json.dumps([prompt_ids, completion_ids]).encode()).digest()[:KEY_BYTES]


def _of_rows(recorded: dict, tensors: dict, parts: dict[str, list[dict]]) -> dict[bytes, float]:
    """What version 0.1.0 wrote, (rows, 2) in the order of the rows, which must be these rows."""
    if recorded["tokens"] != {name: fingerprint(items) for name, items in parts.items()}:
        raise RunError("its log-probabilities are of other rows")
    known = {}
    for name, items in parts.items():
        for item, values in zip(items, tensors[name].tolist(), strict=True):
            for sequence, value in zip(sequences_of(item), values, strict=True):
                known[sequence_key(**sequence)] = value
    return known


def _check_policy(folder: Path, recorded: dict, described: dict, resumed: bool) -> None:
    for name, value in described.items():
        moved_on = name == "adapter" and resumed
        if recorded.get(name, value) != value and not moved_on:
            raise RunError(
                f"{folder} holds log-probabilities of another reference ({name}: "
                f"{recorded.get(name)!r} there, "
                f"{value!r} now): start from the model that they were computed with, or choose "
                "another folder"
            )


def load_reference(
    folder: Path, described: dict, resumed: bool, parts: dict[str, list[dict]]
) -> dict[bytes, float]:
    """The folder's log-probabilities by `sequence_key`; none if it has none. RunError if they are
    another policy's, or damaged. When a run is `resumed` its adapter has moved on from the start,
    so the adapter is not compared.

    `parts`, the encoded rows to train on and to evaluate on, serve to read what version 0.1.0 wrote
    by row.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    try:
        recorded = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        tensors = load_file(folder / LOGPS)
        by_row = "tokens" in recorded
        if by_row and not resumed:
            return {}  # version 0.1.0 told adapters apart by another fingerprint: computed again
        _check_policy(folder, recorded, described, resumed)
        if by_row:
            return _of_rows(recorded, tensors, parts)
        keys = map(bytes, tensors["keys"].tolist())
        return dict(zip(keys, tensors["logps"].tolist(), strict=True))
    except RunError:
        raise
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise RunError(
            f"{folder}: the reference's log-probabilities are damaged ({error}): delete that folder"
        ) from None


def save_reference(
    folder: Path, described: dict, known: dict[bytes, float], dtype: torch.dtype
) -> None:
    """Written beside and renamed, the manifest last: a folder with a manifest is whole."""
    keys = torch.tensor([list(key) for key in known], dtype=torch.uint8)
    logps = torch.tensor(list(known.values()), dtype=dtype)
    with replacing(folder / LOGPS) as temporary:
        save_file({"keys": keys, "logps": logps}, temporary)
    write_json(folder / MANIFEST, described)
