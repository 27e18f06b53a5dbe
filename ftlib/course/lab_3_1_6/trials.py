"""What the experiments of lab 3.1.6 train on, and how a trained model is scored.

The messy file and the strangers are of the embedded world in every profile; other rows are the
profile's own. A seed draws the rows of a run as well as the adapter and the order, so that
intervals over seeds hold the chance in all three.
"""

from __future__ import annotations

import functools
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ftlib.adapters.lora import add_lora
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.core.paths import DATA
from ftlib.core.profiles import Profile, get_profile
from ftlib.course.records.kit import rows_of, study_base
from ftlib.data.formats import convert
from ftlib.data.stream import stream_rows
from ftlib.evaluation.metrics import golden_accuracy
from ftlib.losses.logps import sequence_logps
from ftlib.training.finetune import finetune

MESSY = DATA / "rows" / "messy.jsonl"
TRUTH = DATA / "rows" / "messy_truth.jsonl"
UNHARMED = ("none", "code")  # what was planted in a line that has no defect


def world_rows(split: str) -> tuple[dict, ...]:
    """Rows of the embedded world, whatever the profile."""
    return rows_of(get_profile("tiny"), split)


# --- the messy file -------------------------------------------------------------------------------
def _with_line(row: dict, where: str) -> dict:
    return {"messages": convert(row)["messages"], "line": int(where.rpartition(":")[2])}


@functools.cache
def messy_rows() -> tuple[dict, ...]:
    """The readable rows of the messy file as messages, each with its `line` and the `truth` about
    it. Empty answers are left out: `finetune` refuses them.
    """
    planted = {}
    for text in TRUTH.read_text(encoding="utf-8").splitlines():
        entry = json.loads(text)
        planted[entry["line"]] = entry
    rows = []
    for row in stream_rows(MESSY, check=_with_line, max_reject_share=0.1, progress=False):
        if row["messages"][-1]["content"].strip():
            rows.append({**row, "truth": planted[row["line"]]})
    return tuple(rows)


def is_harmed(row: dict) -> bool:
    """Whether the line has a defect."""
    return row["truth"]["defect"] not in UNHARMED


def draw_messy(count: int, dirt: float, seed: int) -> list[dict]:
    """`count` rows of the messy file in its order, a share `dirt` of them with a defect, each
    defect by its share in the file. The originals of copies that are drawn are among the others.
    """
    draw = random.Random(seed)
    by_defect = defaultdict(list)
    for row in messy_rows():
        if is_harmed(row):
            by_defect[row["truth"]["defect"]].append(row)
    in_file = sum(map(len, by_defect.values()))
    harmed = []
    for rows in by_defect.values():
        harmed += draw.sample(rows, round(dirt * count * len(rows) / in_file))
    unharmed = [row for row in messy_rows() if not is_harmed(row)]
    originals = {row["truth"]["of"] for row in harmed if "of" in row["truth"]}
    wanted = [row for row in unharmed if row["line"] in originals]
    others = [row for row in unharmed if row["line"] not in originals]
    room = max(0, count - len(harmed) - len(wanted))
    drawn = [*harmed, *wanted, *draw.sample(others, room)]
    return sorted(drawn, key=lambda row: row["line"])


# --- rows of the profile --------------------------------------------------------------------------
def draw_rows(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """The first `count` rows of an order that the seed makes: a larger draw holds a smaller one."""
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)
    return [rows[i] for i in order[:count]]


def worded(question: str, way: int) -> str:
    """The question in one of four polite wordings, the first being its own."""
    ways = (
        question,
        f"{question} Thanks.",
        f"Please: {question}",
        f"{question.rstrip('.?')}, please{question[-1]}",
    )
    return ways[way]


def with_wrong_answers(rows: list[dict], share: float, seed: int) -> list[dict]:
    """The rows, a share of them with the answer to another question of their family: damage that no
    rule of form sees. Each has `wrong`, whether it was damaged.
    """
    draw = random.Random(seed)
    answers = defaultdict(list)  # family -> the answers of its rows
    for row in rows:
        answers[row["family"]].append(row["answer"])
    out = []
    for row in rows:
        others = [answer for answer in answers[row["family"]] if answer != row["answer"]]
        is_wrong = draw.random() < share and bool(others)
        last = row["messages"][-1]
        if is_wrong:
            last = {"role": "assistant", "content": draw.choice(others)}
        out.append({**row, "messages": [*row["messages"][:-1], last], "wrong": is_wrong})
    return out


# --- training and scoring -------------------------------------------------------------------------
def trained(profile: Profile, rows: Sequence[dict], seed: int, steps: int, **options: Any):
    """(model, tokenizer): the study model with a fresh adapter, trained on the rows. `options` as
    of `finetune`.
    """
    model, tokenizer = study_base(profile)
    torch.manual_seed(seed)
    add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank)
    settings: dict[str, Any] = {
        "learning_rate": profile.lr_lora,
        "batch_size": profile.preparation.batch,
        "log_steps": steps,
        "show": False,
    }
    settings |= options
    encoded = encode_rows(tokenizer, list(rows), profile.max_length)
    finetune(model, tokenizer, encoded, steps=steps, seed=seed, **settings)
    return model, tokenizer


def right_answers(profile: Profile, model, tokenizer, questions: Sequence[dict]) -> np.ndarray:
    """Which questions are answered right, (questions,) of 0 and 1."""
    accuracy = golden_accuracy(model, tokenizer, list(questions), profile.max_new_tokens)
    return np.array(accuracy.correct, dtype=float)


@torch.no_grad()
def answer_losses(profile: Profile, model, tokenizer, rows: Sequence[dict]) -> np.ndarray:
    """Loss of each row's answer, nats per token, (rows,)."""
    encoded = encode_rows(tokenizer, list(rows), profile.max_length)
    by_length = np.argsort([len(row["input_ids"]) for row in encoded], kind="stable")
    collator = SFTCollator(tokenizer.pad_token_id)
    losses = np.zeros(len(encoded))
    for part in np.array_split(by_length, max(1, len(encoded) // 64)):
        batch = collator([encoded[i] for i in part])
        on_device = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logps = sequence_logps(model, **on_device, average=True)  # (rows of this part,)
        losses[part] = -logps.float().cpu().numpy()
    return losses


def area_under_curve(scores: np.ndarray, positive: np.ndarray) -> float:
    """The share of pairs (a positive, a negative) in which the positive has the higher score, ties
    counting half (Mann and Whitney's U): 0.5 is chance.
    """
    above = scores[positive][:, None] > scores[~positive][None, :]
    equal = scores[positive][:, None] == scores[~positive][None, :]
    return float(above.mean() + equal.mean() / 2)
