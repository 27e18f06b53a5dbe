"""Rows of Hub datasets, in the course's form: conversations, preference pairs, thumbs."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from ftlib.core.errors import DataError
from ftlib.core.paths import mirrored
from ftlib.data.rows import check_binary, check_pair, check_row

log = logging.getLogger("ftlib")


def fetch(name: str, split: str, config: str | None = None):
    """A split of a Hub dataset, of one of its configurations where it has several; from its copy in
    `FTLIB_HUB` where there is one. DataError says what to do where it cannot be had.
    """
    from datasets import load_dataset

    names, options = _asked(name, config)
    try:
        return load_dataset(*names, split=split, **options)
    # The Hub client raises many kinds; each means the same to the reader.
    except Exception as error:
        raise DataError(
            f"{name!r} could not be loaded ({type(error).__name__}): go online once, "
            "put a copy into a folder that FTLIB_HUB names, or a folder of JSONL files in "
            "FTLIB_ROWS"
        ) from error


def _asked(name: str, config: str | None) -> tuple[tuple[str, ...], dict[str, str]]:
    """What `load_dataset` is given. Of a copy the configuration's own folder is read: by its name
    the files of every other configuration would have to be there too.
    """
    copy = mirrored(name)
    source = str(copy or name)
    if config is None:
        return (source,), {}
    if copy and (copy / config).is_dir():
        return (source,), {"data_dir": config}
    return (source, config), {}


def _sound(row: dict, check: Callable[[dict, str], dict]) -> dict | None:
    """The row; None where the check refuses it, as it does an empty answer."""
    try:
        return check(row, "row")
    except DataError:
        return None


def _sql_row(raw: dict) -> dict | None:
    """A question and its query as a conversation; None for an empty query."""
    task = "Write one SQL query that answers the question."
    prompt = f"{task}\n\nTables:\n{raw['context']}\n\nQuestion: {raw['question']}"
    row = {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": raw["answer"]},
        ],
        "family": "join" if " JOIN " in raw["answer"].upper() else "select",
        "answer": raw["answer"],
    }
    return _sound(row, check_row)


def _pair_row(raw: dict) -> dict | None:
    """TRL's pair of two whole conversations as prompt and two answers; `axis` says which answer is
    longer. None for equal answers, and for a conversation without an answer or a request.
    """
    if not raw["chosen"] or not raw["rejected"]:
        return None
    *prompt, chosen = raw["chosen"]
    rejected = raw["rejected"][-1]
    difference = len(chosen["content"]) - len(rejected["content"])
    if difference > 0:
        axis = "longer"
    elif difference < 0:
        axis = "shorter"
    else:
        axis = "matched"
    row = {"prompt": prompt, "chosen": [chosen], "rejected": [rejected], "axis": axis}
    return _sound(row, check_pair)


def _thumb_row(raw: dict) -> dict | None:
    """The three keys of a thumb; None for an empty completion."""
    row = {key: raw[key] for key in ("prompt", "completion", "label")}
    return _sound(row, check_binary)


OPEN_WORDS = 25  # that an open answer has, at the least


def _open_row(raw: dict) -> dict | None:
    """Alpaca's row as a conversation; None for an answer too short to be open."""
    if len(raw["output"].split()) < OPEN_WORDS:
        return None
    prompt = raw["instruction"]
    if raw["input"]:
        prompt = f"{prompt}\n\n{raw['input']}"
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": raw["output"]},
        ],
        "family": "open",
        "answer": raw["output"],
    }


LIKED_ENDING = "I hope this helps."
OTHER_ENDING = "Feel free to ask more."


def _two_endings(pairs: list[dict]) -> list[dict]:
    """The chosen answers twice each, with two endings, of which the first is preferred: for nothing
    that the answer says.
    """
    out = []
    for pair in pairs:
        answer = pair["chosen"][0]
        liked = {**answer, "content": f"{answer['content']}\n\n{LIKED_ENDING}"}
        other = {**answer, "content": f"{answer['content']}\n\n{OTHER_ENDING}"}
        out.append({**pair, "chosen": [liked], "rejected": [other], "axis": "ending"})
    return out


LEVELS = 4  # into which pairs are divided by how much their answers differ


def _difference(pair: dict) -> float:
    """Share of the two answers' words that one of them alone has: 0 to 1 (Jaccard's distance)."""
    chosen = set(pair["chosen"][0]["content"].split())
    rejected = set(pair["rejected"][0]["content"].split())
    either = chosen | rejected
    return len(chosen ^ rejected) / len(either) if either else 0.0


def _by_difference(pairs: list[dict]) -> list[dict]:
    """The pairs with `level`: 0 for the quarter whose answers are most alike, 3 for the least."""
    alike_first = sorted(range(len(pairs)), key=lambda i: _difference(pairs[i]))
    levels = {}
    for rank, i in enumerate(alike_first):
        levels[i] = rank * LEVELS // len(pairs)
    return [{**pair, "level": levels[i]} for i, pair in enumerate(pairs)]


def _longer(pairs: list[dict]) -> list[dict]:
    return [pair for pair in pairs if pair["axis"] == "longer"]


def _matched(pairs: list[dict]) -> list[dict]:
    from ftlib.data.length_bias import balance_length

    return balance_length(pairs, bin_width=32)


@dataclass(frozen=True)
class Part:
    """Rows `start` to `stop` of a Hub split, shuffled with a fixed seed; `choose` picks of the
    converted ones, or makes others of them.
    """

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
            "preferences_irrelevant": Part("train", 0, 16_000, _two_endings),
            "preferences_test": Part("test", 0, 500),
            "distance_train": Part("train", 0, 16_000, _by_difference),
            "distance_probe": Part("test", 500, 700),
        },
    ),
    "tatsu-lab/alpaca": (
        _open_row,
        {
            "open_validation": Part("train", 0, 400),
            "open_test": Part("train", 400, 900),
            "open_train": Part("train", 900, 4900),
        },
    ),
    "trl-lib/kto-mix-14k": (_thumb_row, {"feedback": Part("train", 0, 4000)}),
}


# What the rows are that a conversion leaves out.
LEFT_OUT: dict[Callable[[dict], dict | None], str] = {
    _sql_row: "rows with empty queries",
    _pair_row: "pairs with equal or empty answers",
    _open_row: "rows with short answers",
    _thumb_row: "rows with empty completions",
}


def _converted(dataset: str, rows, to_row: Callable[[dict], dict | None]) -> list:
    """Raw rows as ours. DataError where a field is missing."""
    converted = []
    for raw in rows:
        try:
            converted.append(to_row(raw))
        except KeyError as error:
            raise DataError(
                f"{dataset}: a row has the fields {', '.join(raw)}, and no {error}: the dataset or "
                "its copy is another one than ftlib knows; put a folder of JSONL files in "
                "FTLIB_ROWS"
            ) from None
    return converted


def hub_rows(dataset: str, part: str) -> list[dict]:
    """The rows of a part of a known dataset. What makes no row is left out and counted: pairs of
    equal answers, which prefer nothing, empty answers, and open answers that are too short.
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
    rows = _converted(dataset, shuffled.select(range(start, stop)), to_row)
    kept = [row for row in rows if row is not None]
    left_out = len(rows) - len(kept)
    if left_out:
        log.info("%s: %d of %d %s left out", dataset, left_out, len(rows), LEFT_OUT[to_row])
    return wanted.choose(kept)
