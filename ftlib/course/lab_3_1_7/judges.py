"""A judge with a fault that language models have when they judge: it favours a position."""

from __future__ import annotations

from collections.abc import Callable

from ftlib.course.world import preference_judge

Judge = Callable[[str, str, str], float]


def hasty_judge(rows: list[dict], model: str = "") -> Judge:
    """`preference_judge`, which after a tie does not read again but names the first answer.

    Zheng et al. (2023, arXiv 2306.05685) find such a position bias in GPT-4 and others.
    """
    careful = preference_judge(rows, model)

    def judge(prompt: str, first: str, second: str) -> float:
        verdict = careful(prompt, first, second)
        return 1.0 if verdict == 0.5 else verdict

    return judge
