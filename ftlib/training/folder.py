"""A run's folder: its settings, its checkpoints, and whether it may go on."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from ftlib.adapters.active import adapter_of
from ftlib.adapters.io import base_name
from ftlib.core.atomic import replacing
from ftlib.data.rows import fingerprint
from ftlib.training.checkpoints import COMPLETE, last_checkpoint, steps_of

log = logging.getLogger("ftlib")
MANIFEST = "manifest.json"
SETTINGS = "settings.json"
# What version 0.1.0 did not record: a run that it began goes on with what is asked for now.
LATER_SETTINGS = ("precision", "dtype")


class RunError(ValueError):
    """A training run that cannot start or resume, with the reason and the fix."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run leaves what it makes: `path`, the `settings` recorded there, and the `checkpoint`
    to go on from, None at the start. A run that leaves nothing has no path.
    """

    path: Path | None = None
    settings: dict = field(default_factory=dict)
    checkpoint: Path | None = None

    @property
    def done_steps(self) -> int:
        return steps_of(self.checkpoint)

    @property
    def resumed(self) -> bool:
        return self.checkpoint is not None


class MarkComplete(TrainerCallback):
    """Mark a checkpoint once every file of it is written, so that a half-written one is never
    resumed from.
    """

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            (checkpoint / COMPLETE).touch()


def write_json(path: Path, content: dict) -> None:
    with replacing(path) as temporary:
        text = json.dumps(content, indent=1, sort_keys=True)
        temporary.write_text(text + "\n", encoding="utf-8")


def run_settings(model, rows, eval_rows, **options) -> dict:
    """What makes a run the run that it is: model, data, and the options given."""
    adapter = adapter_of(model)
    settings = {
        "base": base_name(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "data": fingerprint(rows),
        "rows": len(rows),
        "adapter": adapter.options if adapter else None,
        "eval_data": fingerprint(eval_rows or []),
        **options,
    }
    return json.loads(json.dumps(settings))  # tuples become lists, as they will on reading


def _recorded_settings(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{file} is damaged ({error}): choose another output_dir, or delete that one"
        ) from None


def _refuse_another_run(output_dir: Path, before: dict, settings: dict) -> None:
    """RunError that names the first setting that differs."""
    for name, value in settings.items():
        if name in LATER_SETTINGS and name not in before:
            continue
        if before.get(name) != value:
            raise RunError(
                f"{output_dir} holds a run with other settings ({name}: {before.get(name)!r} "
                f"there, {value!r} now): choose another output_dir, or delete that one"
            )


def prepare_folder(output_dir: Path, settings: dict, resume: bool) -> Path | None:
    """Create the run's folder or check that it holds this very run; returns the checkpoint to
    resume from.
    """
    recorded = output_dir / SETTINGS
    if recorded.is_file() and resume:
        _refuse_another_run(output_dir, _recorded_settings(recorded), settings)
        return last_checkpoint(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        state = "is not empty" if resume else "is not empty and resume=False"
        raise RunError(f"{output_dir} {state}: choose another output_dir, or delete that one")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(recorded, settings)
    return None


def open_folder(
    output_dir: Path, settings: dict, resume: bool, args: TrainingArguments
) -> RunFolder:
    """The run's folder, prepared by the first process before the others look at it."""
    if args.world_size > 1:
        settings["processes"] = args.world_size
    with args.main_process_first():
        checkpoint = prepare_folder(output_dir, settings, resume)
    return RunFolder(output_dir, settings, checkpoint)
