"""Lab 3.1.4, fine-tuning 8B, exercise 11: when to stop, and what to keep."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def early_stop(losses: list[float], patience: int) -> tuple[int, int]:
    """(index of the best loss, index at which training stops): it stops at the `patience`-th
    evaluation in a row without a new best, or at the last one.
    """
    best = 0
    for i, loss in enumerate(losses):
        if loss < losses[best]:
            best = i
        if i - best >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_global_best(losses, patience):
    return min(range(len(losses)), key=losses.__getitem__), early_stop(losses, patience)[1]


def _stop_previous(losses, patience):
    best = 0
    rises = 0
    for i, loss in enumerate(losses):
        best = i if loss < losses[best] else best
        rises = rises + 1 if i and loss >= losses[i - 1] else 0
        if rises >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_one_late(losses, patience):
    return early_stop(losses, patience + 1)


def _stop_keeps_last(losses, patience):
    stop = early_stop(losses, patience)[1]
    return stop, stop


def _stop_never_resets(losses, patience):
    best = 0
    bad = 0
    for i, loss in enumerate(losses):
        if i and loss >= losses[best]:
            bad += 1
        elif i:
            best = i
        if bad >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_ties_are_better(losses, patience):
    best = 0
    for i, loss in enumerate(losses):
        if loss <= losses[best]:
            best = i
        if i - best >= patience:
            return best, i
    return best, len(losses) - 1


def _stop_cases(g):
    yield [3.0, 2.0, 1.5, 1.6, 1.4, 1.7, 1.6, 1.8, 1.9], 3
    yield [2.0, 1.0, 1.2, 1.1, 1.3, 1.15, 0.5], 2
    yield [2.0, 1.5, 1.4, 1.3], 2
    yield [2.0, 1.0, 1.3, 1.2, 1.1, 1.25, 1.2, 0.9], 4
    yield [2.0, 1.8, 1.9, 1.7, 1.8, 1.6, 1.7, 1.5, 1.6], 2
    yield [2.0, 1.0, 1.0, 1.0, 0.5], 2


EARLY_STOP = Exercise(
    "early_stop",
    "When to stop, and what to keep",
    12,
    2,
    early_stop,
    _stop_cases,
    (
        Wrong(
            "a tie as a new best",
            _stop_ties_are_better,
            "A loss equal to the best counts as a new best in yours: only a smaller one is, else a "
            "plateau trains on for ever.",
        ),
        Wrong(
            "best of the future",
            _stop_global_best,
            "Your best comes from evaluations after the stop: at that moment nobody had seen them.",
        ),
        Wrong(
            "compared with the one before",
            _stop_previous,
            "You compare with the evaluation before: patience counts evaluations without a new "
            "best, so a "
            "saw-tooth above the best must stop too.",
        ),
        Wrong(
            "one late",
            _stop_one_late,
            "One evaluation late: with patience 2 you stop at the second evaluation in a row that "
            "brings no new best.",
        ),
        Wrong(
            "keeps the last",
            _stop_keeps_last,
            "You keep the checkpoint at which training stopped: by then it has been getting worse "
            "for `patience` "
            "evaluations. Keep the best.",
        ),
        Wrong(
            "never resets",
            _stop_never_resets,
            "Your count of bad evaluations never starts again: a new best must set it to zero.",
        ),
    ),
    (
        "Walk once through the losses and remember the index of the best so far.",
        "How many evaluations have passed without a new best? i - best says it, no second counter "
        "needed.",
        "Return (best, i) as soon as i - best >= patience.",
        "If the loop ends, training ran to its end: (best, len(losses) - 1).",
    ),
    praise="equal to the reference, saw-tooth curves included,",
    dtypes={None: "index"},
    keywords=("patience",),
)
