"""Several processes on one machine, and what each of them holds: data parallel and FSDP2 small
enough for a CPU (gloo), as `accelerate launch` does them on several GPUs.
"""

from __future__ import annotations

import functools
import itertools
import logging
import multiprocessing
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh
from torch.distributed.tensor import DTensor

from ftlib.core.checks import check_positive_integer


# --- processes ------------------------------------------------------------------------------------
def run_processes(
    function: Callable[..., Any], *args: Any, processes: int = 2, timeout: float = 120.0
) -> list[Any]:
    """``function(rank, *args)`` in each of `processes` new ones, which are a process group of
    gloo's; what each returned, by rank.

    function: one of a module's own, such as a lab's `trials.py`: a new process imports it, which it
    cannot do with a function of a notebook's cell. args and results are pickled: hand over numbers,
    texts, tensors. timeout: seconds that a process waits for the others. What one of them raises is
    raised here, and the others stop. ValueError for a function that cannot be imported.
    """
    check_positive_integer("processes", processes)
    if getattr(function, "__module__", None) == "__main__" or "<" in function.__qualname__:
        raise ValueError(
            f"function={function.__qualname__!r} of {function.__module__}: a new process cannot "
            "import it; write it at the top level of a module"
        )
    context = multiprocessing.get_context("spawn")
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(processes, mp_context=context) as pool,
    ):
        join = functools.partial(_joined, Path(folder) / "store", processes, timeout)
        running = [pool.submit(join, rank, function, args) for rank in range(processes)]
        # The one that failed first, rather than those that waited for it in vain.
        failed = [future.exception() for future in running]
        for error in sorted(filter(None, failed), key=_is_of_the_group):
            raise error
        return [future.result() for future in running]


def _is_of_the_group(error: BaseException) -> bool:
    """Whether a process failed because another was not there."""
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()


def _joined(store: Path, processes: int, timeout: float, rank: int, function, args):
    """The function's result, in a process that has joined the group."""
    torch.set_num_threads(1)  # several processes share the cores
    if rank:
        logging.getLogger("ftlib").setLevel(logging.WARNING)  # what all say, one says
    torch.distributed.init_process_group(
        "gloo",
        init_method=store.as_uri(),
        rank=rank,
        world_size=processes,
        timeout=timedelta(seconds=timeout),
    )
    try:
        # Nobody leaves before all have come: the last to connect would find the group closed.
        torch.distributed.barrier()
        return function(rank, *args)
    finally:
        torch.distributed.destroy_process_group()


# --- sharding -------------------------------------------------------------------------------------
def decoder_blocks(model: nn.Module) -> list[nn.Module]:
    """The decoder blocks of a transformers model. ValueError where they are not to be found."""
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return list(module)
    raise ValueError(f"{type(model).__name__} has no list of its {count} blocks: shard it by hand")


def shard_model(
    model: nn.Module, mesh: DeviceMesh | None = None, reshard_after_forward: bool = True
) -> nn.Module:
    """Cut the parameters over the process group with FSDP2, each decoder block a group and the rest
    one, in place, as `configs/fsdp2.yaml` has accelerate do it; returns the model.

    Each parameter is cut along its first dimension and becomes a DTensor; a block's are put
    together for its forward pass, and again for its backward pass. reshard_after_forward=False
    keeps them together in between (ZeRO-2). Weights in NF4 are cut as they are, packed: a frozen
    parameter of bytes among trained ones of fp32. FSDP1 could not do that, since it glued all
    parameters of a group into one tensor of one dtype: see `store_packed_as`. Their constants are
    no parameters, and whole everywhere.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = mesh or torch.distributed.device_mesh.init_device_mesh(
        model.device.type, (torch.distributed.get_world_size(),)
    )
    _keep_quant_states(model)
    for block in decoder_blocks(model):
        fully_shard(block, mesh=mesh, reshard_after_forward=reshard_after_forward)
    fully_shard(model, mesh=mesh, reshard_after_forward=reshard_after_forward)
    return model


def store_packed_as(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Call the bytes of packed 4-bit weights another dtype, in place; returns the model.

    Answer.AI's trick for FSDP with QLoRA (answer.ai/posts/2024-03-14-fsdp-qlora-deep-dive.html), in
    transformers `bnb_4bit_quant_storage`: FSDP1 flattens a block into one tensor of one dtype, so
    the packed uint8 (n/2, 1) is viewed as bf16 (n/4, 1), or fp32 (n/8, 1), which nobody computes
    with: bitsandbytes views it as bytes again. FSDP2 does without. ValueError for a weight whose
    bytes do not fill the dtype.
    """
    for name, module in model.named_modules():
        weight: Any = getattr(module, "weight", None)
        if getattr(weight, "quant_state", None) is None or not hasattr(module, "compute_dtype"):
            continue
        if weight.nbytes % dtype.itemsize:
            raise ValueError(f"dtype={dtype}: the {weight.nbytes} bytes of {name} do not fill it")
        weight.data = weight.data.view(-1).view(dtype).view(-1, 1)
        module.quant_storage = dtype
    return model


def _keep_quant_states(model: nn.Module) -> None:
    """bitsandbytes keeps a weight's constants on the parameter, of which FSDP2 makes another; on
    the module they stay.
    """
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and hasattr(module, "compute_dtype"):
            module.quant_state = state


# --- what a process holds -------------------------------------------------------------------------
def local_bytes(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, int]:
    """Bytes that this process holds, under the names of `ftlib.plan_memory`: weights, adapter,
    quantisation constants, gradients, optimizer.

    Of a DTensor the local part counts, with FSDP2's padding, and each storage once. Where
    parameters are frozen, those that train are the adapter. AdamW's step counters, a number each,
    are left out.
    """
    parameters = list(model.parameters())
    frozen = [p for p in parameters if not p.requires_grad]
    trained = [p for p in parameters if p.requires_grad]
    states = optimizer.state.values() if optimizer is not None else ()
    kept = itertools.chain.from_iterable(state.values() for state in states)
    return {
        "weights": _storage_bytes(frozen or trained),
        "adapter": _storage_bytes(trained) if frozen else 0,
        "quantisation constants": _storage_bytes(_constants(model)),
        "gradients": _storage_bytes(p.grad for p in trained if p.grad is not None),
        "optimizer": _storage_bytes(t for t in kept if isinstance(t, Tensor) and t.ndim),
    }


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the storages on this process that hold these tensors."""
    found = {}
    for tensor in tensors:
        local = tensor.to_local() if isinstance(tensor, DTensor) else tensor
        storage = local.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def _constants(model: nn.Module) -> Iterator[Tensor]:
    """The scales of 4-bit weights, and the scales' own; the tables of levels are left out."""
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        state = state or getattr(module, "quant_state", None)
        if state is None or not hasattr(module, "compute_dtype"):
            continue
        yield state.absmax
        if state.nested:
            yield state.state2.absmax
