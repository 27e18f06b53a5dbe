"""Lab 3.1.10, export and Ollama, exercise 6: speed."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def speeds(counters: dict) -> tuple[float, float]:
    """(prompt tokens per second, generated tokens per second) from Ollama's counters; durations are
    in nanoseconds.
    """
    return (
        counters["prompt_eval_count"] / counters["prompt_eval_duration"] * 1e9,
        counters["eval_count"] / counters["eval_duration"] * 1e9,
    )


def _speed_cases(g):
    for prompt, made, prompt_ms, made_ms, load_ms in (
        (12, 40, 8, 160, 900),
        (512, 128, 700, 2600, 20),
        (30, 1, 15, 6, 3000),
    ):
        yield (
            {
                "prompt_eval_count": prompt,
                "prompt_eval_duration": prompt_ms * 10**6,
                "eval_count": made,
                "eval_duration": made_ms * 10**6,
                "load_duration": load_ms * 10**6,
                "total_duration": (prompt_ms + made_ms + load_ms + 1) * 10**6,
            },
        )


def _each(prompt, made):
    return lambda c: (prompt(c), made(c))


def _prompt(counters):
    return speeds(counters)[0]


def _made(counters):
    return speeds(counters)[1]


SPEEDS = Exercise(
    name="speeds",
    title="Tokens per second",
    minutes=5,
    difficulty=1,
    reference=speeds,
    cases=_speed_cases,
    points=1,
    hints=(
        "Reading the prompt and writing the answer are two kinds of work: each has its count and "
        "its duration.",
        "A nanosecond is 1e-9 seconds.",
        "return (counters['prompt_eval_count'] / counters['prompt_eval_duration'] * 1e9, "
        "counters['eval_count'] / counters['eval_duration'] * 1e9)",
    ),
    wrong=(
        Wrong(
            "milliseconds",
            lambda c: tuple(v / 1e6 for v in speeds(c)),
            "You took the durations for milliseconds: Ollama counts nanoseconds.",
        ),
        Wrong(
            "total duration",
            _each(_prompt, lambda c: c["eval_count"] / c["total_duration"] * 1e9),
            "The generated tokens are divided by the total duration, with the loading and the "
            "prompt in it: take eval_duration.",
        ),
        Wrong(
            "all tokens",
            _each(
                _prompt,
                lambda c: (c["prompt_eval_count"] + c["eval_count"]) / c["eval_duration"] * 1e9,
            ),
            "You count the prompt's tokens as generated: that is the usual way to a figure that "
            "is too good.",
        ),
        Wrong(
            "seconds per token",
            lambda c: tuple(1 / v for v in speeds(c)),
            "You have seconds per token: tokens per second are wanted.",
        ),
        Wrong(
            "swapped",
            lambda c: speeds(c)[::-1],
            "Prompt and answer are swapped: the prompt's rate comes first.",
        ),
        Wrong(
            "one rate",
            lambda c: (
                (
                    (c["prompt_eval_count"] + c["eval_count"])
                    / (c["prompt_eval_duration"] + c["eval_duration"])
                    * 1e9,
                )
                * 2
            ),
            "You mixed prompt and answer into one rate: a prompt is read many tokens at a time, "
            "an answer is written one at a time.",
        ),
    ),
)
