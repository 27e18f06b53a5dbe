"""Lab E7, more than one GPU, exercise 6: the gathered shards as parameters again."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e7.cut_flat import cut_flat


def join_flat(shards: Tensor, shapes: list[tuple[int, ...]]) -> list[Tensor]:
    """The tensors of these shapes, in order, from the shards of `cut_flat`, (processes, width); the
    padding is left out.
    """
    flat = shards.reshape(-1)
    tensors = []
    begin = 0
    for shape in shapes:
        end = begin + math.prod(shape)
        tensors.append(flat[begin:end].view(shape))
        begin = end
    return tensors


def _cases(g):
    for shapes, processes in (
        ([(3, 4), (5,)], 2),
        ([(2, 3), (4, 2), (1,)], 4),
        ([(4, 2)], 2),
        ([(2, 2, 3), (7,)], 3),
    ):
        tensors = [torch.randn(*shape, generator=g) for shape in shapes]
        yield cut_flat(tensors, processes), shapes


def _from_each_shard(shards, shapes):
    return [shards[i % len(shards)][: math.prod(shape)] for i, shape in enumerate(shapes)]


def _always_from_the_front(shards, shapes):
    flat = shards.reshape(-1)
    return [flat[: math.prod(shape)].view(shape) for shape in shapes]


def _columns(shards, shapes):
    return join_flat(shards.T, shapes)


def _without_shapes(shards, shapes):
    return [tensor.reshape(-1) for tensor in join_flat(shards, shapes)]


def _from_the_back(shards, shapes):
    flat = shards.reshape(-1)
    used = sum(math.prod(shape) for shape in shapes)
    return join_flat(flat[len(flat) - used :], shapes)


def _with_padding(shards, shapes):
    flat = shards.reshape(-1)
    sizes = [math.prod(shape) for shape in shapes[:-1]]
    return [*join_flat(flat, shapes[:-1]), flat[sum(sizes) :]]


JOIN = Exercise(
    name="join_flat",
    title="Gather and restore",
    minutes=6,
    difficulty=1,
    reference=join_flat,
    cases=_cases,
    points=1,
    hints=(
        "After an all-gather the shards are the rows of `shards`: read row by row, they are the "
        "long vector again.",
        "Go along it: math.prod(shape) numbers for each tensor, and start the next one where this "
        "one ends.",
        "flat = shards.reshape(-1); begin = 0; for each shape: end = begin + math.prod(shape); "
        "take flat[begin:end].view(shape); begin = end",
    ),
    wrong=(
        Wrong(
            "a shard a tensor",
            _from_each_shard,
            "You take one tensor from each shard. Shards ignore tensors: one tensor may start in "
            "the middle of a shard and end in the next.",
        ),
        Wrong(
            "begins anew",
            _always_from_the_front,
            "All your tensors start at number 0: advance the start.",
        ),
        Wrong(
            "by columns",
            _columns,
            "You read the shards column by column; each row is a contiguous piece.",
        ),
        Wrong(
            "flat",
            _without_shapes,
            "The numbers are right; give each tensor its shape.",
        ),
        Wrong(
            "padding in front",
            _from_the_back,
            "You removed the padding at the front: it is at the end.",
        ),
        Wrong(
            "padding kept",
            _with_padding,
            "Your last tensor includes the padding: it ends after math.prod(shape) numbers.",
        ),
    ),
)
