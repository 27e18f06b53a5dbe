"""The texts of a row, whatever it is for: one way to read them, and one to change them.

A row for SFT has `messages`; for preferences `prompt`, `chosen`, `rejected`; for binary feedback
`prompt`, `completion`, `label`; for pretraining `text`. Each of these is a string or a list of
messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ftlib.core.errors import DataError

FIELDS = {
    "messages": "user",
    "prompt": "user",
    "chosen": "assistant",
    "rejected": "assistant",
    "completion": "assistant",
    "text": "text",
}  # in reading order; the role of a field that is a plain string
# Words; in scripts without spaces (Thai, Japanese, Chinese) each character is one.
_ALONE = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORDS = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_TOKENS = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|[^\w\s]")
_CODE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|(?:^|(?<=\n))(?: {4}|\t)[^\n]*", re.DOTALL
)


def _field(row: dict, field: str) -> list[tuple[str, str]]:
    value = row[field]
    if isinstance(value, str):
        return [(FIELDS[field], value)]
    if isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str)
        for m in value
    ):
        return [(m["role"], m["content"]) for m in value]
    raise DataError(
        f"{field} is {str(value)[:60]!r}: a string or a list of {{'role', 'content'}} is needed"
    )


def _fields(row: dict) -> list[str]:
    fields = [f for f in FIELDS if f in row] if isinstance(row, dict) else []
    if not fields:
        keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise DataError(f"the row has {keys or 'no keys'}: one of {', '.join(FIELDS)} is needed")
    return fields


def row_parts(row: dict) -> list[tuple[str, str]]:
    """(role, text) of all that the row says, in reading order. DataError where there is nothing, or
    it is no text.
    """
    return [part for field in _fields(row) for part in _field(row, field)]


def row_text(row: dict) -> str:
    """All texts of the row, a line break between them."""
    return "\n".join(text for _, text in row_parts(row))


def row_answers(row: dict) -> list[tuple[str, str]]:
    """(question, answer) for each answer that training would teach: of the assistant in messages,
    `chosen`, and a `completion` that is not labelled False. What is rejected may be bad: that is
    its use.
    """
    pairs, question = [], ""
    for field in _fields(row):
        if field == "rejected" or (field == "completion" and row.get("label") is False):
            continue
        for role, text in _field(row, field):
            if role == "assistant" and field != "prompt":
                pairs.append((question, text))
            question = text if role == "user" else question
    return pairs


def map_texts(row: dict, change: Callable[[str], str]) -> dict:
    """The row with `change` applied to every text, and to `answer` if that is one; the very same
    row where nothing changes.
    """
    new = dict(row)
    for field in [*_fields(row), *(["answer"] if isinstance(row.get("answer"), str) else [])]:
        if isinstance(row[field], str):
            new[field] = change(row[field])
        else:
            _field(row, field)  # its form
            new[field] = [{**m, "content": change(m["content"])} for m in row[field]]
    return row if new == row else new


def words(text: str) -> list[str]:
    """Words and numbers in lower case, without punctuation: the same for a re-cased or
    re-punctuated copy.
    """
    return _WORDS.findall(text.casefold())


def tokens(text: str) -> list[str]:
    """Words in lower case, and each mark of punctuation."""
    return _TOKENS.findall(text.casefold())


def outside_code(text: str, change: Callable[[str], str]) -> str:
    """The text with `change` applied between code: fenced, `inline`, or indented by four spaces or
    a tab.
    """
    pieces, at = [], 0
    for code in _CODE.finditer(text):
        pieces += [change(text[at : code.start()]), code[0]]
        at = code.end()
    return "".join([*pieces, change(text[at:])])


def prose(text: str) -> str:
    """The text without its code."""
    return _CODE.sub(" ", text)
