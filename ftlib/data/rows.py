"""What a row is: one JSON object, strictly read, of one of three kinds. A row that is not says what
is wrong and where.

messages     {"messages": [{"role", "content"}, …]}, the assistant last: supervised fine-tuning;
             a turn of the assistant may have "tool_calls" and "weight" (0: context only), the row
             "tools"
preference   {"prompt", "chosen", "rejected"}: texts, or a list of messages and a list of one
             answer each
binary       {"prompt", "completion", "label": true or false}: likewise
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Iterable

from ftlib.core.errors import DataError, PairError

# Who speaks: the names that chat templates know. Another one would be written into the text as it
# is, and no model has learnt it.
ROLES = ("system", "developer", "user", "assistant", "tool", "ipython", "function")

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


# --- strict JSON ----------------------------------------------------------------------------------
def _once(pairs: list[tuple]) -> dict:
    """An object of these keys and values; DataError where a key is there twice."""
    out = dict(pairs)
    if len(out) < len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, count in counts.items() if count > 1)
        raise DataError(f"the key {twice[:60]!r} is there twice in one object: keep one of them")
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
    """The value, unless an escape in its JSON `text` left half of a surrogate pair, which no file
    and no tokenizer takes.
    """
    if _ESCAPED_SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DataError(
                f"the escape \\u{ord(error.object[error.start]):04x} is half of a character: "
                "write both halves, or the character"
            ) from None
    return value


def parse_json(line: bytes | str):
    """One JSON value. DataError says what is wrong: not UTF-8, not JSON, a key twice, NaN or
    infinity, half a surrogate pair, a number of thousands of digits, or nesting beyond Python's
    depth.
    """
    try:
        text = line if isinstance(line, str) else line.decode("utf-8")
        return check_encodable(STRICT.decode(text), text)
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 ({error.reason} at byte {error.start})") from None
    except json.JSONDecodeError as error:
        what = error.msg.removesuffix(" at")  # as in "Invalid control character at"
        raise DataError(f"not valid JSON ({what} at column {error.colno})") from None
    except RecursionError:
        raise DataError("not usable JSON: nested too deep") from None
    except DataError:
        raise
    except ValueError as error:  # an integer of more than 4,300 digits
        raise DataError(f"not usable JSON ({error})") from None


# --- kinds of row ---------------------------------------------------------------------------------
def is_message(value) -> bool:
    """Whether a value is a message: an object with the texts `role` and `content`."""
    if not isinstance(value, dict):
        return False
    return isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def check_object(row, where: str) -> dict:
    """The row, if it is a JSON object, whatever its keys; DataError if not."""
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is an object {{…}}, not {type(row).__name__}")
    return row


def check_turn(message, i: int, where: str, error: type[DataError] = DataError) -> None:
    """Raise `error` unless message `i` has a role of `ROLES` and a content, both strings."""
    if not is_message(message):
        hint = ""
        if isinstance(message, dict) and message.get("tool_calls"):
            hint = "; beside tool_calls the content may be ''"
        raise error(
            f"{where}: message {i} needs the strings 'role' and 'content', got "
            f"{repr(message)[:200]}{hint}"
        )
    if message["role"] not in ROLES:
        raise error(
            f"{where}: message {i} has the role {message['role'][:60]!r}: use one of "
            f"{', '.join(ROLES)} (ftlib.convert translates ShareGPT's human and gpt)"
        )


def says_something(message: dict) -> bool:
    """Whether a message has text or calls a tool."""
    return bool(message["content"].strip() or message.get("tool_calls"))


def check_row(row, where: str) -> dict:
    """Raise DataError unless the row holds messages of known roles that end with an answer of the
    assistant: text, or tool calls.
    """
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise DataError(
            f'{where}: no list \'messages\'; a row is {{"messages": [{{"role", "content"}}, …]}}'
        )
    for i, message in enumerate(messages):
        check_turn(message, i, where)
    last = messages[-1]
    if last["role"] != "assistant" or not says_something(last):
        raise DataError(
            f"{where}: the last message must be a non-empty answer of the assistant, it is "
            f"{last['role']!r} {last['content'][:40]!r}: add the answer, or leave the row out"
        )
    return row


def completion_text(completion) -> str:
    """The text of a completion: itself, or the content of its one message."""
    if isinstance(completion, str):
        return completion
    return completion[0]["content"]


def _said(completion: str | list[dict]) -> tuple[str, object]:
    """The text of a completion, and the tools that it calls."""
    calls = None if isinstance(completion, str) else completion[0].get("tool_calls")
    return completion_text(completion), calls


def check_prompt(prompt, where: str) -> None:
    """PairError unless a prompt is text, or messages of which the user's is the last, not empty."""
    if isinstance(prompt, str) and prompt.strip():
        return
    is_list = isinstance(prompt, list) and len(prompt) > 0
    if not is_list or not all(is_message(message) for message in prompt):
        raise PairError(
            f"{where}: prompt is {repr(prompt)[:60]}: text, or a list of {{'role', 'content'}}, "
            "is needed"
        )
    for i, message in enumerate(prompt):
        check_turn(message, i, f"{where}: prompt", PairError)
    last = prompt[-1]
    if last["role"] not in ("user", "tool") or not last["content"].strip():
        raise PairError(
            f"{where}: prompt ends with {last['role']!r} {last['content'][:40]!r}: "
            "it must end with the user's turn, not empty"
        )


def _is_one_answer(value) -> bool:
    """Whether a value is a list of one message, the assistant's."""
    if not isinstance(value, list) or len(value) != 1:
        return False
    return is_message(value[0]) and value[0]["role"] == "assistant"


def check_completion(row: dict, key: str, where: str) -> None:
    """PairError unless row[key] is a completion of the kind that the row's prompt is: text, or a
    list of one message of the assistant; not empty.
    """
    value = row.get(key)
    is_plain = isinstance(row["prompt"], str)
    if is_plain != isinstance(value, str):
        form = "a list of one assistant message, as the prompt is of messages"
        if is_plain:
            form = "text, as the prompt is"
        raise PairError(f"{where}: {key} is {repr(value)[:60]}: {form}, is needed")
    if not is_plain and not _is_one_answer(value):
        raise PairError(
            f"{where}: {key} is {repr(value)[:60]}: one message of the assistant is needed, in a "
            "list"
        )
    [message] = [{"content": value}] if isinstance(value, str) else row[key]
    if not says_something(message):
        raise PairError(
            f"{where}: {key} is empty: a completion must say something; leave the row out"
        )


def check_pair(row, where: str = "pair") -> dict:
    """The pair itself, or PairError: prompt not ending with the user's turn, empty completion,
    chosen equal to rejected.
    """
    if not isinstance(row, dict) or "prompt" not in row:
        raise PairError(
            f"{where}: no 'prompt' in {repr(row)[:60]}: a pair is {{'prompt', 'chosen', "
            "'rejected'}, the prompt apart from the answers"
        )
    check_prompt(row["prompt"], where)
    for key in ("chosen", "rejected"):
        check_completion(row, key, where)
    if _said(row["chosen"]) == _said(row["rejected"]):
        text = completion_text(row["chosen"])[:40]
        raise PairError(
            f"{where}: chosen equals rejected ({text!r}): nothing is preferred; leave the pair out"
        )
    return row


def check_binary(row, where: str = "row") -> dict:
    """The binary row itself, or PairError: prompt or completion as in `check_pair`, label not True
    or False.
    """
    if not isinstance(row, dict) or "prompt" not in row:
        raise PairError(
            f"{where}: no 'prompt' in {repr(row)[:60]}: a binary row is {{'prompt', 'completion', "
            "'label'}"
        )
    check_prompt(row["prompt"], where)
    check_completion(row, "completion", where)
    if not isinstance(row.get("label"), bool):
        raise PairError(
            f"{where}: label is {repr(row.get('label'))[:60]}: True (thumbs up) or False (thumbs "
            "down) is needed"
        )
    return row


def check_any(row, where: str = "row") -> dict:
    """The row checked as what its keys say: a pair ("chosen"), binary feedback ("completion"), else
    a conversation.
    """
    keys = row if isinstance(row, dict) else ()
    if "chosen" in keys:
        return check_pair(row, where)
    if "completion" in keys:
        return check_binary(row, where)
    return check_row(row, where)


CHECKS = {"messages": check_row, "preference": check_pair, "binary": check_binary}


def fingerprint(rows: Iterable) -> str:
    """SHA-256 over the rows in order: equal data, equal fingerprint. Dates, which a Parquet table
    may hold, count as their ISO text. DataError for any other value that JSON does not have.
    """
    digest = hashlib.sha256()
    for number, row in enumerate(rows):
        try:
            text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_date_text)
        except TypeError as error:
            raise DataError(f"row {number} cannot be fingerprinted: {error}") from None
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def _date_text(value) -> str:
    if isinstance(value, (datetime.date, datetime.time)):  # a datetime is a date
        return value.isoformat()
    raise TypeError(
        f"{str(value)[:60]!r} is a {type(value).__name__}: turn it into text or a number"
    )
