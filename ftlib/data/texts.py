"""The texts of a row, whatever it is for: one way to read them, and one to change them.

A row for SFT has `messages`; for preferences `prompt`, `chosen`, `rejected`; for binary feedback
`prompt`, `completion`, `label`; for pretraining `text`. Each of these is a string or a list of
messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ftlib.core.errors import DataError
from ftlib.data.rows import is_message

FIELDS = {  # in reading order: the role of a field that is a plain string
    "messages": "user",
    "prompt": "user",
    "chosen": "assistant",
    "rejected": "assistant",
    "completion": "assistant",
    "text": "text",
}
# Words; in scripts without spaces (Thai, Japanese, Chinese) each character is one.
_ALONE = "\u0e00-\u0eff\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORDS = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_TOKENS = re.compile(rf"[{_ALONE}]|[^\W{_ALONE}]+|[^\w\s]")
_CODE = re.compile(
    r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`|(?:^|(?<=\n))(?: {4}|\t)[^\n]*", re.DOTALL
)


def _field(row: dict, field: str) -> list[tuple[str, str]]:
    """(role, text) of what a field says; DataError where it is neither text nor messages."""
    value = row[field]
    if isinstance(value, str):
        return [(FIELDS[field], value)]
    if not isinstance(value, list) or not all(is_message(message) for message in value):
        raise DataError(
            f"{field} is {str(value)[:60]!r}: a string or a list of {{'role', 'content'}} is needed"
        )
    return [(message["role"], message["content"]) for message in value]


def _fields(row: dict) -> list[str]:
    """The fields with texts that a row has, in reading order; DataError where it has none."""
    keys = list(row) if isinstance(row, dict) else []
    fields = [field for field in FIELDS if field in keys]
    if not fields:
        has = ", ".join(map(str, keys)) or "no keys"
        if not isinstance(row, dict):
            has = type(row).__name__
        raise DataError(f"the row has {has}: one of {', '.join(FIELDS)} is needed")
    return fields


def row_parts(row: dict) -> list[tuple[str, str]]:
    """(role, text) of all that the row says, in reading order. DataError where there is nothing, or
    it is no text.
    """
    parts = []
    for field in _fields(row):
        parts += _field(row, field)
    return parts


def row_text(row: dict) -> str:
    """All texts of the row, a line break between them."""
    return "\n".join(text for _, text in row_parts(row))


def row_answers(row: dict) -> list[tuple[str, str]]:
    """(question, answer) for each answer that training would teach: of the assistant in messages,
    `chosen`, and a `completion` that is not labelled False. What is rejected may be bad: that is
    its use.
    """
    pairs = []
    question = ""
    for field in _fields(row):
        is_thumbs_down = field == "completion" and row.get("label") is False
        if field == "rejected" or is_thumbs_down:
            continue
        for role, text in _field(row, field):
            if role == "user":
                question = text
            elif role == "assistant" and field != "prompt":
                pairs.append((question, text))
    return pairs


def map_texts(row: dict, change: Callable[[str], str]) -> dict:
    """The row with `change` applied to every text, and to `answer` if that is one; the very same
    row where nothing changes.
    """
    fields = _fields(row)
    if isinstance(row.get("answer"), str):
        fields.append("answer")
    new = dict(row)
    for field in fields:
        value = row[field]
        if isinstance(value, str):
            new[field] = change(value)
            continue
        _field(row, field)  # DataError unless these are messages
        new[field] = [{**message, "content": change(message["content"])} for message in value]
    return row if new == row else new


def text_length(text: str, tokenizer=None) -> int:
    """How long a text is: in characters, or in tokens where a tokenizer is given, without the
    special ones that it would add.
    """
    if tokenizer is None:
        return len(text)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


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
    pieces = []
    at = 0
    for code in _CODE.finditer(text):
        pieces.append(change(text[at : code.start()]))
        pieces.append(code[0])
        at = code.end()
    pieces.append(change(text[at:]))
    return "".join(pieces)


def prose(text: str) -> str:
    """The text without its code."""
    return _CODE.sub(" ", text)
