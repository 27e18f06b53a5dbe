"""A run's folder: its settings, its checkpoints, and whether it may go on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from ftlib.adapters.active import adapter_of
from ftlib.adapters.io import base_name
from ftlib.data.rows import fingerprint

log = logging.getLogger("ftlib")
COMPLETE, MANIFEST, SETTINGS = "complete", "manifest.json", "settings.json"
LATER_SETTINGS = (
    "precision",
    "dtype",
)  # that runs of version 0.1.0 did not record: there they are taken as they are now


class RunError(ValueError):
    """A training run that cannot start or resume, with the reason and the mend."""


class MarkComplete(TrainerCallback):
    """Mark a checkpoint once every file of it is written, so that a half-written one is never
    resumed from.
    """

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    done = [p.parent for p in output_dir.glob(f"checkpoint-*/{COMPLETE}")]
    return max(done, key=lambda p: int(p.name.rsplit("-", 1)[1]), default=None)


def write_json(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def run_settings(model, rows, eval_rows, **options) -> dict:
    adapter = adapter_of(model)
    settings = {
        "base": base_name(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "data": fingerprint(rows),
        "rows": len(rows),
        "adapter": adapter and adapter.options,
        "eval_data": fingerprint(eval_rows or []),
        **options,
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as they will on reading


def prepare_folder(output_dir: Path, settings: dict, resume: bool) -> Path | None:
    """Create the run's folder or check that it holds this very run; returns the checkpoint to
    resume from.
    """
    recorded = output_dir / SETTINGS
    if recorded.is_file() and resume:
        try:
            before = json.loads(recorded.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(
                f"{recorded} is damaged ({error}): choose another output_dir, or delete that one"
            ) from None
        changed = [
            k
            for k in settings
            if before.get(k) != settings[k] and (k in before or k not in LATER_SETTINGS)
        ]
        if changed:
            k = changed[0]
            raise RunError(
                f"{output_dir} holds a run with other settings ({k}: {before.get(k)!r} there, "
                f"{settings[k]!r} now): "
                "choose another output_dir, or delete that one"
            )
        return last_checkpoint(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise RunError(
            f"{output_dir} is not empty"
            + ("" if resume else " and resume=False")
            + ": choose another output_dir, or delete that one"
        )
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(recorded, settings)
    return None


def open_folder(
    output_dir: Path, settings: dict, resume: bool, args: TrainingArguments
) -> Path | None:
    """`prepare_folder`, by the first process before the others."""
    if args.world_size > 1:
        settings["processes"] = args.world_size
    with args.main_process_first():
        return prepare_folder(output_dir, settings, resume)


def steps_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0
