"""What a model still knows: general questions, an answer counting if it names what is asked for.

Perplexity hides forgetting: a model may lose half of what it could answer while its loss on plain
text hardly moves. So ask.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from ftlib.core.errors import DataError
from ftlib.evaluation.generate import generate_answers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def names_answer(text: str, accepted: Sequence[str]) -> bool:
    """Whether a text holds one of the accepted answers as whole words, in any case."""
    for answer in accepted:
        if re.search(rf"(?<!\w){re.escape(answer)}(?!\w)", text, re.IGNORECASE):
            return True
    return False


def knowledge_hits(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict],
    max_new_tokens: int = 24,
    batch_size: int = 25,
) -> list[bool]:
    """For each row whether the model's greedy answer names an accepted one.

    rows: {"messages": [question, …], "accepted": texts}, such as `load_rows("knowledge")` of the
    profile pocket. DataError for a row without them.
    """
    for i, row in enumerate(rows):
        if not row.get("accepted") or not row.get("messages"):
            raise DataError(f"row {i} has no 'accepted' answers or no 'messages': {str(row)[:80]}")
    questions = [row["messages"][:1] for row in rows]
    answers = generate_answers(model, tokenizer, questions, max_new_tokens, batch_size)
    hits = []
    for answer, row in zip(answers, rows, strict=True):
        hits.append(names_answer(answer, row["accepted"]))
    return hits
