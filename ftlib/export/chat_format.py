"""What a tokenizer or a GGUF file says of conversations: its Jinja, its start token, and what ends
an answer.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from gguf import GGUFReader, Keys, TokenType

from ftlib.batches.render import render_text
from ftlib.batches.stops import text_after_answer, token_at_start
from ftlib.export.errors import ExportError, TemplateError
from ftlib.export.gguf_file import open_gguf, settled_state
from ftlib.export.gguf_vocabulary import EOS_IDS

_BRACKETED = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")
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
        return render_text(jinja, bos, eos_token, messages, add_generation_prompt=False)

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
    state = settled_state(path)
    return _read_format(path) if state is None else _kept_format(os.fspath(path), state)


@functools.lru_cache(maxsize=32)
def _kept_format(path: str, state: tuple[int, ...]) -> ChatFormat:
    """Read once for each state of the file: a vocabulary of 100,000 takes seconds."""
    return _read_format(path)


def _read_format(path: str | os.PathLike) -> ChatFormat:
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


def render_jinja(form: ChatFormat, messages: list[dict], answer: bool = True) -> str:
    """The conversation's text, ready for the assistant's answer unless `answer` is False, without
    the start token where the runtime adds it. A marker that begins every turn, as ChatML's, may be
    called the start token and yet be added by nobody (SmolLM's).
    """
    eos = form.eos[0] if form.eos else ""
    text = render_text(form.jinja or "", form.bos, eos, messages, add_generation_prompt=answer)
    return text.removeprefix(form.bos) if form.adds_bos else text
