"""What a run leaves behind to look at: ftlib's folder beside TRL's, one reader for both, and
trackers where they are installed.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ftlib.core.errors import DataError
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.settings import common_of
from ftlib.course.lab_e6.start import sft_rows, sft_start
from ftlib.course.lab_e6.theirs import (
    common_adapter,
    peft_twin,
    prompt_and_completion,
    sft_arguments,
)
from ftlib.course.lab_e6.to_peft import to_peft
from ftlib.course.records.kit import study_base
from ftlib.training.checkpoints import steps_of
from ftlib.training.finetune import finetune

STATE = "trainer_state.json"
MANIFEST = "manifest.json"
TRACKERS = {"trackio": "trackio", "tensorboard": "TensorBoard"}
EVENTS = "runs/lab-e6/events"  # TensorBoard's folder, where it is installed
SHORT = 3  # steps of a run that is there for its folder
WATCHED = ("loss", "learning_rate", "grad_norm", "mean_token_accuracy", "eval_loss")

Logs = Mapping[str, Sequence[Mapping[str, Any]]]


# --- reading --------------------------------------------------------------------------------------
def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=steps_of)


def read_log(folder: str | Path) -> list[dict[str, Any]]:
    """The log of a run by its folder, an entry a logged step: of ftlib's runs and of TRL's alike,
    since both are written by `transformers.Trainer`. DataError where there is no checkpoint.
    """
    found = _checkpoints(Path(folder))
    if not found:
        raise DataError(f"{folder} has no checkpoint: give a run an output_dir, and save_steps")
    state = json.loads((found[-1] / STATE).read_text(encoding="utf-8"))
    return [entry for entry in state["log_history"] if "step" in entry]


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """What a run was asked for and what came of it, as ftlib writes it; empty where nobody did."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return {}
    return json.loads(path.read_text(encoding="utf-8"))


def what_lies_in(folder: str | Path) -> list[str]:
    """The files of a run's folder, by their paths in it."""
    root = Path(folder)
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def side_by_side(folders: Mapping[str, str | Path]) -> list[dict[str, str]]:
    """A row a file name: where each run has it; checkpoints by their number."""
    found: dict[str, dict[str, list[str]]] = {}
    for run, folder in folders.items():
        for path in what_lies_in(folder):
            place, _, name = path.rpartition("/")
            found.setdefault(name, {}).setdefault(run, []).append(f"{place or '.'}/")
    rows = []
    for name in sorted(found):
        places = {run: ", ".join(found[name].get(run, [])) or "–" for run in folders}
        rows.append({"file": name, **places})
    return rows


def log_table(logs: Logs) -> list[dict[str, str]]:
    """A row a logged step of each run, with what both have and what one has beyond it."""
    rows = []
    for run, entries in logs.items():
        for entry in entries:
            if "loss" not in entry:
                continue
            others = [name for name in entry if name not in (*WATCHED, "step", "epoch")]
            rows.append(
                {
                    "run": run,
                    "step": str(entry["step"]),
                    "loss": f"{entry['loss']:.4f}",
                    "rate": f"{entry['learning_rate']:.2e}",
                    "gradient's norm": f"{entry['grad_norm']:.2f}",
                    "also": ", ".join(others),
                }
            )
    return rows


# --- trackers -------------------------------------------------------------------------------------
def installed() -> list[str]:
    """The trackers that can be imported here, of `TRACKERS`."""
    return [name for name in TRACKERS if importlib.util.find_spec(name)]


def _numbers(entry: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(entry[name]) for name in WATCHED if name in entry}


def write_tensorboard(logs: Logs, folder: str | Path) -> Path:
    """Event files, a folder a run: `tensorboard --logdir FOLDER` shows them."""
    from torch.utils.tensorboard import SummaryWriter

    for run, entries in logs.items():
        with SummaryWriter(str(Path(folder) / run)) as writer:
            for entry in entries:
                for name, value in _numbers(entry).items():
                    writer.add_scalar(f"train/{name}", value, entry["step"])
    return Path(folder)


def write_trackio(logs: Logs, project: str) -> str:
    """A run each in trackio's local project: `trackio show --project PROJECT` shows them."""
    import trackio

    for run, entries in logs.items():
        trackio.init(project=project, name=run, embed=False)
        for entry in entries:
            trackio.log(_numbers(entry), step=entry["step"])
        trackio.finish()
    return project


def track(logs: Logs, folder: str | Path, project: str = "ftlib-lab-e6") -> str:
    """Hand the logs to every tracker that is installed, and say how to look at them; where there is
    none, say how one is installed. Neither needs an account or the network.
    """
    found = installed()
    lines = []
    if "tensorboard" in found:
        write_tensorboard(logs, folder)
        lines.append(f"TensorBoard has {len(logs)} runs: `tensorboard --logdir {folder}`.")
    if "trackio" in found:
        write_trackio(logs, project)
        lines.append(f"trackio has {len(logs)} runs: `trackio show --project {project}`.")
    if not found:
        lines.append(
            "No tracker is installed here. `pip install tensorboard` or `pip install trackio` "
            "brings one; run this cell again after it. The two logs are read below without one."
        )
    return "\n".join(lines)


# --- two short runs -------------------------------------------------------------------------------
def short_run_ours(profile: Profile, seed: int, folder: str | Path) -> None:
    """A few steps of `ftlib.finetune` that leave a folder."""
    common = common_of(profile)
    model, tokenizer = sft_start(profile, seed)
    finetune(
        model,
        tokenizer,
        sft_rows(profile, seed)[: SHORT * common.batch],
        steps=SHORT,
        learning_rate=common.rate,
        batch_size=common.batch,
        seed=seed,
        max_length=profile.max_length,
        save_steps=SHORT,
        log_steps=1,
        output_dir=folder,
        show=False,
    )


def short_run_theirs(profile: Profile, seed: int, folder: str | Path) -> None:
    """A few steps of TRL's `SFTTrainer` that leave a folder."""
    from datasets import Dataset, disable_progress_bars
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    common = common_of(profile)
    model, tokenizer = sft_start(profile, seed)
    base, _ = study_base(profile)
    peft = peft_twin(base, model, to_peft(common_adapter(profile)))
    rows = prompt_and_completion(sft_rows(profile, seed)[: SHORT * common.batch])
    arguments = sft_arguments(profile, seed) | {
        "max_steps": SHORT,
        "gradient_accumulation_steps": 1,
        "warmup_steps": 0,
        "save_strategy": "steps",
        "save_steps": SHORT,
    }

    trainer = SFTTrainer(
        model=peft,
        args=SFTConfig(output_dir=str(folder), **arguments),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
