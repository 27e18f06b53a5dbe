"""What a chat template leaves out of a conversation, without a word of its own: turns, thoughts,
tool calls. A row that says more than its text would train something else than was meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

from jinja2 import TemplateError

from ftlib.core.errors import DataError

Render = Callable[[list[dict], list | None], str]

THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# Keys of a message that say more than its content.
MEANT = ("tool_calls", "function_call", *THOUGHTS)
_THOUGHT_END = "</think>"


def refuse_omissions(render: Render, messages: list[dict], tools: list | None = None) -> None:
    """DataError names the message, or the tools, that the template does not write.

    `render(messages, tools)` gives the conversation's text. The contents of user and assistant must
    stand in their order; the others anywhere, for templates move a system turn. White space is not
    compared, and text may be escaped as JSON. A key of `MEANT` must change the text, and so must
    `tools`. The thought of an answer that is not learnt (weight 0) may be left out.
    """
    text = render(messages, tools)
    _refuse_missing_contents(_squeeze(text), messages)
    for i, message in enumerate(messages):
        for key in MEANT:
            context_only = key in THOUGHTS and message.get("weight") == 0
            if message.get(key) and not context_only:
                _refuse_missing_field(render, messages, tools, text, i, key)
    if tools:
        _refuse_missing_tools(render, messages, tools, text)


def has_thought(message: dict) -> bool:
    """Whether an answer comes with the reasoning before it, in a key of its own or in its text."""
    return _THOUGHT_END in message["content"] or any(message.get(key) for key in THOUGHTS)


def strings_in(value) -> Iterator[str]:
    """Every string of a JSON value, the keys of its objects among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings_in(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from strings_in(inner)


def _squeeze(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())


def _end_of(part: str, squeezed: str, start: int = 0) -> int | None:
    """Where a part ends in the squeezed text, as it is or as JSON writes it; None: it is not there
    from `start` on.
    """
    as_json = json.dumps(part, ensure_ascii=False)[1:-1]
    for form in (part, as_json):
        wanted = _squeeze(form)
        at = squeezed.find(wanted, start)
        if at >= 0:
            return at + len(wanted)
    return None


def _refuse_missing_contents(squeezed: str, messages: list[dict]) -> None:
    position = 0
    for i, message in enumerate(messages):
        content = message["content"]
        if message.get("weight") == 0:
            content = content.rpartition(_THOUGHT_END)[2]
        in_order = message["role"] in ("user", "assistant")
        end = _end_of(content, squeezed, position if in_order else 0)
        if end is None:
            raise DataError(_missing_content(i, message))
        if in_order:
            position = end


def _missing_content(i: int, message: dict) -> str:
    role = message["role"]
    if role == "assistant" and _THOUGHT_END in message["content"]:
        return (
            f"the chat template cuts the thought out of message {i}, an earlier answer, which "
            "would be learnt without it: give it weight 0, or make a row that ends with it"
        )
    if role in ("user", "assistant"):
        return (
            f"the chat template drops message {i} of the role {role!r}, "
            f"{message['content'][:40]!r}, or rewrites its text: take it out, or use a template "
            "that writes it"
        )
    return (
        f"the chat template drops message {i} of the role {role!r}: "
        "take it out, or put its text into a user turn"
    )


def _text_without(render: Render, messages: list[dict], tools: list | None) -> str:
    """The text of a conversation that lacks something; none where the template refuses it."""
    try:
        return render(messages, tools)
    except (DataError, TemplateError):
        return ""


def _adds(part: str, text: str, without: str) -> bool:
    """Whether a part is in the text more often than in the text without it; all squeezed."""
    as_json = json.dumps(part, ensure_ascii=False)[1:-1]
    forms = {_squeeze(part), _squeeze(as_json)}
    return any(not form or text.count(form) > without.count(form) for form in forms)


def _refuse_missing_field(
    render: Render, messages: list[dict], tools: list | None, text: str, i: int, key: str
) -> None:
    message = messages[i]
    stripped = {name: value for name, value in message.items() if name != key}
    changed = [*messages[:i], stripped, *messages[i + 1 :]]
    without = _text_without(render, changed, tools)
    if without == text:
        way_out = ", or give the message weight 0" if key in THOUGHTS else ""
        raise DataError(
            f"the chat template leaves out {key!r} of message {i} ({repr(message[key])[:60]}): use "
            f"a template that writes it, or take it out of the row{way_out}"
        )
    if key == "tool_calls":
        _refuse_missing_calls(message[key], _squeeze(text), _squeeze(without), i)


def _refuse_missing_calls(calls, text: str, without: str, i: int) -> None:
    """DataError unless the text has the name of each call and every string of its arguments, which
    the text `without` the calls has not; both squeezed.
    """
    for number, call in enumerate(calls if isinstance(calls, list) else [calls]):
        where = f"tool call {number} of message {i}"
        function = call.get("function", call) if isinstance(call, dict) else {}
        if not isinstance(function.get("name"), str):
            raise DataError(
                f"{where} is {repr(call)[:60]}: {{'type': 'function', 'function': {{'name', "
                "'arguments'}} is needed"
            )
        arguments = function.get("arguments")
        if isinstance(arguments, str) and _squeeze(arguments) not in text:
            raise DataError(
                f"the chat template does not write the arguments of {where} as they are, the "
                f"string {arguments[:60]!r}: give them as an object"
            )
        wanted = [function["name"]]
        if not isinstance(arguments, str):
            wanted += strings_in(arguments)
        for part in wanted:
            if not _adds(part, text, without):
                raise DataError(
                    f"the chat template leaves {part[:60]!r} of {where} out: use a template that "
                    "writes tool calls whole"
                )


def _refuse_missing_tools(render: Render, messages: list[dict], tools: list, text: str) -> None:
    squeezed = _squeeze(text)
    without = _squeeze(_text_without(render, messages, None))
    for tool in tools:
        function = tool.get("function", tool)
        name = str(function.get("name", ""))
        if squeezed == without or not _adds(name, squeezed, without):
            raise DataError(
                f"the chat template leaves out the tools, {repr(tool)[:60]} among them: use a "
                "template that writes them, or take them out of the row"
            )
