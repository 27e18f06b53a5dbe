"""The profile's own model as a judge that is asked for its verdict: "A" or "B", whichever it finds
likelier as the next word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ftlib.core.profiles import Profile
from ftlib.course.records.kit import rows_of
from ftlib.evaluation.multiple_choice import score_choices

ASKED = """Which answer to the request is better, A or B?

Request: {prompt}

Answer A: {first}

Answer B: {second}

The better answer is"""
LETTERS = ("A", "B")
LEANING = 0.5  # an advantage beyond it: the place decides most pairs
UNSURE = 0.3  # share of verdicts that flip, beyond which a judge is called unsure
WEAK = 0.2  # a κ below it is hardly agreement


@dataclass(frozen=True)
class Judged:
    """Verdicts of one judge on pairs: 1 where it takes the answer in the first place, 0 for the
    second, with a there (`forward`) and with b (`backward`); `truth`: 1 where a is the chosen one.
    """

    forward: Tensor
    backward: Tensor
    truth: Tensor

    def names(self) -> tuple[list[str], list[str]]:
        """(the judge's winners, the rule's), a with a in the first place."""
        said = {1.0: "a", 0.0: "b"}
        return (
            [said[value] for value in self.forward.tolist()],
            [said[value] for value in self.truth.tolist()],
        )


def _asked(prompt: str, first: str, second: str) -> dict:
    context = ASKED.format(prompt=prompt, first=first, second=second)
    return {"context": context, "choices": list(LETTERS), "answer": 0}


def _verdicts(model, tokenizer, questions: Sequence[dict]) -> Tensor:
    scores = score_choices(model, tokenizer, questions, batch_size=8)
    return torch.tensor([1.0 - score.prediction for score in scores], dtype=torch.float64)


def ask_own_model(profile: Profile, model, tokenizer, count: int) -> Judged:
    """The verdicts of the model on `count` held-out preference pairs of the profile; a is the
    chosen answer in every second pair.
    """
    forward = []
    backward = []
    truth = []
    for i, row in enumerate(rows_of(profile, "preferences_test")[:count]):
        prompt = row["prompt"][-1]["content"]
        answers = [row["chosen"][-1]["content"], row["rejected"][-1]["content"]]
        a, b = answers if i % 2 == 0 else answers[::-1]
        forward.append(_asked(prompt, a, b))
        backward.append(_asked(prompt, b, a))
        truth.append(float(i % 2 == 0))
    return Judged(
        _verdicts(model, tokenizer, forward),
        _verdicts(model, tokenizer, backward),
        torch.tensor(truth, dtype=torch.float64),
    )


def kind_of_judge(flips: float, advantage: float) -> str:
    """ "p": it goes by place; "u": it is unsure; "j": it judges."""
    if abs(advantage) > LEANING:
        return "p"
    return "u" if flips > UNSURE else "j"


def reading(flips: float, advantage: float, kappa: float) -> str:
    """What the three numbers say together, in a sentence."""
    kind = kind_of_judge(flips, advantage)
    if kind == "p":
        place = "first" if advantage > 0 else "second"
        return (
            f"It takes the {place} place in most pairs, whichever answer is there: it gives "
            "verdicts but does not judge."
        )
    if kind == "u":
        return "In many pairs the order changes its verdict: ask in both orders, and trust little."
    if kappa < WEAK:
        return "It is consistent but hardly agrees with the data: consistency alone is no skill."
    return "It is consistent, and agrees with the data beyond chance."
