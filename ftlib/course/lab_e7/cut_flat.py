"""Lab E7, more than one GPU, exercise 5: parameters glued together and cut."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def cut_flat(tensors: list[Tensor], processes: int) -> Tensor:
    """The tensors as one row of numbers, zeros at its end up to a multiple of `processes`, cut into
    equal shards: (processes, width), one row a process.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    padding = -len(flat) % processes
    flat = torch.nn.functional.pad(flat, (0, padding))
    return flat.view(processes, -1)


def _cases(g):
    for shapes, processes in (
        (((3, 4), (5,)), 2),
        (((2, 3), (4, 2), (1,)), 4),
        (((4, 4),), 2),
        (((2, 2, 3), (7,)), 3),
    ):
        yield [torch.randn(*shape, generator=g) for shape in shapes], processes


def _flat(tensors):
    return torch.cat([tensor.flatten() for tensor in tensors])


def _padded_in_front(tensors, processes):
    flat = _flat(tensors)
    return torch.cat([flat.new_zeros(-len(flat) % processes), flat]).view(processes, -1)


def _dealt(tensors, processes):
    return cut_flat(tensors, processes).reshape(-1).view(-1, processes).T.contiguous()


def _each_padded(tensors, processes):
    return torch.cat([cut_flat([tensor], processes) for tensor in tensors], 1)


def _rest_dropped(tensors, processes):
    flat = _flat(tensors)
    width = len(flat) // processes
    return flat[: processes * width].view(processes, width)


def _always_padded(tensors, processes):
    flat = _flat(tensors)
    padding = processes - len(flat) % processes
    return torch.cat([flat, flat.new_zeros(padding)]).view(processes, -1)


def _repeated(tensors, processes):
    flat = _flat(tensors)
    return torch.cat([flat, flat[: -len(flat) % processes]]).view(processes, -1)


CUT = Exercise(
    name="cut_flat",
    title="Glue, pad, cut",
    minutes=8,
    difficulty=2,
    reference=cut_flat,
    cases=_cases,
    hints=(
        "Three lines: one long row of all numbers; zeros at its end; a view of equal rows.",
        "-len(flat) % processes zeros are missing, none where it divides.",
        "flat = torch.cat([t.reshape(-1) for t in tensors]); flat = F.pad(flat, (0, -len(flat) % "
        "processes)); return flat.view(processes, -1)",
    ),
    wrong=(
        Wrong(
            "rest dropped",
            _rest_dropped,
            "The numbers that do not divide are gone: parameters have been lost. Fill up with "
            "zeros instead.",
        ),
        Wrong(
            "zeros in front",
            _padded_in_front,
            "The zeros are in front, so every parameter lies elsewhere than where it was put: "
            "they belong to the end.",
        ),
        Wrong(
            "dealt like cards",
            _dealt,
            "You dealt the numbers out in turn. A shard is a piece without gaps, so that gathering "
            "is putting one behind the other.",
        ),
        Wrong(
            "each tensor cut",
            _each_padded,
            "You cut every tensor for itself, with padding for each, as FSDP2 does. Here they are "
            "glued together first, as ZeRO and FSDP1 do, and padded once.",
        ),
        Wrong(
            "padded where it divides",
            _always_padded,
            "Where the length is a multiple already you add a whole row of zeros more.",
        ),
        Wrong(
            "filled with numbers",
            _repeated,
            "You filled up with the first numbers: an optimizer would train them a second time. "
            "Zeros do no harm.",
        ),
    ),
)
