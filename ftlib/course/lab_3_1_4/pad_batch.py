"""Lab 3.1.4, fine-tuning 8B, exercise 3: rows to a batch."""

from __future__ import annotations

import torch

from ftlib.batches.collate import SFTCollator
from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong


def pad_batch(rows: list[dict], pad_id: int) -> dict[str, torch.Tensor]:
    """Rows of unlike length -> (B, T) tensors input_ids, labels, attention_mask, padded on the
    right.
    """
    return SFTCollator(pad_id)(rows)


def _padded(rows, pad_id, label_fill=IGNORE, left=False):
    width = max(len(r["input_ids"]) for r in rows)

    def fill(values, value):
        more = [value] * (width - len(values))
        return more + list(values) if left else list(values) + more

    return {
        "input_ids": torch.tensor([fill(r["input_ids"], pad_id) for r in rows]),
        "labels": torch.tensor([fill(r["labels"], label_fill) for r in rows]),
        "attention_mask": torch.tensor([fill([1] * len(r["input_ids"]), 0) for r in rows]),
    }


def _pad_mask_by_id(rows, pad_id):
    out = _padded(rows, pad_id)
    return {**out, "attention_mask": (out["input_ids"] != pad_id).long()}


def _pad_labels_by_id(rows, pad_id):
    out = _padded(rows, pad_id)
    return {**out, "labels": out["labels"].masked_fill(out["input_ids"] == pad_id, IGNORE)}


def _pad_labels_with_pad(rows, pad_id):
    return _padded(rows, pad_id, label_fill=pad_id)


def _pad_left(rows, pad_id):
    return _padded(rows, pad_id, left=True)


def _pad_ones(rows, pad_id):
    out = _padded(rows, pad_id)
    return {**out, "attention_mask": torch.ones_like(out["attention_mask"])}


def _pad_cases(g):
    for lengths, pad_id in (
        ((3, 7, 5), 2),
        ((6, 6), 2),
        ((4, 9, 2, 8), 6),
    ):  # the last: pad == stop token
        rows = []
        for n in lengths:
            ids = [*torch.randint(10, 90, (n,), generator=g).tolist(), 6]
            rows.append({"input_ids": ids, "labels": [IGNORE] * (n // 2) + ids[n // 2 :]})
        yield rows, pad_id


PAD_BATCH = Exercise(
    "pad_batch",
    "Rows to a batch",
    10,
    2,
    pad_batch,
    _pad_cases,
    (
        Wrong(
            "attention mask by id",
            _pad_mask_by_id,
            "Your attention mask is `input_ids != pad_id`: where pad and stop token share an id, "
            "real stop "
            "tokens vanish. Build it from the lengths.",
        ),
        Wrong(
            "labels masked by id",
            _pad_labels_by_id,
            "You set labels to -100 wherever the id equals pad_id: where pad == stop the stop "
            "token is never "
            "learnt. Mask by length.",
        ),
        Wrong(
            "labels padded with pad_id",
            _pad_labels_with_pad,
            "You padded the labels with pad_id: the model would be trained to write padding. Pad "
            "labels with -100.",
        ),
        Wrong(
            "left padding",
            _pad_left,
            "You padded on the left: that is for generation. Training pads on the right, as "
            "positions then start at the text.",
        ),
        Wrong(
            "mask of ones",
            _pad_ones,
            "Your attention mask is 1 everywhere: the padding must be 0, or attention reads it.",
        ),
    ),
    (
        "Find the longest row first: `width = max(len(r['input_ids']) for r in rows)`.",
        "Each of the three gets its own filler: pad_id, -100 and 0.",
        "The attention mask is 1 for every token the row brought along, whatever its id: `[1] * "
        "len(ids) + [0] * (width - len(ids))`.",
        "Write `values + [filler] * (width - len(values))` for each row and wrap the three lists "
        "in torch.tensor.",
    ),
    praise="equal to ftlib's collator, also where pad == stop token,",
    dtypes={"input_ids": "same", "labels": "same", "attention_mask": "same"},
)
