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

from ftlib.loading import DATA
from ftlib.profiles import get_profile
from ftlib.readers import read_lines
from ftlib.rows import DataError, check_any, check_row
from ftlib.templates import IGNORE, ShownMask, encode, inference_template, show_mask, training_template  # noqa: F401  (part of this module's names)


def read_jsonl(path: str | os.PathLike, on_error: str = "raise", check=check_row) -> list[dict]:
    """The rows of a JSONL file. A bad line raises DataError with file, line and reason.

    `check(row, where)` raises for a row that is not of its schema: by default one with `messages`; `check_any` takes
    preference pairs and binary feedback too. With on_error="skip" bad lines are kept out, and one line says how many and which came first.
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
def _sql_row(raw: dict) -> dict:
    prompt = f"Write one SQL query that answers the question.\n\nTables:\n{raw['context']}\n\nQuestion: {raw['question']}"
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": raw["answer"]}],
            "family": "join" if " JOIN " in raw["answer"].upper() else "select", "answer": raw["answer"]}


def _pair_row(raw: dict) -> dict:
    """TRL's pair without a prompt of its own: two conversations that differ in their last message."""
    return {"prompt": raw["chosen"][:-1], "chosen": raw["chosen"][-1:], "rejected": raw["rejected"][-1:]}


def _thumb_row(raw: dict) -> dict:
    return {key: raw[key] for key in ("prompt", "completion", "label")}


# Hub datasets by id: how a raw row becomes one of ours, and how many rows each split holds (cut off the shuffled end).
HUB = {"b-mc2/sql-create-context": (_sql_row, {"golden": 100, "validation": 300, "train": 4000}),
       "trl-lib/ultrafeedback_binarized": (_pair_row, {"preferences_test": 100, "preferences": 4000}),
       "trl-lib/kto-mix-14k": (_thumb_row, {"feedback": 4000})}


def _hub_rows(dataset: str, split: str) -> list[dict]:
    from datasets import load_dataset
    if dataset not in HUB:
        raise DataError(f"dataset {dataset!r} is unknown: ftlib reads {', '.join(HUB)}, or a folder in FTLIB_ROWS")
    to_row, sizes = HUB[dataset]
    if split not in sizes:
        raise DataError(f"{dataset} has no split {split!r} here: use {', '.join(sizes)}")
    try:
        raw = load_dataset(dataset, split="train").shuffle(seed=31)
    except Exception as error:  # the Hub client raises many kinds; each means the same to the reader
        raise DataError(f"{dataset!r} could not be loaded ({type(error).__name__}): go online once, "
                        "or put a folder of JSONL files in FTLIB_ROWS") from error
    start = sum(n for name, n in sizes.items() if list(sizes).index(name) < list(sizes).index(split))
    return [to_row(r) for r in raw.select(range(start, start + sizes[split]))]


def load_raw(profile=None) -> list[dict]:
    """The first `raw_rows` rows of the profile's raw set, as they are: to be converted, cleaned and filtered. Embedded, training rows.

    A Hub set is read under the keys of its format alone; Alpaca's `text` holds question and answer a second time.
    """
    profile = get_profile(profile)
    if profile.raw_dataset == "embedded":
        return load_rows("train", profile)[: profile.raw_rows]
    from datasets import load_dataset
    try:
        raw = load_dataset(profile.raw_dataset, split=f"train[:{profile.raw_rows}]")
    except Exception as error:  # the Hub client raises many kinds; each means the same to the reader
        raise DataError(f"{profile.raw_dataset!r} could not be loaded ({type(error).__name__}): go online once") from error
    return [{k: v for k, v in row.items() if k != "text"} for row in raw]


PREFERENCES = {"trl-lib/ultrafeedback_binarized": ("train", "test")}  # pairs on the Hub: splits to train on and held out


def _hub_pair(raw: dict) -> dict:
    """A raw pair, two whole conversations, as prompt and two answers; `axis` says which answer is the longer one."""
    *prompt, chosen = raw["chosen"]
    rejected = raw["rejected"][-1]
    gap = len(chosen["content"]) - len(rejected["content"])
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected], "axis": "longer" if gap > 0 else "shorter" if gap else "matched"}


def _hub_preferences(name: str, part: str) -> list[dict]:
    from datasets import load_dataset
    if name not in PREFERENCES:
        raise DataError(f"preferences {name!r} are unknown: ftlib reads {', '.join(PREFERENCES)}, or a folder in FTLIB_ROWS")
    try:
        raw = load_dataset(name, split=PREFERENCES[name][part == "preferences_test"]).shuffle(seed=31)
    except Exception as error:  # the Hub client raises many kinds; each means the same to the reader
        raise DataError(f"{name!r} could not be loaded ({type(error).__name__}): go online once, "
                        "or put a folder of JSONL files in FTLIB_ROWS") from error
    pairs = [_hub_pair(r) for r in raw.select(range(min(len(raw), 16_000))) if r["chosen"][-1]["content"] != r["rejected"][-1]["content"]]
    if part == "preferences_long":
        return [pair for pair in pairs if pair["axis"] == "longer"]
    from ftlib.pairs import balance_length
    return balance_length(pairs, bin_width=32) if part == "preferences_matched" else pairs


def load_preferences(part: str, profile=None) -> list[dict]:
    """The profile's preference pairs: "preferences", "preferences_long" (chosen is always longer), "preferences_matched" (length says
    nothing) or "preferences_test" (held out). Rows as `load_rows` gives them; pairs of the Hub carry an `axis` by length."""
    profile, parts = get_profile(profile), ("preferences", "preferences_long", "preferences_matched", "preferences_test")
    if part not in parts:
        raise DataError(f"part={part!r}: use one of {', '.join(parts)}")
    if profile.preferences == "embedded" or os.environ.get("FTLIB_ROWS"):
        return load_rows(part, profile)
    return _hub_preferences(profile.preferences, part)


NO_ROWS = ("base_text", "messy", "messy_truth")  # files beside the rows that are read otherwise


def load_rows(split: str, profile=None) -> list[dict]:
    """The profile's rows for a split: "train", "validation", "golden" (and, embedded, every file in data/rows, pairs and feedback
    among them; not base_text, which `load_base_text` reads, and not the messy file, whose lines are not all rows)."""
    profile, local = get_profile(profile), os.environ.get("FTLIB_ROWS")
    if local:
        return read_jsonl(Path(local) / f"{split}.jsonl", check=check_any)
    if profile.dataset != "embedded":
        return _hub_rows(profile.dataset, split)
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
        print(f"left out {len(encoded) - len(kept)} of {len(encoded)} rows longer than max_length={max_length} (longest {max(lengths)})")
    if not kept:
        raise DataError(f"all {len(encoded)} rows are longer than max_length={max_length}: raise it" if encoded else "no rows to train on")
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
