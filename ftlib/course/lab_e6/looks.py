"""What each side makes of the same rows before a step is taken: tokens, and which are scored."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ftlib.adapters.lora import add_lora
from ftlib.adapters.trainable import count_parameters
from ftlib.batches.encode import encode_rows
from ftlib.batches.template import IGNORE
from ftlib.core.profiles import Profile
from ftlib.course.lab_e6.settings import common_of
from ftlib.course.lab_e6.start import chat_base, sft_start
from ftlib.course.lab_e6.theirs import messages_alone, prompt_and_completion, sft_arguments

Encoded = list[dict[str, list[int]]]
COLUMNS = ("input_ids", "labels")
LONGEST = 10**6  # tokens: no row is left out


@dataclass(frozen=True)
class Scored:
    """How a side reads rows: of `rows` given it keeps `kept`, with `tokens` of which `scored` are
    learnt; `whole` of the kept rows end in a token that is learnt and ends the turn.
    """

    name: str
    rows: int
    kept: int
    tokens: int
    scored: int
    whole: int

    def row(self) -> dict[str, str]:
        """For `plots.table`."""
        return {
            "read by": self.name,
            "rows kept": f"{self.kept} of {self.rows}",
            "tokens": f"{self.tokens:,}",
            "in the loss": f"{self.scored:,} ({self.scored / self.tokens:.0%})",
            "rows with the end of turn in the loss": str(self.whole),
        }


def encoded_by_trl(
    tokenizer, model: nn.Module, rows: Sequence[dict], arguments: dict[str, Any]
) -> Encoded:
    """The data set that TRL's `SFTTrainer` makes of rows; it is built and not run."""
    from datasets import Dataset, disable_progress_bars
    from trl import SFTConfig, SFTTrainer

    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(output_dir=folder, **arguments),
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tokenizer,
        )
    return [{name: row[name] for name in COLUMNS} for row in trainer.train_dataset]


def _counted(name: str, rows: int, encoded: Encoded, stop: int) -> Scored:
    scored = 0
    whole = 0
    for row in encoded:
        learnt = [t for t, label in enumerate(row["labels"]) if label != IGNORE and t > 0]
        scored += len(learnt)
        whole += bool(learnt) and stop in {row["input_ids"][t] for t in learnt[-2:]}
    tokens = sum(len(row["input_ids"]) for row in encoded)
    return Scored(name, rows, len(encoded), tokens, scored, whole)


def read_by_both(profile: Profile, rows: Sequence[dict], max_length: int) -> list[Scored]:
    """The same rows read by ftlib, and by TRL as prompts with completions and as messages."""
    model, tokenizer = sft_start(profile, 0)
    arguments = sft_arguments(profile, 0) | {"max_length": max_length}
    ours = encode_rows(tokenizer, list(rows), max_length)
    stop = _stop_of(tokenizer, rows)
    found = [_counted("ftlib", len(rows), ours, stop)]
    for name, form in (
        ("TRL: prompt, completion", prompt_and_completion),
        ("TRL: messages", messages_alone),
    ):
        encoded = encoded_by_trl(tokenizer, model, form(rows), arguments)
        found.append(_counted(name, len(rows), encoded, stop))
    return found


def _stop_of(tokenizer, rows: Sequence[dict]) -> int:
    """The token that ends an answer in this template: the last learnt one of a whole row."""
    row = encode_rows(tokenizer, [rows[0]], max_length=LONGEST)[0]
    learnt = [
        i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORE
    ]
    return learnt[-1]


def middle_length(profile: Profile, rows: Sequence[dict]) -> int:
    """The median of the rows' numbers of tokens: half of them are longer."""
    _, tokenizer = chat_base(profile)
    lengths = [len(row["input_ids"]) for row in encode_rows(tokenizer, list(rows), LONGEST)]
    return int(statistics.median(lengths))


def trained_shares(profile: Profile) -> dict[str, tuple[int, int]]:
    """{whose defaults: (trained, all) parameters} of an adapter of the common rank."""
    from peft import LoraConfig, get_peft_model

    common = common_of(profile)
    ours, _ = chat_base(profile)
    add_lora(ours, r=common.r)
    base, _ = chat_base(profile)
    theirs = get_peft_model(base, LoraConfig(r=common.r, task_type="CAUSAL_LM"))
    found = {}
    for name, model in (("ftlib", ours), ("PEFT", theirs)):
        found[name] = count_parameters(model)
    return found


def first_moves(rates: Sequence[float]) -> int:
    """The first step, counted from 1, whose loss can show what an optimizer has done: the one after
    the first step with a rate above 0.
    """
    moved = torch.tensor(rates) > 0
    return int(moved.int().argmax()) + 2
