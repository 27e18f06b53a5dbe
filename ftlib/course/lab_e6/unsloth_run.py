"""The same SFT by Unsloth, in a process of its own: `python -m ftlib.course.lab_e6.unsloth_run`.

Unsloth replaces parts of transformers, PEFT and TRL when it is imported, and wants to be imported
before them. It needs a GPU. Nothing here has run on one: the arguments are those of Unsloth's
documentation, and the cell says what came of it on your machine.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from typing import Any

from ftlib.core.profiles import Profile, get_profile

MARK = "unsloth-losses: "  # before the losses, on the last line that the process prints
MINUTES = 20
LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def why_not() -> str:
    """Why Unsloth's run is left out here; empty where it can run."""
    import torch

    if not torch.cuda.is_available():
        return (
            "Unsloth's run is left out: it needs a GPU, and there is none here. The code above "
            "shows what would change."
        )
    if importlib.util.find_spec("unsloth") is None:
        return (
            "Unsloth's run is left out: there is a GPU, but Unsloth is not installed. Install it "
            "into an environment of its own (`pip install unsloth`), since it pins versions of "
            "TRL, PEFT and transformers, and open this notebook with that one."
        )
    return ""


def unsloth_losses(profile: Profile, seed: int) -> list[float]:
    """The losses of Unsloth's run, step by step. RuntimeError with the end of what it has said
    where it fails.
    """
    command = [sys.executable, "-m", "ftlib.course.lab_e6.unsloth_run", profile.name, str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES)
    if done.returncode:
        raise RuntimeError(f"Unsloth's run failed: {done.stderr.strip()[-500:]}")
    return read_losses(done.stdout)


def read_losses(text: str) -> list[float]:
    """The losses on the marked line of a process's output."""
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            return json.loads(line.removeprefix(MARK))
    raise RuntimeError(f"Unsloth's run has printed no losses: {text.strip()[-500:]}")


def report(profile: Profile, seed: int, ours: list[float]) -> str:
    """What Unsloth's run gave beside ftlib's, or why there is none."""
    reason = why_not()
    if reason:
        return reason
    losses = unsloth_losses(profile, seed)
    gaps = [abs(one - other) for one, other in zip(ours, losses, strict=True)]
    return (
        f"Unsloth: last loss {losses[-1]:.4f}, ftlib {ours[-1]:.4f}. The largest difference in a "
        f"step is {max(gaps):.2g} nats. Unsloth draws its own A, and has other kernels and another "
        "precision: no equality to 1e-4 is expected."
    )


def _arguments(profile: Profile, seed: int) -> dict[str, Any]:
    from ftlib.course.lab_e6.theirs import sft_arguments

    chosen = sft_arguments(profile, seed)
    chosen["bf16"] = True
    return chosen


def main(name: str, seed: int) -> None:
    """Train, and print the losses."""
    from unsloth import FastLanguageModel  # isort: skip  -- before TRL, PEFT and transformers
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from ftlib.core.paths import resolve, stand_in
    from ftlib.course.lab_e6.settings import common_of
    from ftlib.course.lab_e6.start import sft_order, sft_rows
    from ftlib.course.lab_e6.theirs import prompt_and_completion

    profile = get_profile(name)
    common = common_of(profile)
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_name=resolve(stand_in(profile.study.model, given=False)),
        max_seq_length=profile.max_length,
        load_in_4bit=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=common.r,
        lora_alpha=common.lora_alpha,
        target_modules=LAYERS,
        lora_dropout=0,
        bias="none",
        use_gradient_checkpointing=False,
        random_state=seed,
    )
    rows = sft_rows(profile, seed)
    order = sft_order(tokenizer, rows, common, seed, profile.max_length)
    rows = prompt_and_completion([rows[i] for i in order])
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(output_dir=folder, **_arguments(profile, seed)),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(MARK + json.dumps(losses))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
