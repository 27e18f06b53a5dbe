"""The labs by number: their packages, their names, and their exercises with the points of each.

A table of its own, so that progress and lists are shown at once, without importing what the
exercises compute with. The tests hold it against the exercises themselves.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ftlib.core.paths import LABS

MODULES = {
    "3.1.1": "lab_3_1_1",
    "3.1.2": "lab_3_1_2",
    "3.1.3": "lab_3_1_3",
    "3.1.4": "lab_3_1_4",
    "3.1.5": "lab_3_1_5",
    "3.1.6": "lab_3_1_6",
    "3.1.7": "lab_3_1_7",
    "3.1.8": "lab_3_1_8",
    "3.1.9": "lab_3_1_9",
    "3.1.10": "lab_3_1_10",
}
NAMES = {
    "3.1.1": "LoRA",
    "3.1.2": "DoRA",
    "3.1.3": "NEFTune",
    "3.1.4": "fine-tuning 8B",
    "3.1.5": "QLoRA and memory",
    "3.1.6": "data",
    "3.1.7": "DPO",
    "3.1.8": "SimPO and ORPO",
    "3.1.9": "KTO",
    "3.1.10": "Ollama",
}
POINTS = {
    "3.1.1": {
        "lora_forward": 2,
        "lora_scaling": 2,
        "lora_init": 2,
        "lora_gradients": 2,
        "first_adam_step": 2,
        "count_lora_parameters": 2,
        "merge_weights": 2,
        "find_leaks": 2,
        "effective_rank": 2,
    },
    "3.1.2": {
        "decompose": 2,
        "dora_norm": 2,
        "dora_forward": 2,
        "magnitude_gradient": 2,
        "direction_gradient": 2,
        "count_dora_parameters": 2,
        "weight_change": 2,
        "merge_dora": 2,
    },
    "3.1.3": {
        "noise_bound": 1,
        "stock_noise": 1,
        "noise_sizes": 2,
        "masked_noise": 2,
        "noise_hook": 2,
        "run_with_hook": 2,
        "gaussian_noise": 1,
        "effective_alpha": 1,
    },
    "3.1.4": {
        "training_bytes": 2,
        "build_labels": 2,
        "pad_batch": 2,
        "sft_loss": 2,
        "accumulation_weights": 2,
        "greedy_decode": 2,
        "golden_score": 2,
        "learning_rate": 1,
        "train_loop": 3,
        "perplexity": 2,
        "early_stop": 2,
        "win_rate": 3,
    },
    "3.1.5": {
        "normal_levels": 2,
        "quantize_blocks": 2,
        "pack_codes": 1,
        "dequantize_packed": 2,
        "bits_per_weight": 1,
        "qlora_forward": 2,
        "qlora_backward": 2,
        "qlora_bytes": 2,
        "activation_bytes": 2,
    },
    "3.1.6": {
        "to_messages": 2,
        "clean_lines": 2,
        "luhn_sum": 1,
        "shingle_jaccard": 2,
        "minhash_signature": 2,
        "golden_overlap": 2,
        "group_of": 2,
        "pack_rows": 2,
        "longer_share": 1,
    },
    "3.1.7": {
        "completion_logp": 3,
        "implicit_reward": 1,
        "preference_loss": 2,
        "gradient_weight": 2,
        "optimal_policy": 2,
        "kl_estimate": 1,
        "swapped_win_rate": 1,
    },
    "3.1.8": {
        "mean_logps": 1,
        "simpo_loss": 2,
        "token_push": 2,
        "log1mexp": 2,
        "log_odds_ratio": 2,
        "orpo_loss": 2,
    },
    "3.1.9": {
        "prospect_value": 1,
        "kto_value": 2,
        "rotate_completions": 1,
        "reference_point": 2,
        "binary_loss": 3,
        "loss_slope": 2,
        "balanced_weights": 1,
    },
    "3.1.10": {
        "merge_weight": 1,
        "permute_rows": 2,
        "q8_0_blocks": 2,
        "q4_k_weights": 2,
        "kl_per_token": 2,
        "speeds": 1,
        "ollama_prompt": 2,
        "stream_until_stop": 2,
    },
}


def exercise_module(number: str) -> str:
    """The module that holds the list of a lab's exercises, by the lab's number."""
    return f"ftlib.course.{MODULES[number]}.exercises"


def experiments_module(number: str) -> str:
    """The module that holds a lab's experiments, by the lab's number; not every lab has one."""
    return f"ftlib.course.{MODULES[number]}.experiments"


def lab_number(path: Path) -> tuple[int, ...]:
    """(3, 1, 10) of lab-3.1.10-ollama-integration.ipynb."""
    found = re.match(r"lab-(\d+)\.(\d+)\.(\d+)", path.name)
    if found is None:
        raise ValueError(f"{path.name}: a lab's file is named lab-3.1.N-topic.ipynb")
    return tuple(int(part) for part in found.groups())


def lab_files(which: list[str] | None = None) -> list[Path]:
    """The notebooks in the course's order, or those whose number is in `which` ("3.1.4").
    ValueError for one that is not here.
    """
    files = sorted(LABS.glob("lab-[0-9]*.[0-9]*.[0-9]*.ipynb"), key=lab_number)
    if not which:
        return files
    chosen = []
    for wanted in which:
        found = [
            p for p in files if p.name.startswith(f"lab-{wanted}-") or wanted in (p.name, str(p))
        ]
        if not found:
            known = ", ".join(".".join(map(str, lab_number(p))) for p in files)
            raise ValueError(f"lab {wanted!r} is not here: there are {known or 'no labs'}")
        chosen += found
    return chosen


def lab_title(path: Path) -> str:
    """The first line of the notebook's first text cell."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "markdown":
            first_line = "".join(cell["source"]).split("\n", 1)[0]
            return first_line.lstrip("# ").strip()
    return ""


def list_labs() -> str:
    """A line for each notebook: its file and its title."""
    return "\n".join(f"{path.name:45} {lab_title(path)}" for path in lab_files())
