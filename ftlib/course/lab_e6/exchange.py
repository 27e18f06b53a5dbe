"""Adapters from one library to the other and back, held against the logits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ftlib.adapters.io import load_adapter, save_adapter
from ftlib.adapters.lora import add_lora
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.settings import common_of
from ftlib.course.lab_e6.start import chat_base, held_out_rows

# float32: of the largest logit. Products are summed in another order, layer upon layer.
SHARE = 1e-5
ROWS = 4  # whose logits are compared
SCALE = 0.05  # standard deviation of the random B

KINDS: dict[str, dict[str, Any]] = {
    "LoRA": {},
    "LoRA, q and v": {"target_modules": ["q_proj", "v_proj"]},
    "rsLoRA": {"use_rslora": True},
    "DoRA": {"use_dora": True},
}


@dataclass(frozen=True)
class Exchange:
    """An adapter that one library saved and the other loaded: the largest difference of their
    logits, the largest logit, and by how much the adapter moves the base's.
    """

    kind: str
    way: str
    gap: float
    largest: float
    moved: float

    @property
    def equal(self) -> bool:
        return self.gap <= SHARE * self.largest

    def row(self) -> dict[str, str]:
        """For `plots.table`."""
        return {
            "adapter": self.kind,
            "direction": self.way,
            "largest difference": f"{self.gap:.1e}",
            "allowed": f"{SHARE * self.largest:.1e}",
            "effect of the adapter": f"{self.moved:.2f}",
            "": "equal" if self.equal else "NOT equal",
        }


@torch.no_grad()
def logits_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """(B, T, V) logits of a batch, without dropout."""
    model.eval()
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def sample_batch(profile: Profile) -> dict[str, Tensor]:
    """A few held-out rows, padded."""
    _, tokenizer = chat_base(profile)
    rows = encode_rows(tokenizer, held_out_rows(profile)[:ROWS], profile.max_length)
    return SFTCollator(tokenizer.pad_token_id)(rows)


def randomise(model: nn.Module, seed: int) -> None:
    """Other values into B and the magnitudes: a fresh adapter does nothing, and a file that is not
    read at all would pass.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = SCALE * torch.randn(parameter.shape, generator=generator)
            if "lora_B" in name:
                parameter.copy_(noise)
            elif "lora_magnitude_vector" in name:
                parameter.mul_(1 + noise)


def _compared(kind: str, way: str, one: Tensor, other: Tensor, base: Tensor) -> Exchange:
    return Exchange(
        kind,
        way,
        (one - other).abs().max().item(),
        one.abs().max().item(),
        (one - base).abs().max().item(),
    )


def ours_to_peft(profile: Profile, kind: str, folder: Path, batch: dict[str, Tensor]) -> Exchange:
    """`ftlib.save_adapter`, then `PeftModel.from_pretrained`."""
    from peft import PeftModel

    common = common_of(profile)
    model, _ = chat_base(profile)
    base = logits_of(model, batch)
    add_lora(model, r=common.r, lora_alpha=common.lora_alpha, **KINDS[kind])
    randomise(model, seed=1)
    save_adapter(model, folder)
    fresh, _ = chat_base(profile)
    peft = PeftModel.from_pretrained(fresh, str(folder))
    return _compared(kind, "ftlib → PEFT", logits_of(model, batch), logits_of(peft, batch), base)


def peft_to_ours(profile: Profile, kind: str, folder: Path, batch: dict[str, Tensor]) -> Exchange:
    """`save_pretrained` of PEFT, then `ftlib.load_adapter`."""
    from peft import LoraConfig, get_peft_model

    common = common_of(profile)
    fresh, _ = chat_base(profile)
    base = logits_of(fresh, batch)
    arguments = {"target_modules": "all-linear", **KINDS[kind]}
    config = LoraConfig(
        r=common.r, lora_alpha=common.lora_alpha, task_type="CAUSAL_LM", **arguments
    )
    peft = get_peft_model(fresh, config)
    randomise(peft, seed=2)
    peft.save_pretrained(str(folder))
    model, _ = chat_base(profile)
    load_adapter(model, folder)
    return _compared(kind, "PEFT → ftlib", logits_of(peft, batch), logits_of(model, batch), base)


def names_apart(renamed: Mapping[str, Tensor], folder: str | Path) -> tuple[set[str], set[str]]:
    """The names of an adapter's file that `renamed` lacks, and those that it has beyond them."""
    there = set(load_file(Path(folder) / "adapter_model.safetensors"))
    return there - set(renamed), set(renamed) - there


def exchange_all(profile: Profile, kinds: Sequence[str] = tuple(KINDS)) -> list[Exchange]:
    """Every kind of adapter, both ways."""
    batch = sample_batch(profile)
    found = []
    for kind in kinds:
        for exchange in (ours_to_peft, peft_to_ours):
            with tempfile.TemporaryDirectory() as folder:
                found.append(exchange(profile, kind, Path(folder), batch))
    return found
