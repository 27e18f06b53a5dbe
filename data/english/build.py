"""Writes the English rows: `python -m data.english.build`. Seconds; the same rows every time."""

from __future__ import annotations

from pathlib import Path

from data.build import write_jsonl, write_lines
from data.english.knowledge import knowledge_rows
from data.english.messages import message_rows
from data.english.messy import messy_parts
from data.english.plain_text import text_rows
from data.english.queries import query_rows
from data.english.replies import reply_rows
from data.english.requests import request_rows
from data.english.strangers import stranger_rows

ROWS = Path(__file__).parent / "rows"


def english_rows() -> dict[str, list[dict]]:
    """Every part by the name of its file."""
    return {
        **message_rows(),
        **query_rows(),
        **reply_rows(),
        **request_rows(),
        **stranger_rows(),
        "knowledge": knowledge_rows(),
        "base_text": text_rows(),
    }


def main() -> None:
    ROWS.mkdir(exist_ok=True)
    parts = english_rows()
    for name, rows in parts.items():
        write_jsonl(ROWS / f"{name}.jsonl", rows)
        print(f"{name}: {len(rows)} rows")
    lines, truth = messy_parts(parts["train"], parts["golden"])
    write_lines(ROWS / "messy.jsonl", lines)
    write_jsonl(ROWS / "messy_truth.jsonl", truth)
    print(f"messy: {len(lines)} raw lines")


if __name__ == "__main__":
    main()
