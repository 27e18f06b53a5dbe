"""A rule of the data pipeline for control tokens in rows. It stands here, not beside the other
rules, because it knows what a tokenizer is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ftlib.batches.control_tokens import TokenFinder, token_finder
from ftlib.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DROP = "drop"
DEFUSE = "defuse"
COUNT = "count"
ACTIONS = (DROP, DEFUSE, COUNT)
# What of a row is text that training reads, tools among it.
_READ = ("messages", "prompt", "chosen", "rejected", "completion", "text", "tools", "answer")


class ControlTokens:
    """A rule for `prepare`: what becomes of rows whose texts spell control tokens, such as
    ``<|end|>``, in contents, tool calls or tools. `tokens`: a tokenizer, whose control tokens are
    meant (`ftlib.find_control_tokens`), or their texts.

    - "drop": the row goes; the reason names where, and the token.
    - "defuse": a space goes in behind the token's first character, ``< |end|>``. A reader sees the
      same characters in the same order and sees the change, too. A character that nobody sees, such
      as a zero-width joiner, would look like the token and not be it: cleaning takes such
      characters out, and the token is back; a copy is searched for in vain; and the model learns
      a spelling that no one types. A look-alike letter has the same faults. Defusing twice is
      defusing once.
    - "count": nothing changes; the report counts.

    `Prepared`'s report has the counts, a token each, and of "count" the rows. Put it behind the
    rules that change texts, since an entity such as ``&lt;`` may hide a token until `Html` has read
    it: ``rules = ftlib.standard_rules()``, ``rules.insert(3, ftlib.ControlTokens(tokenizer))``.
    DataError for another action, no tokens, or a token of one character that is to be defused.
    """

    def __init__(
        self,
        tokens: PreTrainedTokenizerBase | Iterable[str],
        action: str = DROP,
        name: str = "control tokens",
    ):
        if action not in ACTIONS:
            raise DataError(f"action={action!r}: use one of {', '.join(ACTIONS)}")
        self.action = action
        self.name = name
        self.finder = _finder_of(tokens)
        for token in self.finder.tokens:
            if action == DEFUSE and len(token) < 2:
                raise DataError(
                    f"tokens: {token!r} is one character, in which there is no place for a space: "
                    "use action='drop'"
                )

    def __call__(self, row: dict) -> str | tuple[dict, Counter] | None:
        places = [(key, row[key]) for key in _READ if key in row]
        counts: Counter = Counter()
        for _, value in places:
            counts.update(self.finder.in_value(value))
        if not counts:
            return None
        if self.action == DROP:
            return self._reason(places)
        if self.action == COUNT:
            return row, Counter({"rows with some": 1, **counts})
        changed = {**row, **{key: self.defused(value) for key, value in places}}
        if any(self.finder.in_value(changed[key]) for key, _ in places):
            # of characters that only the tokenizer's normalizer makes a token of
            return self._reason(places)
        return changed, counts

    def _reason(self, places: list[tuple[str, Any]]) -> str:
        """Where the first token is."""
        for key, value in places:
            parts = value if isinstance(value, list) else [value]
            for i, part in enumerate(parts):
                found = self.finder.in_value(part)
                if not found:
                    continue
                if isinstance(part, dict) and "role" in part:
                    return f"{found[0]!r} in {key}, message {i} of {part['role']!r}"
                return f"{found[0]!r} in {key}"
        raise AssertionError("called for a row without control tokens")

    def defused(self, value: Any) -> Any:
        """A text, a message, or another JSON value with a space in every token of its strings: also
        for what goes to a server, which reads such tokens in a question as its template's.
        """
        if isinstance(value, str):
            return self.finder.parted(value, " ")
        if isinstance(value, dict):
            return {self.defused(key): self.defused(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.defused(inner) for inner in value]
        return value


def _finder_of(tokens: PreTrainedTokenizerBase | Iterable[str]) -> TokenFinder:
    """A finder of a tokenizer's control tokens, or of those named. DataError where none is."""
    if hasattr(tokens, "added_tokens_decoder"):
        return token_finder(tokens)
    named = () if isinstance(tokens, str) else tuple(tokens)
    if not named or not all(isinstance(token, str) and token.strip() for token in named):
        raise DataError(
            f"tokens={repr(tokens)[:60]}: a tokenizer, or a list of tokens such as ['<|end|>'], is "
            "needed"
        )
    return TokenFinder(named)
