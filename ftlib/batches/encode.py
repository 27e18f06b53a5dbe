"""Conversations as token ids and labels, those too long left out and counted."""

from __future__ import annotations

from ftlib.batches.template import encode
from ftlib.core.errors import DataError
from ftlib.data.rows import check_row


def _is_encoded(row) -> bool:
    if not isinstance(row, dict) or row.keys() != {"input_ids", "labels"}:
        return False
    return len(row["input_ids"]) == len(row["labels"])


def _encode_row(tokenizer, row: dict, where: str, train_on_prompt: bool) -> dict[str, list[int]]:
    if _is_encoded(row):
        return row
    messages = check_row(row, where)["messages"]
    try:
        return encode(tokenizer, messages, train_on_prompt)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def encode_rows(
    tokenizer, rows: list[dict], max_length: int = 1024, train_on_prompt: bool = False
) -> list[dict]:
    """Encode every row that is not encoded yet (`train_on_prompt` as in `encode`). Rows longer than
    max_length are left out, and one line says how many: a cut answer would teach the model to stop
    in mid-sentence.
    """
    encoded = [
        _encode_row(tokenizer, row, f"row {i}", train_on_prompt) for i, row in enumerate(rows)
    ]
    lengths = [len(row["input_ids"]) for row in encoded]
    return keep_short(encoded, lengths, max_length)


def keep_short(encoded: list[dict], lengths: list[int], max_length: int) -> list[dict]:
    """The rows of at most max_length tokens; one line says how many are left out. DataError if none
    is left.
    """
    kept = [row for row, n in zip(encoded, lengths, strict=True) if n <= max_length]
    if len(kept) < len(encoded):
        print(
            f"left out {len(encoded) - len(kept)} of {len(encoded)} rows longer than "
            f"max_length={max_length} (longest {max(lengths)})"
        )
    if not encoded:
        raise DataError("no rows to train on")
    if not kept:
        raise DataError(
            f"all {len(encoded)} rows are longer than max_length={max_length}: raise it"
        )
    return kept
