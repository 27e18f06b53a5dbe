"""Chat templates for Ollama: its TEMPLATE is a Go template, a tokenizer's is Jinja. They must give
the same text.

Go's package has no `trim`, and Ollama hands the template its own view of a conversation: `.System`,
every system message joined, and `.Messages`, where neighbours of one role are joined. A
start-of-text token that the runtime adds (`tokenizer.ggml.add_bos_token`) is not in these
templates: no model was trained on two.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from gguf import GGUFReader, Keys, TokenType

from ftlib.batches.stops import text_after_answer, token_at_start
from ftlib.export.errors import ExportError
from ftlib.export.gguf_file import open_gguf
from ftlib.export.vocabulary import EOS_IDS

log = logging.getLogger(__name__)

WORLD = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
CHATML = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
_LLAMA_TURN = "<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"
_LLAMA_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_DATE = "26 Jul 2024"
TEMPLATES = {
    "world": WORLD,
    "chatml": CHATML,
    "llama-3": "{{ range .Messages }}" + _LLAMA_TURN + "{{ end }}" + _LLAMA_ANSWER,
    # A system message later in the conversation moves to the top, where Jinja leaves it in its
    # place.
    "llama-3.1": (
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        f"Today Date: {_DATE}\n\n"
        '{{ .System }}<|eot_id|>{{ range .Messages }}{{ if ne .Role "system" }}'
        + _LLAMA_TURN
        + "{{ end }}{{ end }}"
        + _LLAMA_ANSWER
    ),
    "qwen-2.5": (
        '{{ if eq .System "" }}<|im_start|>system\n'
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n{{ end }}"
        + CHATML
    ),
    "smollm2": (
        '{{ if eq .System "" }}<|im_start|>system\n'
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{{ end }}"
        + CHATML
    ),
    "qwen-3": CHATML + "<think>\n\n</think>\n\n",  # without thinking, as ftlib trains it
}
_STOP = re.compile(r"\{\{-?\s*\.(?:Content|Response)\s*-?\}\}\s*(<[^<>{}\s]+>)")
_BRACKETED = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")
# A dash beside a brace takes the white space on that side of the action away.
_ACTION = re.compile(r"(?:\s*\{\{-\s|\{\{)\s*(.*?)\s*(?:\s-\}\}\s*|\}\})", re.DOTALL)
_VARIABLES = re.compile(r"(?:(?:(\$\w+)\s*,\s*)?(\$\w+)\s*:=\s*)?(.*)", re.DOTALL)
_CONDITION = re.compile(r'(?:(eq|ne)\s+)?(\$\w*)?(?:\.(\w+))?(?:\s+"([^"\\]*)")?')
# Tokens that end an answer or a document in these families, where a vocabulary has them.
END_TOKENS = (
    "<|end|>",
    "<|eos|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<end_of_turn>",
    "<turn|>",
)
_PROBED_ROLES = (
    ("user",),
    ("user", "assistant", "user"),
    ("system", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)


def _probe(roles: Iterable[str]) -> list[dict]:
    return [{"role": role, "content": f"Words {i} of the {role}."} for i, role in enumerate(roles)]


PROBES = [_probe(roles) for roles in _PROBED_ROLES]
_FIX = "write one, compare it by render_go(template, messages), and pass it as template="


class TemplateError(ValueError):
    """A chat template that cannot be translated or rendered, with the reason and the fix."""


@dataclass(frozen=True)
class ChatFormat:
    """What a tokenizer or a GGUF says of conversations: Jinja, start token and whether the runtime
    puts it before a prompt, the tokens at which the runtime stops by itself (`eos`), the one that
    the Jinja writes after an answer (`turn_end`), and all that end an answer (`ends`).
    """

    jinja: str | None
    bos: str
    adds_bos: bool
    eos: tuple[str, ...]
    turn_end: str | None
    ends: tuple[str, ...]


def _ends(eos: Iterable[str], turn_end: str | None, vocabulary) -> tuple[str, ...]:
    known = [token for token in END_TOKENS if token in vocabulary]
    own = [turn_end] if turn_end else []
    return _distinct([*own, *eos, *known])


def _turn_end(jinja: str | None, bos: str, eos: Iterable[str], tokens) -> str | None:
    """The token that the Jinja writes after an answer."""
    if not jinja:
        return None
    eos_token = next(iter(eos), "")

    def render(messages: list[dict]) -> str:
        return _render(jinja, bos, eos_token, messages, add_generation_prompt=False)

    return token_at_start(text_after_answer(render) or "", tokens)


def _distinct(values: Iterable[str]) -> tuple[str, ...]:
    """Each value once, in the order in which they first come."""
    return tuple(dict.fromkeys(values))


def _field(reader: GGUFReader, key: str):
    """A field's value, or None where the file has none of this key."""
    field = reader.get_field(key)
    return None if field is None else field.contents()


def _token(reader: GGUFReader, key: str, tokens: list[str]) -> str | None:
    """The token whose id is in a field."""
    index = _field(reader, key)
    if index is None or index >= len(tokens):
        return None
    return tokens[index]


def _format_of_file(path: str | os.PathLike) -> ChatFormat:
    try:
        reader = open_gguf(path)
    except ExportError as error:
        raise TemplateError(str(error)) from None
    tokens = _field(reader, Keys.Tokenizer.LIST) or []
    jinja = _field(reader, Keys.Tokenizer.CHAT_TEMPLATE)
    bos = _token(reader, Keys.Tokenizer.BOS_ID, tokens) or ""
    eos = _ends_of_file(reader, tokens)
    end = _turn_end(jinja, bos, eos, _markers(reader, tokens))
    # Ollama's engine reads this list, llama.cpp does not: its tokens do not end answers everywhere.
    listed = [tokens[index] for index in _field(reader, EOS_IDS) or [] if index < len(tokens)]
    adds_bos = _field(reader, Keys.Tokenizer.ADD_BOS)
    return ChatFormat(
        jinja=jinja,
        bos=bos,
        adds_bos=adds_bos is not False,  # where the file is silent, llama.cpp adds it
        eos=eos,
        turn_end=end,
        ends=_ends([*eos, *listed], end, set(tokens)),
    )


def _ends_of_file(reader: GGUFReader, tokens: list[str]) -> tuple[str, ...]:
    """The tokens at which every runtime of this file stops by itself: eos, eot and eom."""
    keys = (Keys.Tokenizer.EOS_ID, Keys.Tokenizer.EOT_ID, Keys.Tokenizer.EOM_ID)
    named = [_token(reader, key, tokens) for key in keys]
    return _distinct(token for token in named if token)


def _markers(reader: GGUFReader, tokens: list[str]) -> list[str]:
    """The tokens that are no ordinary text; where the file has no types of them, those in
    brackets.
    """
    types = _field(reader, Keys.Tokenizer.TOKEN_TYPE)
    if not types:
        return [token for token in tokens if _BRACKETED.fullmatch(token)]
    marked = (TokenType.CONTROL, TokenType.USER_DEFINED)
    return [token for token, kind in zip(tokens, types, strict=True) if kind in marked]


def _format_of_tokenizer(tokenizer) -> ChatFormat:
    jinja = tokenizer.get_chat_template() if tokenizer.chat_template else None
    bos = tokenizer.bos_token or ""
    eos = (tokenizer.eos_token,) if tokenizer.eos_token else ()
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    end = _turn_end(jinja, bos, eos, added)
    # The GGUF that ftlib makes of this tokenizer has both as eos and eot.
    stopping = _distinct([*eos, *([end] if end else [])])
    return ChatFormat(
        jinja=jinja,
        bos=bos,
        adds_bos=bool(bos) and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id],
        eos=stopping,
        turn_end=end,
        ends=_ends(eos, end, tokenizer.get_vocab()),
    )


def chat_format(source) -> ChatFormat:
    """The `ChatFormat` of a tokenizer, or of a GGUF file by its path."""
    if isinstance(source, (str, os.PathLike)):
        return _format_of_file(source)
    return _format_of_tokenizer(source)


def _render(
    jinja: str, bos: str, eos: str, messages: list[dict], add_generation_prompt: bool
) -> str:
    """A conversation as transformers renders it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(
        [messages],
        chat_template=jinja,
        add_generation_prompt=add_generation_prompt,
        bos_token=bos,
        eos_token=eos,
        enable_thinking=False,
    )
    return rendered[0]


def _render_jinja(form: ChatFormat, messages: list[dict]) -> str:
    """The prompt, without the start token where the runtime adds it, ready for the assistant's
    answer. A marker that begins every turn, as ChatML's, may be called the start token and yet be
    added by nobody (SmolLM's).
    """
    eos = form.eos[0] if form.eos else ""
    text = _render(form.jinja or "", form.bos, eos, messages, add_generation_prompt=True)
    return text.removeprefix(form.bos) if form.adds_bos else text


def go_template(source: Any) -> str:
    """The Go template that gives the same prompts as the Jinja of `source`, a tokenizer or a GGUF's
    path.

    Known formats are tried on three conversations, with and without system prompt, of one and
    several turns; the one whose every text is equal is returned. Jinja that trims contents
    (Llama-3) is equal for contents without outer whitespace. A date that the Jinja takes from the
    clock is frozen. TemplateError where none fits.
    """
    from jinja2 import TemplateError as JinjaError

    form = chat_format(source)
    if not form.jinja:
        raise TemplateError(
            "there is no chat template: use the -Instruct tokenizer or set tokenizer.chat_template"
        )
    try:
        wanted = [_render_jinja(form, messages) for messages in PROBES]
    except JinjaError as error:
        raise TemplateError(
            f"the chat template refuses a plain conversation ({error}): {_FIX}"
        ) from None
    found = re.search(r"^Today Date: (.+)$", wanted[0], re.M)
    date = found[1] if found else ""
    for name, template in TEMPLATES.items():
        dated = template.replace(_DATE, date) if date else template
        if [render_go(dated, messages) for messages in PROBES] == wanted:
            if "strftime_now" in form.jinja and dated != template:
                log.info("TEMPLATE %s: the date is frozen at %s", name, date)
            return dated
    raise TemplateError(
        f"no known Go template ({', '.join(TEMPLATES)}) gives this chat template's text "
        f"{wanted[-1]!r}: {_FIX}"
    )


def template_stops(template: str) -> tuple[str, ...]:
    """The tokens that a Go template puts after a message or answer: what the model writes to end
    its turn.
    """
    return _distinct(_STOP.findall(template))


def render_go(template: str, messages: list[dict]) -> str:
    """The prompt that Ollama makes of `messages` ({"role", "content"}) with this template, before
    tokenisation.

    The subset of Go's text/template that chat templates use: fields such as `.System` and `.Role`,
    `range`, `if`, `else`, `else if`, the conditions `.Field`, `eq .Field "text"`, `ne .Field
    "text"`, white space trimmed by `{{-` and `-}}`, and variables: `range $i, $m := .Messages`,
    `$m.Role`, and `$` for what the template was given. TemplateError names anything else.
    """
    system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
    joined: list[dict] = []
    for message in messages:
        if joined and joined[-1]["Role"] == message["role"]:
            joined[-1]["Content"] += "\n\n" + message["content"]
        else:
            joined.append({"Role": message["role"], "Content": message["content"]})
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
    operator, variable, field, text = found.groups() if found else (None, None, None, None)
    if not _fits(operator, variable, field, text, dot, variables):
        fields = ", ".join("." + name for name in dot)
        raise TemplateError(
            f"{{{{ {expression} }}}} is outside the subset of Go templates that render_go knows, "
            f"or no field of {fields}"
        )
    value = variables[variable] if variable else dot
    if field:
        value = value[field]
    if operator is None:
        return value
    return value == text if operator == "eq" else value != text


def _fits(operator, variable, field, text, dot: dict, variables: dict) -> bool:
    """A comparison has a text to compare with, a plain value has none; and the value is there."""
    if (operator is None) != (text is None) or not (variable or field):
        return False
    if variable and variable not in variables:
        return False
    holder = variables[variable] if variable else dot
    return field is None or (isinstance(holder, dict) and field in holder)
