"""What a training run will hold in memory, from a model's configuration alone: before anything is
downloaded or loaded.

`plan_memory` adds up, byte by byte, what ftlib's own training keeps: weights, the constants of
quantisation, adapter, gradients, optimizer, activations, logits. `model_sizes` reads and counts the
model, `step_bytes` has the bytes of each part, `sharding_plan` those of one process among several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ftlib.core.checks import check_positive_integer
from ftlib.core.machine import available_bytes
from ftlib.training.model_sizes import MODELS as MODELS
from ftlib.training.model_sizes import NEEDED as NEEDED
from ftlib.training.model_sizes import PlanError as PlanError
from ftlib.training.model_sizes import count_config as count_config
from ftlib.training.model_sizes import linear_shapes as linear_shapes
from ftlib.training.model_sizes import read_config as read_config
from ftlib.training.sharding_plan import ALSO, SHARDS, sharded_parts
from ftlib.training.step_bytes import CHOICES, plan_parts, resident_bytes
from ftlib.training.step_bytes import LOSSES as LOSSES
from ftlib.training.step_bytes import METHODS as METHODS
from ftlib.training.step_bytes import NF4_BITS as NF4_BITS


class NotEnoughMemoryError(MemoryError):
    """What a run needs, what there is, and what would make it fit."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes by part; `total` is their sum, the peak of a training step; on each process, where
    there are several.

    Gradients and activations are not at their largest together: the part "not held at the same
    moment" is negative, and takes what the peak does not hold.
    """

    name: str
    parts: dict[str, int]
    settings: dict = field(default_factory=dict)
    config: dict = field(default_factory=dict, repr=False)

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def fits(self, capacity: float) -> bool:
        """Whether the peak is at most `capacity` bytes."""
        return self.total <= capacity

    def rows(self) -> list[dict[str, str]]:
        """A table's rows, GB with two digits, the sum last."""
        shown = {**{k: v for k, v in self.parts.items() if v}, "peak": self.total}
        return [{"part": k, "GB": f"{v / 1e9:.2f}"} for k, v in shown.items()]

    def __str__(self) -> str:
        lines = [f"{self.name}: " + ", ".join(f"{k} {v}" for k, v in self.settings.items())]
        return "\n".join(lines + [f"  {row['part']:32}{row['GB']:>9} GB" for row in self.rows()])

    def __rich__(self):
        from rich.console import Group
        from rich.table import Table

        table = Table()
        table.add_column("part")
        table.add_column("GB", justify="right")
        for row in self.rows():
            table.add_row(*row.values(), style="bold" if row["part"] == "peak" else None)
        return Group(str(self).splitlines()[0], table)

    def check(self, available: float | None = None) -> MemoryPlan:
        """Returns the plan where it fits into `available` bytes (default: what this machine has
        now); else NotEnoughMemoryError, with the changes that would make it fit.
        """
        have = available_bytes() if available is None else available
        if have is None or self.fits(have):
            return self
        ways = self.ways(have)
        fix = f"it would fit with {'; or with '.join(ways)}"
        if not ways:
            fix = (
                "nothing tried here makes it fit: take a smaller model, or shard it over several "
                "GPUs (gpus=2, shard='full' here; accelerate, configs/fsdp2.yaml)"
            )
        raise NotEnoughMemoryError(
            f"{self.name} with {self.settings['method']} needs {self.total / 1e9:.1f} GB, "
            f"{have / 1e9:.1f} GB are available: {fix}"
        )

    def ways(self, available: float) -> list[str]:
        """Changes of the settings, one or several, after which the plan fits."""
        changes = self._changes()
        ways = []
        for change in changes:
            if self._with(change).fits(available):
                ways.append(_in_words(change))
        if ways:
            return ways
        together: dict = {}
        for change in changes:
            together |= change
        return [_in_words(together)] if self._with(together).fits(available) else []

    def _with(self, change: dict) -> MemoryPlan:
        return plan_memory(self.config, **{**self.settings, **change})

    def _changes(self) -> list[dict]:
        """What can be asked for less of, each alone."""
        now = self.settings
        changes: list[dict] = [
            {"gradient_checkpointing": True},
            {"batch_size": 1},
            {"full_logits": False},
            {"optimizer": "paged_adamw_8bit"},
        ]
        leaner = {"full": "lora", "lora": "qlora", "dora": "qdora"}.get(now["method"])
        if leaner:
            changes.append({"method": leaner})
        if now["method"] == "full":
            changes.append({"method": "qlora"})
        if now.get("shard", "full") != "full":
            changes.append({"shard": "full"})
        changes.append({"seq_len": max(1, now["seq_len"] // 2)})
        return [change for change in changes if not change.items() <= now.items()]


def plan_memory(
    config: Any,
    method: str = "qlora",
    r: int = 16,
    target_modules: str | Sequence[str] = "all-linear",
    batch_size: int = 1,
    seq_len: int = 1024,
    gradient_checkpointing: bool = True,
    optimizer: str = "adamw",
    *,
    loss: str = "sft",
    full_logits: bool = False,
    dtype: str = "bfloat16",
    attention: str = "sdpa",
    device: str = "cuda",
    gpus: int = 1,
    shard: str | None = None,
) -> MemoryPlan:
    """The peak memory of training, by part, in bytes; with several `gpus` that of each process.

    config: a dict, transformers config, folder, file, or a name in `MODELS`. method: "full" (fp32
    weights), "lora", "dora" (frozen weights in `dtype`), "qlora", "qdora" (linear layers but the
    head in NF4, double quantisation). What trains is fp32. batch_size × seq_len: tokens of a
    micro-batch, padding included; pairs count as two rows. loss: "sft" or a preference loss; its
    log-probabilities are made of tiles (all tokens taken as scored) unless `full_logits`. Computes
    in bf16 where `dtype` has 16 bits, else in fp32. gpus: processes with a GPU each and a
    micro-batch of batch_size rows each; shard: how the model lies on them, "ddp" (whole on each),
    "zero2" or "full" (also "zero3"), as in `ftlib.training.sharding_plan`. Raises PlanError (a
    ValueError).
    """
    settings = {
        "method": method,
        "r": r,
        "target_modules": target_modules,
        "batch_size": batch_size,
        "seq_len": seq_len,
        "gradient_checkpointing": gradient_checkpointing,
        "optimizer": optimizer,
        "loss": loss,
        "full_logits": full_logits,
        "dtype": dtype,
        "attention": attention,
        "device": device,
    }
    _check_settings(settings)
    kind = _checked_shard(gpus, shard)
    shape = read_config(config)
    name = shape.get("_name_or_path") or "the model"
    if isinstance(config, (str, Path)):
        name = str(config)
    if kind is None:
        parts = plan_parts(shape, settings, resident_bytes(shape, settings))
        return MemoryPlan(name, parts, settings, shape)
    parts = sharded_parts(shape, settings, gpus, kind)
    return MemoryPlan(name, parts, {**settings, "gpus": gpus, "shard": kind}, shape)


def _checked_shard(gpus: int, shard: str | None) -> str | None:
    """The kind of sharding, None on one GPU; PlanError for one that is not known or not said."""
    check_positive_integer("gpus", gpus, PlanError)
    known = ", ".join(map(repr, SHARDS))
    if shard is not None and shard not in (*SHARDS, *ALSO):
        raise PlanError(f"shard={shard!r}: use one of {known}")
    if gpus == 1 and shard is not None:
        raise PlanError(f"shard={shard!r} with gpus=1: there is nobody to share with; say gpus=2")
    if gpus > 1 and shard is None:
        raise PlanError(f"gpus={gpus} with shard=None: say how the model lies on them, {known}")
    return ALSO.get(shard, shard) if shard else None


def _check_settings(settings: dict) -> None:
    """PlanError for a value that is not planned for."""
    for name, known in CHOICES.items():
        if settings[name] not in known:
            raise PlanError(f"{name}={settings[name]!r}: use one of {', '.join(known)}")
    for name in ("r", "batch_size", "seq_len"):
        check_positive_integer(name, settings[name], PlanError)


def _in_words(change: dict) -> str:
    return ", ".join(f"{name}={value}" for name, value in change.items())
