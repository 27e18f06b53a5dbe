"""Conversation formats into one another without loss: Alpaca, ShareGPT, ChatML text, and OpenAI's
messages, which ftlib trains on.

A row is a dict; what a format does not speak of (an id, a family, a score) is carried along. What
the target format cannot say is refused by name rather than dropped. Where a format draws a line
that messages do not have (Alpaca's between instruction and input, ShareGPT's many names for a
role), the row keeps it under the format's name, so that the way back gives the same row.
"""

from __future__ import annotations

import re
from collections.abc import Callable

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
START, END = "<|im_start|>", "<|im_end|>"


class FormatError(DataError):
    """A row that is not of its format, or that another format cannot hold: the key, its value and
    the mend.
    """


def _text(value, where: str) -> str:
    if not isinstance(value, str):
        raise FormatError(f"{where} is {type(value).__name__} {str(value)[:60]!r}: text is needed")
    return value


def _rest(row: dict, *taken: str) -> dict:
    return {k: v for k, v in row.items() if k not in taken}


def _free(row: dict, *keys: str) -> dict:
    """The row's other keys; FormatError where the format's own would overwrite one of them."""
    clash = [k for k in keys if k in row]
    if clash:
        raise FormatError(f"the row already has a key {clash[0]!r}: rename it before converting")
    return row


def check_messages(row: dict) -> list[dict]:
    """The row's messages, each with a known role and text; FormatError names what is not."""
    messages = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(messages, list) or not messages:
        raise FormatError(
            f"messages is {type(messages).__name__}: a list of {{'role', 'content'}} is needed"
        )
    for i, m in enumerate(messages):
        if not isinstance(m, dict) or m.get("role") not in ROLES:
            role = m.get("role") if isinstance(m, dict) else m
            raise FormatError(
                f"message {i} has role {str(role)[:60]!r}: use one of {', '.join(ROLES)}"
            )
        more = sorted(set(m) - {"role", "content"})
        if more:
            raise FormatError(
                f"message {i} has {more[0]!r}, which would be lost: tool calls and names are not "
                "converted"
            )
        _text(m.get("content"), f"message {i}'s content")
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
    instruction, given = (
        _text(row["instruction"], "instruction"),
        _text(row.get("input", ""), "input"),
    )
    messages = (
        [{"role": "system", "content": _text(row["system"], "system")}] if "system" in row else []
    )
    for i, pair in enumerate(_history(row)):
        messages += [
            {"role": "user", "content": _text(pair[0], f"history {i}")},
            {"role": "assistant", "content": _text(pair[1], f"history {i}")},
        ]
    messages += [
        {"role": "user", "content": instruction + (JOIN + given if given else "")},
        {"role": "assistant", "content": _text(row["output"], "output")},
    ]
    kept = {k: True for k in ("input", "history") if k in row and not row[k]} | (
        {"instruction": len(instruction)} if given else {}
    )
    out = {**_free(_rest(row, *ALPACA_KEYS), "messages", "alpaca"), "messages": messages}
    return {**out, "alpaca": kept} if kept else out


def _history(row: dict) -> list:
    history = row.get("history", [])
    if not isinstance(history, list) or any(
        not isinstance(p, (list, tuple)) or len(p) != 2 for p in history
    ):
        raise FormatError(
            f"history is {str(history)[:60]!r}: a list of [question, answer] is needed"
        )
    return history


def messages_to_alpaca(row: dict) -> dict:
    """messages -> Alpaca: an optional system prompt, then question and answer in turn, an answer
    last.
    """
    messages, kept = check_messages(row), row.get("alpaca", {})
    system = messages[0]["role"] == "system"
    turns = messages[system:]
    wanted = ("user", "assistant") * (len(turns) // 2)
    if not turns or tuple(m["role"] for m in turns) != wanted:
        raise FormatError(
            "Alpaca holds question and answer in turn: this conversation is "
            f"{' '.join(m['role'] for m in messages)}"
        )
    texts = [m["content"] for m in turns]
    question, cut = texts[-2], kept.get("instruction")
    if cut is not None and question[cut : cut + len(JOIN)] != JOIN:
        raise FormatError(
            "alpaca['instruction'] no longer fits the last question: delete the key 'alpaca', "
            "or leave the text as it was"
        )
    out = {"instruction": question if cut is None else question[:cut], "output": texts[-1]}
    if cut is not None or kept.get("input"):
        out["input"] = "" if cut is None else question[cut + len(JOIN) :]
    if system:
        out["system"] = messages[0]["content"]
    if texts[:-2] or kept.get("history"):
        questions = texts[:-2:2]
        answers = texts[1:-2:2]
        out["history"] = [list(turn) for turn in zip(questions, answers, strict=True)]
    return {**_free(_rest(row, "messages", "alpaca"), *out), **out}


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
    messages, names = [], []
    for i, turn in enumerate(turns):
        name = turn.get("from") if isinstance(turn, dict) else None
        if name not in SHAREGPT_ROLES:
            raise FormatError(
                f"turn {i} is from {str(name)[:60]!r}: "
                f"use one of {', '.join(SHAREGPT_ROLES)} (tool calls are not converted)"
            )
        more = sorted(set(turn) - {"from", "value"})
        if more:
            raise FormatError(f"turn {i} has {more[0]!r}, which would be lost: move it to the row")
        messages.append(
            {"role": SHAREGPT_ROLES[name], "content": _text(turn.get("value"), f"turn {i}'s value")}
        )
        names.append(name)
    kept = {} if names == [SHAREGPT_NAMES[m["role"]] for m in messages] else {"from": names}
    if "system" in row:
        messages.insert(0, {"role": "system", "content": _text(row["system"], "system")})
        kept["system"] = True
    out = {
        **_free(_rest(row, "conversations", "system"), "messages", "sharegpt"),
        "messages": messages,
    }
    return {**out, "sharegpt": kept} if kept else out


def messages_to_sharegpt(row: dict) -> dict:
    """messages -> ShareGPT, with the names that the row came with, else system, human, gpt and
    tool.
    """
    messages, kept = check_messages(row), row.get("sharegpt", {})
    beside = bool(kept.get("system"))
    turns = messages[beside:]
    names = kept.get("from") or [SHAREGPT_NAMES[m["role"]] for m in turns]
    roles = [m["role"] for m in turns]
    named_otherwise = [SHAREGPT_ROLES.get(name) for name in names] != roles
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
    return {**_free(_rest(row, "messages", "sharegpt"), *out), **out}


# --- ChatML text ----------------------------------------------------------------------------------
_TURN = re.compile(re.escape(START) + r"(\w+)\n(.*?)" + re.escape(END) + "\n", re.DOTALL)


def chatml_to_messages(row: dict) -> dict:
    """`text` of turns ``<|im_start|>role\\ncontent<|im_end|>\\n`` -> messages; nothing may stand
    between turns.
    """
    text, messages, at = _text(row.get("text"), "text"), [], 0
    for turn in _TURN.finditer(text):
        if turn.start() != at or turn[1] not in ROLES or START in turn[2]:
            break
        messages.append({"role": turn[1], "content": turn[2]})
        at = turn.end()
    if at != len(text) or not messages:
        raise FormatError(
            f"text is no ChatML from character {at} on: {text[at : at + 40]!r}; "
            f"a turn is {START}role, newline, content, {END}, newline"
        )
    return {**_free(_rest(row, "text"), "messages"), "messages": messages}


def messages_to_chatml(row: dict) -> dict:
    """messages -> ChatML `text`. Content that holds a marker is refused: it would read as a turn of
    its own.
    """
    messages = check_messages(row)
    for i, m in enumerate(messages):
        marker = next((s for s in (START, END) if s in m["content"]), None)
        if marker:
            raise FormatError(
                f"message {i} contains {marker!r}, which ChatML reads as the edge of a turn: take "
                "it out first"
            )
    text = "".join(f"{START}{m['role']}\n{m['content']}{END}\n" for m in messages)
    return {**_free(_rest(row, "messages"), "text"), "text": text}


def _same(row: dict) -> dict:
    check_messages(row)
    return row


FORMATS: dict[
    str, tuple[Callable[[dict], dict], Callable[[dict], dict]]
] = {  # name: (to messages, from messages)
    "alpaca": (alpaca_to_messages, messages_to_alpaca),
    "sharegpt": (sharegpt_to_messages, messages_to_sharegpt),
    "chatml": (chatml_to_messages, messages_to_chatml),
    "messages": (_same, _same),
}
TELLS = {"messages": "messages", "conversations": "sharegpt", "instruction": "alpaca"}


def detect_format(row) -> str:
    """The format of a row by its keys: "messages", "sharegpt", "alpaca" or "chatml". FormatError if
    it is none of them.
    """
    if isinstance(row, dict):
        for key, name in TELLS.items():
            if key in row:
                return name
        if START in str(row.get("text", "")):
            return "chatml"
    keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
    raise FormatError(
        f"no known format: the row has {keys or 'no keys'}, but none of {', '.join(TELLS)}, nor a "
        f"text with {START}"
    )


def convert(row: dict, to: str = "messages", source: str | None = None) -> dict:
    """The row in another format ("messages", "alpaca", "sharegpt", "chatml"); `source` is told from
    its keys if it is not given.

    FormatError (a DataError) where the row is broken, or the target cannot hold all of it.
    """
    for name, value in (("to", to), ("source", source)):
        if value not in FORMATS and (name == "to" or value is not None):
            raise FormatError(f"{name}={value!r}: use one of {', '.join(FORMATS)}")
    if not isinstance(row, dict):
        raise FormatError(f"the row is {type(row).__name__}: a dict is needed")
    return FORMATS[to][1](FORMATS[source or detect_format(row)][0](row))
