"""Control tokens in texts: what opens a turn or ends one, found in what somebody wrote.

A chat template writes such tokens between the contents. A content that holds their text, such as
``a <|end|> b``, is read as if the template had written it: an answer ends early, and a user's turn
closes itself and speaks as the assistant. Here they are found, refused, or read as the plain text
that they are.
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from ftlib.batches.as_text import ContentsAsText
from ftlib.batches.omissions import strings_in
from ftlib.batches.stops import stop_ids
from ftlib.core.errors import DataError

if TYPE_CHECKING:
    from tokenizers import AddedToken
    from transformers import PreTrainedTokenizerBase

# What becomes of control tokens in a text that is to be encoded.
REFUSE = "refuse"
TEXT = "text"
ALLOW = "allow"
CHOICES = (REFUSE, TEXT, ALLOW)
_SAID = {"role", "content"}  # the keys of a message that says a text and nothing else
# The parts of a row that are encoded.
_ENCODED = ("messages", "prompt", "chosen", "rejected", "completion", "tools")


def check_choice(control_tokens: str, error: type[ValueError] = DataError) -> str:
    """The choice itself; `error` for one that there is not."""
    if control_tokens not in CHOICES:
        raise error(
            f"control_tokens={control_tokens!r}: use 'refuse', 'text' (encode them as plain text) "
            "or 'allow' (as the tokens that they are)"
        )
    return control_tokens


# --- finding them ---------------------------------------------------------------------------------
def control_tokens_of(
    tokenizer: PreTrainedTokenizerBase, stops: Iterable[int] | None = None
) -> dict[str, int]:
    """Text -> id of a tokenizer's control tokens: its special added tokens, and those at which an
    answer ends (`stops`, by default `stop_ids(tokenizer)`), special or not.

    Other added tokens, such as Qwen's ``<think>``, belong to answers. White space, which some
    tokenizers have as a special token, is none.
    """
    found = _control_tokens(tokenizer, stops)
    return {added.content: token for token, added in found.items()}


def _control_tokens(
    tokenizer: PreTrainedTokenizerBase, stops: Iterable[int] | None
) -> dict[int, AddedToken]:
    ends = set(stop_ids(tokenizer) if stops is None else stops)
    tokens = {}
    for token, added in tokenizer.added_tokens_decoder.items():
        if added.content.strip() and (added.special or token in ends):
            tokens[token] = added
    return tokens


@functools.lru_cache(maxsize=64)
def _any_of(tokens: tuple[str, ...]) -> re.Pattern:
    """A pattern of the tokens, of which a longer one goes before a shorter one in it."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


class TokenFinder:
    """Finds certain tokens in texts. `normalize`: what a tokenizer does to a text before it looks
    for tokens there; a text that becomes one is found too, such as one of full-width letters.
    """

    def __init__(self, tokens: Iterable[str], normalize: Callable[[str], str] | None = None):
        self.tokens = tuple(tokens)
        self.pattern = _any_of(self.tokens)
        self.normalize = normalize

    def in_text(self, text: str) -> list[str]:
        """The tokens in a text, in its order."""
        found = self.pattern.findall(text)
        if found or self.normalize is None:
            return found
        return self.pattern.findall(self.normalize(text))

    def in_value(self, value) -> list[str]:
        """The tokens in the strings of a JSON value: a text, a message, messages, tools."""
        if isinstance(value, dict) and value.keys() == _SAID:
            value = value["content"]  # as most messages are
        if isinstance(value, str):
            return self.in_text(value)
        found = []
        for text in strings_in(value):
            found += self.in_text(text)
        return found

    def parted(self, text: str, between: str) -> str:
        """The text with `between` after the first character of every token: then it is none.
        DataError for a token of one character.
        """

        def part(token: re.Match) -> str:
            if len(token[0]) < 2:
                raise DataError(f"the control token {token[0]!r} cannot be parted: take it out")
            return token[0][0] + between + token[0][1:]

        while self.pattern.search(text):  # more than once where tokens overlap
            text = self.pattern.sub(part, text)
        return text


def token_finder(
    tokenizer: PreTrainedTokenizerBase, stops: Iterable[int] | None = None
) -> TokenFinder:
    """A finder of a tokenizer's control tokens."""
    return _finder_of(tokenizer, _control_tokens(tokenizer, stops).values())


def _finder_of(tokenizer: PreTrainedTokenizerBase, added: Iterable[AddedToken]) -> TokenFinder:
    """A finder of some added tokens, which looks into a text as the tokenizer does."""
    tokens = [token.content for token in added]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = getattr(backend, "normalizer", None)
    if normalizer is None or not any(token.normalized for token in added):
        return TokenFinder(tokens)
    return TokenFinder(tokens, normalizer.normalize_str)


def find_control_tokens(tokenizer: PreTrainedTokenizerBase, value: str | dict | list) -> list[str]:
    """The tokenizer's control tokens in a text, in the strings of a message (its tool calls too),
    or in a list of messages, in their order: what `encode` refuses and `ControlTokens` counts.
    """
    return token_finder(tokenizer).in_value(value)


# --- what becomes of them -------------------------------------------------------------------------
class ControlHandling:
    """What becomes of control tokens in the texts that a tokenizer encodes: made once for many
    rows, in the place of the choice by name. Without `stops`, those of the tokenizer, which are
    looked up where a text holds any added token at all. DataError for a choice that there is not.
    """

    def __init__(
        self,
        choice: str,
        tokenizer: PreTrainedTokenizerBase,
        stops: Iterable[int] | None = None,
    ):
        self.choice = check_choice(choice)
        self.tokenizer = tokenizer
        self._given_stops = stops

    @functools.cached_property
    def stops(self) -> list[int]:
        """The ids at which an answer ends."""
        if self._given_stops is None:
            return stop_ids(self.tokenizer)
        return list(self._given_stops)

    @functools.cached_property
    def finder(self) -> TokenFinder:
        """Finds the control tokens."""
        return token_finder(self.tokenizer, self.stops)

    @functools.cached_property
    def _first_finder(self) -> TokenFinder:
        """Finds at least the control tokens, and is had at once."""
        if self._given_stops is not None:
            return self.finder
        added = self.tokenizer.added_tokens_decoder.values()
        return _finder_of(self.tokenizer, [token for token in added if token.content.strip()])

    def found_in(self, value) -> list[str]:
        """The control tokens in a message, or another JSON value."""
        if not self._first_finder.in_value(value):
            return []
        return self.finder.in_value(value)

    def refuse(self, messages: list[dict], tools: list | None = None) -> None:
        """DataError for a control token in the messages or the tools, where the choice is so."""
        if self.choice != REFUSE:
            return
        for i, message in enumerate(messages):
            found = self.found_in(message)
            if found:
                raise DataError(self._refusal(i, message["role"], found[0]))
        found = self.found_in(tools) if tools else []
        if found:
            raise DataError(f"the tools hold {found[0]!r}, a control token: {_WAYS_OUT}")

    def _refusal(self, i: int, role: str, token: str) -> str:
        ids = self.tokenizer.convert_tokens_to_ids([token])
        ends_answer = role == "assistant" and ids[0] in self.stops
        ways_out = _WAYS_OUT if ends_answer else f"{_WAYS_OUT}{_OR_ALLOW}"
        return f"message {i} holds {token!r}, a control token, in the turn of {role!r}: {ways_out}"

    @contextlib.contextmanager
    def reading(self, messages: list[dict], tools: list | None = None) -> Iterator[tuple]:
        """(tokenizer, messages, tools) with which this conversation is to be encoded: those given,
        unless control tokens in it are to be read as text. Errors in the block speak of the
        messages as they were given.
        """
        holds_some = False
        if self.choice == TEXT:
            parts = [*messages, *(tools or [])]
            holds_some = any(self.found_in(part) for part in parts)
        if not holds_some:
            yield self.tokenizer, messages, tools
            return
        tokens = control_tokens_of(self.tokenizer, self.stops)
        reader = ContentsAsText(self.tokenizer, tokens, self.finder.parted)
        try:
            yield reader, reader.marked(messages), reader.marked(tools)
        except DataError as error:
            raise type(error)(reader.unmarked(str(error))) from None

    def say_found(self, rows: Iterable) -> None:
        """One line on the control tokens that rows hold, where they are not refused."""
        if self.choice == REFUSE:
            return
        counts: Counter = Counter()
        holding = 0
        total = 0
        for row in rows:
            total += 1
            texts = [row[key] for key in _ENCODED if key in row]
            found = self.found_in(texts)
            counts.update(found)
            holding += bool(found)
        if not holding:
            return
        listed = ", ".join(f"{token!r} {count:,} times" for token, count in counts.most_common(3))
        became = "plain text" if self.choice == TEXT else "the tokens that they are"
        print(f"control tokens in {holding:,} of {total:,} rows, encoded as {became}: {listed}")


_WAYS_OUT = (
    "take it out (ftlib.ControlTokens does so in all rows), or encode it as plain text with "
    "control_tokens='text'"
)
_OR_ALLOW = ", or as the token that it is with control_tokens='allow'"


def handling_of(
    tokenizer: PreTrainedTokenizerBase,
    control_tokens: str | ControlHandling,
    stops: Iterable[int] | None = None,
) -> ControlHandling:
    """The handling of a choice by name; one that is made already as it is. DataError for a choice
    that there is not.
    """
    if isinstance(control_tokens, ControlHandling):
        return control_tokens
    return ControlHandling(control_tokens, tokenizer, stops)
