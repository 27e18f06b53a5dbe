"""From a trainer to a `Run`: train or resume, sum up, leave the artifact."""

from __future__ import annotations

import json
import time
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
from ftlib.training.folder import MANIFEST, MarkComplete, steps_of, write_json
from ftlib.training.live import LiveRun
from ftlib.training.trainer import SFTTrainer


@dataclass
class Run:
    """What a training run did. Losses are means per answer token, in nats."""

    history: list[dict] = field(
        default_factory=list
    )  # {"step", "loss", "learning_rate"}, and the metrics of `prefer`
    eval_history: list[dict] = field(
        default_factory=list
    )  # {"step", "eval_loss"}, and the metrics with eval_ before them
    seconds: float = 0.0  # since the last start
    tokens: int = 0  # real tokens seen, padding not counted
    session_tokens: int = 0  # of them since the last start
    state_bytes: dict = field(
        default_factory=dict
    )  # weights, gradients, optimizer: counted from the tensors
    resumed_from: int = 0
    output_dir: Path | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.session_tokens / self.seconds if self.seconds else 0.0


def run_callbacks(args: TrainingArguments, show: bool) -> list[TrainerCallback]:
    return [MarkComplete(), LiveRun(args.max_steps, show and args.process_index == 0)]


def run_training(trainer: SFTTrainer, checkpoint: Path | None, output_dir: Path | None) -> Run:
    """Train from the checkpoint on, or take up a run that had come to its end."""
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    done = steps_of(checkpoint) >= trainer.args.max_steps
    return _reload(trainer, checkpoint, output_dir) if done else _train(trainer, checkpoint)


def _train(trainer: SFTTrainer, checkpoint: Path | None) -> Run:
    before = (
        TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).num_input_tokens_seen
        if checkpoint
        else 0
    )
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    extract_model_from_parallel(
        trainer.model, keep_fp32_wrapper=False
    )  # or bf16 autocast stays around forward for good
    return _summary(
        trainer,
        checkpoint,
        time.perf_counter() - start,
        int(trainer.state.num_input_tokens_seen - before),
    )


def _reload(trainer: SFTTrainer, checkpoint: Path, output_dir: Path) -> Run:
    """A run that was finished before: its weights and record again, without a step (Trainer would
    take one more).
    """
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    trainer._load_optimizer_and_scheduler(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    manifest = output_dir / MANIFEST
    metrics = (
        json.loads(manifest.read_text(encoding="utf-8"))["metrics"] if manifest.is_file() else {}
    )
    return _summary(
        trainer, checkpoint, metrics.get("seconds", 0.0), metrics.get("session_tokens", 0)
    )


def _summary(
    trainer: SFTTrainer, checkpoint: Path | None, seconds: float, session_tokens: int
) -> Run:
    def pick(key, *more):
        return [
            {k: e[k] for k in ("step", key, *more) if k in e}
            for e in trainer.state.log_history
            if key in e
        ]

    trainer.model.eval()
    metrics = trainer.metric_names
    return Run(
        pick("loss", "learning_rate", *metrics),
        pick("eval_loss", *(f"eval_{name}" for name in metrics)),
        seconds,
        int(trainer.state.num_input_tokens_seen),
        session_tokens,
        trainer.state_bytes(),
        resumed_from=steps_of(checkpoint),
    )


def finish_run(run: Run, model, output_dir: Path, settings: dict, main: bool) -> None:
    """Leave the artifact: the adapter (or the model) and a manifest that says where it came from."""
    run.output_dir = output_dir
    if adapter := adapter_of(model):
        adapter.save(model, output_dir / "adapter")
    else:
        model.save_pretrained(output_dir / "model", is_main_process=main)
    if not main or (run.resumed_from >= settings["steps"] and (output_dir / MANIFEST).is_file()):
        return  # finished before: the manifest tells of the run that trained
    metrics = {
        "final_loss": run.history[-1]["loss"] if run.history else None,
        "seconds": round(run.seconds, 1),
        "tokens": run.tokens,
        "session_tokens": run.session_tokens,
        "resumed_from": run.resumed_from,
        "eval_loss": run.eval_history[-1]["eval_loss"] if run.eval_history else None,
    }
    write_json(
        output_dir / MANIFEST,
        {
            **settings,
            "metrics": metrics,
            "versions": {
                name: version(name) for name in ("torch", "transformers", "tokenizers", "ftlib")
            },
        },
    )
