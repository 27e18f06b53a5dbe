"""What a row is: one JSON object, strictly read, of one of three kinds. A row that is not says what is wrong and where.

    messages     {"messages": [{"role", "content"}, …]}, the assistant last: supervised fine-tuning
    preference   {"prompt", "chosen", "rejected"}: texts, or lists of messages
    binary       {"prompt", "completion", "label": true or false}: texts, or lists of messages
"""
from __future__ import annotations

import json
import math
import re

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class DataError(ValueError):
    """Rows that cannot be used: names file, line or row, the reason and the mend."""


# --- strict JSON --------------------------------------------------------------------------------------------------------
def _once(pairs: list[tuple]) -> dict:
    out = dict(pairs)
    if len(out) < len(pairs):
        keys = [k for k, _ in pairs]
        raise DataError(f"the key {next(k for k in keys if keys.count(k) > 1)[:60]!r} stands twice in one object: keep one of them")
    return out


def _no_constant(name: str):
    raise DataError(f"not valid JSON ({name} is no JSON value): use null or a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise DataError(f"the number {digits[:40]} is too large for a float")
    return value


STRICT = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)


def check_encodable(value, text: str):
    """The value, unless an escape in its JSON `text` left half of a surrogate pair, which no file and no tokenizer takes."""
    if _ESCAPED_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(f"the escape \\u{ord(error.object[error.start]):04x} is half of a character: write both halves, or the character") from None
    return value


def parse_json(line: bytes | str):
    """One JSON value. DataError says what is wrong: not UTF-8, not JSON, a key twice, NaN or infinity, half a surrogate pair, a
    number of thousands of digits, or nesting beyond Python's depth."""
    try:
        text = line if isinstance(line, str) else line.decode("utf-8")
        return check_encodable(STRICT.decode(text), text)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"not valid JSON ({error.msg} at column {error.colno})") from None
    except RecursionError:
        raise DataError("not usable JSON: nested too deep") from None
    except DataError:
        raise
    except ValueError as error:  # an integer of more than 4,300 digits
        raise DataError(f"not usable JSON ({error})") from None


# --- kinds of row -------------------------------------------------------------------------------------------------------
def check_messages(messages, where: str, name: str) -> list[dict]:
    """Raise DataError unless `messages` is a non-empty list of {"role", "content"} with text in both."""
    if not isinstance(messages, list) or not messages:
        raise DataError(f"{where}: no list {name!r}; a row is {{\"{name}\": [{{\"role\", \"content\"}}, …]}}")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not all(isinstance(message.get(k), str) for k in ("role", "content")):
            at = f"message {i}" if name == "messages" else f"message {i} of {name!r}"
            raise DataError(f"{where}: {at} needs the strings 'role' and 'content', got {repr(message)[:200]}")
    return messages


def check_row(row, where: str) -> dict:
    """Raise DataError unless the row holds non-empty messages that end with the assistant."""
    messages = check_messages(row.get("messages") if isinstance(row, dict) else None, where, "messages")
    if messages[-1]["role"] != "assistant" or not messages[-1]["content"].strip():
        raise DataError(f"{where}: the last message must be a non-empty answer of the assistant")
    return row


def _check_part(row, key: str, where: str) -> None:
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, list):
        value = check_messages(value, where, key)[-1]["content"]
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key!r} is {repr(value)[:60]}: a text or a list of messages that is not empty is needed")


def check_pair(row, where: str) -> dict:
    """Raise DataError unless the row is a preference: prompt, chosen and rejected, the last two not equal."""
    for key in ("prompt", "chosen", "rejected"):
        _check_part(row, key, where)
    if row["chosen"] == row["rejected"]:
        raise DataError(f"{where}: 'chosen' and 'rejected' are equal: there is nothing to prefer")
    return row


def check_binary(row, where: str) -> dict:
    """Raise DataError unless the row is a judgement: prompt, completion, and a label that is true or false."""
    for key in ("prompt", "completion"):
        _check_part(row, key, where)
    if not isinstance(row.get("label"), bool):
        raise DataError(f"{where}: 'label' is {repr(row.get('label'))[:60]}: true or false is needed")
    return row


CHECKS = {"messages": check_row, "preference": check_pair, "binary": check_binary}
