"""Lab E6, exercise: the schedule that TRL has when nothing is said."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def linear_factor(step: int, warmup_steps: int, steps: int) -> float:
    """What the learning rate is multiplied by in optimizer step `step`, counted from 0:
    step/warmup_steps at first, then a straight line to 0 after the last of `steps`.
    """
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (steps - step) / max(1, steps - warmup_steps))


def _cases(g):
    for warmup_steps, steps in ((0, 10), (3, 10), (2, 20), (5, 5)):
        for step in (0, 1, 2, 4, steps // 2, steps - 1, steps, steps + 2):
            yield step, warmup_steps, steps


def _after(rule, warm=lambda step, warmup: step / warmup):
    def factor(step, warmup, steps):
        return warm(step, warmup) if step < warmup else rule(step, warmup, steps)

    return factor


def _line(step, warmup, steps):
    return max(0.0, (steps - step) / max(1, steps - warmup))


LINEAR = Exercise(
    name="linear_factor",
    title="The schedule",
    minutes=6,
    difficulty=1,
    reference=linear_factor,
    cases=_cases,
    points=1,
    tolerance=1e-9,
    hints=(
        "Two branches: `step < warmup_steps`, and after it.",
        "After the warmup the factor is 1 at warmup_steps and 0 at steps; what remains, divided by "
        "what there was. Beyond the end it stays 0, and nothing may be divided by 0.",
        "return max(0.0, (steps - step) / max(1, steps - warmup_steps))",
    ),
    wrong=(
        Wrong(
            "warmup from 1",
            _after(_line, warm=lambda step, warmup: (step + 1) / warmup),
            "Your warmup starts above 0. transformers' first step has factor 0/warmup_steps: with "
            "a warmup the first optimizer step changes nothing.",
        ),
        Wrong(
            "of all steps",
            _after(lambda step, warmup, steps: max(0.0, 1 - step / steps)),
            "After the warmup you continue with 1 − step/steps, which jumps down there: the line "
            "starts at 1 where the warmup ends.",
        ),
        Wrong(
            "counted from the warmup",
            _after(lambda step, warmup, steps: max(0.0, 1 - (step - warmup) / steps)),
            "Your line is too flat: it falls over steps − warmup_steps, and reaches 0 at `steps`.",
        ),
        Wrong(
            "ends before 0",
            _after(lambda step, warmup, steps: max(0.0, (steps - 1 - step) / (steps - warmup))),
            "Your factor is 0 in the last step already: it reaches 0 at `steps`, after it.",
        ),
        Wrong(
            "below 0",
            _after(lambda step, warmup, steps: (steps - step) / max(1, steps - warmup)),
            "Beyond the last step your factor is negative: further training would go uphill. Keep "
            "it at 0.",
        ),
        Wrong(
            "no warmup",
            lambda step, warmup, steps: _line(step, 0, steps),
            "`warmup_steps` is not used.",
        ),
        Wrong(
            "constant",
            _after(lambda step, warmup, steps: 1.0),
            "After the warmup your rate is constant: that is `constant_with_warmup`.",
        ),
    ),
)
