"""Lab 3.1.9, KTO, exercise 3: mismatched pairs."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong


def rotate_completions(prompts: list[str], completions: list[str]) -> list[tuple[str, str]]:
    """(prompt i, completion i-1) for every row of a batch; the first prompt gets the last
    completion. ValueError below two rows.
    """
    if len(prompts) < 2:
        raise ValueError(
            f"{len(prompts)} row: a mismatched pair takes the completion of another row; use a "
            "batch of two or more"
        )
    return list(zip(prompts, completions[-1:] + completions[:-1], strict=True))


def _rotate_cases(g):
    for n in (2, 3, 5):
        yield (
            [f"prompt {i}" for i in range(n)],
            [f"answer {int(torch.randint(1000, (), generator=g))} to {i}" for i in range(n)],
        )


def _refuses_one(function) -> str | None:
    try:
        function(["a prompt"], ["an answer"])
    except ValueError:
        return None
    return (
        "A batch of one went through: its row would be its own mismatch. "
        "Raise a ValueError for fewer than two rows."
    )


ROTATE = Exercise(
    name="rotate_completions",
    title="Everybody gets a neighbour's answer",
    minutes=6,
    difficulty=1,
    reference=rotate_completions,
    cases=_rotate_cases,
    property=_refuses_one,
    points=1,
    hints=(
        "The prompts stay. The list of completions moves on by one, and its last item comes to "
        "the front.",
        "`completions[-1:] + completions[:-1]` is the rotated list; `zip` joins it with the "
        "prompts. "
        "A batch of one: ValueError.",
        'if len(prompts) < 2: raise ValueError("use a batch of two or more"); '
        "return list(zip(prompts, completions[-1:] + completions[:-1]))",
    ),
    wrong=(
        Wrong(
            "not rotated",
            lambda p, c: list(zip(p, c, strict=True)),
            "Every prompt has its own completion: these are matched pairs, and their ratio is "
            "what is being trained.",
        ),
        Wrong(
            "last one dropped",
            lambda p, c: list(zip(p[1:], c[:-1], strict=True)),
            "A row is lost: the first prompt must get the last completion, so that a batch of n "
            "gives n mismatched pairs.",
        ),
        Wrong(
            "both rotated",
            lambda p, c: list(zip(p[-1:] + p[:-1], c[-1:] + c[:-1], strict=True)),
            "You rotated prompts and completions together: each prompt meets its own completion "
            "again, one place further.",
        ),
        Wrong(
            "the other way",
            lambda p, c: list(zip(p, c[1:] + c[:1], strict=True)),
            "You rotated the other way: as good an estimate, but here prompt i gets the "
            "completion of row i − 1.",
        ),
        Wrong(
            "reversed",
            lambda p, c: list(zip(p, c[::-1], strict=True)),
            "You reversed the completions: in a batch of odd size the middle row keeps its own. "
            "Move them on by one.",
        ),
        Wrong(
            "prompts rotated",
            lambda p, c: list(zip(p[-1:] + p[:-1], c, strict=True)),
            "You moved the prompts and left the completions: the rows are then in another order "
            "than the prompts did.",
        ),
    ),
)
