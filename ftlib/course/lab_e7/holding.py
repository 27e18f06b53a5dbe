"""Which weights a process holds at each moment of a step, and what it sends: measured from inside
one of two processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from ftlib.core.profiles import Profile
from ftlib.course.lab_e7.steps import (
    Task,
    backward,
    batch_of,
    new_model,
    place,
    processes,
    trained,
)
from ftlib.training.shards import decoder_blocks

IO = Path("/proc/self/io")
BEFORE = "before"
LOSS = "loss"
AFTER = "after"


# --- weights through a step -----------------------------------------------------------------------
def weight_bytes(model: nn.Module, shards: int) -> int:
    """Bytes of weights that this process holds now. shards: bytes of its own shards, which stay;
    a parameter that is put together for the moment is no DTensor, and counts besides.
    """
    gathered = 0
    for parameter in model.parameters():
        if not isinstance(parameter, DTensor):
            gathered += parameter.nbytes
    return shards + gathered


def shard_bytes(model: nn.Module) -> int:
    """Bytes of this process's own shards; 0 where nothing is cut."""
    sizes = [p.to_local().nbytes for p in model.parameters() if isinstance(p, DTensor)]
    return sum(sizes)


def holding_of_one(
    rank: int, profile: Profile, task: Task, parts: Sequence[Sequence[int]], split: str
) -> list[tuple[str, int]]:
    """(moment, bytes of weights held) through a step of this process: in each block on the way
    forward, at the loss, in each block on the way back.
    """
    model = place(new_model(profile, task), task.shard)
    inner = model.module if task.shard == "ddp" else model
    shards = shard_bytes(inner)
    seen = [(BEFORE, weight_bytes(inner, shards))]

    def note(moment: str) -> None:
        seen.append((moment, weight_bytes(inner, shards)))

    for i, block in enumerate(decoder_blocks(inner), 1):
        _watch(block.mlp, i, note)
    batch = batch_of(profile, split, parts[rank])
    inner.lm_head.register_forward_hook(_at_the_loss(note))
    backward(model, batch)
    note(AFTER)
    return seen


def _watch(mlp: nn.Module, number: int, note: Callable[[str], None]) -> None:
    """Note the moment in which a block's MLP has computed, and that in which its gradient comes."""

    def forward(module, args, output):
        note(f"block {number}, forward")
        if output.requires_grad:
            output.register_hook(_on_the_way_back(f"block {number}, backward", note))

    mlp.register_forward_hook(forward)


def _on_the_way_back(moment: str, note: Callable[[str], None]) -> Callable:
    def hook(gradient):
        note(moment)

    return hook


def _at_the_loss(note: Callable[[str], None]) -> Callable:
    def hook(module, args, output):
        note(LOSS)

    return hook


# --- what is sent ---------------------------------------------------------------------------------
def written_bytes() -> int | None:
    """Bytes that this process has written so far, to sockets too; None where the system does not
    say (it is Linux that does).
    """
    try:
        lines = IO.read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["wchar"])


def sent_by_one(
    rank: int, profile: Profile, task: Task, parts: Sequence[Sequence[int]], split: str
) -> dict[str, Any]:
    """Bytes that this process sends in a step: the second one, since the first one also sets up.
    `sent` is None where the system does not count.
    """
    sizes = sizes_of(profile, task)  # of a model that is gone before the next one comes
    model = place(new_model(profile, task), task.shard)
    optimizer = torch.optim.AdamW(trained(model), lr=task.lr)
    batch = batch_of(profile, split, parts[rank])
    counts = []
    for _ in range(2):
        torch.distributed.barrier()
        before = written_bytes()
        backward(model, batch)
        optimizer.step()
        optimizer.zero_grad()
        after = written_bytes()
        counts.append(None if before is None or after is None else after - before)
    return {"sent": counts[-1], **sizes}


def sizes_of(profile: Profile, task: Task) -> dict[str, int]:
    """Bytes of the whole model: of all weights, and of the gradients of what trains."""
    model = new_model(profile, task)
    return {
        "weights": sum(p.nbytes for p in model.parameters()),
        "gradients": sum(p.nbytes for p in trained(model)),
        "processes": processes(),
    }
