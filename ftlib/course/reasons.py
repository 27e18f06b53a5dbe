"""A row's reason in the file of marks: notes, and what each check said, in one cell of the CSV that
can be taken apart again.

The texts of a submission (errors, names of files) get into it. They cannot pass for what a check
said of another exercise: in a check's words the start of another's is changed, and of two texts
with an exercise's name the last is the check's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

CHANGES = "its code changes "  # how the note begins that comes last


def join_reason(notes: Iterable[str], said: dict[str, str], changed: Iterable[str] = ()) -> str:
    """`said`: exercise -> its check's words. `changed`: the notes that come after them."""
    parts = list(notes)
    for name, words in said.items():
        for other in said:
            words = words.replace(f"; {other}: ", f", {other}: ")
        parts.append(f"{name}: {words}")
    return "; ".join([*parts, *changed])


def split_reason(reason: str, lost: list[str]) -> tuple[str, dict[str, str]]:
    """(notes, exercise -> its check's words) of a row's reason. `lost`: the exercises that have no
    points; what stands with another's name is a note.
    """
    tail = re.search(rf"(?:^|; )({CHANGES}[\w.]+(?:, [\w.]+)*(?: and \d+ more)?)$", reason)
    head = reason[: tail.start()] if tail else reason
    start = len(head)
    end = len(head)
    said: dict[str, str] = {}
    names = "|".join(map(re.escape, lost))
    found = list(re.finditer(rf"(?:^|; )({names}): ", head)) if lost else []
    for match in reversed(found):
        if match[1] not in said:
            said[match[1]] = head[match.end() : end]
            start = match.start()
        end = match.start()
    notes = [head[:start], tail[1] if tail else ""]
    return "; ".join(note for note in notes if note), said
