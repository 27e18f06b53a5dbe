"""What makes a run the run that it is: recorded when it begins, compared when it goes on.

- the base: its name, its dtype, and a sample of every frozen weight;
- the adapter's options (its weights are in the checkpoint);
- the rows, to train on and to evaluate on, as they are given and as token ids, which the tokenizer,
  the template, `max_length` and packing decide;
- the chat template, so that a change of it is named as such;
- what becomes of control tokens in the rows, where they are not refused;
- the options of `TrainOptions`, of the loss, of noise and of the reference, a penalty and a watch,
  and the number of processes.

How often it logs, saves or evaluates is not part of it, nor are the versions of libraries (they are
in the manifest).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

from ftlib.adapters.active import adapter_of
from ftlib.adapters.embeddings import base_parameter, changed_embeddings
from ftlib.batches.render import chat_template_of
from ftlib.data.rows import fingerprint
from ftlib.models.load import base_name
from ftlib.training.errors import RunError

# What a run of version 0.1.0 did not record: it goes on with what is asked for now. `encoded` still
# tells a run on other token ids.
LATER_SETTINGS = (
    "precision",
    "dtype",
    "chat_template",
    "control_tokens",
    "encoded",
    "base_weights",
)
# Values of every frozen tensor in its fingerprint: enough to tell a merged or another base, at any
# size.
SAMPLE = 64


def digest_parameters(parameters: Iterable[tuple[str, nn.Parameter]]) -> str:
    """SHA-256 over names, shapes, dtypes and values: all values of what trains, a sample of what is
    frozen.
    """
    digest = hashlib.sha256()
    for name, p in parameters:
        values = p.detach().flatten()
        if not p.requires_grad:
            values = values[:: max(1, len(values) // SAMPLE)]
        digest.update(f"{name} {tuple(p.shape)} {p.dtype}".encode())
        digest.update(values.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _base_weights(model: nn.Module) -> str | None:
    """A fingerprint of what a checkpoint does not hold: with an adapter the frozen weights, but for
    a resized embedding; without one nothing.
    """
    if adapter_of(model) is None:
        return None
    kept = changed_embeddings(model)
    frozen = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad and base_parameter(model, name) not in kept:
            frozen.append((name, parameter))
    return digest_parameters(frozen)


def run_settings(model, tokenizer, rows, eval_rows, encoded: list, **options) -> dict:
    """What is recorded of a run. `encoded`: the rows to train on and to evaluate on, as token
    ids.
    """
    adapter = adapter_of(model)
    template = chat_template_of(tokenizer) or ""
    settings = {
        "base": base_name(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "data": fingerprint(rows),
        "rows": len(rows),
        "adapter": adapter.options if adapter else None,
        "eval_data": fingerprint(eval_rows or []),
        **options,
        "chat_template": hashlib.sha256(template.encode()).hexdigest(),
        "encoded": fingerprint(encoded),
        "base_weights": _base_weights(model),
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as they will on reading


def name_of(function: Callable | None) -> str | None:
    """What a manifest calls something that was handed in: a function, or an object of a class."""
    if function is None:
        return None
    return getattr(function, "__name__", type(function).__name__)


def settings_of(given) -> dict | None:
    """What is recorded of a penalty or a watch: its name and its own `settings`, if it has them."""
    if given is None:
        return None
    return {"name": name_of(given), **getattr(given, "settings", {})}


def refuse_another_run(output_dir: Path, before: dict, settings: dict) -> None:
    """RunError that names the first setting that differs from those recorded `before`."""
    for name, value in settings.items():
        if name in LATER_SETTINGS and name not in before:
            continue
        there, now = _what_differs(before.get(name), value)
        if there != now:
            raise RunError(
                f"{output_dir} holds a run with other settings ({name}: {there!r} "
                f"there, {now!r} now): choose another output_dir, or delete that one"
            )


def _what_differs(before, now) -> tuple:
    """Both, of options those that differ. The order in which an adapter's layers were named makes
    no other adapter.
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return before, now
    names = []
    for name in {**before, **now}:
        if not _alike(name, before.get(name), now.get(name)):
            names.append(name)
    return _some(before, names), _some(now, names)


def _alike(name: str, before, now) -> bool:
    if name == "target_modules" and isinstance(before, list) and isinstance(now, list):
        return sorted(before) == sorted(now)
    return before == now


def _some(options: dict, names: list[str]) -> dict:
    return {name: options[name] for name in names if name in options}
