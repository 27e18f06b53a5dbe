"""Stand-ins for all that the profiles small and spark fetch: models of the real architectures with
random weights and few dimensions, and datasets with the real ones' files, columns and types.

    python -m tools.stand_in_hub FOLDER
    FTLIB_HUB=FOLDER ftlib labs --profile small --rehearse

A lab's whole path is walked so before its first hour on a GPU; what it prints means nothing. What
is known of the real ones, and what is not, says LAB_PREP.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from datasets import Dataset

from tools.stand_in_models import english, write_models


def _write_parquet(folder: Path, hub_id: str, split: str, rows: list[dict]) -> None:
    """As `push_to_hub` leaves a split: it is found by the name of its file."""
    place = folder / hub_id / "data"
    place.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(rows).to_parquet(place / f"{split}-00000-of-00001.parquet")


def _turn(role: str, content: str) -> dict:
    """A message with its keys in the order of TRL's datasets."""
    return {"content": content, "role": role}


def _turns(messages: list[dict]) -> list[dict]:
    return [_turn(message["role"], message["content"]) for message in messages]


def _repeated(rows: list[dict], count: int) -> Iterator[tuple[int, dict]]:
    for i in range(count):
        yield i, rows[i % len(rows)]


def sql_rows(count: int) -> list[dict]:
    """question, context and answer, strings: some with JOIN, quotes and several tables."""
    made = []
    for i, row in _repeated(english("sql_train"), count):
        question = row["messages"][0]["content"].split("\n\n")[-1]
        answer = row["answer"]
        if i % 9 == 0:
            answer = f"SELECT T1.name FROM a AS T1 JOIN b AS T2 ON T1.id = T2.id WHERE T2.n = {i}"
        made.append({"answer": answer, "question": question, "context": row["schema"]})
    return made


def pair_rows(count: int) -> list[dict]:
    """chosen and rejected, whole conversations, with scores; some with equal answers, some with
    an empty one, some with a system turn or several turns.
    """
    made = []
    for i, row in _repeated(english("preferences"), count):
        prompt = [_turn("user", f"({i}) {row['prompt'][0]['content']}")]
        if i % 7 == 0:
            prompt += [_turn("assistant", "Which style?"), _turn("user", "The house's.")]
        if i % 11 == 0:
            prompt.insert(0, _turn("system", "Answer in the house's style."))
        rejected = row["chosen"] if i % 50 == 0 else row["rejected"]
        if i % 400 == 1:
            rejected = [_turn("assistant", "")]
        made.append(
            {
                "chosen": [*prompt, *_turns(row["chosen"])],
                "rejected": [*prompt, *_turns(rejected)],
                "score_chosen": float(5 + i % 6),
                "score_rejected": float(i % 5),
            }
        )
    return made


INTRODUCTION = "Below is an instruction that describes a task"
FURTHER = ", paired with an input that provides further context"
REQUEST = ". Write a response that appropriately completes the request.\n\n"


def alpaca_text(instruction: str, given: str, output: str) -> str:
    """Alpaca's `text`: instruction, input and output in the prompt that it was trained with."""
    further = FURTHER if given else ""
    middle = f"### Input:\n{given}\n\n" if given else ""
    request = f"{INTRODUCTION}{further}{REQUEST}### Instruction:\n{instruction}\n\n{middle}"
    return f"{request}### Response:\n{output}"


def alpaca_rows(count: int) -> list[dict]:
    """instruction, input (often empty), output and text; some answers too short to be open, some
    empty, some with mail addresses and duplicates.
    """
    made = []
    for i, row in _repeated(english("open_train"), count):
        instruction, _, given = row["messages"][0]["content"].partition("\n\n")
        output = row["answer"] if i % 5 else "Yes."
        if i % 97 == 0:
            output = ""
        if i % 40 == 0:
            given = f"{given}\nMail: kim{i}@example.org"
        asked = f"{instruction} ({i % 300})"
        shown = given if i % 3 else ""
        made.append(
            {
                "instruction": asked,
                "input": shown,
                "output": output,
                "text": alpaca_text(asked, shown, output),
            }
        )
    return made


def thumb_rows(count: int) -> list[dict]:
    """prompt and completion, lists of messages, and label; some prompts with several turns."""
    made = []
    for i, row in _repeated(english("preferences"), count):
        liked = i % 2 == 0
        prompt = [_turn("user", f"({i}) {row['prompt'][0]['content']}")]
        if i % 3 == 0:
            prompt += [_turn("assistant", "Which style?"), _turn("user", "The house's.")]
        made.append(
            {
                "prompt": prompt,
                "completion": _turns(row["chosen"] if liked else row["rejected"]),
                "label": liked,
            }
        )
    return made


WIKITEXT = "wikitext-2-raw-v1"


def write_sql(folder: Path) -> None:
    """One file, a JSON list of objects."""
    place = folder / "b-mc2" / "sql-create-context"
    place.mkdir(parents=True)
    text = json.dumps(sql_rows(4400), ensure_ascii=False, indent=2)
    (place / "sql_create_context_v4.json").write_text(text, encoding="utf-8")


def write_wikitext(folder: Path) -> None:
    """One configuration's folder; a line of an article is a row, and so is an empty line."""
    place = folder / "Salesforce" / "wikitext" / WIKITEXT
    place.mkdir(parents=True)
    rows = [{"text": ""}, {"text": " = A = \n"}]
    for row in english("base_text"):
        rows.append({"text": f" {row['text']} {row['text']} \n"})
    for split in ("test", "train", "validation"):
        Dataset.from_list(rows).to_parquet(place / f"{split}-00000-of-00001.parquet")


def write_datasets(folder: Path) -> None:
    write_sql(folder)
    _write_parquet(folder, "trl-lib/ultrafeedback_binarized", "train", pair_rows(18_000))
    _write_parquet(folder, "trl-lib/ultrafeedback_binarized", "test", pair_rows(1000))
    _write_parquet(folder, "tatsu-lab/alpaca", "train", alpaca_rows(6000))
    _write_parquet(folder, "trl-lib/kto-mix-14k", "train", thumb_rows(4000))
    _write_parquet(folder, "trl-lib/kto-mix-14k", "test", thumb_rows(400))
    write_wikitext(folder)


def main(folder: str) -> None:
    place = Path(folder).resolve()
    write_datasets(place)
    write_models(place)
    print(f"FTLIB_HUB={place}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.stand_in_hub FOLDER")
    main(sys.argv[1])
