"""Preference rows: from TRL's pairs and thumbs to token ids, mismatched completions for KTO, and
batches.

A pair holds the keys `prompt`, `chosen`, `rejected`; a binary row `prompt`, `completion`, `label`
(true: desirable). Texts are lists of messages, or plain strings: then one user turn and one
assistant turn, which the chat template surrounds.
"""

from __future__ import annotations

from ftlib.batches.encode import keep_short
from ftlib.batches.template import IGNORE, encode
from ftlib.core.errors import DataError, PairError
from ftlib.data.rows import check_binary, check_pair


def _messages(value: str | list[dict], role: str) -> list[dict]:
    return [{"role": role, "content": value}] if isinstance(value, str) else value


def _split(tokenizer, row: dict, name: str, where: str) -> tuple[list[int], list[int]]:
    """Ids before the last assistant turn, and of that turn with its stop token; what a template
    writes after it is left off.
    """
    try:
        encoded = encode(
            tokenizer, _messages(row["prompt"], "user") + _messages(row[name], "assistant")
        )
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    scored = [label != IGNORE for label in encoded["labels"]]
    end = len(scored) - scored[::-1].index(True)
    start = end - (scored[:end][::-1] + [False]).index(False)
    return encoded["input_ids"][:start], encoded["input_ids"][start:end]


def _encode_pair(tokenizer, row: dict, where: str) -> dict:
    check_pair(row, where)
    sides = [_split(tokenizer, row, name, where) for name in ("chosen", "rejected")]
    if sides[0] == sides[1]:
        raise PairError(
            f"{where}: chosen and rejected become the same tokens: nothing is preferred; leave "
            "the pair out"
        )
    if sides[0][0] != sides[1][0]:
        raise PairError(
            f"{where}: the prompt becomes other tokens before chosen than before rejected: "
            "take the white space off their beginnings"
        )
    return {"prompt_ids": sides[0][0], "chosen_ids": sides[0][1], "rejected_ids": sides[1][1]}


def _encode_binary(tokenizer, row: dict, where: str) -> dict:
    check_binary(row, where)
    prompt_ids, completion_ids = _split(tokenizer, row, "completion", where)
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "label": row["label"]}


def encode_pairs(tokenizer, rows: list[dict], max_length: int = 1024) -> list[dict]:
    """`prompt_ids`, `chosen_ids`, `rejected_ids` of every pair. A pair of which one side is longer
    than `max_length` tokens, prompt included, is left out and counted, never cut. DataError names
    the row that cannot be used.
    """
    for i, row in enumerate(rows):
        if isinstance(row, dict) and "completion" in row:
            raise PairError(
                f"row {i} is a binary row (prompt, completion, label): train on it with "
                "loss='kto', or make pairs"
            )
    encoded = [_encode_pair(tokenizer, row, f"row {i}") for i, row in enumerate(rows)]
    lengths = [
        len(e["prompt_ids"]) + max(len(e["chosen_ids"]), len(e["rejected_ids"])) for e in encoded
    ]
    return keep_short(encoded, lengths, max_length)


def encode_binary(tokenizer, rows: list[dict], max_length: int = 1024) -> list[dict]:
    """`prompt_ids`, `completion_ids`, `label` of every binary row; a pair becomes a desirable and
    an undesirable one. Rows longer than `max_length` tokens are left out and counted, never cut.
    DataError names the row that cannot be used.
    """
    encoded = []
    for i, row in enumerate(rows):
        if isinstance(row, dict) and "chosen" in row:
            pair = _encode_pair(tokenizer, row, f"row {i}")
            encoded += [
                {
                    "prompt_ids": pair["prompt_ids"],
                    "completion_ids": pair[f"{side}_ids"],
                    "label": side == "chosen",
                }
                for side in ("chosen", "rejected")
            ]
        else:
            encoded.append(_encode_binary(tokenizer, row, f"row {i}"))
    return keep_short(
        encoded, [len(e["prompt_ids"]) + len(e["completion_ids"]) for e in encoded], max_length
    )


def row_length(item: dict) -> int:
    """Tokens of an encoded row: the prompt once, and every completion."""
    return sum(
        len(item[k])
        for k in ("prompt_ids", "chosen_ids", "rejected_ids", "completion_ids")
        if k in item
    )


def sequences_of(item: dict) -> list[dict]:
    """The two sequences that an encoded row has scored: a pair's chosen and rejected one, KTO's own
    and mismatched one.
    """
    sides = (
        ("chosen_ids", "rejected_ids")
        if "chosen_ids" in item
        else ("completion_ids", "kl_completion_ids")
    )
    return [{"prompt_ids": item["prompt_ids"], "completion_ids": item[side]} for side in sides]


def mismatch(items: list[dict], batch_size: int) -> list[dict]:
    """KTO's mismatched pairs: the items, each with the completion of another as
    `kl_completion_ids`.

    Within every `batch_size` items, as they will be batched, completions are rotated by one: item i
    gets that of item i-1, and of an earlier one where that has the same prompt (the two sides of a
    pair). A last batch of one item takes from the batch before.
    """
    if len(items) < 2:
        raise DataError(
            f"{len(items)} row for KTO: its mismatched pairs take completions of other rows; "
            "bring two or more"
        )
    out = []
    for start in range(0, len(items), batch_size):
        block = items[start : start + batch_size]
        for i, item in enumerate(block):
            others = [block[i - k] for k in range(1, len(block))] or items[:start][::-1]
            other = next((o for o in others if o["prompt_ids"] != item["prompt_ids"]), others[0])
            out.append({**item, "kl_completion_ids": other["completion_ids"]})
    return out
