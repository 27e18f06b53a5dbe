"""Lab E7, more than one GPU, exercise 2: what each process sends in a step."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def step_traffic(weights: float, gradients: float, processes: int, strategy: str) -> float:
    """Bytes that each process sends in a step, by rings: a reduce-scatter or an all-gather of N
    bytes sends (n-1)/n·N, an all-reduce is one of each.

    "ddp" all-reduces the gradients; "zero2" gathers the weights once and reduce-scatters the
    gradients; "full" gathers the weights twice, for the forward and for the backward pass.
    """
    share = (processes - 1) / processes
    if strategy == "ddp":
        return share * 2 * gradients
    gathers = {"zero2": 1, "full": 2}[strategy]
    return share * (gathers * weights + gradients)


def _cases(g):
    for strategy in ("ddp", "zero2", "full"):
        yield 16.0e9, 16.0e9, 8, strategy
    for strategy in ("ddp", "zero2", "full"):
        yield 35.0e9, 0.8e9, 2, strategy
    for strategy in ("ddp", "zero2", "full"):
        yield 100.0, 30.0, 3, strategy


def _by(share, gathers=(0, 1, 2), reduces=(2, 1, 1), gathered=None):
    """Traffic with so many gathers of the weights and passes over the gradients, by strategy."""

    def traffic(weights, gradients, processes, strategy):
        i = ("ddp", "zero2", "full").index(strategy)
        first = gradients if gathered == "gradients" else weights
        return share(processes) * (gathers[i] * first + reduces[i] * gradients)

    return traffic


def _ring(processes):
    return (processes - 1) / processes


def _everything(processes):
    return 1.0


def _to_each(processes):
    return float(processes - 1)


def _own_part(processes):
    return 1 / processes


TRAFFIC = Exercise(
    name="step_traffic",
    title="Traffic per step",
    minutes=10,
    difficulty=2,
    reference=step_traffic,
    cases=_cases,
    hints=(
        "In a ring of n processes a tensor is split into n pieces, and each process passes on n − "
        "1 of them: (n − 1)/n of the tensor. How many such rounds does each strategy need, and "
        "for which tensors?",
        "ddp: two for the gradients. zero2: one for the gradients, one for the weights. full: one "
        "for the gradients, two for the weights.",
        "share = (processes - 1) / processes; ddp: share * 2 * gradients; zero2: share * (weights "
        "+ gradients); full: share * (2 * weights + gradients)",
    ),
    wrong=(
        Wrong(
            "the whole tensor",
            _by(_everything),
            "Your processes send whole tensors: each keeps one piece of n and passes on the other "
            "n − 1, so the factor is (n − 1)/n.",
        ),
        Wrong(
            "a copy to each other",
            _by(_to_each),
            "Your traffic grows with the number of processes, as if each sent a copy to each "
            "other. In a ring it never exceeds the tensor itself: (n − 1)/n.",
        ),
        Wrong(
            "its own piece",
            _by(_own_part),
            "1/n is the piece that a process keeps. It sends the other pieces, (n − 1)/n.",
        ),
        Wrong(
            "all-reduce once",
            _by(_ring, reduces=(1, 1, 1)),
            "An all-reduce is two rounds: a reduce-scatter, after which each process has the sum "
            "of one piece, and an all-gather of the sums.",
        ),
        Wrong(
            "gathered once",
            _by(_ring, gathers=(0, 1, 1)),
            "With `full` the gathered weights are released after the forward pass, so the "
            "backward pass gathers them again.",
        ),
        Wrong(
            "gradients all-reduced everywhere",
            _by(_ring, reduces=(2, 2, 2)),
            "If gradients are split, each process needs only the sum of its own piece: a "
            "reduce-scatter, half of an all-reduce.",
        ),
        Wrong(
            "gradients gathered",
            _by(_ring, gathered="gradients"),
            "The *weights* are gathered, frozen ones included. With LoRA they are far larger than "
            "the gradients.",
        ),
    ),
)
