"""Trial of lab 3.1.6 on what a model keeps of the very rows it is trained on: wrong answers among
right ones, and canaries seen several times.

Exposure of a canary (Carlini et al. 2019, arXiv 1802.08232): log2 of the number of candidate
answers less log2 of the canary's rank among them by loss. 1.4 bits are expected of a canary among
64 that was never seen.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_6.trials import (
    answer_losses,
    area_under_curve,
    draw_rows,
    trained,
    with_wrong_answers,
)
from ftlib.course.records.kit import rows_of

ROWS = 80  # that are trained on, and as many that are not
WRONG = 0.2
TIMES = (0, 1, 2, 4, 8)  # that a canary is in the set
EACH = 2  # canaries for each of these
CANDIDATES = 64  # answers among which a canary is ranked, itself included
THINGS = ("lamp", "rope", "drum", "sword", "clock", "broom", "glove", "bucket", "kettle", "mirror")


def _number(draw: random.Random) -> str:
    return " ".join(draw.choice("0123456789") for _ in range(4))


def _canary(thing: str, number: str) -> dict:
    """A row that only its own number answers."""
    asked = {"role": "user", "content": f"What is the secret number of the {thing}?"}
    said = {"role": "assistant", "content": number}
    return {"messages": [asked, said], "answer": number, "family": "canary"}


def canaries(seed: int) -> list[tuple[int, dict, list[dict]]]:
    """(times it is in the set, the canary, its other possible answers) of each canary."""
    draw = random.Random(f"{seed}/canaries")
    things = draw.sample(THINGS, EACH * len(TIMES))
    made = []
    for i, thing in enumerate(things):
        numbers = dict.fromkeys(_number(draw) for _ in range(4 * CANDIDATES))
        chosen = list(numbers)[:CANDIDATES]
        candidates = [_canary(thing, number) for number in chosen]
        made.append((TIMES[i // EACH], candidates[0], candidates[1:]))
    return made


def exposures(profile: Profile, model, tokenizer, made: list) -> np.ndarray:
    """Bits for each canary, (canaries,)."""
    candidates = []
    for _, canary, others in made:
        candidates += [canary, *others]
    losses = answer_losses(profile, model, tokenizer, candidates).reshape(len(made), CANDIDATES)
    ranks = 1 + (losses[:, 1:] < losses[:, :1]).sum(1)
    return np.log2(CANDIDATES) - np.log2(ranks)


def memory_trial(profile: Profile, seed: int, epochs: int) -> dict[str, Any]:
    """Train for some epochs on rows a share of which is wrong, with canaries among them; how well
    the loss tells wrong from right in these rows and in others, and each canary's exposure.
    """
    drawn = draw_rows(rows_of(profile, "train"), 2 * ROWS, seed)
    rows = with_wrong_answers(drawn, WRONG, seed)
    made = canaries(seed)
    train = rows[:ROWS]
    for times, canary, _ in made:
        train += times * [canary]
    steps = epochs * math.ceil(len(train) / profile.preparation.batch)
    model, tokenizer = trained(profile, train, seed, steps)
    losses = answer_losses(profile, model, tokenizer, rows)
    wrong = np.array([row["wrong"] for row in rows])
    by_canary = exposures(profile, model, tokenizer, made).reshape(len(TIMES), EACH)
    return {
        "auc_trained": area_under_curve(losses[:ROWS], wrong[:ROWS]),
        "auc_others": area_under_curve(losses[ROWS:], wrong[ROWS:]),
        "wrong_trained": losses[:ROWS][wrong[:ROWS]].mean(),
        "wrong_others": losses[ROWS:][wrong[ROWS:]].mean(),
        "right_trained": losses[:ROWS][~wrong[:ROWS]].mean(),
        "right_others": losses[ROWS:][~wrong[ROWS:]].mean(),
        "exposure": by_canary.mean(1),
    }
