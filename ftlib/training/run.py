"""From a trainer to a `Run`: train or resume, sum up, leave the artifact."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from accelerate.utils import extract_model_from_parallel
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from ftlib.adapters.active import adapter_of
from ftlib.adapters.gated import factors_only
from ftlib.core.machine import return_freed_memory
from ftlib.training.checkpoints import steps_of
from ftlib.training.errors import RunError
from ftlib.training.folder import MANIFEST, MarkComplete, RunFolder, write_json
from ftlib.training.live import LiveRun, recent_loss
from ftlib.training.trainer import SFTTrainer
from ftlib.training.watch import was_stopped

VERSIONS = ("torch", "transformers", "tokenizers", "ftlib")


@dataclass
class Run:
    """What a training run did. Losses are means per answer token, in nats.

    `history` has {"step", "loss", "learning_rate"} and the metrics of `prefer`; `eval_history`
    {"step", "eval_loss"} and the metrics with eval_ before them. With a penalty `history` has
    "penalty", which "loss" includes. `watched` has what a watch measured, {"step", "watched",
    "forgetting"}, from step 0 on, and `stopped` says whether it ended the run. `tokens` are real
    ones, padding not counted, `session_tokens` those since the last start, as `seconds` are.
    `state_bytes` is counted from the tensors: weights, gradients, optimizer.
    """

    history: list[dict] = field(default_factory=list)
    eval_history: list[dict] = field(default_factory=list)
    seconds: float = 0.0
    tokens: int = 0
    session_tokens: int = 0
    state_bytes: dict = field(default_factory=dict)
    resumed_from: int = 0
    output_dir: Path | None = None
    watched: list[dict] = field(default_factory=list)
    stopped: bool = False

    @property
    def final_loss(self) -> float | None:
        """Mean training loss of the run's last steps (`recent_loss`): a single batch of long rows
        would make a good run look like a failed one.
        """
        steps = self.history[-1]["step"] if self.history else 0
        return recent_loss(self.history, steps)

    @property
    def tokens_per_second(self) -> float:
        return self.session_tokens / self.seconds if self.seconds else 0.0


class LogLastStep(TrainerCallback):
    """Log the last step too, so that a run shorter than the logging interval has a loss."""

    def on_step_end(self, args, state, control, **_):
        if state.global_step >= state.max_steps:
            control.should_log = True


def run_callbacks(args: TrainingArguments, show: bool) -> list[TrainerCallback]:
    """What watches a run: the mark on whole checkpoints, and the line that the user sees."""
    is_main = args.process_index == 0
    return [MarkComplete(), LogLastStep(), LiveRun(args.max_steps, show and is_main)]


def run_training(trainer: SFTTrainer, folder: RunFolder, tokenizer=None) -> Run:
    """Train from the folder's checkpoint on, or take up a run that had come to its end; leave the
    artifact in the folder, if it has a path, and with it the tokenizer and its template, for what
    was trained is read by no other.
    """
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    finished_before = _is_at_its_end(folder.checkpoint, trainer.args.max_steps)
    if folder.checkpoint and finished_before:
        run = _reload(trainer, folder, folder.checkpoint)
    else:
        run = _train(trainer, folder)
    if folder.path:
        _leave_artifact(run, trainer, tokenizer, folder, folder.path, finished_before)
    return run


def _is_at_its_end(checkpoint: Path | None, steps: int) -> bool:
    """Whether a run with this checkpoint took all its steps, or was stopped there."""
    if checkpoint is None:
        return False
    return steps_of(checkpoint) >= steps or was_stopped(_state_of(checkpoint).log_history)


def _state_of(checkpoint: Path) -> TrainerState:
    file = checkpoint / "trainer_state.json"
    try:
        return TrainerState.load_from_json(str(file))
    except (OSError, ValueError, TypeError) as error:
        raise RunError(
            f"{file} is missing or damaged ({error}): delete {checkpoint.name} to go on from the "
            "checkpoint before it"
        ) from None


def _train(trainer: SFTTrainer, folder: RunFolder) -> Run:
    tokens_before = 0
    resume_from = None
    if folder.checkpoint:
        tokens_before = _state_of(folder.checkpoint).num_input_tokens_seen
        resume_from = str(folder.checkpoint)
    start = time.perf_counter()
    with factors_only(trainer.model):
        trainer.train(resume_from_checkpoint=resume_from)
    seconds = time.perf_counter() - start
    # Or bf16 autocast stays around the model's forward for good.
    extract_model_from_parallel(trainer.model, keep_fp32_wrapper=False)
    if trainer.args.device.type == "cpu":
        return_freed_memory()
    tokens = trainer.state.num_input_tokens_seen - tokens_before
    return _summary(trainer, folder, seconds, int(tokens))


def _reload(trainer: SFTTrainer, folder: RunFolder, checkpoint: Path) -> Run:
    """A run that was finished before: its weights and record again, without a step (Trainer would
    take one more).
    """
    trainer.load_finished(checkpoint)
    trainer.state = _state_of(checkpoint)
    metrics = {}
    manifest = checkpoint.parent / MANIFEST
    if manifest.is_file():
        metrics = json.loads(manifest.read_text(encoding="utf-8"))["metrics"]
    return _summary(trainer, folder, metrics.get("seconds", 0.0), metrics.get("session_tokens", 0))


def _entries(log_history: list[dict], key: str, names: tuple[str, ...]) -> list[dict]:
    """Of the entries that have `key`: the step, that value and those of `names`."""
    wanted = ("step", key, *names)
    entries = []
    for logged in log_history:
        if key in logged:
            entries.append({name: logged[name] for name in wanted if name in logged})
    return entries


def _summary(trainer: SFTTrainer, folder: RunFolder, seconds: float, session_tokens: int) -> Run:
    trainer.model.eval()  # a run leaves its model ready to answer, without dropout
    logged = trainer.state.log_history
    eval_names = tuple(f"eval_{name}" for name in trainer.metric_names)
    return Run(
        history=_entries(logged, "loss", ("learning_rate", *trainer.metric_names)),
        eval_history=_entries(logged, "eval_loss", eval_names),
        seconds=seconds,
        tokens=int(trainer.state.num_input_tokens_seen),
        session_tokens=session_tokens,
        state_bytes=trainer.state_bytes(),
        resumed_from=folder.done_steps,
        output_dir=folder.path,
        watched=_entries(logged, "watched", ("forgetting",)),
        stopped=was_stopped(logged),
    )


def _leave_artifact(
    run: Run, trainer: SFTTrainer, tokenizer, folder: RunFolder, path: Path, finished_before: bool
) -> None:
    """The adapter, or the model, with its tokenizer, and a manifest that says where it came from:
    that of the run which came to the end, where this call took up a finished one.
    """
    is_main = trainer.args.process_index == 0
    adapter = adapter_of(trainer.model)
    trained = path / ("adapter" if adapter else "model")
    if adapter:
        adapter.save(trainer.model, trained)
    else:
        _save_whole(trainer.model, trained, is_main)
    if is_main and tokenizer is not None:
        save_tokenizer(tokenizer, trained)
    manifest = path / MANIFEST
    if is_main and not (finished_before and manifest.is_file()):
        write_json(manifest, _manifest(run, folder.settings))


def _save_whole(model, folder: Path, is_main: bool) -> None:
    """All weights, each file written beside and renamed: an interruption leaves those that were
    there. Processes beside the main one only take part in gathering.
    """
    if not is_main:
        model.save_pretrained(folder, is_main_process=False)
        return
    folder.mkdir(parents=True, exist_ok=True)
    with _beside(folder) as temporary:
        model.save_pretrained(temporary)


def save_tokenizer(tokenizer, folder: Path) -> None:
    """The tokenizer's files with its chat template, each written beside and renamed."""
    with _beside(folder) as temporary:
        tokenizer.save_pretrained(temporary)


@contextlib.contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder within this one, whose files take their places here once the block has ended
    well.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        temporary = Path(name)
        yield temporary
        for file in sorted(temporary.iterdir()):
            os.replace(file, folder / file.name)


def _manifest(run: Run, settings: dict) -> dict:
    metrics = {
        "final_loss": run.final_loss,
        "eval_loss": run.eval_history[-1]["eval_loss"] if run.eval_history else None,
        "seconds": round(run.seconds, 1),
        "tokens": run.tokens,
        "session_tokens": run.session_tokens,
        "resumed_from": run.resumed_from,
    }
    if run.watched:
        metrics["forgetting"] = run.watched[-1]["forgetting"]
        metrics["stopped"] = run.stopped
    versions = {name: version(name) for name in VERSIONS}
    return {**settings, "metrics": metrics, "versions": versions}
