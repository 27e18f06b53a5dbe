"""Rows of Hub datasets, in the course's form: conversations, preference pairs, thumbs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ftlib.core.errors import DataError

log = logging.getLogger("ftlib")


def fetch(name: str, split: str, config: str | None = None):
    """A split of a Hub dataset, of one of its configurations where it has several. DataError says
    what to do where it cannot be had.
    """
    from datasets import load_dataset

    names = (name,) if config is None else (name, config)
    try:
        return load_dataset(*names, split=split)
    # The Hub client raises many kinds; each means the same to the reader.
    except Exception as error:
        raise DataError(
            f"{name!r} could not be loaded ({type(error).__name__}): go online once, "
            "or put a folder of JSONL files in FTLIB_ROWS"
        ) from error


def _sql_row(raw: dict) -> dict:
    task = "Write one SQL query that answers the question."
    prompt = f"{task}\n\nTables:\n{raw['context']}\n\nQuestion: {raw['question']}"
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": raw["answer"]},
        ],
        "family": "join" if " JOIN " in raw["answer"].upper() else "select",
        "answer": raw["answer"],
    }


def _pair_row(raw: dict) -> dict | None:
    """TRL's pair of two whole conversations as prompt and two answers; `axis` says which answer is
    longer. None for equal answers.
    """
    *prompt, chosen = raw["chosen"]
    rejected = raw["rejected"][-1]
    if chosen["content"] == rejected["content"]:
        return None
    difference = len(chosen["content"]) - len(rejected["content"])
    if difference > 0:
        axis = "longer"
    elif difference < 0:
        axis = "shorter"
    else:
        axis = "matched"
    return {"prompt": prompt, "chosen": [chosen], "rejected": [rejected], "axis": axis}


def _thumb_row(raw: dict) -> dict:
    return {key: raw[key] for key in ("prompt", "completion", "label")}


def _longer(pairs: list[dict]) -> list[dict]:
    return [pair for pair in pairs if pair["axis"] == "longer"]


def _matched(pairs: list[dict]) -> list[dict]:
    from ftlib.data.pairs import balance_length

    return balance_length(pairs, bin_width=32)


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a Hub split, shuffled with a fixed seed; `choose` picks of them."""

    split: str
    start: int
    stop: int
    choose: Callable[[list[dict]], list[dict]] = list


# Hub datasets by id: how a raw row becomes one of ours, and where each part lies. Parts of one
# split do not overlap, but for the pairs chosen by length, which are pairs of "preferences".
HUB: dict[str, tuple[Callable[[dict], dict | None], dict[str, Part]]] = {
    "b-mc2/sql-create-context": (
        _sql_row,
        {
            "golden": Part("train", 0, 100),
            "validation": Part("train", 100, 400),
            "train": Part("train", 400, 4400),
        },
    ),
    "trl-lib/ultrafeedback_binarized": (
        _pair_row,
        {
            "preferences": Part("train", 0, 16_000),
            "preferences_long": Part("train", 0, 16_000, _longer),
            "preferences_matched": Part("train", 0, 16_000, _matched),
            "preferences_test": Part("test", 0, 500),
        },
    ),
    "trl-lib/kto-mix-14k": (_thumb_row, {"feedback": Part("train", 0, 4000)}),
}


def hub_rows(dataset: str, part: str) -> list[dict]:
    """The rows of a part of a known dataset. Equal answers prefer nothing: such pairs are left out
    and counted.
    """
    if dataset not in HUB:
        raise DataError(
            f"dataset {dataset!r} is unknown: ftlib reads {', '.join(HUB)}, or a folder in "
            "FTLIB_ROWS"
        )
    to_row, parts = HUB[dataset]
    if part not in parts:
        raise DataError(f"{dataset} has no split {part!r} here: use {', '.join(parts)}")
    wanted = parts[part]
    shuffled = fetch(dataset, wanted.split).shuffle(seed=31)
    start = min(wanted.start, len(shuffled))
    stop = min(wanted.stop, len(shuffled))
    rows = [to_row(raw) for raw in shuffled.select(range(start, stop))]
    kept = [row for row in rows if row is not None]
    left_out = len(rows) - len(kept)
    if left_out:
        log.info("%s: %d of %d pairs with equal answers left out", dataset, left_out, len(rows))
    return wanted.choose(kept)
