"""SFT with LoRA on the pocket model, ftlib against TRL with PEFT: `python -m benchmarks.sft`.

Tokens per second and peak memory. Every run is a process of its own, one of each program in turn.
Where both train on the same batches from the same adapter, the loss of every step is compared
first. About twenty minutes on two cores.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import common_name, in_turn, provenance, ratio, table, write_section
from benchmarks.processes import result_of
from benchmarks.resident import MEBIBYTE, forget_peak, peak_resident_bytes, resident_bytes

R = 16
ALPHA = 32
LEARNING_RATE = 1e-3
BATCH = 8
TOLERANCE = {"fp32": 2e-3, "bf16": 5e-2}  # nats, of a step's loss
ROWS = "rows.json"
ORDER = "order.json"
ADAPTER = "lora_a.safetensors"


@dataclass(frozen=True)
class Setting:
    """How both programs are run. `same_batches`: TRL takes ftlib's batches, in ftlib's order."""

    name: str
    same_batches: bool
    ours_recomputes: bool
    theirs_recomputes: bool


SETTINGS = (
    Setting("the same batches, activations kept", True, False, False),
    Setting("the same batches, activations recomputed", True, True, True),
    Setting("each by its defaults", False, False, True),
)


# --- one run, in its own process ------------------------------------------------------------------
def loaded(folder: Path):
    """The pocket model in fp32, its tokenizer, and the rows as token ids with labels."""
    import ftlib as ft

    model, tokenizer = ft.load_model(profile="pocket")
    rows = json.loads((folder / ROWS).read_text(encoding="utf-8"))
    return model.float(), tokenizer, rows


def set_adapter(parameters: dict, folder: Path) -> None:
    """A of every LoRA layer as in the file, so that both programs begin alike."""
    import torch
    from safetensors.torch import load_file

    with torch.no_grad():
        for name, values in load_file(folder / ADAPTER).items():
            parameters[name].copy_(values)


def run_ours(folder: Path, setting: Setting, steps: int, precision: str) -> dict:
    """ftlib's `finetune`: seconds, tokens, the loss of every step."""
    import ftlib as ft

    finetune = ft.finetune  # imported here: what a library weighs is not what a run takes
    model, tokenizer, rows = loaded(folder)
    ft.add_lora(model, r=R, lora_alpha=ALPHA)
    set_adapter(dict(model.named_parameters()), folder)
    before = resident_bytes()
    forget_peak()
    run = finetune(
        model,
        tokenizer,
        rows,
        steps=steps,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        warmup=0.0,
        checkpointing=setting.ours_recomputes,
        precision=precision,
        log_steps=1,
        show=False,
    )
    losses = [entry["loss"] for entry in run.history]
    return result(run.seconds, run.tokens, losses, before)


def run_theirs(folder: Path, setting: Setting, steps: int, precision: str) -> dict:
    """TRL's SFTTrainer over PEFT's model: the same of it."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    model, tokenizer, rows = loaded(folder)
    if setting.same_batches:
        order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
        rows = [rows[i] for i in order]
    options = SFTConfig(
        output_dir=str(folder / "trl"),
        use_cpu=not _cuda(),
        bf16=precision == "bf16",
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="cosine",
        warmup_steps=0,
        weight_decay=0.0,
        optim="adamw_torch_fused",
        gradient_checkpointing=setting.theirs_recomputes,
        train_sampling_strategy="sequential" if setting.same_batches else "random",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        include_num_input_tokens_seen="non_padding",
    )
    lora = LoraConfig(r=R, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model,
        args=options,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=lora,
    )
    set_adapter(_by_ftlibs_names(trainer.model), folder)
    before = resident_bytes()
    forget_peak()
    start = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - start
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return result(seconds, trainer.state.num_input_tokens_seen, losses, before)


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _by_ftlibs_names(peft_model) -> dict:
    """PEFT's parameters by the names that ftlib's adapter gives them."""
    return {common_name(name): parameter for name, parameter in peft_model.named_parameters()}


def result(seconds: float, tokens: int, losses: list[float], before: int) -> dict:
    """What a run leaves: its peak, MiB, and the peak's share above the bytes that were resident
    before it.
    """
    peak = peak_resident_bytes()
    return {
        "seconds": seconds,
        "tokens": int(tokens),
        "losses": losses,
        "peak": peak / MEBIBYTE,
        "above": (peak - before) / MEBIBYTE,
    }


PROGRAMS = {"ftlib": run_ours, "TRL + PEFT": run_theirs}


# --- all runs ------------------------------------------------------------------------------------
def prepare(folder: Path, steps: int) -> None:
    """Token ids for an epoch of `steps` batches, ftlib's order of them, and an adapter's A."""
    from safetensors.torch import save_file

    import ftlib as ft
    from ftlib.batches.encode import encode_rows
    from ftlib.training.samplers import LengthGroupedSampler

    model, tokenizer = ft.load_model(profile="pocket")
    rows = encode_rows(tokenizer, ft.load_rows("train", profile="pocket")[: steps * BATCH])
    assert len(rows) == steps * BATCH, f"{len(rows)} rows: fewer than {steps} steps of {BATCH}"
    lengths = [len(row["input_ids"]) for row in rows]
    order = list(LengthGroupedSampler(lengths, BATCH, seed=0))
    (folder / ROWS).write_text(json.dumps(rows), encoding="utf-8")
    (folder / ORDER).write_text(json.dumps(order), encoding="utf-8")
    ft.add_lora(model, r=R, lora_alpha=ALPHA)
    tensors = {}
    for name, parameter in model.named_parameters():
        if name.endswith("lora_A"):
            tensors[name] = parameter.detach().clone().contiguous()
    save_file(tensors, folder / ADAPTER)


def fresh(program: str, folder: Path, setting: Setting, steps: int, precision: str) -> dict:
    """A run in a process of its own."""
    arguments = [program, str(folder), setting.name, str(steps), precision]
    return result_of("benchmarks.sft", "--one", *arguments)


def assert_equal(ours: dict, theirs: dict, precision: str) -> float:
    """The largest difference of a step's losses, nats."""
    pairs = list(zip(ours["losses"], theirs["losses"], strict=True))
    largest = max(abs(a - b) for a, b in pairs)
    assert largest < TOLERANCE[precision], (precision, largest, pairs)
    return largest


def compared(folder: Path, setting: Setting, steps: int, precision: str, rounds: int) -> list[str]:
    """A row of the table."""
    programs = {name: partial(fresh, name, folder, setting, steps, precision) for name in PROGRAMS}
    ours, theirs = in_turn(programs, rounds).values()
    difference = "other batches"
    if setting.same_batches:
        difference = f"{assert_equal(ours[0], theirs[0], precision):.1e}"
    # Seconds per token, since batches of other rows have other tokens.
    slower = ratio([per_token(run) for run in theirs], [per_token(run) for run in ours])
    fastest = 1 / min(per_token(run) for run in ours)
    above = highest(ours, "above")
    their_above = highest(theirs, "above")
    return [
        setting.name,
        precision,
        difference,
        f"{fastest:,.0f}",
        slower,
        f"{above:,.0f}",
        f"{their_above:,.0f}",
        f"{above / their_above:.2f}",
        f"{highest(ours, 'peak') / highest(theirs, 'peak'):.2f}",
    ]


def highest(runs: list[dict], what: str) -> float:
    """The largest of a measure over runs."""
    return max(run[what] for run in runs)


def per_token(run: dict) -> float:
    """Seconds."""
    return run["seconds"] / run["tokens"]


HEAD = [
    "batches and activations",
    "precision",
    "largest difference of a step's losses",
    "ftlib, tokens/s at best",
    "TRL + PEFT / ftlib, time",
    "ftlib, MiB above the model",
    "TRL + PEFT, MiB above the model",
    "ftlib / TRL + PEFT, memory above the model",
    "of the whole process",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        one(*asked.one)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, asked.steps)
        for precision in asked.precisions:
            rows = []
            for setting in SETTINGS:
                rows.append(compared(folder, setting, asked.steps, precision, asked.rounds))
                print(rows[-1], flush=True)
                write(precision, rows, asked.steps, asked.rounds)


def write(precision: str, rows: list[list[str]], steps: int, rounds: int) -> None:
    """The section of a precision with the rows so far: an interrupted benchmark keeps what it has
    measured.
    """
    text = (
        f"SmolLM2-135M-Instruct, LoRA r={R} on all linear layers, {steps} steps of {BATCH} "
        "messages to JSON, AdamW, the loss over the answers; fp32 weights, bf16 by autocast. Each "
        f"run is a fresh process, {rounds} alternating rounds; tokens: real ones. MiB: the peak "
        "of resident memory in training, minus what was resident before it. By its defaults TRL "
        "recomputes activations and draws batches at random; ftlib keeps the activations of a "
        "model of this size and puts rows of like length together. "
        f"{provenance(('torch', 'peft', 'trl', 'transformers'))}"
    )
    title = f"SFT on the pocket model against TRL and PEFT, {precision}"
    write_section(title, f"{text}\n\n{table(HEAD, rows)}")


def one(program: str, folder: str, name: str, steps: str, precision: str) -> None:
    """A run of this process, its result printed: the last line, whatever TRL has left in it."""
    setting = next(setting for setting in SETTINGS if setting.name == name)
    found = PROGRAMS[program](Path(folder), setting, int(steps), precision)
    print("\n" + json.dumps(found))


if __name__ == "__main__":
    main()
