"""Lab E7, more than one GPU, exercise 3: which rows a process reads."""

from __future__ import annotations

import torch

from ftlib.course.exercise import Exercise, Wrong


def rows_of_rank(count: int, rank: int, processes: int, seed: int, epoch: int) -> list[int]:
    """Numbers of the rows that process `rank` reads in an epoch, as
    torch.utils.data.DistributedSampler has them: every `processes`-th, from `rank` on, of an order
    that all share; the first rows again at the end, until all processes have equally many.
    """
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(count, generator=generator).tolist()
    missing = -count % processes
    order += order[:missing]
    return order[rank::processes]


def _cases(g):
    for rank in (0, 1):
        yield 12, rank, 2, 0, 0
    for rank in (0, 1, 2):
        yield 10, rank, 3, 5, 0
    for rank in (0, 3):
        yield 11, rank, 4, 1, 2


def _order(count, seed):
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()


def _same_rows(count, rank, processes, seed, epoch):
    return rows_of_rank(count, 0, processes, seed, epoch)


def _all_rows(count, rank, processes, seed, epoch):
    return _order(count, seed + epoch)


def _seed_by_rank(count, rank, processes, seed, epoch):
    order = _order(count, seed + epoch + rank)
    order += order[: -count % processes]
    return order[rank::processes]


def _unshuffled(count, rank, processes, seed, epoch):
    order = [*range(count), *range(-count % processes)]
    return order[rank::processes]


def _no_epoch(count, rank, processes, seed, epoch):
    return rows_of_rank(count, rank, processes, seed, 0)


def _unequal(count, rank, processes, seed, epoch):
    return _order(count, seed + epoch)[rank::processes]


def _dropped(count, rank, processes, seed, epoch):
    whole = count - count % processes
    return _order(count, seed + epoch)[:whole][rank::processes]


def _blocks(count, rank, processes, seed, epoch):
    order = _order(count, seed + epoch)
    order += order[: -count % processes]
    width = len(order) // processes
    return order[rank * width : (rank + 1) * width]


ROWS = Exercise(
    name="rows_of_rank",
    title="The rows of each process",
    minutes=10,
    difficulty=2,
    reference=rows_of_rank,
    cases=_cases,
    hints=(
        "All processes must draw the *same* order, or some rows are read twice and others never: "
        "a generator with the seed seed + epoch, whatever the rank.",
        "-count % processes rows are missing to make a multiple; take them from the front of the "
        "order.",
        "order = torch.randperm(count, generator=torch.Generator().manual_seed(seed + epoch))"
        ".tolist(); order += order[:-count % processes]; return order[rank::processes]",
    ),
    wrong=(
        Wrong(
            "same rows",
            _same_rows,
            "Every process reads the rows of process 0: the rank is not used. The others' rows are "
            "never read, and n processes learn what one would.",
        ),
        Wrong(
            "all rows",
            _all_rows,
            "Every process reads all rows: that is a loader without a sampler. An epoch then has "
            "n times as many steps, and in each step all processes compute the same.",
        ),
        Wrong(
            "an order of its own",
            _seed_by_rank,
            "Each process shuffles with its own seed, so their parts overlap: some rows are read "
            "twice, others never. The order must be shared.",
        ),
        Wrong(
            "not shuffled",
            _unshuffled,
            "The rows come in the order of the file: draw a permutation first, the same one in "
            "every process.",
        ),
        Wrong(
            "epoch not used",
            _no_epoch,
            "The epoch is not used, so every epoch has the same order (with PyTorch's sampler: "
            "`set_epoch` forgotten).",
        ),
        Wrong(
            "unequal lengths",
            _unequal,
            "Some processes get one row fewer than others: they finish first, and the others wait "
            "for them in the next all-reduce. Repeat rows from the front.",
        ),
        Wrong(
            "rest dropped",
            _dropped,
            "You dropped the remainder. Keep it, and fill up with rows from the front.",
        ),
        Wrong(
            "blocks",
            _blocks,
            "You gave each process a block. That is a valid split, but take every n-th row from "
            "`rank` on, so that one step of all processes reads neighbouring rows of the order, "
            "as one process does.",
        ),
    ),
)
