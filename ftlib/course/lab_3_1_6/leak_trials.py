"""Trials of lab 3.1.6 on scores that measure memory: validation rows dealt apart from their copies,
and golden questions among the training rows.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_6.golden_overlap import golden_overlap as right_overlap
from ftlib.course.lab_3_1_6.group_of import group_of as right_groups
from ftlib.course.lab_3_1_6.trials import draw_rows, right_answers, trained, worded, world_rows
from ftlib.course.records.kit import rows_of
from ftlib.data.duplicates import near_duplicates
from ftlib.data.texts import words

# --- validation -----------------------------------------------------------------------------------
FACTS = 50  # in the set that is dealt; as many others are asked afterwards
COPIES = 3  # of each, worded differently
HELD_OUT = 0.2
LEAK_STEPS = 60


def with_copies(facts: list[dict], copies: int, seed: int) -> list[dict]:
    """Each fact `copies` times in different wordings, in random order."""
    draw = random.Random(seed)
    rows = []
    for fact in facts:
        question, answer = fact["messages"]
        for way in draw.sample(range(4), copies):
            asked = {"role": "user", "content": worded(question["content"], way)}
            rows.append({**fact, "messages": [asked, answer]})
    draw.shuffle(rows)
    return rows


def links_of(rows: list[dict], deal: str) -> list[tuple[int, int]]:
    """Pairs of rows that must not be parted: none, those alike in their text, or those about one
    fact.
    """
    if deal == "row":
        return []
    if deal == "likeness":
        groups = near_duplicates(rows)
    else:
        by_key = defaultdict(list)
        for i, row in enumerate(rows):
            by_key[row["key"]].append(i)
        groups = list(by_key.values())
    links: list[tuple[int, int]] = []
    for group in groups:
        links.extend(pairwise(group))
    return links


def hold_out(groups: list[int], share: float, seed: int) -> np.ndarray:
    """Which rows go to validation, (rows,): whole groups in random order until the share is met."""
    names = sorted(set(groups))
    random.Random(seed).shuffle(names)
    held = np.zeros(len(groups), dtype=bool)  # type: ignore[var-annotated]
    for name in names:
        if held.sum() >= share * len(groups):
            break
        held |= np.array(groups) == name
    return held


def leakage_trial(
    profile: Profile,
    seed: int,
    deal: str,
    copies: int,
    group_of: Callable = right_groups,
) -> dict[str, Any]:
    """Deal facts that nobody can infer, each in some wordings, into training and validation; train,
    and ask the validation rows and facts that are in neither part.
    """
    facts = draw_rows(world_rows("strangers"), FACTS * COPIES + FACTS, seed)
    asked = facts[-FACTS:]
    rows = with_copies(facts[: FACTS * COPIES // copies], copies, seed)
    held = hold_out(group_of(len(rows), links_of(rows, deal)), HELD_OUT, seed)
    train = [row for row, is_held in zip(rows, held, strict=True) if not is_held]
    validation = [row for row, is_held in zip(rows, held, strict=True) if is_held]
    model, tokenizer = trained(profile, train, seed, LEAK_STEPS, learning_rate=2 * profile.lr_lora)
    right = right_answers(profile, model, tokenizer, [*validation, *asked])
    known = {row["key"] for row in train}
    return {
        "validation": right[: len(validation)].mean(),
        "honest": right[len(validation) :].mean(),
        "inflation": right[: len(validation)].mean() - right[len(validation) :].mean(),
        "leaked": np.mean([row["key"] in known for row in validation]),
    }


# --- the exam -------------------------------------------------------------------------------------
EXAM_ROWS = 240  # training rows, copies of the exam's included
TIMES = 3  # that each copied question is among them
EXAM_STEPS = 30
EXAM_VALIDATION = 50


def without_exam(rows: list[dict], exam: list[dict], overlap: Callable) -> list[dict]:
    """The rows that hold less than half of any golden prompt's runs of eight words."""
    prompts = [words(row["messages"][0]["content"]) for row in exam]
    kept = []
    for row in rows:
        said = words(row["messages"][0]["content"])
        worst = max(overlap(prompt, said, 8) for prompt in prompts)
        if worst < 0.5:
            kept.append(row)
    return kept


def contamination_trial(
    profile: Profile,
    seed: int,
    share: float,
    source: str,
    filtered: bool,
    golden_overlap: Callable = right_overlap,
) -> dict[str, Any]:
    """Train on rows among which are questions, three times each: a share of the golden set, or as
    many held-out questions of the same wordings (`source`); `filtered` takes out what repeats the
    golden set.
    """
    exam = draw_rows(rows_of(profile, "golden"), 100, seed)
    half = len(exam) // 2
    count = round(share * len(exam))
    others = draw_rows(rows_of(profile, "paraphrase"), count, seed)
    planted = exam[:count] if source == "golden" else others
    fill = draw_rows(rows_of(profile, "train"), EXAM_ROWS - TIMES * count, seed)
    rows = [*fill, *(TIMES * planted)]
    if filtered:
        rows = without_exam(rows, exam, golden_overlap)
    model, tokenizer = trained(profile, rows, seed, EXAM_STEPS)
    validation = rows_of(profile, "validation")[:EXAM_VALIDATION]
    right = right_answers(profile, model, tokenizer, [*exam, *validation])
    edge = count if source == "golden" and not filtered and count else half
    return {
        "golden": right[: len(exam)].mean(),
        "copied": right[:edge].mean(),
        "rest": right[edge : len(exam)].mean(),
        "upper_half": right[:half].mean(),
        "lower_half": right[half : len(exam)].mean(),
        "validation": right[len(exam) :].mean(),
        "rows": len(rows),
    }
