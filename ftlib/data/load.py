"""The rows of a part, such as "train" or "golden": embedded, of the Hub, or of a folder that
`FTLIB_ROWS` names.
"""

from __future__ import annotations

import os
from pathlib import Path

from ftlib.core.errors import DataError
from ftlib.core.paths import DATA
from ftlib.core.profiles import Profile, get_profile
from ftlib.data.hub import fetch, hub_rows
from ftlib.data.rows import check_any
from ftlib.data.stream import read_jsonl


# --- rows of a profile ----------------------------------------------------------------------------
def load_raw(profile=None) -> list[dict]:
    """The first `preparation.rows` rows of the profile's raw set, as they are: to be converted,
    cleaned and filtered. Embedded, training rows.

    A Hub set is read under the keys of its format alone; Alpaca's `text` holds question and answer
    a second time.
    """
    profile = get_profile(profile)
    raw = profile.preparation
    if raw.dataset in FOLDERS:
        return load_rows("train", profile)[: raw.rows]
    rows = []
    for row in fetch(raw.dataset, f"train[:{raw.rows}]"):
        rows.append({key: value for key, value in row.items() if key != "text"})
    return rows


def _dataset(profile, split: str) -> str:
    """The dataset from which a profile takes a split."""
    if split.startswith("faults") and profile.preference.pairs not in FOLDERS:
        return COUNTED
    if split.startswith(("preferences", "faults", "distance")):
        return profile.preference.pairs
    if split.startswith("open_"):
        return profile.open.dataset
    if split == "feedback":
        return profile.preference.feedback
    return profile.dataset


# What comes with the course, by the name of the dataset: the embedded world, and English.
FOLDERS = {"embedded": DATA / "rows", "english": DATA / "english" / "rows"}
COUNTED = "english"  # for profiles of the Hub, whose pairs have no truth to count faults by
# Files beside the rows that are read otherwise.
NO_ROWS = ("base_text", "messy", "messy_truth", "messy_heldback", "messy_heldback_truth")


def load_rows(split: str, profile: str | Profile | None = None) -> list[dict]:
    """The profile's rows for a split: "train", "validation", "golden"; preference pairs:
    "preferences", "preferences_long" (chosen is always longer), "preferences_matched" (length says
    nothing), "preferences_irrelevant" (for nothing that a judge looks at), "preferences_test" (held
    out); thumbs: "feedback".

    Open requests with many acceptable answers: "open_train" (few rows), "open_validation",
    "open_test". Pairs whose chosen answer is imperfect too, and whose faults a rule counts:
    "faults_train", "faults_irrelevant", "faults_validation", "faults_test" (English ones in the
    profiles of the Hub). Pairs by how much their answers differ (`level`, from 0):
    "distance_train", with held-out answers to watch, "distance_probe".

    Embedded, every file in data/rows but base_text, which `load_base_text` reads, and the messy
    files, whose lines are not all rows. English (the profile pocket), likewise every file in
    data/english/rows; the rows of "requests_train", "requests_validation" and "requests_test" have
    `constraints`, which `constraints_met` judges.
    """
    profile = get_profile(profile)
    local = os.environ.get("FTLIB_ROWS")
    if local:
        return read_jsonl(Path(local) / f"{split}.jsonl", check=check_any)
    dataset = _dataset(profile, split)
    if dataset not in FOLDERS:
        return hub_rows(dataset, split)
    file = FOLDERS[dataset] / f"{split}.jsonl"
    if not file.is_file() or split in NO_ROWS:
        names = {path.stem for path in file.parent.glob("*.jsonl")}
        known = ", ".join(sorted(names.difference(NO_ROWS)))
        raise DataError(f"the {dataset} data has no split {split!r}: use {known}")
    return read_jsonl(file, check=check_any)


def _check_base_text(row, where: str) -> dict:
    """The row, if it is an object with a text; DataError if not."""
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        raise DataError(f"{where}: one JSON object with 'text' a line is needed")
    return row


def load_base_text(profile: str | Profile | None = None, count: int = 200) -> list[str]:
    """Held-out text of the base model's own domain, to measure forgetting."""
    profile = get_profile(profile)
    local = os.environ.get("FTLIB_ROWS")
    if local or profile.dataset in FOLDERS:
        folder = Path(local) if local else FOLDERS[profile.dataset]
        file = folder / "base_text.jsonl"
        if not file.is_file():
            raise DataError(f"{file} does not exist: one JSON object with 'text' a line")
        texts = [row["text"] for row in read_jsonl(file, check=_check_base_text)]
        return texts[:count]
    rows = fetch("Salesforce/wikitext", "validation", config="wikitext-2-raw-v1")
    texts = [row["text"] for row in rows if len(row["text"]) > 200]
    return texts[:count]
