"""Encoded rows as padded batches: conversations, packed rows, pairs, thumbs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ftlib.batches.template import IGNORE


def pad_right(rows: list, fill: int, width: int | None = None) -> Tensor:
    """B rows of whole numbers, `fill` after each, as (B, width); width: default the longest."""
    if width is None:
        width = max(len(row) for row in rows)
    padded = []
    for row in rows:
        padding = [fill] * (width - len(row))
        padded.append([*row, *padding])
    return torch.tensor(padded)


def pad_left(rows: list, fill: int) -> Tensor:
    """B rows of whole numbers, `fill` before each, as (B, longest): a model that goes on from a
    row's last token finds it at the end.
    """
    width = max(len(row) for row in rows)
    padded = []
    for row in rows:
        padding = [fill] * (width - len(row))
        padded.append([*padding, *row])
    return torch.tensor(padded)


def mask_rows(rows: list) -> list[list[int]]:
    """A 1 for each number of each row: padded with 0 the attention mask, which goes by length and
    never by token id.
    """
    return [[1] * len(row) for row in rows]


@dataclass
class SFTCollator:
    """Encoded rows into input_ids, labels and attention_mask, (B, T) int64 each, padded on the
    right to the longest; padding is masked by length, never by token id.
    """

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        ids = [row["input_ids"] for row in batch]
        labels = [row["labels"] for row in batch]
        input_ids = pad_right(ids, self.pad_token_id)
        width = input_ids.shape[1]
        return {
            "input_ids": input_ids,
            "labels": pad_right(labels, IGNORE, width),
            "attention_mask": pad_right(mask_rows(ids), 0, width),
        }


def real_tokens(position_ids: Tensor) -> Tensor:
    """1 at the tokens of conversations and 0 at padding, (B, T), told from packed positions:
    padding is at 0, and no 1 follows."""
    after = torch.nn.functional.pad(position_ids[:, 1:], (0, 1))
    real = (position_ids > 0) | (after == 1)
    return real.long()


@dataclass
class PackedCollator:
    """Packed rows into a batch of input_ids, labels and position_ids, (B, T) int64 each, padded on
    the right to the longest.

    There is no attention mask: from positions that begin again transformers makes the
    block-diagonal causal one, for eager, sdpa, flex and flash attention alike, but only without a
    cache, hence `use_cache` (False). Not every model asks for positions where it makes its mask,
    and a state knows of no mask: `ftlib.losses.isolation.packing_shift` tries it. Padding has
    position 0 and no label: each such token sees itself alone.
    """

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, Tensor | bool]:
        input_ids = pad_right([row["input_ids"] for row in batch], self.pad_token_id)
        width = input_ids.shape[1]
        return {
            "input_ids": input_ids,
            "labels": pad_right([row["labels"] for row in batch], IGNORE, width),
            "position_ids": pad_right([row["position_ids"] for row in batch], 0, width),
            "use_cache": False,
        }


# Segments of a packed pair.
PROMPT = 0
CHOSEN = 1
REJECTED = 2
PADDING = -1


def sequence(prompt: list[int], completion: list[int]) -> dict[str, list[int]]:
    """A prompt and its completion as a row, of which the completion is scored."""
    return {"input_ids": prompt + completion, "labels": [IGNORE] * len(prompt) + completion}


def references_of(batch: list[dict]) -> dict[str, Tensor]:
    """The reference model's log-probabilities where the batch holds them, (B,) or (B, 2)."""
    if "ref_logps" not in batch[0]:
        return {}
    logps = [item["ref_logps"] for item in batch]
    return {"ref_logps": torch.tensor(logps, dtype=torch.float64)}


@dataclass
class PairCollator:
    """Pairs as 2B padded rows, all chosen before all rejected; or, with `share_prefix`, as B rows
    that hold the prompt once.

    A packed row is ``prompt[:-1] | prompt[-1] chosen | prompt[-1] rejected``: the prompt's last
    token, from which a completion's first token is predicted, comes before each, so that every
    label is that of the next position. `segments` (B, T) says what belongs to which, and
    `position_ids` restart for the rejected one. p + c + r + 1 tokens in place of 2p + c + r.
    """

    pad_token_id: int
    share_prefix: bool = True

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        out = self._shared(batch) if self.share_prefix else self._apart(batch)
        return out | references_of(batch)

    def _apart(self, batch: list[dict]) -> dict[str, Tensor]:
        chosen = [sequence(item["prompt_ids"], item["chosen_ids"]) for item in batch]
        rejected = [sequence(item["prompt_ids"], item["rejected_ids"]) for item in batch]
        return SFTCollator(self.pad_token_id)(chosen + rejected)

    def _shared(self, batch: list[dict]) -> dict[str, Tensor]:
        rows = []
        positions = []
        segments = []
        for item in batch:
            prompt = item["prompt_ids"][:-1]
            last = item["prompt_ids"][-1:]
            chosen = sequence(last, item["chosen_ids"])
            rejected = sequence(last, item["rejected_ids"])
            p = len(prompt)
            c = len(chosen["labels"])
            r = len(rejected["labels"])
            ids = prompt + chosen["input_ids"] + rejected["input_ids"]
            labels = [IGNORE] * p + chosen["labels"] + rejected["labels"]
            rows.append({"input_ids": ids, "labels": labels})
            positions.append([*range(p + c), *range(p, p + r)])
            segments.append([PROMPT] * p + [CHOSEN] * c + [REJECTED] * r)
        out = SFTCollator(self.pad_token_id)(rows)
        out["position_ids"] = pad_right(positions, 0)
        out["segments"] = pad_right(segments, PADDING)
        return out


@dataclass
class SequenceCollator:
    """Prompts with one completion each, padded."""

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        rows = [sequence(item["prompt_ids"], item["completion_ids"]) for item in batch]
        return SFTCollator(self.pad_token_id)(rows)


@dataclass
class KTOCollator:
    """Binary rows padded, and beside them, under names with `kl_`, the same prompts with the
    mismatched completions.
    """

    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, Tensor]:
        pad = SFTCollator(self.pad_token_id)
        matched = [sequence(item["prompt_ids"], item["completion_ids"]) for item in batch]
        others = [sequence(item["prompt_ids"], item["kl_completion_ids"]) for item in batch]
        out = pad(matched)
        for name, tensor in pad(others).items():
            out[f"kl_{name}"] = tensor
        out["desirable"] = torch.tensor([item["label"] for item in batch])
        return out | references_of(batch)


def shared_mask(segments: Tensor) -> Tensor:
    """(B, 1, T, T), true where a packed row's query sees a key: of what is not later, the prompt
    and its own segment.
    """
    T = segments.shape[1]
    query = segments[:, :, None]  # (B, T, 1)
    key = segments[:, None, :]  # (B, 1, T)
    not_later = torch.ones(T, T, dtype=torch.bool, device=segments.device).tril()
    sees = not_later & ((key == PROMPT) | (key == query))  # (B, T, T)
    return sees[:, None]
