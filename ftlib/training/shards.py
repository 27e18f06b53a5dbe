"""A model cut over several processes with FSDP2, and what each of them holds, small enough for a
CPU (gloo): as `accelerate launch` does it on several GPUs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed import DeviceMesh
from torch.distributed.tensor import DTensor


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
