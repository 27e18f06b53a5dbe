"""Lab 3.1.4, fine-tuning 8B, exercise 12: a win rate that no position can buy."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong
from ftlib.evaluation.preference import win_rate


def _rates(a, b, judge, prompts):
    for prompt, one, two in zip(prompts, a, b, strict=True):
        yield float(judge(prompt, one, two)), float(judge(prompt, two, one))


def _win_one_order(a, b, judge, prompts):
    scores = [forth for forth, _ in _rates(a, b, judge, prompts)]
    return sum(scores) / len(scores)


def _win_not_inverted(a, b, judge, prompts):
    scores = [(forth + back) / 2 for forth, back in _rates(a, b, judge, prompts)]
    return sum(scores) / len(scores)


def _win_without_ties(a, b, judge, prompts):
    scores = [(forth + 1 - back) / 2 for forth, back in _rates(a, b, judge, prompts)]
    decided = [s for s in scores if s != 0.5]
    return sum(decided) / len(decided) if decided else 0.5


def _win_ties_lose(a, b, judge, prompts):
    scores = [(forth + 1 - back) / 2 for forth, back in _rates(a, b, judge, prompts)]
    return sum(s > 0.5 for s in scores) / len(scores)


def _win_for_b(a, b, judge, prompts):
    return 1 - float(win_rate(a, b, judge, prompts))


def _longer(prompt, first, second):
    return 0.5 + 0.5 * ((len(first) > len(second)) - (len(first) < len(second)))


def _first_unless_empty(prompt, first, second):
    return 1.0 if first else 0.0


def _biased(prompt, first, second):
    return 1.0 if len(first) + 2 >= len(second) else 0.0


def _win_cases(g):
    words = ["", "a", "bcd", "efgh", "ijklmn", "opq", "rstuvwxyz"]
    for judge_ in (_longer, _first_unless_empty, _biased):
        for n in (7, 12):
            one, two = torch.randint(0, len(words), (2, n), generator=g).tolist()
            yield (
                [words[i] for i in one],
                [words[i] for i in two],
                judge_,
                [f"question {i}" for i in range(n)],
            )


WIN_RATE = Exercise(
    "win_rate",
    "A win rate that no position can buy",
    12,
    3,
    win_rate,
    _win_cases,
    (
        Wrong(
            "one order",
            _win_one_order,
            "You judged in one order only: a judge that likes whatever comes first would crown a. "
            "Ask again with the two swapped.",
        ),
        Wrong(
            "not inverted",
            _win_not_inverted,
            "In the swapped order a comes second, so its score there is 1 - verdict; you added "
            "the verdict as it is.",
        ),
        Wrong(
            "ties dropped",
            _win_without_ties,
            "You left ties out: count each one half, or one lucky win in a hundred ties reads as "
            "100%.",
        ),
        Wrong(
            "ties lost",
            _win_ties_lose,
            "You count a tie as a loss of a: it is worth one half, for both.",
        ),
        Wrong(
            "for b",
            _win_for_b,
            "That is b's win rate: return the share of comparisons that a wins.",
        ),
    ),
    (
        "For each pair ask twice: judge(prompt, a_i, b_i) and judge(prompt, b_i, a_i).",
        "The verdict speaks of the first answer. In the second call that is b's, so a's score is "
        "1 - verdict.",
        "A pair's score is the mean of the two; a tie in both orders, or a judge that contradicts "
        "itself, comes out as 0.5.",
        "Return the mean of the scores over all pairs.",
    ),
    points=3,
    praise="equal to ftlib's, also under judges that favour a position,",
)
