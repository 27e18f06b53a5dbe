"""Lab E7, more than one GPU, exercise 1: what ZeRO leaves on each process."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong

WEIGHT = 2  # bytes of a parameter in 16 bits
GRADIENT = 2
OPTIMIZER = 12  # Adam's two means and a copy of the parameter, all in fp32


def zero_bytes(parameters: int, processes: int, stage: int) -> tuple[float, float, float]:
    """Bytes of (weights, gradients, optimizer states) on each process: 2Ψ, 2Ψ and 12Ψ, cut over the
    processes from the right, one more at each stage (arXiv 1910.02054, section 5).
    """
    parts: list[float] = [WEIGHT * parameters, GRADIENT * parameters, OPTIMIZER * parameters]
    for i in range(stage):
        parts[2 - i] = parts[2 - i] / processes
    return parts[0], parts[1], parts[2]


def _cases(g):
    for stage in range(4):
        yield 7_500_000_000, 64, stage
    for stage in range(4):
        yield 1_000_000, 3, stage


def _zero(optimizer=OPTIMIZER, first=2, step=-1, only_last=False, gradient=GRADIENT):
    def parts(parameters, processes, stage):
        found = [WEIGHT * parameters, gradient * parameters, optimizer * parameters]
        for i in range(stage):
            if only_last and i < stage - 1:
                continue
            found[first + step * i] = found[first + step * i] / processes
        return tuple(found)

    return parts


def _all_cut(parameters, processes, stage):
    cut = processes if stage else 1
    return (
        WEIGHT * parameters / cut,
        GRADIENT * parameters / cut,
        OPTIMIZER * parameters / cut,
    )


def _total_cut(parameters, processes, stage):
    parts = zero_bytes(parameters, processes, stage)
    return parts[0] * processes, parts[1] * processes, parts[2] * processes


ZERO = Exercise(
    name="zero_bytes",
    title="ZeRO's bytes per process",
    minutes=8,
    difficulty=1,
    reference=zero_bytes,
    cases=_cases,
    hints=(
        "Start with plain data parallel, stage 0: every process has everything.",
        "Stage 1 divides the optimizer's states by the number of processes, stage 2 the gradients "
        "too, stage 3 the weights too.",
        "parts = [2 * parameters, 2 * parameters, 12 * parameters]; "
        "for i in range(stage): parts[2 - i] /= processes; return tuple(parts)",
    ),
    wrong=(
        Wrong(
            "weights first",
            _zero(first=0, step=1),
            "You split the weights first: ZeRO starts with the part that is largest and needed "
            "least often, the optimizer's states; weights come last, at stage 3.",
        ),
        Wrong(
            "one part a stage",
            _zero(only_last=True),
            "Each of your stages splits only one part. A stage also splits what the one before it "
            "splits: stage 3 splits all three.",
        ),
        Wrong(
            "all at stage 1",
            _all_cut,
            "You split all three parts from stage 1 on: that is stage 3.",
        ),
        Wrong(
            "no copy in fp32",
            _zero(optimizer=8),
            "Eight bytes are Adam's two means. In mixed precision the optimizer also keeps the "
            "parameter itself in fp32, four bytes more.",
        ),
        Wrong(
            "gradients in fp32",
            _zero(gradient=4),
            "Your gradients have four bytes: in the paper's mixed precision they are 16-bit "
            "numbers, like the weights.",
        ),
        Wrong(
            "sum of all processes",
            _total_cut,
            "That is what all processes hold together. Return what *each* of them holds.",
        ),
    ),
)
