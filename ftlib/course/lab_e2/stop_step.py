"""Lab E2, forgetting, exercise 6: where a run that is watched stops."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def stop_step(watched: list[float], every: int, threshold: float) -> int:
    """The step at which a run stops. watched: losses on the watched texts, the first before the
    training, then one every `every` steps. It stops at the first that lies more than `threshold`
    above the first; at the last one if none does.
    """
    for i, loss in enumerate(watched):
        if loss - watched[0] > threshold:
            return i * every
    return (len(watched) - 1) * every


def _cases(g):
    yield [1.0, 1.25, 1.5, 3.0], 5, 0.4
    yield [1.0, 1.25, 1.5, 3.0], 5, 0.5  # equal to the threshold is not above it
    yield [0.5, 0.625, 0.75, 0.875, 1.0, 1.125], 10, 0.3  # creeps: no single step is that large
    yield [2.0, 1.0, 1.5, 1.75, 2.5], 4, 0.25  # falls first: the start counts, not the lowest
    yield [1.0, 1.5, 0.5, 0.5], 3, 0.25  # comes back, too late
    yield [0.5, 0.5, 0.625], 2, 1.0
    yield [3.0, 3.0, 3.5, 4.5], 7, 0.75  # the loss itself is above from the start


def _stop(rise, place=lambda i, every: i * every, is_above=lambda rise, t: rise > t):
    """A watch that measures another rise, or stops elsewhere."""

    def stop_step(watched, every, threshold):
        for i in range(1, len(watched)):
            if is_above(rise(watched, i), threshold):
                return place(i, every)
        return (len(watched) - 1) * every

    return stop_step


def _from_start(watched, i):
    return watched[i] - watched[0]


def _last_above(watched, every, threshold):
    above = [i for i, loss in enumerate(watched) if loss - watched[0] > threshold]
    return (above[-1] if above else len(watched) - 1) * every


STOP = Exercise(
    name="stop_step",
    title="Stopping at a threshold",
    minutes=6,
    difficulty=1,
    reference=stop_step,
    cases=_cases,
    points=1,
    hints=(
        "Compare with the start, watched[0]: you want to keep what the base knew.",
        "Entry i was measured at step i · every; the first entry above stops the run.",
        "for i, loss in enumerate(watched): if loss - watched[0] > threshold: return i * every; "
        "after the loop, (len(watched) - 1) * every",
    ),
    wrong=(
        Wrong(
            "from the look before",
            _stop(lambda w, i: w[i] - w[i - 1]),
            "You compare with the previous measurement: slow forgetting then goes unnoticed, "
            "however far it goes. Compare with the start.",
        ),
        Wrong(
            "from the lowest",
            _stop(lambda w, i: w[i] - min(w[: i + 1])),
            "You compare with the lowest loss so far, as early stopping on validation loss does. "
            "Here the question is what the *base* knew: compare with the start.",
        ),
        Wrong(
            "the loss itself",
            _stop(lambda w, i: w[i]),
            "You compare the loss itself with the threshold: it limits the *rise* since the start.",
        ),
        Wrong(
            "at the threshold",
            _stop(_from_start, is_above=lambda rise, t: rise >= t),
            "A rise equal to the threshold is not above it: the run goes on.",
        ),
        Wrong(
            "the look before",
            _stop(_from_start, place=lambda i, every: (i - 1) * every),
            "You return the last measurement below the threshold: when the rise is seen, the "
            "steps after it have already been made. (To go back you need a checkpoint, or "
            "exercise 5.)",
        ),
        Wrong(
            "number of the look",
            _stop(_from_start, place=lambda i, every: i),
            "You return the measurement's index: the step is the index times `every`.",
        ),
        Wrong(
            "the last one above",
            _last_above,
            "You take the last measurement above the threshold: the run stops at the first.",
        ),
    ),
)
