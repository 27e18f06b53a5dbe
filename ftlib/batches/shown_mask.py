"""A loss mask shown over its conversation."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftlib.batches.masks import runs_of
from ftlib.batches.template import IGNORE, encode_examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass
class ShownMask:
    """A conversation with its loss mask, token by token: colour in a notebook, brackets in a
    terminal.
    """

    pieces: list[tuple[str, bool]]  # one per token: its text, and whether the loss counts it
    special: frozenset[str] = frozenset()  # the tokens that are markers, not text

    def __str__(self) -> str:
        mask = [int(trained) for _, trained in self.pieces]
        turns = len(runs_of(mask))
        noun = "turn" if turns == 1 else "turns"
        return f"{sum(mask)} of {len(mask)} tokens are trained on, in {turns} {noun}"

    def _span(self, piece: str, trained: bool) -> str:
        style = "background:#cfe8ff;border-bottom:2px solid #0072B2" if trained else "color:#777"
        if piece in self.special:
            style += ";font-size:80%;outline:1px dotted #999"
        text = html.escape(piece).replace("\n", "↵<br>")
        return f'<span style="{style};padding:1px 2px;margin:1px">{text}</span>'

    def _repr_html_(self) -> str:
        spans = []
        before = False  # whether the piece before is trained on
        for piece, trained in self.pieces:
            if before and not trained and "\n" not in piece:
                spans.append("<br>")
            spans.append(self._span(piece, trained))
            before = trained
        return (
            f'<div style="font-family:monospace;line-height:2">{"".join(spans)}<br><small>'
            "underlined: trained on · grey: context only · dotted: special tokens · "
            f"{self}</small></div>"
        )

    def __repr__(self) -> str:
        return "".join(f"[{p}]" if trained else p for p, trained in self.pieces)


def show_mask(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    train_on_prompt: bool = False,
    tools: list[dict] | None = None,
    control_tokens: str = "refuse",
) -> ShownMask:
    """Show which tokens of a conversation the loss counts, special tokens among them; `str()` of it
    counts them. `control_tokens` as in `encode`. Where `encode_rows` makes an example of each
    answer, so does this, one below the other.
    """
    pieces: list[tuple[str, bool]] = []
    for row in encode_examples(
        tokenizer, messages, train_on_prompt, tools, control_tokens=control_tokens
    ):
        if pieces:
            pieces.append(("\n", False))
        for token, label in zip(row["input_ids"], row["labels"], strict=True):
            pieces.append((tokenizer.decode([token]), label != IGNORE))
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special}
    special.update(tokenizer.all_special_tokens)
    return ShownMask(pieces, frozenset(special))
