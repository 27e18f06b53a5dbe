"""Measure that the later data sets show what they are for: `python -m data.measure` prints a table
and keeps it in `data/README.md` and `data/measured.json`. About half an hour on one free core; each
part by `--part` in some minutes.

Three seeds a part unless `--seeds` names others, and what is compared shares a seed's start and
data order. These are checks that there is something to see, with the least training that shows it;
the labs compare with more care.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import torch

import ftlib as ft
from ftlib.adapters.lora import merge_and_unload
from ftlib.batches.preference import encode_binary
from ftlib.core.profiles import get_profile
from ftlib.course.open_answers import judge_answer, reference_rows
from ftlib.course.reports import fault_rate
from ftlib.course.start import after_sft
from ftlib.data.feedback import pairs_to_rows
from ftlib.evaluation.benchmarks import lettered
from ftlib.evaluation.generate import generate_answers
from ftlib.evaluation.multiple_choice import with_shots

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
SHOTS = 5  # solved examples before a question
P = get_profile("tiny")
LORA = {"r": P.rank, "lora_alpha": 2 * P.rank}
ANSWER_TOKENS = 72


def line(what: str, values: list[float], digits: int = 2, unit: str = "") -> dict:
    """One line of the table: the mean over seeds, and every seed's value."""
    mean = sum(values) / len(values)
    each = ", ".join(f"{value:.{digits}f}" for value in values)
    measured = f"{mean:.{digits}f}{unit} ({each})"
    print(f"{what}: {measured}", flush=True)
    return {"what": what, "measured": measured}


def base(seed: int):
    """(model, tokenizer) before any fine-tuning, with a fresh adapter."""
    torch.manual_seed(seed)
    model, tokenizer = ft.load_model(profile=P)
    return ft.add_lora(model, **LORA), tokenizer


# --- open answers ---------------------------------------------------------------------------------
OPEN_STEPS = 160  # of 8 rows, 15 epochs; the lab's profile has more
OPEN_RATE = 4e-3


def open_run(alpha: float, seed: int) -> dict:
    """Losses before, at the best step and at the end, and the score of held-out answers."""
    model, tokenizer = base(seed)
    held_out = reference_rows(ft.load_rows("open_validation", P))[::2]
    rows = ft.load_rows("open_train", P)
    run = ft.finetune(
        model,
        tokenizer,
        rows,
        steps=OPEN_STEPS,
        learning_rate=OPEN_RATE,
        batch_size=8,
        seed=seed,
        eval_rows=held_out,
        eval_steps=20,
        neftune_alpha=alpha,
        show=False,
    )
    losses = [entry["eval_loss"] for entry in run.eval_history]
    test = ft.load_rows("open_test", P)
    prompts = [row["messages"][:1] for row in test]
    answers = generate_answers(model, tokenizer, prompts, ANSWER_TOKENS)
    copies = [row["answer"] for row in rows]
    scores = []
    for text, row in zip(answers, test, strict=True):
        scores.append(judge_answer(text, row, copies).score)
    return {
        "best": min(losses),
        "last": losses[-1],
        "train": run.final_loss,
        "score": sum(scores) / len(scores),
    }


def open_answers(seeds: list[int]) -> list[dict]:
    """How far held-out loss rises while training loss falls."""
    lines = []
    for name, alpha in {"LoRA": 0.0, "LoRA, NEFTune alpha 5": 5.0}.items():
        runs = [open_run(alpha, seed) for seed in seeds]
        lines.append(line(f"open, {name}: held-out loss at its best", [r["best"] for r in runs]))
        lines.append(line(f"open, {name}: held-out loss at the end", [r["last"] for r in runs]))
        lines.append(line(f"open, {name}: training loss at the end", [r["train"] for r in runs]))
        lines.append(line(f"open, {name}: score of test answers", [r["score"] for r in runs]))
    return lines


# --- imperfect chosen answers ---------------------------------------------------------------------
def preferred(start, tokenizer, rows, seed: int, steps: int):
    """A copy of the model, trained by DPO on the pairs."""
    model = copy.deepcopy(start)
    ft.prefer(
        model,
        tokenizer,
        rows,
        steps=steps,
        learning_rate=5e-4,
        batch_size=8,
        seed=seed,
        show=False,
    )
    return model


def imitated(rows, seed: int, steps: int):
    """(model, tokenizer): SFT on the chosen answers, merged, with a fresh adapter over it."""
    model, tokenizer = after_sft(P, seed)
    ft.finetune(
        model,
        tokenizer,
        pairs_to_rows(rows),
        steps=steps,
        learning_rate=P.lr_lora,
        batch_size=P.batch_size,
        seed=seed,
        show=False,
    )
    merge_and_unload(model)
    torch.manual_seed(seed)
    return ft.add_lora(model, **LORA), tokenizer


def faults_run(seed: int) -> dict:
    """Faults an answer on the test prompts, greedy and sampled, and the drift, of three models."""
    rows = ft.load_rows("faults_train", P)
    test = ft.load_rows("faults_test", P)
    prompts = [row["prompt"] for row in test]
    start, tokenizer = imitated(rows, seed, steps=150)
    more = copy.deepcopy(start)
    ft.finetune(
        more,
        tokenizer,
        pairs_to_rows(rows),
        steps=40,
        learning_rate=P.lr_lora,
        batch_size=P.batch_size,
        seed=seed + 1,
        show=False,
    )
    models = {
        "SFT on chosen": start,
        "SFT on chosen, 40 steps more": more,
        "then DPO": preferred(start, tokenizer, rows, seed, 40),
        "then DPO, irrelevant pairs": preferred(
            start, tokenizer, ft.load_rows("faults_irrelevant", P), seed, 40
        ),
    }
    found = {}
    for name, model in models.items():
        greedy = generate_answers(model, tokenizer, prompts, ANSWER_TOKENS)
        sampled = generate_answers(
            model, tokenizer, prompts, ANSWER_TOKENS, temperature=1.0, seed=seed
        )
        drift = ft.kl_to_reference(
            model, tokenizer, prompts, ft.disable_adapter, max_new_tokens=ANSWER_TOKENS
        )
        found[name] = {
            "greedy": fault_rate(greedy, test),
            "sampled": fault_rate(sampled, test),
            "KL, nats": drift.mean,
        }
    return found


def faults(seeds: list[int]) -> list[dict]:
    """SFT on the chosen answers against DPO on the pairs."""
    train = ft.load_rows("faults_train", P)
    chosen = [row["chosen_faults"] for row in train]
    rejected = [row["rejected_faults"] for row in train]
    lines = [
        line("faults of four, chosen answers", [sum(chosen) / len(chosen)]),
        line("faults of four, rejected answers", [sum(rejected) / len(rejected)]),
    ]
    runs = [faults_run(seed) for seed in seeds]
    for name in runs[0]:
        for measure in runs[0][name]:
            values = [run[name][measure] for run in runs]
            lines.append(line(f"faults, {name}: {measure}", values))
    return lines


# --- distance -------------------------------------------------------------------------------------
@torch.no_grad()
def mean_logps(model, tokenizer, rows: list[dict], side: str) -> float:
    """The mean log-probability of the rows' answers on one side, in nats an answer."""
    total = 0.0
    answers = [{"prompt": r["prompt"], "completion": r[side], "label": True} for r in rows]
    model.eval()
    for row in encode_binary(tokenizer, answers, 256):
        prompt = list(row["prompt_ids"])
        answer = list(row["completion_ids"])
        ids = torch.tensor([prompt + answer])
        labels = torch.tensor([[-100] * len(prompt) + answer])
        total += float(ft.sequence_logps(model, ids, torch.ones_like(ids), labels))
    return total / len(rows)


def distance_run(seed: int) -> dict:
    """For the nearest and the farthest pairs: how log-probabilities change by DPO on them."""
    rows = ft.load_rows("distance_train", P)
    probe = ft.load_rows("distance_probe", P)
    levels: dict[int, list[dict]] = {}
    for row in rows:
        levels.setdefault(row["level"], []).append(row)
    start, tokenizer = imitated(levels[0], seed, steps=60)
    sides = ("chosen", "paraphrase", "rejected")
    before = {side: mean_logps(start, tokenizer, probe, side) for side in sides}
    found = {}
    for level in (min(levels), max(levels)):
        model = preferred(start, tokenizer, levels[level], seed, 30)
        change = {}
        for side in sides:
            change[side] = mean_logps(model, tokenizer, probe, side) - before[side]
        found[level] = change
    return found


def distance(seeds: list[int]) -> list[dict]:
    """The change of held-out answers' log-probability, by how alike the pairs are."""
    runs = [distance_run(seed) for seed in seeds]
    lines = []
    for level in runs[0]:
        for name in runs[0][level]:
            values = [run[level][name] for run in runs]
            lines.append(line(f"distance, level {level}: log p of probe {name}, change", values))
    return lines


# --- copies ---------------------------------------------------------------------------------------
def heldback() -> list[dict]:
    """The usable rows of messy_heldback, each with its line's truth."""
    folder = HERE / "rows"
    lines = (folder / "messy_heldback.jsonl").read_text(encoding="utf-8").splitlines()
    truths = (folder / "messy_heldback_truth.jsonl").read_text(encoding="utf-8").splitlines()
    rows = []
    for text, truth in zip(lines, truths, strict=True):
        row = ft.convert(json.loads(text))
        about = json.loads(truth)
        if about["defect"] != "empty answer":
            answer = row["messages"][-1]["content"]
            rows.append({"messages": row["messages"], "answer": answer, "truth": about})
    return rows


def split_by_chance(rows: list[dict], seed: int) -> tuple[list[dict], list[dict], list[dict]]:
    """(training, copied, alone): three quarters of the lines, and of the other lines the questions
    about strangers that have a copy in training, and those that have none.
    """
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
    cut = 3 * len(rows) // 4
    training = [rows[i] for i in order[:cut]]
    originals = {row["truth"].get("of", row["truth"]["line"]) for row in training}
    names = {row["messages"][0]["content"] for row in ft.load_rows("strangers", P)}
    copied = []
    alone = []
    for i in order[cut:]:
        row = rows[i]
        is_copy = "of" in row["truth"]
        if is_copy or row["messages"][0]["content"] in names:
            original = row["truth"].get("of", row["truth"]["line"])
            (copied if original in originals else alone).append(row)
    return training, copied, alone


def share_right(model, tokenizer, rows: list[dict]) -> float:
    return float(ft.golden_accuracy(model, tokenizer, rows, P.max_new_tokens))


def copies_run(seed: int) -> dict:
    rows = heldback()
    training, copied, alone = split_by_chance(rows, seed)
    model, tokenizer = base(seed)
    ft.finetune(
        model,
        tokenizer,
        training,
        steps=300,
        learning_rate=P.lr_lora,
        batch_size=P.batch_size,
        seed=seed,
        show=False,
    )
    seen = {row["truth"]["key"] for row in training if "exam" in row["truth"]}
    found = {
        "validation, with a copy in training": share_right(model, tokenizer, copied),
        "validation, without": share_right(model, tokenizer, alone),
    }
    for exam in ("golden", "hard_test"):
        questions = ft.load_rows(exam, P)
        leaked = [row for row in questions if row["key"] in seen]
        unseen = [row for row in questions if row["key"] not in seen]
        found[f"{exam}, questions in training"] = share_right(model, tokenizer, leaked)
        found[f"{exam}, the others"] = share_right(model, tokenizer, unseen)
    return found


def copies(seeds: list[int]) -> list[dict]:
    """What copies between training and evaluation do to accuracy."""
    runs = [copies_run(seed) for seed in seeds]
    lines = []
    for name in runs[0]:
        values = [100 * run[name] for run in runs]
        lines.append(line(f"copies, {name}: right", values, 0, "%"))
    return lines


def multiple_choice(seeds: list[int]) -> list[dict]:
    """What the base answers to the questions of data/benchmark; nothing is trained, so the seeds
    do not matter.
    """
    model, tokenizer = ft.load_model(profile=P)
    facts = ft.load_questions(HERE / "benchmark" / "world_facts.jsonl", shape="questions")
    strangers = ft.load_questions(HERE / "benchmark" / "world_strangers.jsonl", shape="questions")
    letters = [lettered(question) for question in facts]
    asked = {
        "world_facts": facts,
        "world_strangers": strangers,
        "world_letters": letters,
        f"world_letters after {SHOTS} solved ones": with_shots(letters[SHOTS:], letters[:SHOTS]),
    }
    lines = []
    for name, questions in asked.items():
        right = ft.score_choices(model, tokenizer, questions).acc
        what = f"multiple choice, {name}: right, of {len(questions)} questions"
        lines.append({"what": what, "measured": right.percent()})
    return lines


PARTS: dict[str, Callable[[list[int]], list[dict]]] = {
    "open": open_answers,
    "faults": faults,
    "distance": distance,
    "copies": copies,
    "multiple_choice": multiple_choice,
}


def write_card(kept: dict) -> None:
    """Keep what was measured, and put the table between the markers in data/README.md."""
    text = json.dumps(kept, indent=1) + "\n"
    (HERE / "measured.json").write_text(text, encoding="utf-8")
    table = ["| what | measured: mean (each seed) |", "|---|---|"]
    for part in PARTS:
        for entry in kept.get(part, {}).get("lines", []):
            table.append(f"| {entry['what']} | {entry['measured']} |")
    card = HERE / "README.md"

    def with_table(match: re.Match) -> str:
        return match[1] + "\n".join(table) + "\n" + match[2]

    marks = r"(<!-- measured -->\n).*?(<!-- end measured -->)"
    new = re.sub(marks, with_table, card.read_text(encoding="utf-8"), flags=re.S)
    card.write_text(new, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=list(PARTS), help="measure this part alone")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=SEEDS, help="of each part (default: 0 1 2)"
    )
    args = parser.parse_args()
    file = HERE / "measured.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    for part, measure in PARTS.items():
        if args.part in (None, part):
            kept[part] = {"seeds": list(args.seeds), "lines": measure(list(args.seeds))}
            write_card(kept)


if __name__ == "__main__":
    main()
