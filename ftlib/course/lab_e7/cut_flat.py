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
    title="Concatenate, pad, split",
    minutes=8,
    difficulty=2,
    reference=cut_flat,
    cases=_cases,
    hints=(
        "Three lines: concatenate all numbers; pad with zeros; view as equal rows.",
        "-len(flat) % processes zeros are missing, none if it divides.",
        "flat = torch.cat([t.reshape(-1) for t in tensors]); flat = F.pad(flat, (0, -len(flat) % "
        "processes)); return flat.view(processes, -1)",
    ),
    wrong=(
        Wrong(
            "rest dropped",
            _rest_dropped,
            "You dropped the remainder: parameters are lost. Pad with zeros instead.",
        ),
        Wrong(
            "zeros in front",
            _padded_in_front,
            "The zeros are in front, so every parameter is shifted: put them at the end.",
        ),
        Wrong(
            "dealt like cards",
            _dealt,
            "You dealt the numbers out in turn. A shard must be contiguous, so that gathering "
            "only concatenates.",
        ),
        Wrong(
            "each tensor cut",
            _each_padded,
            "You split every tensor separately, with padding for each, as FSDP2 does. Concatenate "
            "them first, as ZeRO and FSDP1 do, and pad once.",
        ),
        Wrong(
            "padded where it divides",
            _always_padded,
            "If the length is a multiple already, you still add a whole row of zeros.",
        ),
        Wrong(
            "filled with numbers",
            _repeated,
            "You padded with the first numbers: an optimizer would train them twice. Zeros do no "
            "harm.",
        ),
    ),
)
