"""What test_shards.py and test_processes.py run in each of two processes, and in one."""

from __future__ import annotations

import os
import signal

import torch
from conftest import EMBEDDED
from torch.nn.parallel import DistributedDataParallel

import ftlib as ft
from ftlib.training.shards import local_bytes, shard_model, store_packed_as

STEPS = 3
IDS = torch.randint(20, 900, (4, 24), generator=torch.Generator().manual_seed(0))


def whole_model(method: str, r: int = 4, storage: torch.dtype | None = None):
    """The embedded model, its adapter the same in each process; `storage` of packed weights."""
    torch.set_num_threads(1)
    quantization = "nf4" if method == "qlora" else None
    model, _ = ft.load_model(EMBEDDED, quantization, "tiny", dtype=torch.float32)
    torch.manual_seed(0)
    if method == "full":
        model.requires_grad_(True)
    else:
        ft.add_lora(model, r=r)
    if storage is not None:
        store_packed_as(model, storage)
    return model.train()


def train(model, ids) -> tuple[list[float], torch.optim.Optimizer]:
    """Losses of three steps, the last gradients kept."""
    trained = [p for p in model.parameters() if p.requires_grad]
    # A large eps: where a gradient is almost 0, Adam's step would be its sign, which rounding sets.
    optimizer = torch.optim.AdamW(trained, lr=1e-3, eps=1e-4)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, optimizer


def trained_weights(model) -> dict[str, torch.Tensor]:
    """The trained parameters, whole."""
    weights = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            full = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
            weights[name.removeprefix("module.")] = full.detach().clone()
    return weights


def mean_losses(losses: list[float]) -> list[float]:
    """Over the processes, whose rows are of one length."""
    both = torch.tensor(losses, dtype=torch.float64)
    torch.distributed.all_reduce(both)
    return (both / torch.distributed.get_world_size()).tolist()


def one_process(method: str, r: int = 4):
    model = whole_model(method, r)
    losses, optimizer = train(model, IDS)
    return losses, trained_weights(model), local_bytes(model, optimizer)


def of_two(rank: int, method: str, shard: str, r: int, storage: torch.dtype | None = None):
    """Half of the rows, the model cut or whole."""
    model = whole_model(method, r, storage)
    config = model.config
    if shard == "ddp":
        model = DistributedDataParallel(model)
    else:
        shard_model(model, reshard_after_forward=shard == "full")
    losses, optimizer = train(model, IDS[2 * rank : 2 * rank + 2])
    found = local_bytes(model, optimizer)
    return mean_losses(losses), trained_weights(model), found, config.to_dict()


def all_of_two(rank: int, cases):
    return {case: of_two(rank, *case) for case in cases}


def one_fails(rank: int):
    if rank:
        raise KeyError("the second one")
    torch.distributed.barrier()


def one_dies(rank: int):
    """By what the kernel sends where memory has run out."""
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    torch.distributed.barrier()


def one_waits(rank: int):
    if rank == 0:
        torch.distributed.barrier()


def interface(rank: int):
    return os.environ.get("GLOO_SOCKET_IFNAME")


def processes(rank: int) -> int:
    return os.getpid()


def ranks(rank: int, *more):
    return rank, more, torch.distributed.get_world_size()
