"""Rows, chat template and loss masks: from JSONL or the Hub to batches for supervised fine-tuning.

A row is a dict with `messages` in the OpenAI form (`role`, `content`), and for rows with a checkable
answer also `family` and `answer`.
"""
from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch

from ftlib.hub import fetch, hub_rows
from ftlib.loading import DATA
from ftlib.profiles import get_profile
from ftlib.readers import read_lines
from ftlib.rows import DataError, check_any, check_row
# Some are part of this module's names only.
from ftlib.templates import IGNORE, ShownMask, encode, inference_template, show_mask, training_template  # noqa: F401


def read_jsonl(path: str | os.PathLike, on_error: str = "raise", check=check_row) -> list[dict]:
    """The rows of a JSONL file. A bad line raises DataError with file, line and reason.

    `check(row, where)` raises for a row that is not of its schema: by default one with `messages`; `check_any` takes
    preference pairs and binary feedback too. With on_error="skip" bad lines are kept out,
    and one line says how many and which came first.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: use 'raise' or 'skip'")
    path, rows, bad = Path(path), [], []
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    with path.open("rb") as file:
        for number, _, row in read_lines(file):
            where = f"{path}:{number}"
            try:
                if isinstance(row, DataError):
                    raise DataError(f"{where}: {row}")
                rows.append(check(row, where))
            except DataError as error:
                if on_error == "raise":
                    raise
                bad.append(str(error))
    if bad:
        print(f"{path}: left out {len(bad)} of {len(bad) + len(rows)} lines, the first {bad[0]}")
    return rows


# --- rows of a profile ----------------------------------------------------------------------------------------------
def load_raw(profile=None) -> list[dict]:
    """The first `preparation.rows` rows of the profile's raw set, as they are: to be converted, cleaned and filtered. Embedded,
    training rows.

    A Hub set is read under the keys of its format alone; Alpaca's `text` holds question and answer a second time.
    """
    profile = get_profile(profile)
    raw = profile.preparation
    if raw.dataset == "embedded":
        return load_rows("train", profile)[: raw.rows]
    return [{k: v for k, v in row.items() if k != "text"} for row in fetch(raw.dataset, f"train[:{raw.rows}]")]


def _dataset(profile, split: str) -> str:
    if split.startswith("preferences"):
        return profile.preference.pairs
    return profile.preference.feedback if split == "feedback" else profile.dataset


NO_ROWS = ("base_text", "messy", "messy_truth")  # files beside the rows that are read otherwise


def load_rows(split: str, profile=None) -> list[dict]:
    """The profile's rows for a split: "train", "validation", "golden"; preference pairs: "preferences", "preferences_long" (chosen
    is always longer), "preferences_matched" (length says nothing), "preferences_test" (held out); thumbs: "feedback".

    Embedded, every file in data/rows but base_text, which `load_base_text` reads, and the messy file,
    whose lines are not all rows."""
    profile, local = get_profile(profile), os.environ.get("FTLIB_ROWS")
    if local:
        return read_jsonl(Path(local) / f"{split}.jsonl", check=check_any)
    if (dataset := _dataset(profile, split)) != "embedded":
        return hub_rows(dataset, split)
    file = DATA / "rows" / f"{split}.jsonl"
    if not file.is_file() or split in NO_ROWS:
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.jsonl") if p.stem not in NO_ROWS))
        raise DataError(f"the embedded data has no split {split!r}: use {known}")
    return read_jsonl(file, check=check_any)


def _base_text(line: bytes, where: str) -> str:
    try:
        return json.loads(line.decode("utf-8"))["text"]
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{where}: one JSON object with 'text' a line is needed") from None


def load_base_text(profile=None, count: int = 200) -> list[str]:
    """Held-out text of the base model's own domain, to measure forgetting."""
    profile = get_profile(profile)
    local = os.environ.get("FTLIB_ROWS")
    if local or profile.dataset == "embedded":
        file = Path(local or DATA / "rows") / "base_text.jsonl"
        if not file.is_file():
            raise DataError(f"{file} does not exist: one JSON object with 'text' a line")
        return [_base_text(line, f"{file}:{i}") for i, line in enumerate(file.read_bytes().splitlines(), 1)][:count]
    from datasets import load_dataset
    rows = load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split="validation")
    return [r["text"] for r in rows if len(r["text"]) > 200][:count]


def fingerprint(rows: list[dict]) -> str:
    """SHA-256 over the rows in order: equal data, equal fingerprint."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


# --- from rows to batches -------------------------------------------------------------------------------------------
def _encode_row(tokenizer, row: dict, where: str, train_on_prompt: bool) -> dict[str, list[int]]:
    if isinstance(row, dict) and row.keys() == {"input_ids", "labels"} and len(row["input_ids"]) == len(row["labels"]):
        return row
    messages = check_row(row, where)["messages"]
    try:
        return encode(tokenizer, messages, train_on_prompt)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def encode_rows(tokenizer, rows: list[dict], max_length: int = 1024, train_on_prompt: bool = False) -> list[dict]:
    """Encode every row that is not encoded yet (`train_on_prompt` as in `encode`). Rows longer than max_length are left out, and
    one line says how many: a cut answer would teach the model to stop in mid-sentence."""
    encoded = [_encode_row(tokenizer, row, f"row {i}", train_on_prompt) for i, row in enumerate(rows)]
    return keep_short(encoded, [len(e["input_ids"]) for e in encoded], max_length)


def keep_short(encoded: list[dict], lengths: list[int], max_length: int) -> list[dict]:
    """The rows of at most max_length tokens; one line says how many are left out. DataError if none is left."""
    kept = [e for e, length in zip(encoded, lengths) if length <= max_length]
    if len(kept) < len(encoded):
        print(f"left out {len(encoded) - len(kept)} of {len(encoded)} rows longer than max_length={max_length} "
              f"(longest {max(lengths)})")
    if not kept:
        raise DataError(f"all {len(encoded)} rows are longer than max_length={max_length}: raise it" if encoded
                        else "no rows to train on")
    return kept


@dataclass
class SFTCollator:
    """Pad a batch on the right to its longest row; padding is masked by length, never by token id."""
    pad_token_id: int

    def __call__(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        width = max(len(row["input_ids"]) for row in batch)

        def padded(key, fill):
            return torch.tensor([list(row[key]) + [fill] * (width - len(row[key])) for row in batch])

        mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in batch]
        return {"input_ids": padded("input_ids", self.pad_token_id), "labels": padded("labels", IGNORE),
                "attention_mask": torch.tensor(mask)}
