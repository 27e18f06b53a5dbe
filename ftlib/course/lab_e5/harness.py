"""lm-evaluation-harness beside this lab: what it gave where it was run, what it gives here if it is
installed, and the command lines of the public benchmarks.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ftlib.core.paths import DATA
from ftlib.core.profiles import Profile
from ftlib.course.lab_e5.questions import benchmark, known_questions
from ftlib.course.records.kit import model_folder
from ftlib.evaluation.benchmarks import lettered

FOLDER = DATA / "benchmark"
RECORDED = FOLDER / "harness_sums.json"
PUBLIC_TASKS = "mmlu,arc_challenge,hellaswag"
ALLOWED = 1e-4  # nats: the harness computes in batches of other shapes
INSTALL = 'pip install "lm_eval[hf]==0.4.13"'

Sums = Mapping[str, Sequence[Sequence[float]]]


def recorded() -> dict:
    """What the harness gave for the embedded model: `lm_eval` its version, and `sums`, {task: the
    log-likelihoods of the choices of the task's first questions}.
    """
    return json.loads(RECORDED.read_text(encoding="utf-8"))


def recorded_questions() -> dict[str, list[dict]]:
    """The questions of the recorded sums, by task."""
    asked = {
        "world_facts": known_questions(),
        "world_strangers": benchmark(),
        "world_letters": [lettered(question) for question in known_questions()],
    }
    found = {}
    for task, sums in recorded()["sums"].items():
        found[task] = list(asked[task][: len(sums)])
    return found


def largest_difference(mine: Sums, theirs: Sums) -> float:
    """The largest |difference| of two sums of the same choice, over all tasks, nats."""
    largest = 0.0
    for task, sums in theirs.items():
        gaps = np.abs(np.array(mine[task]) - np.array(sums))
        largest = max(largest, float(gaps.max()))
    return largest


def parity_line(mine: Sums) -> str:
    """How far the sums are from those that the harness gave."""
    found = recorded()
    count = sum(len(question) for sums in found["sums"].values() for question in sums)
    largest = largest_difference(mine, found["sums"])
    word = "equal to" if largest <= ALLOWED else "**not equal to**"
    return (
        f"{count} sums, {word} those of lm-evaluation-harness {found['lm_eval']} within "
        f"{ALLOWED:g} nats: the largest difference is {largest:.1e}."
    )


def installed() -> bool:
    return importlib.util.find_spec("lm_eval") is not None


def here_line() -> str:
    """The harness itself on the course's tasks, where it is installed; else how to get it."""
    if not installed():
        return (
            f"lm-evaluation-harness is not installed here; `{INSTALL}` gets it (the course needs "
            "none of it otherwise). Then this cell runs it and compares."
        )
    version = importlib.metadata.version("lm_eval")
    largest = largest_difference(run_harness(), recorded()["sums"])
    return f"lm_eval {version}, run here: within {largest:.1e} nats of the recorded sums."


def run_harness() -> dict[str, list[list[float]]]:
    """The harness's own sums of the recorded questions, {task: per question, per choice}: its
    command line, as `command` makes it, from the course's folder. RuntimeError with what it said
    where it fails.
    """
    wanted = recorded()["sums"]
    words = command(
        str(DATA / recorded()["model"]), ",".join(wanted), "float32", folder=str(FOLDER)
    )
    with tempfile.TemporaryDirectory() as folder:
        words[words.index("--output_path") + 1] = folder
        words += ["--log_samples", "--device", "cpu"]
        words += ["--limit", str(max(map(len, wanted.values())))]
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=DATA.parent, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)} failed: {done.stderr[-500:]}")
        return {task: _logged_sums(Path(folder), task) for task in wanted}


def _logged_sums(folder: Path, task: str) -> list[list[float]]:
    """The sums in the file of samples that the harness has written for a task."""
    (path,) = folder.rglob(f"samples_{task}_*.jsonl")
    samples = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    ordered = sorted(samples, key=lambda sample: sample["doc_id"])
    return [[float(logp) for logp, _ in one["filtered_resps"]] for one in ordered]


def command(model: str, tasks: str, dtype: str, adapter: str = "", folder: str = "") -> list[str]:
    """The harness's command line as a list of arguments. `adapter`: a PEFT folder over the model;
    `folder`: of task files besides the harness's own.
    """
    asked = f"pretrained={model},dtype={dtype}"
    if adapter:
        asked += f",peft={adapter}"
    words = ["lm_eval", "run", "--model", "hf", "--model_args", asked, "--tasks", tasks]
    if folder:
        words += ["--include_path", folder]
    return [*words, "--num_fewshot", "0", "--batch_size", "16", "--output_path", "runs/lm_eval"]


def commands(profile: Profile, adapter: Path | None) -> list[str]:
    """The command lines for MMLU, ARC-Challenge and HellaSwag, before and after fine-tuning, and
    for the course's own tasks.
    """
    model = model_folder(profile.model)
    folder = ""
    tasks = PUBLIC_TASKS
    if profile.dataset == "embedded":
        model = f"data/{profile.model}"
        folder = "data/benchmark"
        tasks = "world_facts,world_strangers,world_letters"
    lines = [command(model, tasks, profile.dtype, folder=folder)]
    if adapter is not None:
        name = str(adapter.relative_to(DATA.parent)) if adapter.is_relative_to(DATA) else adapter
        lines.append(command(model, tasks, profile.dtype, str(name), folder))
    if tasks != PUBLIC_TASKS:
        lines.append(command("Qwen/Qwen3-0.6B", PUBLIC_TASKS, "bfloat16"))
    return [shlex.join(line) for line in lines]
