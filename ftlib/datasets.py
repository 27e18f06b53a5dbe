"""Rows, chat template and loss masks: from JSONL or the Hub to batches for supervised fine-tuning.

A row is a dict with `messages` in the OpenAI form (`role`, `content`), and for rows with a checkable
answer also `family` and `answer`.
"""
from __future__ import annotations

import hashlib
import html
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jinja2 import TemplateError

from ftlib.loading import DATA, check_tokenizer
from ftlib.profiles import get_profile

IGNORE = -100


class DataError(ValueError):
    """Rows that cannot be used: names file, line or row, the reason and the mend."""


def check_row(row, where: str) -> dict:
    """Raise DataError unless the row holds non-empty messages that end with the assistant."""
    if not isinstance(row, dict) or not isinstance(row.get("messages"), list) or not row["messages"]:
        raise DataError(f"{where}: no list 'messages'; a row is {{\"messages\": [{{\"role\", \"content\"}}, …]}}")
    for i, message in enumerate(row["messages"]):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            raise DataError(f"{where}: message {i} needs the strings 'role' and 'content', got {message!r}")
    if row["messages"][-1]["role"] != "assistant" or not row["messages"][-1]["content"].strip():
        raise DataError(f"{where}: the last message must be a non-empty answer of the assistant")
    return row


def _parse_line(line: bytes, where: str) -> dict:
    try:
        return check_row(json.loads(line.decode("utf-8")), where)
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None


def read_jsonl(path: str | os.PathLike, on_error: str = "raise") -> list[dict]:
    """The rows of a JSONL file. A bad line raises DataError with file, line and reason.

    With on_error="skip" bad lines are kept out, and one line says how many and which came first.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: use 'raise' or 'skip'")
    path, rows, bad = Path(path), [], []
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                rows.append(_parse_line(line, f"{path}:{number}"))
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


# Hub datasets by id: how a raw row becomes one of ours, and how many rows each split holds (cut off the shuffled end).
HUB = {"b-mc2/sql-create-context": (_sql_row, {"golden": 100, "validation": 300, "train": 4000})}


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


def load_rows(split: str, profile=None) -> list[dict]:
    """The profile's rows for a split: "train", "validation", "golden" (and, embedded, every file in data/rows)."""
    profile, local = get_profile(profile), os.environ.get("FTLIB_ROWS")
    if local:
        return read_jsonl(Path(local) / f"{split}.jsonl")
    if profile.dataset != "embedded":
        return _hub_rows(profile.dataset, split)
    file = DATA / "rows" / f"{split}.jsonl"
    if not file.is_file():
        known = ", ".join(sorted(p.stem for p in file.parent.glob("*.jsonl") if p.stem != "base_text"))
        raise DataError(f"the embedded data has no split {split!r}: use {known}")
    return read_jsonl(file)


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


# --- from messages to tokens and loss masks ---------------------------------------------------------------------------
def _template_ids(tokenizer, messages, **options) -> list[int]:
    # The template writes BOS itself; apply_chat_template does not let the tokenizer add a second one. Qwen3's writes
    # an empty thought before an answer: without thinking it belongs to the prompt. Other templates ignore the option.
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, enable_thinking=False, **options)["input_ids"]


def _mask_by_prefix(tokenizer, messages) -> tuple[list[int], list[int]]:
    """Mask for templates without generation marks: what each assistant turn adds to the text before it."""
    ids, mask = _template_ids(tokenizer, messages), []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _template_ids(tokenizer, messages[:i], add_generation_prompt=True)
        after = _template_ids(tokenizer, messages[: i + 1])
        if ids[: len(after)] != after or after[: len(before)] != before:
            raise DataError("this chat template rewrites earlier turns, so the answer cannot be told from the prompt: "
                            "set a template with {% generation %} marks")
        turn, stop = after[len(before):], tokenizer.eos_token_id
        beyond = turn[::-1].index(stop) if stop in turn else 0  # ChatML writes a newline after the stop token
        mask += [0] * (len(before) - len(mask)) + [1] * (len(turn) - beyond) + [0] * beyond
    return ids, mask + [0] * (len(ids) - len(mask))


def encode(tokenizer, messages: list[dict]) -> dict[str, list[int]]:
    """Token ids of a conversation and labels that are -100 outside the assistant's turns.

    The stop token that ends a turn belongs to the turn: it must be learnt, or the model never stops.
    DataError where a BOS would be doubled or no token would be trained on.
    """
    check_tokenizer(tokenizer)
    try:
        if re.search(r"\{%-?\s*generation\s*-?%\}", tokenizer.chat_template):
            out = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
            ids, mask = out["input_ids"], out["assistant_masks"]
        else:
            ids, mask = _mask_by_prefix(tokenizer, messages)
    except TemplateError as error:
        raise DataError(f"the chat template refuses these messages: {error}") from None
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise DataError("the chat template and the tokenizer both write BOS: tokenise with add_special_tokens=False")
    if not any(mask):
        raise DataError("no token of this conversation belongs to the assistant: nothing would be learnt from it")
    return {"input_ids": ids, "labels": [i if m else IGNORE for i, m in zip(ids, mask)]}


def _encode_row(tokenizer, row: dict, where: str) -> dict[str, list[int]]:
    if isinstance(row, dict) and row.keys() == {"input_ids", "labels"} and len(row["input_ids"]) == len(row["labels"]):
        return row
    messages = check_row(row, where)["messages"]
    try:
        return encode(tokenizer, messages)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def encode_rows(tokenizer, rows: list[dict], max_length: int = 1024) -> list[dict]:
    """Encode every row that is not encoded yet. Rows longer than max_length are left out, and one line says how many: a cut
    answer would teach the model to stop in mid-sentence."""
    encoded = [_encode_row(tokenizer, row, f"row {i}") for i, row in enumerate(rows)]
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


@dataclass
class ShownMask:
    """A conversation with its loss mask: colour in a notebook, brackets in a terminal."""
    pieces: list[tuple[str, bool]]

    def _repr_html_(self) -> str:
        style = {True: "background:#cfe8ff;border-bottom:2px solid #0072B2", False: "color:#777"}
        spans = "".join(f'<span style="{style[t]};padding:1px 2px;margin:1px">{html.escape(p)}</span>' for p, t in self.pieces)
        return f'<div style="font-family:monospace;line-height:2">{spans}<br><small>underlined: trained on · grey: context only</small></div>'

    def __repr__(self) -> str:
        return "".join(f"[{p}]" if trained else p for p, trained in self.pieces)


def show_mask(tokenizer, messages: list[dict]) -> ShownMask:
    """Show which tokens of a conversation the loss counts."""
    row = encode(tokenizer, messages)
    return ShownMask([(tokenizer.decode([i]), label != IGNORE) for i, label in zip(row["input_ids"], row["labels"])])
