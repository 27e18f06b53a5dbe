"""Encoded rows as padded batches: conversations, packed rows, pairs, thumbs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ftlib.batches.template import IGNORE


@dataclass
class SFTCollator:
    """Pad a batch on the right to its longest row; padding is masked by length, never by token id."""

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)

        def padded(key, fill):
            return torch.tensor(
                [list(row[key]) + [fill] * (width - len(row[key])) for row in batch]
            )

        mask = [
            [1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch
        ]
        return {
            "input_ids": padded("input_ids", self.pad_token_id),
            "labels": padded("labels", IGNORE),
            "attention_mask": torch.tensor(mask),
        }


def real_tokens(position_ids: torch.Tensor) -> torch.Tensor:
    """1 at the tokens of conversations and 0 at padding, (B, T), told from packed positions:
    padding stands at 0, and no 1 follows."""
    after = torch.nn.functional.pad(position_ids[:, 1:], (0, 1))
    return ((position_ids > 0) | (after == 1)).long()


@dataclass
class PackedCollator:
    """Packed rows into a batch of input_ids, labels and position_ids, (B, T) int64 each, padded on
    the right to the longest.

    There is no attention mask: from positions that begin again transformers makes the
    block-diagonal causal one, for eager, sdpa, flex and flash attention alike, but only without a
    cache, hence `use_cache` (False). Padding has position 0 and no label: each such token sees
    itself alone.
    """

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, torch.Tensor | bool]:
        width = max(len(row["input_ids"]) for row in batch)

        def padded(key, fill):
            return torch.tensor([list(row[key]) + fill[: width - len(row[key])] for row in batch])

        return {
            "input_ids": padded("input_ids", [self.pad_token_id] * width),
            "labels": padded("labels", [IGNORE] * width),
            "position_ids": padded("position_ids", [0] * width),
            "use_cache": False,
        }


PROMPT, CHOSEN, REJECTED, PADDING = 0, 1, 2, -1  # segments of a packed pair


def sequence(prompt: list[int], completion: list[int]) -> dict[str, list[int]]:
    return {"input_ids": prompt + completion, "labels": [IGNORE] * len(prompt) + completion}


def references_of(batch: list[dict]) -> dict[str, Tensor]:
    if "ref_logps" not in batch[0]:
        return {}
    return {"ref_logps": torch.tensor([item["ref_logps"] for item in batch], dtype=torch.float64)}


@dataclass
class PairCollator:
    """Pairs as 2B padded rows, all chosen before all rejected; or, with `share_prefix`, as B rows
    that hold the prompt once.

    A packed row is ``prompt[:-1] | prompt[-1] chosen | prompt[-1] rejected``: the prompt's last
    token, from which a completion's first token is predicted, stands before each, so that every
    label is that of the next position. `segments` (B, T) says what belongs to which, and
    `position_ids` restart for the rejected one. p + c + r + 1 tokens in place of 2p + c + r.
    """

    pad_token_id: int
    share_prefix: bool = True

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        pad = SFTCollator(self.pad_token_id)
        if not self.share_prefix:
            rows = [
                sequence(item["prompt_ids"], item[side])
                for side in ("chosen_ids", "rejected_ids")
                for item in batch
            ]
            return pad(rows) | references_of(batch)
        rows, positions, segments = [], [], []
        for item in batch:
            prompt, last = item["prompt_ids"][:-1], item["prompt_ids"][-1:]
            sides = [sequence(last, item[side]) for side in ("chosen_ids", "rejected_ids")]
            rows.append(
                {
                    "input_ids": prompt + sides[0]["input_ids"] + sides[1]["input_ids"],
                    "labels": [IGNORE] * len(prompt) + sides[0]["labels"] + sides[1]["labels"],
                }
            )
            p, (c, r) = len(prompt), (len(side["labels"]) for side in sides)
            positions.append(torch.tensor([*range(p + c), *range(p, p + r)]))
            segments.append(torch.tensor([PROMPT] * p + [CHOSEN] * c + [REJECTED] * r))
        return (
            pad(rows)
            | {
                "position_ids": pad_sequence(positions, batch_first=True),
                "segments": pad_sequence(segments, batch_first=True, padding_value=PADDING),
            }
            | references_of(batch)
        )


@dataclass
class SequenceCollator:
    """Prompts with one completion each, padded."""

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        return SFTCollator(self.pad_token_id)(
            [sequence(item["prompt_ids"], item["completion_ids"]) for item in batch]
        )


@dataclass
class KTOCollator:
    """Binary rows padded, and beside them, under names with `kl_`, the same prompts with the
    mismatched completions.
    """

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        pad = SFTCollator(self.pad_token_id)
        matched = pad([sequence(item["prompt_ids"], item["completion_ids"]) for item in batch])
        others = pad([sequence(item["prompt_ids"], item["kl_completion_ids"]) for item in batch])
        return (
            matched
            | {f"kl_{k}": v for k, v in others.items()}
            | {"desirable": torch.tensor([item["label"] for item in batch])}
            | references_of(batch)
        )


def shared_mask(segments: Tensor) -> Tensor:
    """(B, 1, T, T), true where a packed row's query sees a key: of what is not later, the prompt
    and its own segment.
    """
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(
        segments.shape[1], segments.shape[1], dtype=torch.bool, device=segments.device
    ).tril()
    return (causal & ((key == PROMPT) | (key == query)))[:, None]
