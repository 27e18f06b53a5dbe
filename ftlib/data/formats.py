"""Conversation formats into one another without loss: Alpaca, ShareGPT, ChatML text, and OpenAI's
messages, which ftlib trains on.

A row is a dict; what a format does not speak of (an id, a family, a score) is carried along. What
the target format cannot say is refused by name rather than dropped. Where a format draws a line
that messages do not have (Alpaca's between instruction and input, ShareGPT's many names for a
role), the row keeps it under the format's name, so that the way back gives the same row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

from ftlib.core.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
SHAREGPT_ROLES = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
    "observation": "tool",
}
SHAREGPT_NAMES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "tool"}
ALPACA_KEYS = ("instruction", "input", "output", "system", "history")
JOIN = "\n\n"  # between an Alpaca row's instruction and its input
START = "<|im_start|>"
END = "<|im_end|>"


class FormatError(DataError):
    """A row that is not of its format, or that another format cannot hold: the key, its value and
    the fix.
    """


def _text(value, where: str) -> str:
    """The value, if it is text; FormatError if not."""
    if not isinstance(value, str):
        raise FormatError(f"{where} is {type(value).__name__} {str(value)[:60]!r}: text is needed")
    return value


def _carried(row: dict, taken: Iterable[str], made: Iterable[str]) -> dict:
    """The row's keys that are not `taken` from it; FormatError where one of those that are `made`
    would overwrite one of them.
    """
    rest = {key: value for key, value in row.items() if key not in taken}
    for key in made:
        if key in rest:
            raise FormatError(f"the row already has a key {key!r}: rename it before converting")
    return rest


def _kept(row: dict, name: str) -> dict:
    """What a row keeps under a format's name for the way back; FormatError unless an object."""
    kept = row.get(name, {})
    if not isinstance(kept, dict):
        raise FormatError(
            f"{name} is {str(kept)[:60]!r}: delete this key, which convert() writes as an object"
        )
    return kept


def check_messages(row: dict) -> list[dict]:
    """The row's messages, each with a known role and text; FormatError names what is not."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise FormatError(
            f"messages is {type(messages).__name__}: a list of {{'role', 'content'}} is needed"
        )
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else message
        if not isinstance(message, dict) or role not in ROLES:
            raise FormatError(
                f"message {i} has role {str(role)[:60]!r}: use one of {', '.join(ROLES)}"
            )
        more = [key for key in message if key not in ("role", "content")]
        if more:
            raise FormatError(
                f"message {i} has {more[0]!r}, which would be lost: tool calls and names are not "
                "converted"
            )
        _text(message.get("content"), f"message {i}'s content")
    return messages


# --- Alpaca ---------------------------------------------------------------------------------------
def alpaca_to_messages(row: dict) -> dict:
    """instruction, input, output, and optionally system and history (pairs of earlier turns) ->
    messages.
    """
    for key in ("instruction", "output"):
        if key not in row:
            raise FormatError(
                f"an Alpaca row needs {key!r}: it has {', '.join(map(str, row)) or 'nothing'}"
            )
    instruction = _text(row["instruction"], "instruction")
    given = _text(row.get("input", ""), "input")
    messages = []
    if "system" in row:
        messages.append({"role": "system", "content": _text(row["system"], "system")})
    for i, (question, answer) in enumerate(_history(row)):
        messages.append({"role": "user", "content": _text(question, f"history {i}")})
        messages.append({"role": "assistant", "content": _text(answer, f"history {i}")})
    question = instruction + JOIN + given if given else instruction
    messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": _text(row["output"], "output")})
    # What messages do not say: keys that were there and empty, and where the instruction ends.
    kept: dict = {}
    for key in ("input", "history"):
        if key in row and not row[key]:
            kept[key] = True
    if given:
        kept["instruction"] = len(instruction)
    out = _carried(row, ALPACA_KEYS, ("messages", "alpaca"))
    out["messages"] = messages
    if kept:
        out["alpaca"] = kept
    return out


def _is_turn(value) -> bool:
    """Whether a value is a question and its answer."""
    return isinstance(value, (list, tuple)) and len(value) == 2


def _history(row: dict) -> list:
    """The turns before an Alpaca row's last one; FormatError where they are no pairs."""
    history = row.get("history", [])
    if not isinstance(history, list) or not all(_is_turn(turn) for turn in history):
        raise FormatError(
            f"history is {str(history)[:60]!r}: a list of [question, answer] is needed"
        )
    return history


def messages_to_alpaca(row: dict) -> dict:
    """messages -> Alpaca: an optional system prompt, then question and answer in turn, an answer
    last.
    """
    messages = check_messages(row)
    kept = _kept(row, "alpaca")
    has_system = messages[0]["role"] == "system"
    turns = messages[1:] if has_system else messages
    roles = [message["role"] for message in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        raise FormatError(
            "Alpaca holds question and answer in turn: this conversation is "
            f"{' '.join(message['role'] for message in messages)}"
        )
    *before, question, answer = [message["content"] for message in turns]
    instruction, given = _instruction_and_input(question, kept.get("instruction"))
    out: dict = {"instruction": instruction, "output": answer}
    if given is not None:
        out["input"] = given
    elif kept.get("input"):
        out["input"] = ""
    if has_system:
        out["system"] = messages[0]["content"]
    if before or kept.get("history"):
        questions = before[::2]
        answers = before[1::2]
        out["history"] = [list(turn) for turn in zip(questions, answers, strict=True)]
    return {**_carried(row, ("messages", "alpaca"), out), **out}


def _instruction_and_input(question: str, cut: int | None) -> tuple[str, str | None]:
    """A question cut after `cut` characters into an instruction and its input; None for the input
    where the row had none.
    """
    if cut is None:
        return question, None
    fits = isinstance(cut, int) and question[cut : cut + len(JOIN)] == JOIN
    if not fits:
        raise FormatError(
            "alpaca['instruction'] no longer fits the last question: delete the key 'alpaca', "
            "or leave the text as it was"
        )
    return question[:cut], question[cut + len(JOIN) :]


# --- ShareGPT -------------------------------------------------------------------------------------
def sharegpt_to_messages(row: dict) -> dict:
    """conversations of {"from", "value"} -> messages; a `system` key beside them becomes the first
    message.
    """
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise FormatError(
            f"conversations is {type(turns).__name__}: a list of {{'from', 'value'}} is needed"
        )
    messages = [_sharegpt_message(turn, i) for i, turn in enumerate(turns)]
    names = [turn["from"] for turn in turns]
    # What messages do not say: names other than the usual, and that the system prompt lay beside.
    kept: dict = {}
    if names != _usual_names(messages):
        kept["from"] = names
    if "system" in row:
        messages.insert(0, {"role": "system", "content": _text(row["system"], "system")})
        kept["system"] = True
    out = _carried(row, ("conversations", "system"), ("messages", "sharegpt"))
    out["messages"] = messages
    if kept:
        out["sharegpt"] = kept
    return out


def _sharegpt_message(turn, number: int) -> dict:
    """A turn of ShareGPT as a message; FormatError where it is none, or has more to it."""
    name = turn.get("from") if isinstance(turn, dict) else None
    role = _sharegpt_role(name)
    if role is None:
        raise FormatError(
            f"turn {number} is from {str(name)[:60]!r}: "
            f"use one of {', '.join(SHAREGPT_ROLES)} (tool calls are not converted)"
        )
    more = [key for key in turn if key not in ("from", "value")]
    if more:
        raise FormatError(f"turn {number} has {more[0]!r}, which would be lost: move it to the row")
    text = _text(turn.get("value"), f"turn {number}'s value")
    return {"role": role, "content": text}


def _sharegpt_role(name) -> str | None:
    """The role that one of ShareGPT's names says; None for any other value."""
    return SHAREGPT_ROLES.get(name) if isinstance(name, str) else None


def _usual_names(messages: list[dict]) -> list[str]:
    """ShareGPT's usual name for the role of each message."""
    return [SHAREGPT_NAMES[message["role"]] for message in messages]


def messages_to_sharegpt(row: dict) -> dict:
    """messages -> ShareGPT, with the names that the row came with, else system, human, gpt and
    tool.
    """
    messages = check_messages(row)
    kept = _kept(row, "sharegpt")
    beside = bool(kept.get("system"))  # the system prompt lies beside the turns
    turns = messages[1:] if beside else messages
    names = kept.get("from") or _usual_names(turns)
    roles = [message["role"] for message in turns]
    is_list = isinstance(names, list)
    named_otherwise = not is_list or [_sharegpt_role(name) for name in names] != roles
    no_system = beside and messages[0]["role"] != "system"
    if named_otherwise or no_system:
        raise FormatError(
            "the row's key 'sharegpt' no longer fits its messages: delete it, or leave the turns "
            "as they were"
        )
    conversations = []
    for name, message in zip(names, turns, strict=True):
        conversations.append({"from": name, "value": message["content"]})
    out = {"conversations": conversations}
    if beside:
        out["system"] = messages[0]["content"]
    return {**_carried(row, ("messages", "sharegpt"), out), **out}


# --- ChatML text ----------------------------------------------------------------------------------
_TURN = re.compile(re.escape(START) + r"(\w+)\n(.*?)" + re.escape(END) + "\n", re.DOTALL)


def chatml_to_messages(row: dict) -> dict:
    """`text` of turns ``<|im_start|>role\\ncontent<|im_end|>\\n`` -> messages; nothing may be
    between turns.
    """
    text = _text(row.get("text"), "text")
    messages = []
    at = 0
    for turn in _TURN.finditer(text):
        role, content = turn.groups()
        if turn.start() != at or role not in ROLES or START in content:
            break
        messages.append({"role": role, "content": content})
        at = turn.end()
    if at != len(text) or not messages:
        raise FormatError(
            f"text is no ChatML from character {at} on: {text[at : at + 40]!r}; "
            f"a turn is {START}role, newline, content, {END}, newline"
        )
    return {**_carried(row, ("text",), ("messages",)), "messages": messages}


def messages_to_chatml(row: dict) -> dict:
    """messages -> ChatML `text`. Content that holds a marker is refused: it would read as a turn of
    its own.
    """
    messages = check_messages(row)
    turns = []
    for i, message in enumerate(messages):
        for marker in (START, END):
            if marker in message["content"]:
                raise FormatError(
                    f"message {i} contains {marker!r}, which ChatML reads as the edge of a turn: "
                    "take it out first"
                )
        turns.append(f"{START}{message['role']}\n{message['content']}{END}\n")
    return {**_carried(row, ("messages",), ("text",)), "text": "".join(turns)}


def _same(row: dict) -> dict:
    """A row of messages as itself, checked."""
    check_messages(row)
    return row


Conversion = Callable[[dict], dict]
FORMATS: dict[str, tuple[Conversion, Conversion]] = {  # name: (to messages, from messages)
    "alpaca": (alpaca_to_messages, messages_to_alpaca),
    "sharegpt": (sharegpt_to_messages, messages_to_sharegpt),
    "chatml": (chatml_to_messages, messages_to_chatml),
    "messages": (_same, _same),
}
# The keys by which a row's format is known, and its name; ChatML is known by its text.
TELLS = {"messages": "messages", "conversations": "sharegpt", "instruction": "alpaca"}


def detect_format(row: Any) -> str:
    """The format of a row by its keys: "messages", "sharegpt", "alpaca" or "chatml". FormatError if
    it is none of them.
    """
    if not isinstance(row, dict):
        keys = type(row).__name__
    else:
        for key, name in TELLS.items():
            if key in row:
                return name
        if START in str(row.get("text", "")):
            return "chatml"
        keys = ", ".join(map(str, row)) or "no keys"
    raise FormatError(
        f"no known format: the row has {keys}, but none of {', '.join(TELLS)}, nor a "
        f"text with {START}"
    )


def convert(row: dict, to: str = "messages", source: str | None = None) -> dict:
    """The row in another format ("messages", "alpaca", "sharegpt", "chatml"); `source` is told from
    its keys if it is not given.

    FormatError (a DataError) where the row is broken, or the target cannot hold all of it.
    """
    if to not in FORMATS:
        raise FormatError(f"to={to!r}: use one of {', '.join(FORMATS)}")
    if source is not None and source not in FORMATS:
        raise FormatError(f"source={source!r}: use one of {', '.join(FORMATS)}")
    if not isinstance(row, dict):
        raise FormatError(f"the row is {type(row).__name__}: a dict is needed")
    if source is None:
        source = detect_format(row)
    to_messages, _ = FORMATS[source]
    _, from_messages = FORMATS[to]
    return from_messages(to_messages(row))
