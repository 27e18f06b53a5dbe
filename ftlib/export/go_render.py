"""Go templates rendered: the prompt that Ollama makes of a conversation with a TEMPLATE.

Go's package has no `trim`, and Ollama hands the template its own view of a conversation: `.System`,
every system message joined, and `.Messages`, where neighbours of one role are joined (`collated`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ftlib.export.errors import TemplateError

_STOP = re.compile(r"\{\{-?\s*\.(?:Content|Response)\s*-?\}\}\s*(<[^<>{}\s]+>)")
# A dash beside a brace takes the white space on that side of the action away.
_ACTION = re.compile(r"(?:\s*\{\{-\s|\{\{)\s*(.*?)\s*(?:\s-\}\}\s*|\}\})", re.DOTALL)
_VARIABLES = re.compile(r"(?:(?:(\$\w+)\s*,\s*)?(\$\w+)\s*:=\s*)?(.*)", re.DOTALL)
_CONDITION = re.compile(r'(?:(eq|ne)\s+)?(\$\w*)?(?:\.(\w+))?(?:\s+("[^"\\]*"|\d+))?')


def template_stops(template: str) -> tuple[str, ...]:
    """The tokens that a Go template puts after a message or answer: what the model writes to end
    its turn.
    """
    return tuple(dict.fromkeys(_STOP.findall(template)))


def collated(messages: list[dict]) -> tuple[str, list[dict]]:
    """(`.System`, `.Messages`), as Ollama's `collate` makes them: the texts of all system messages,
    and the conversation in which neighbours of one role have become one message, both joined by
    blank lines. Tool messages stay apart, since each answers a call of its own.
    """
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    joined: list[dict] = []
    for message in messages:
        role = message["role"]
        if joined and joined[-1]["Role"] == role and role != "tool":
            joined[-1]["Content"] += "\n\n" + message["content"]
        else:
            joined.append({"Role": role, "Content": message["content"]})
    return system, joined


def render_go(template: str, messages: list[dict]) -> str:
    """The prompt that Ollama makes of `messages` ({"role", "content"}) with this template, before
    tokenisation.

    The subset of Go's text/template that chat templates use: fields such as `.System` and `.Role`,
    `range`, `if`, `else`, `else if`, the conditions `.Field`, `eq .Field "text"`, `ne .Field
    "text"` and `eq $i 1`, white space trimmed by `{{-` and `-}}`, and variables:
    `range $i, $m := .Messages`, `$m.Role`, and `$` for what the template was given. TemplateError
    names anything else.
    """
    system, joined = collated(messages)
    # The text before, between and after the actions is at the even places.
    nodes, closer = _block(enumerate(_ACTION.split(template)))
    if closer:
        raise TemplateError(f"{{{{ {closer} }}}} without its range or if")
    given = {"System": system, "Messages": joined}
    return _run(nodes, given, {"$": given})


def _block(parts: Iterator[tuple[int, str]]) -> tuple[list, str]:
    """Nodes up to `else` or `end`, and the action that closed the block. A node is text, (action,)
    or (action, body, other).
    """
    nodes: list = []
    for index, part in parts:
        word = part.partition(" ")[0]
        if index % 2 == 0:
            nodes.append(part)
        elif word in ("end", "else"):
            return nodes, part
        elif word in ("range", "if"):
            nodes.append(_branch(part, parts))
        else:
            nodes.append((part,))
    return nodes, ""


def _branch(action: str, parts: Iterator[tuple[int, str]]) -> tuple[str, list, list]:
    body, closer = _block(parts)
    if closer.startswith("else if "):
        # The `end` of the inner if closes this one too.
        inner = _branch(closer.removeprefix("else "), parts)
        return action, body, [inner]
    other: list = []
    if closer == "else":
        other, closer = _block(parts)
    if closer != "end":
        raise TemplateError(f"{{{{ {action} }}}} has no {{{{ end }}}}")
    return action, body, other


def _run(nodes: list, dot: dict, variables: dict) -> str:
    """The text of the nodes, where `dot` holds the fields and `variables` what is named with $."""
    out = []
    for node in nodes:
        if isinstance(node, str):
            out.append(node)
        elif len(node) == 1:
            out.append(str(_value(node[0], dot, variables)))
        else:
            out.append(_run_branch(node, dot, variables))
    return "".join(out)


def _run_branch(node: tuple[str, list, list], dot: dict, variables: dict) -> str:
    action, body, other = node
    word, _, expression = action.partition(" ")
    index_name = item_name = None
    named = _VARIABLES.fullmatch(expression.strip())
    if word == "range" and named:
        index_name, item_name, expression = named.groups()
    value = _value(expression, dot, variables)
    if not value:
        return _run(other, dot, variables)
    if word != "range":
        return _run(body, dot, variables)
    out = []
    for i, item in enumerate(value):
        inside = dict(variables)
        inside.update({name: v for name, v in ((index_name, i), (item_name, item)) if name})
        out.append(_run(body, item, inside))
    return "".join(out)


def _value(expression: str, dot: dict, variables: dict):
    """The value of a field or a variable, or whether a comparison holds."""
    found = _CONDITION.fullmatch(expression)
    operator, variable, field, literal = found.groups() if found else (None, None, None, None)
    if not _fits(operator, variable, field, literal, dot, variables):
        fields = ", ".join("." + name for name in dot)
        raise TemplateError(
            f"{{{{ {expression} }}}} is outside the subset of Go templates that render_go knows, "
            f"or no field of {fields}"
        )
    value = variables[variable] if variable else dot
    if field:
        value = value[field]
    if operator is None or literal is None:
        return value
    wanted: str | int = literal[1:-1] if literal.startswith('"') else int(literal)
    if type(value) is not type(wanted):
        raise TemplateError(
            f"{{{{ {expression} }}}} compares {value!r} with {wanted!r}: Go refuses to compare "
            "values of two types"
        )
    return value == wanted if operator == "eq" else value != wanted


def _fits(operator, variable, field, literal, dot: dict, variables: dict) -> bool:
    """A comparison has something to compare with, a plain value has not; and the value is there."""
    if (operator is None) != (literal is None) or not (variable or field):
        return False
    if variable and variable not in variables:
        return False
    holder = variables[variable] if variable else dot
    return field is None or (isinstance(holder, dict) and field in holder)
