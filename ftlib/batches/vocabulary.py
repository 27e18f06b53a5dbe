"""Whether a model's embedding knows the tokens that a tokenizer makes."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from torch import nn

from ftlib.core.errors import DataError

log = logging.getLogger("ftlib")


def check_ids(model: nn.Module, tokenizer, rows: Iterable[list[int]]) -> None:
    """DataError where token ids lie beyond the model's embedding: its rows have to become as many
    as the tokenizer has tokens.
    """
    count = len(model.get_input_embeddings().weight)
    largest = max((max(row) for row in rows if row), default=0)
    if largest >= count:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise DataError(
            f"token {token!r} has the id {largest}, the model's embedding {count} rows: call "
            f"model.resize_token_embeddings({len(tokenizer)}), or load the model's own tokenizer"
        )


def new_tokens(model: nn.Module, tokenizer) -> list[str]:
    """Tokens that the base's own tokenizer does not have, by id; none where that is not at hand."""
    from transformers import AutoTokenizer

    name = getattr(model.config, "_name_or_path", "")
    if not name:
        return []
    try:
        base = AutoTokenizer.from_pretrained(name, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return []
    known = base.get_vocab()
    added = [(index, token) for token, index in tokenizer.get_vocab().items() if token not in known]
    return [token for _, token in sorted(added)]


def warn_of_frozen_rows(model: nn.Module, tokenizer) -> None:
    """Say which new tokens have rows in the embedding that no training ever touched, if it is
    frozen.
    """
    weight = model.get_input_embeddings().weight
    if weight.requires_grad:
        return
    tokens = new_tokens(model, tokenizer)
    if tokens:
        log.warning(
            "%d tokens, the first %r, are not the base's, and their rows in the embedding are "
            "frozen: the model never learns what they mean. To train them, and save them with the "
            "adapter: model.get_input_embeddings().weight.requires_grad_(True)",
            len(tokens),
            tokens[0],
        )
