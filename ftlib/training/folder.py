"""A run's folder: its settings, its checkpoints, and whether it may go on."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainerCallback, TrainingArguments

from ftlib.core.atomic import replacing
from ftlib.core.locks import LockedError, locked
from ftlib.training.checkpoints import COMPLETE, last_checkpoint, steps_of
from ftlib.training.errors import RunError
from ftlib.training.identity import refuse_another_run

log = logging.getLogger("ftlib")
MANIFEST = "manifest.json"
SETTINGS = "settings.json"


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


def _recorded_settings(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(
            f"{file} is damaged ({error}): choose another output_dir, or delete that one"
        ) from None


def prepare_folder(output_dir: Path, settings: dict, resume: bool) -> Path | None:
    """Create the run's folder or check that it holds this very run; returns the checkpoint to
    resume from.
    """
    recorded = output_dir / SETTINGS
    if recorded.is_file() and resume:
        refuse_another_run(output_dir, _recorded_settings(recorded), settings)
        return last_checkpoint(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        state = "is not empty" if resume else "is not empty and resume=False"
        raise RunError(f"{output_dir} {state}: choose another output_dir, or delete that one")
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(recorded, settings)
    return None


@contextlib.contextmanager
def open_folder(
    output_dir: Path | None, settings: dict, resume: bool, args: TrainingArguments
) -> Iterator[RunFolder]:
    """The run's folder, prepared by the first process before the others look at it, and this run's
    alone within the block; none where there is no `output_dir`.
    """
    if output_dir is None:
        yield RunFolder()
        return
    if args.world_size > 1:
        settings["processes"] = args.world_size
    is_first = args.process_index == 0
    with contextlib.ExitStack() as stack:
        if is_first:
            stack.enter_context(_alone(output_dir))
        with args.main_process_first():
            checkpoint = prepare_folder(output_dir, settings, resume)
        yield RunFolder(output_dir, settings, checkpoint)


@contextlib.contextmanager
def _alone(output_dir: Path) -> Iterator[None]:
    try:
        with locked(output_dir, "run", wait=False):
            yield
    except LockedError:
        raise RunError(
            f"{output_dir}: another process trains in it now: wait until it has ended, or choose "
            "another output_dir"
        ) from None
