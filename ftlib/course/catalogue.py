"""The labs by number: their packages, their names, and their exercises with the points of each.

The ten labs of the course are numbered 3.1.1 to 3.1.10 and lie in labs/; the extensions, which are
optional, are numbered from E1 and lie in labs/extensions/. A table of its own, so that progress and
lists are shown at once, without importing what the exercises compute with. The tests hold it
against the exercises themselves.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ftlib.core.paths import LABS

NUMBER = r"\d+\.\d+\.\d+|E\d+"  # of a lab, as a regular expression
FILE_NAME = re.compile(rf"lab-({NUMBER})(?![\d.])")
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
    "E1": "lab_e1",
    "E2": "lab_e2",
    "E3": "lab_e3",
    "E4": "lab_e4",
    "E5": "lab_e5",
    "E6": "lab_e6",
    "E7": "lab_e7",
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
    "E1": "RLHF",
    "E2": "forgetting",
    "E3": "ReFT and its relatives",
    "E4": "distillation",
    "E5": "benchmarks and judges",
    "E6": "from ftlib to the libraries",
    "E7": "more than one GPU",
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
        "defuse": 1,
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
    "E1": {
        "reward_loss": 2,
        "calibration_error": 2,
        "kl_shaped_rewards": 2,
        "gae": 3,
        "ppo_policy_loss": 2,
        "leave_one_out": 1,
    },
    "E2": {
        "pareto_front": 2,
        "replay_count": 1,
        "fisher_diagonal": 2,
        "ewc_penalty": 2,
        "interpolate_states": 1,
        "stop_step": 1,
    },
    "E3": {
        "loreft_forward": 2,
        "orthonormal_rows": 2,
        "edited_positions": 2,
        "merge_ia3": 2,
        "prefix_attention": 2,
        "bottleneck_forward": 2,
        "count_adapter_parameters": 2,
    },
    "E4": {
        "independent_student": 2,
        "forward_kl": 2,
        "reverse_kl_gradient": 2,
        "generalised_jsd": 2,
        "teacher_rows": 2,
        "bytes_per_token": 2,
    },
    "E5": {
        "choice_loglikelihood": 2,
        "normalised_choice": 2,
        "mcnemar_p": 2,
        "questions_needed": 2,
        "cohen_kappa": 2,
        "position_check": 2,
    },
    "E6": {
        "to_peft": 2,
        "first_apart": 1,
        "step_loss": 2,
        "linear_factor": 1,
        "clip_factor": 1,
        "adamw_step": 3,
        "peft_keys": 2,
    },
    "E7": {
        "zero_bytes": 2,
        "step_traffic": 2,
        "rows_of_rank": 2,
        "combine_gradients": 2,
        "cut_flat": 2,
        "join_flat": 1,
        "nf4_shard_bytes": 2,
    },
}


def exercise_module(number: str) -> str:
    """The module that holds the list of a lab's exercises, by the lab's number."""
    return f"ftlib.course.{MODULES[number]}.exercises"


def experiments_module(number: str) -> str:
    """The module that holds a lab's experiments, by the lab's number; not every lab has one."""
    return f"ftlib.course.{MODULES[number]}.experiments"


def is_extension(number: str) -> bool:
    """Whether a lab such as "E1" is an extension, and not one of the course's ten."""
    return number.startswith("E")


def lab_number(path: Path) -> str:
    """ "3.1.10" of lab-3.1.10-ollama-integration.ipynb, "E1" of lab-E1-rlhf.ipynb; empty for a file
    that is not named like a lab.
    """
    found = FILE_NAME.match(path.name)
    return found[1] if found else ""


def _order(path: Path) -> tuple[bool, list[int]]:
    """The course's order: its labs by number, then the extensions by theirs."""
    number = lab_number(path)
    return is_extension(number), [int(part) for part in re.findall(r"\d+", number)]


def extension_files() -> list[Path]:
    """The notebooks of the extensions, in order."""
    files = [path for path in LABS.glob("extensions/lab-*.ipynb") if lab_number(path)]
    return sorted(files, key=_order)


def lab_files(which: list[str] | None = None, extensions: bool = False) -> list[Path]:
    """The notebooks in the course's order, with `extensions` also those beyond the ten; or those
    whose number is in `which` ("3.1.4", "E1"; "extensions" for all of these). ValueError for one
    that is not here.
    """
    files = sorted((path for path in LABS.glob("lab-*.ipynb") if lab_number(path)), key=_order)
    beyond = extension_files()
    if not which:
        return [*files, *beyond] if extensions else files
    chosen = []
    for wanted in which:
        if wanted == "extensions" and beyond:
            found = beyond
        else:
            found = [p for p in [*files, *beyond] if wanted in (lab_number(p), p.name, str(p))]
        if not found:
            known = ", ".join(lab_number(path) for path in [*files, *beyond])
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
    return "\n".join(f"{path.name:45} {lab_title(path)}" for path in lab_files(extensions=True))
