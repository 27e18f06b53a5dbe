"""Contents encoded as plain text, whatever control tokens they spell; those that the chat template
writes stay what they are.

The contents are marked inside each control token, the template renders the marked contents, and
what it wrote itself is told from theirs by the marks. A second tokenizer, made of the first, knows
the template's tokens under other names and matches none of their own.

transformers 5.23 has the like (`apply_chat_template(…, sanitize_control_tokens=True)`). It gives no
masks, takes added tokens of answers such as ``<think>`` for control tokens too where the
template names them, and cuts the text at both ends of each, where here it is cut as any text is.
"""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ftlib.core.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

# Characters that Unicode keeps free for use inside a program: no text has them.
MARK = "\ufdd0"  # inside a control token of a content
_ESCAPED_MARK = r"\ufdd0"  # as JSON in ASCII has it, and repr
_CUT = "\ufdd1"  # where a text must be cut, so that it becomes no control token
_OPEN = "\ufdd2"  # around the number of a token of the template
_CLOSE = "\ufdd3"
_OWN = re.compile(f"[{MARK}{_CUT}{_OPEN}{_CLOSE}]")

_backends: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _stand_in(token: int) -> str:
    """The other name of a control token."""
    return f"{_OPEN}{token}{_CLOSE}"


def _plain_backend(tokenizer: PreTrainedTokenizerBase, tokens: dict[str, int]) -> Tokenizer:
    """The tokenizer's own backend a second time, in which the control tokens are text and their
    stand-ins are tokens, matched by the same rules. Made once: it takes as long as loading.
    """
    key = (tuple(tokens.items()), len(tokenizer))
    known, plain = _backends.get(tokenizer, (None, None))
    if known != key:
        plain = _make_plain_backend(tokenizer, tokens)
        _backends[tokenizer] = (key, plain)
    return plain


def _make_plain_backend(tokenizer: PreTrainedTokenizerBase, tokens: dict[str, int]) -> Tokenizer:
    from tokenizers import AddedToken, Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise DataError(
            f"{type(tokenizer).__name__} is no tokenizer of the tokenizers library, which "
            "control_tokens='text' needs: clean the texts with ftlib.ControlTokens"
        )
    settings = json.loads(backend.to_str())
    settings["truncation"] = None
    settings["padding"] = None
    stand_ins = []
    for token in settings["added_tokens"]:
        token["special"] = token["content"] in tokens
        if token["special"]:
            rules = {
                name: token[name] for name in ("single_word", "lstrip", "rstrip", "normalized")
            }
            stand_ins.append(AddedToken(_stand_in(token["id"]), special=False, **rules))
    plain = Tokenizer.from_str(json.dumps(settings))
    plain.encode_special_tokens = True  # as text
    plain.add_tokens([*stand_ins, AddedToken(_CUT, normalized=False)])
    return plain


def unmarked(tokenizer, text: str) -> str:
    """A text without the marks that its tokenizer, a `ContentsAsText` or any other, put there."""
    return tokenizer.unmarked(text) if isinstance(tokenizer, ContentsAsText) else text


class ContentsAsText:
    """A tokenizer for conversations whose contents are `marked`: it writes and encodes them as the
    one that it is made of, but reads the control tokens in them as text. Anything else is that
    tokenizer's.

    `tokens`: text -> id of the control tokens; ``part(text, mark)`` puts the mark into each of them
    in a text.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        tokens: dict[str, int],
        part: Callable[[str, str], str],
    ):
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._part = part
        self._plain = _plain_backend(tokenizer, tokens)
        longest_first = sorted(tokens, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        self._controls = {
            self._plain.token_to_id(_stand_in(token)): token for token in tokens.values()
        }
        self._cut = self._plain.token_to_id(_CUT)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    # --- marks ------------------------------------------------------------------------------------
    def marked(self, value: Any) -> Any:
        """A JSON value with a mark inside each control token of its strings."""
        if isinstance(value, str):
            if _OWN.search(value) or _ESCAPED_MARK in value:
                raise DataError(
                    f"{value[:40]!r} holds a character from U+FDD0 to U+FDD3, which are no text: "
                    "take it out"
                )
            return self._part(value, MARK)
        if isinstance(value, dict):
            return {self.marked(key): self.marked(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.marked(inner) for inner in value]
        return value

    def unmarked(self, text: str) -> str:
        """A text without its marks, also where repr wrote them."""
        return text.replace(MARK, "").replace(_ESCAPED_MARK, "")

    # --- a tokenizer's calls ----------------------------------------------------------------------
    def __call__(self, text: str, add_special_tokens: bool = False) -> dict[str, list[int]]:
        """{"input_ids"} of a text in which contents are marked; no token is added to it."""
        ids, _ = self._encode(text)
        return {"input_ids": ids}

    def apply_chat_template(
        self,
        messages: list[dict],
        tools: list | None = None,
        tokenize: bool = True,
        return_dict: bool = True,
        return_assistant_tokens_mask: bool = False,
        **options: Any,
    ) -> Any:
        """As the tokenizer's; the text, with `tokenize=False`, keeps its marks."""
        if tokenize and return_assistant_tokens_mask:
            return self._ids_and_mask(messages, tools, **options)
        text = self._tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **options)
        return self(text) if tokenize else text.replace(_ESCAPED_MARK, MARK)

    def _ids_and_mask(
        self, messages: list[dict], tools: list | None, **options: Any
    ) -> dict[str, list[int]]:
        """The ids, and a 1 for each that lies between {% generation %} marks."""
        from transformers.utils.chat_template_utils import render_jinja_template

        given = [{k: v for k, v in message.items() if v is not None} for message in messages]
        rendered, spans = render_jinja_template(
            [given],
            tools=tools,
            chat_template=self._tokenizer.get_chat_template(None, tools),
            return_assistant_tokens_mask=True,
            **{**self._tokenizer.special_tokens_map, **options},
        )
        text = rendered[0]
        ids, places = self._encode(text)
        mask = [0] * len(ids)
        for start, end in spans[0]:
            first = len(self._named_apart(text[:start]))
            last = len(self._named_apart(text[:end]))
            for i, (begins, ends) in enumerate(places):
                if begins < last and ends > first:
                    mask[i] = 1
        return {"input_ids": ids, "assistant_masks": mask}

    # --- encoding ---------------------------------------------------------------------------------
    def _named_apart(self, text: str) -> str:
        """A text with the template's control tokens under their other names; the marks stay, each
        one character.
        """

        def other_name(token: re.Match) -> str:
            return _stand_in(self._tokens[token[0]])

        return self._pattern.sub(other_name, text.replace(_ESCAPED_MARK, MARK))

    def _encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """(ids, where each lies in the text `_named_apart`). DataError where a content becomes a
        control token even where it is cut.
        """
        named = self._named_apart(text)
        kept = [i for i, character in enumerate(named) if character != MARK]
        whole = self._plain.encode("".join(named[i] for i in kept), add_special_tokens=False)
        if self._is_clean(whole):
            ids = [self._controls.get(token, token) for token in whole.ids]
            return ids, _places_among(kept, whole.offsets)
        # A vocabulary that has the token's text as a piece too: no piece goes over a cut.
        cut = self._plain.encode(named.replace(MARK, _CUT), add_special_tokens=False)
        if not self._is_clean(cut):
            raise DataError(
                "the tokenizer makes a control token of plain text, so control_tokens='text' "
                "cannot be had: clean the texts with ftlib.ControlTokens"
            )
        pieces = list(zip(cut.ids, cut.offsets, strict=True))
        said = [(token, place) for token, place in pieces if token != self._cut]
        ids = [self._controls.get(token, token) for token, _ in said]
        return ids, [place for _, place in said]

    def _is_clean(self, encoding: Encoding) -> bool:
        """Whether no control token comes from text. What a tokenizer writes for characters that it
        does not know does not count.
        """
        forbidden = set(self._tokens.values()) - {self._tokenizer.unk_token_id}
        return forbidden.isdisjoint(encoding.ids)


def _places_among(kept: list[int], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets in a text of some characters as offsets in the one that they are kept of, at `kept`.
    A token of no character has none.
    """
    places = []
    for start, end in offsets:
        if end > start:
            places.append((kept[start], kept[end - 1] + 1))
        else:
            places.append((0, 0))
    return places
