"""The messy file that the notebook of lab 3.1.6 cleans: English in the profile pocket, of the
embedded world in every other. Only planted truth can be measured against, so no profile has a
file from the Hub.

The experiments (`trials`) train on the embedded file in every profile.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ftlib.core.profiles import Profile, get_profile
from ftlib.course.lab_3_1_6.near_copies import KEPT_OUT, KEPT_OUT_OF_LONG, ROWS, Kinds
from ftlib.course.lab_3_1_6.trials import MESSY, TRUTH, messy_rows
from ftlib.data.formats import convert
from ftlib.data.load import FOLDERS
from ftlib.data.stream import stream_rows


@dataclass(frozen=True)
class MessyFiles:
    """A messy file, the truth about its lines, and what goes with them."""

    raw: Path
    truth: Path
    exam: str  # the profile of whose golden rows the file has copies
    about: str  # what its rows are, for the data card
    most_loss: float  # to which losses of its answers are drawn, nats per token
    compared: int  # rows among which copies are looked for in any setting of the rule
    kinds: Kinds  # of copies that the rule for near copies was not made for
    ranked: int  # rows that are ranked by the loss of their answers
    keeps_wrong: bool = False  # among those: every wrong answer, and fewer right ones


EMBEDDED = MessyFiles(
    MESSY,
    TRUTH,
    "tiny",
    "Short instructions of a made-up world with one answer each, in English, as messages.",
    most_loss=12,
    compared=ROWS,
    kinds=KEPT_OUT,
    ranked=900,
)
ENGLISH = MessyFiles(
    FOLDERS["english"] / "messy.jsonl",
    FOLDERS["english"] / "messy_truth.jsonl",
    "pocket",
    "Messages and short notes about invented people, in English, each with one JSON object as "
    "its answer.",
    most_loss=2,
    # Fewer, since its rows are longer and the model is larger: a loss for every row would take
    # minutes, and few have a wrong answer.
    compared=300,
    kinds=KEPT_OUT_OF_LONG,
    ranked=96,
    keeps_wrong=True,
)


def messy_files(profile: str | Profile | None = None) -> MessyFiles:
    """The profile's own messy file: English where its rows are, else the embedded world's."""
    return ENGLISH if get_profile(profile).dataset == "english" else EMBEDDED


def read_truth(files: MessyFiles) -> dict[int, dict]:
    """Line number -> what was planted there."""
    planted = {}
    for text in files.truth.read_text(encoding="utf-8").splitlines():
        entry = json.loads(text)
        planted[entry["line"]] = entry
    return planted


def readable_rows(files: MessyFiles) -> list[dict]:
    """The readable rows with an answer as messages, each with its `line` and the `truth` about it,
    as `trials.messy_rows` gives those of the embedded file.
    """
    if files == EMBEDDED:
        return list(messy_rows())  # kept in memory, for the experiments too
    planted = read_truth(files)
    rows = []
    for row in stream_rows(files.raw, check=_with_line, max_reject_share=0.1, progress=False):
        if row["messages"][-1]["content"].strip():
            rows.append({**row, "truth": planted[row["line"]]})
    return rows


def rows_to_rank(files: MessyFiles, rows: list[dict], is_wrong: Callable[[dict], bool]) -> list:
    """The first `ranked` of these rows, in their order; where the file `keeps_wrong`, every row
    with a wrong answer and as many right ones as there is room for.
    """
    if not files.keeps_wrong:
        return rows[: files.ranked]
    wrong = [row for row in rows if is_wrong(row)]
    right = [row for row in rows if not is_wrong(row)]
    chosen = wrong + right[: max(0, files.ranked - len(wrong))]
    lines = {row["line"] for row in chosen}
    return [row for row in rows if row["line"] in lines]


def _with_line(row: dict, where: str) -> dict:
    return {"messages": convert(row)["messages"], "line": int(where.rpartition(":")[2])}
