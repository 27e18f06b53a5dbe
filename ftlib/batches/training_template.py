"""Chat templates with {% generation %} marks: a template's layout learnt from what it writes, and
written anew with marks around each answer.
"""

from __future__ import annotations

import itertools
import re
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from ftlib.batches.render import MARK, chat_template_of
from ftlib.batches.stops import turn_end
from ftlib.batches.template import check_tokenizer
from ftlib.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Before the first branch of training_template.jinja where the layout knows a system turn.
_SYSTEM_BRANCH = Template(
    "if m['role'] == 'system' and loop.first %}"
    "{{ ${system} ~ (${system_content}) ~ ${after} }}{% el"
)


def training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template with {% generation %} marks around each answer and its stop
    token; sets nothing.

    A template that has marks is returned as it is. Of another one the layout is learnt by rendering
    conversations whose contents are known, and written as a template of its own: an optional system
    turn first, then user and assistant in turn. That covers ChatML, Llama 3, Qwen 2.5 and 3,
    Mistral and Gemma, with what they write unasked (a default system turn, a date, an empty thought
    before the last answer). It is compared with the original on further conversations; DataError
    where a template's layout is not of this kind. Other roles and tool calls are refused by name.
    Qwen3 cuts answers at `</think>`; this one does not. Train with it, but save the tokenizer with
    the template that it came with.
    """
    check_tokenizer(tokenizer)
    original = chat_template_of(tokenizer)
    if MARK.search(original):
        return original
    parts, trims = _learn(tokenizer, original)
    template = _write(parts, trims)
    for talk in _probes(system="system" in trims):
        for prompt in (False, True):
            ours = _render(tokenizer, template, talk, prompt)
            theirs = _render(tokenizer, original, talk, prompt)
            if ours != theirs:
                raise DataError(
                    "this chat template's turns differ from one another, so no marks can be put "
                    "into it automatically: write {% generation %} and {% endgeneration %} around "
                    "the answer and its stop token by hand"
                )
    return template


def _render(tokenizer, template: str, messages, prompt: bool = False) -> str | None:
    """The text of a conversation, or None where the template refuses it."""
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            enable_thinking=False,
        )
    except TemplateError:
        return None


def _talk(roles: str, content: str = "qz{}zq") -> list[dict]:
    """A conversation of one message a letter: s, u, a."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[r], "content": content.format(i)} for i, r in enumerate(roles)]


def _probes(system: bool) -> list[list[dict]]:
    """Conversations on which a learnt template must write what the original writes."""
    contents = ("x{}", " \n {} y\n\n", "{}: a <b> {{{{ c }}}}\n    d")
    starts = ("", "s") if system else ("",)
    turns = ("ua", "uau", "uaua", "uauaua")
    return [
        _talk(start + roles, content)
        for start, content, roles in itertools.product(starts, contents, turns)
    ]


def _pieces(tokenizer, template: str, roles: str, prompt: bool = False) -> list[str]:
    """What is before, between and after the contents of a conversation."""
    talk = _talk(roles)
    text = _render(tokenizer, template, talk, prompt)
    pieces = re.split("|".join(m["content"] for m in talk), text or "")
    if len(pieces) != len(talk) + 1:
        problem = "refuses" if text is None else "does not write each turn once of"
        spoken = ", ".join(m["role"] for m in talk)
        raise DataError(
            f"this chat template {problem} a conversation of {spoken}: "
            "no marks can be put into it automatically"
        )
    return pieces


def _with_stop(tokenizer, close: str) -> str:
    """What stands after an answer, up to and with the stop token."""
    end = turn_end(tokenizer)
    if end is None:
        raise DataError(
            f"this chat template ends an answer with {close!r}, in which the tokenizer has no stop "
            "token: the model would never learn to stop; add the token to the tokenizer "
            "(add_special_tokens), or let the template write {{ eos_token }}"
        )
    before, token, _ = close.partition(tokenizer.convert_ids_to_tokens(end))
    return before + token


def _learn(tokenizer, template: str) -> tuple[dict[str, str], dict[str, bool]]:
    """(the fixed texts of a layout, whether each role's content is trimmed)."""
    first, history, user, last, close = _pieces(tokenizer, template, "uaua")
    shut = _pieces(tokenizer, template, "u")[1]
    # Phi writes an end token after the last turn only, where no answer is asked for.
    tail = tokenizer.eos_token or ""
    if not close.endswith(tail) or close == tail or tail in user:
        tail = ""
    close = close.removesuffix(tail)
    shut = shut.removesuffix(tail)
    stop = _with_stop(tokenizer, close)
    parts = {
        "first": first,
        "user": user.removeprefix(close),
        "shut": shut,
        "history": history.removeprefix(shut),
        "last": last.removeprefix(shut),
        "stop": stop,
        "close": close[len(stop) :],
        "tail": tail,
    }
    trims = {}
    if _render(tokenizer, template, _talk("su")) is not None:
        system, after, _ = _pieces(tokenizer, template, "su")
        parts["system"] = system
        parts["after"] = after
        spaced = _render(tokenizer, template, _talk("su", " {} ")) or ""
        trims["system"] = " 0 " not in spaced
    spaced = _render(tokenizer, template, _talk("ua", " {} ")) or ""
    trims["user"] = " 0 " not in spaced
    trims["assistant"] = " 1 " not in spaced
    return parts, trims


def _write(parts: dict[str, str], trims: dict[str, bool]) -> str:
    """The layout as a Jinja template with marks."""
    values = {name: repr(text) for name, text in parts.items()}
    for role, trim in trims.items():
        values[f"{role}_content"] = "m['content'] | trim" if trim else "m['content']"
    if "system" in trims:
        values["system_branch"] = _SYSTEM_BRANCH.substitute(values)
        values["system_place"] = "after a system turn at most"
    else:
        values["system_branch"] = ""
        values["system_place"] = "without a system turn"
    # Lines of the file are for the reader: a template writes its line ends too.
    lines = (
        (files("ftlib.batches") / "training_template.jinja")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    return Template("".join(lines)).substitute(values)
