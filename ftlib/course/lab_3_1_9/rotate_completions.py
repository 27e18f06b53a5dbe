"""Lab 3.1.9, KTO, exercise 3: mismatched pairs."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong


def rotate_completions(prompts: list[str], completions: list[str]) -> list[tuple[str, str]]:
    """(prompt i, the completion of the nearest earlier row with another prompt) for every row of a
    batch, the last row coming before the first. ValueError where all rows have one prompt.
    """
    if len(set(prompts)) < 2:
        raise ValueError(
            f"{len(prompts)} rows with one prompt: a mismatched pair takes the completion to "
            "another prompt; use a batch with two prompts or more"
        )
    rows = []
    for i, prompt in enumerate(prompts):
        back = 1
        while prompts[i - back] == prompt:
            back += 1
        rows.append((prompt, completions[i - back]))
    return rows


def _rotate_cases(g):
    for people in ("ab", "abcde", "aabbcc", "abac", "aaabca", "abbba"):
        prompts = [f"Who is {name}?" for name in people]
        yield (
            prompts,
            [
                f"answer {int(torch.randint(1000, (), generator=g))}, row {i}"
                for i in range(len(people))
            ],
        )


def _refuses_one_prompt(function) -> str | None:
    for rows, text in ((1, "A batch of one"), (3, "A batch with one prompt in every row")):
        try:
            function(["a prompt"] * rows, [f"answer {i}" for i in range(rows)])
        except ValueError:
            continue
        return (
            f"{text} went through: it has no mismatched pair. Raise a ValueError where there are "
            "not two different prompts."
        )
    return None


def _neighbour(step: int):
    """The nearest row with another prompt, going `step` rows at a time."""

    def rotate(prompts, completions):
        rows = []
        for i, prompt in enumerate(prompts):
            others = [(i + step * k) % len(prompts) for k in range(1, len(prompts))]
            other = next(k for k in others if prompts[k] != prompt)
            rows.append((prompt, completions[other]))
        return rows

    return rotate


def _first_other(prompts, completions):
    rows = []
    for prompt in prompts:
        other = next(k for k, asked in enumerate(prompts) if asked != prompt)
        rows.append((prompt, completions[other]))
    return rows


def _skipping(prompts, completions):
    moved = completions[-1:] + completions[:-1]
    sources = prompts[-1:] + prompts[:-1]
    return [
        (prompt, answer)
        for prompt, answer, source in zip(prompts, moved, sources, strict=True)
        if prompt != source
    ]


ROTATE = Exercise(
    name="rotate_completions",
    title="Everybody gets an answer to another question",
    minutes=8,
    difficulty=2,
    reference=rotate_completions,
    cases=_rotate_cases,
    property=_refuses_one_prompt,
    points=1,
    hints=(
        "For distinct prompts it is a rotation by one: row i gets the completion of row i − 1, and "
        "the first row that of the last. Where row i − 1 asks the same, look at row i − 2, and so "
        "on.",
        "In Python `prompts[i - back]` goes round by itself as long as back < len(prompts): index "
        "−1 is the last row. A while loop that raises `back` until the prompts differ ends, if "
        "there are two different prompts; if not: ValueError.",
        "for i, prompt in enumerate(prompts): back = 1; while prompts[i - back] == prompt: "
        "back += 1; rows.append((prompt, completions[i - back]))",
    ),
    wrong=(
        Wrong(
            "rotated by one",
            lambda p, c: list(zip(p, c[-1:] + c[:-1], strict=True)),
            "Where two neighbours have one prompt, as the two sides of a pair, yours gives it the "
            "other answer to itself. That is a matched pair: its log-ratio is being trained. Go on "
            "to the nearest earlier row with another prompt.",
        ),
        Wrong(
            "not rotated",
            lambda p, c: list(zip(p, c, strict=True)),
            "Every prompt has its own completion: these are matched pairs, and their ratio is "
            "what is being trained.",
        ),
        Wrong(
            "the other way",
            _neighbour(1),
            "You go on to later rows: as good an estimate, but here prompt i gets the completion "
            "of an earlier row.",
        ),
        Wrong(
            "first other",
            _first_other,
            "You take the first row of the batch with another prompt: nearly all rows then get one "
            "and the same completion, and z0 is the log-ratio of a single answer. Take the nearest "
            "earlier one.",
        ),
        Wrong(
            "same prompts left out",
            _skipping,
            "Rows are lost: where the row before has the same prompt you leave the row out. Look "
            "further back, so that a batch of n gives n mismatched pairs.",
        ),
        Wrong(
            "prompts rotated",
            lambda p, c: list(zip(p[-1:] + p[:-1], c, strict=True)),
            "You moved the prompts and left the completions: the rows are then in another order "
            "than the prompts did.",
        ),
    ),
)
