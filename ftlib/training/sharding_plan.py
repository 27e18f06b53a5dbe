"""Which bytes of a training run each of several processes holds: data parallel, ZeRO-2, and full
sharding as PyTorch's FSDP2 does it.

ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, section 5) cuts the optimizer's states, then the
gradients, then the parameters over the processes. FSDP2 (`torch.distributed.fsdp.fully_shard`; Zhao
et al. 2023, arXiv 2304.11277 for its idea) cuts each parameter along its first dimension and puts
together, "gathers", the parameters of one decoder block when they are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.training.model_sizes import count_config, linear_shapes
from ftlib.training.step_bytes import (
    DTYPE_BYTES,
    FP32,
    OPTIMIZER_BYTES,
    plan_parts,
    resident_bytes,
    targets_of,
    trained_parameters,
)

SHARDS = ("ddp", "zero2", "full")
ALSO = {"zero3": "full"}  # ZeRO's name of the same
IN_FLIGHT = 2  # blocks: one computes, the next is gathered meanwhile


@dataclass(frozen=True)
class Tensors:
    """Parameters of one shape: `count` of them, `rows` x `columns`, `width` bytes a number."""

    count: int
    rows: int
    columns: int
    width: int
    trained: bool = False

    def numbers(self, processes: int = 1) -> int:
        """Numbers that a process holds: of each parameter ⌈rows/processes⌉ rows."""
        return self.count * -(-self.rows // processes) * self.columns

    def bytes(self, processes: int = 1) -> int:
        return self.width * self.numbers(processes)


def block_tensors(config: dict, s: dict) -> list[Tensors]:
    """The parameters of one decoder block, with its adapters. Those of 4 bits are two a byte, in
    one column, as bitsandbytes stores them.
    """
    full = s["method"] == "full"
    width = FP32 if full else DTYPE_BYTES[s["dtype"]]
    targets = targets_of(config, s)
    rest = count_config(config)["rest"] - config["hidden_size"]  # without the last norm
    tensors = [Tensors(1, -(-rest // config["num_hidden_layers"]), 1, width, full)]
    for name, (n_in, n_out) in linear_shapes(config).items():
        if s["method"].startswith("q"):
            tensors.append(Tensors(1, -(-n_in * n_out // 2), 1, 1))
        else:
            tensors.append(Tensors(1, n_out, n_in, width, full))
        if name in targets:
            tensors.append(Tensors(1, s["r"], n_in, FP32, True))  # A
            tensors.append(Tensors(1, n_out, s["r"], FP32, True))  # B
        if name in targets and s["method"].endswith("dora"):
            tensors.append(Tensors(1, n_out, 1, FP32, True))  # m
    return tensors


def root_tensors(config: dict, s: dict) -> list[Tensors]:
    """The parameters outside the blocks: embedding, head where it is its own, the last norm."""
    full = s["method"] == "full"
    width = FP32 if full else DTYPE_BYTES[s["dtype"]]
    tables = 1 if config["tie_word_embeddings"] else 2
    return [
        Tensors(tables, config["vocab_size"], config["hidden_size"], width, full),
        Tensors(1, config["hidden_size"], 1, width, full),
    ]


def all_tensors(config: dict, s: dict) -> list[Tensors]:
    """The parameters of the whole model."""
    layers = config["num_hidden_layers"]
    blocks = []
    for t in block_tensors(config, s):
        blocks.append(Tensors(layers * t.count, t.rows, t.columns, t.width, t.trained))
    return blocks + root_tensors(config, s)


def cut_bytes(config: dict, s: dict, processes: int) -> dict[str, int]:
    """Bytes of a process, by part, of what is cut along its first dimension: weights, adapter,
    gradients, optimizer.
    """
    tensors = all_tensors(config, s)
    frozen = [t for t in tensors if not t.trained]
    trained = [t for t in tensors if t.trained]
    numbers = sum(t.numbers(processes) for t in trained)
    parts = {
        "gradients": FP32 * numbers,
        "optimizer": OPTIMIZER_BYTES[s["optimizer"]] * numbers,
    }
    if s["method"] == "full":
        return {"weights": FP32 * numbers, **parts}
    weights = sum(t.bytes(processes) for t in frozen)
    return {"weights": weights, "adapter": FP32 * numbers, **parts}


def gathered_bytes(config: dict, s: dict, shard: str) -> int:
    """Bytes that a process has from the others while a step computes.

    "zero2" (`reshard_after_forward=False`): all parameters, from the forward pass to the end of
    backward. "full": the root's, which is embedding and head and stays whole as long; of the
    blocks' those of the largest `IN_FLIGHT`. Both: the gradients of one block, whole, and once more
    in the buffer in which they are summed over the processes. An estimate from FSDP2's source
    (PyTorch 2.13) for the moment of the peak, not measured.
    """
    block = block_tensors(config, s)
    root = root_tensors(config, s)
    gradients = 0
    for group in (block, root):
        gradients = max(gradients, sum(2 * t.bytes() for t in group if t.trained))
    if shard == "zero2":
        return sum(t.bytes() for t in all_tensors(config, s)) + gradients
    in_flight = min(IN_FLIGHT, config["num_hidden_layers"])
    return sum(t.bytes() for t in root) + in_flight * sum(t.bytes() for t in block) + gradients


def sharded_parts(config: dict, s: dict, gpus: int, shard: str) -> dict[str, int]:
    """Bytes by part of each of `gpus` processes, whose batch is that of the settings: rank 0, which
    has no less than the others.

    "ddp": all is whole, and DistributedDataParallel keeps buckets as large as the gradients (unless
    `gradient_as_bucket_view=True`). "zero2" and "full": `cut_bytes`. The constants of 4-bit weights
    are no parameters, so each process has them all, and so has it a reference model.
    """
    resident = resident_bytes(config, s)
    if shard == "ddp":
        resident["all-reduce buckets"] = FP32 * trained_parameters(config, s)
        return plan_parts(config, s, resident)
    resident |= cut_bytes(config, s, gpus)
    return plan_parts(config, s, resident, gathered_bytes(config, s, shard))
