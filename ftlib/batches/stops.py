"""What ends a turn: the tokens at which an answer stops, the same for masks, generation and export.

Three places name such tokens, and they may differ: the chat template writes one after an answer,
the tokenizer has an `eos_token`, and a model's generation_config may list several. A model that
learns the template's token must also be stopped at it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from jinja2 import TemplateError

log = logging.getLogger(__name__)

QUESTION = "qz0zq"
ANSWER = "qz1zq"


def text_after_answer(render: Callable[[list[dict]], str]) -> str | None:
    """What a template writes after the last answer of a conversation.

    `render(messages)` gives the conversation's text. None where the template refuses a plain
    question and answer, or does not write the answer as it is.
    """
    messages = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER},
    ]
    try:
        text = render(messages)
    except TemplateError:
        return None
    _, answer, after = text.rpartition(ANSWER)
    return after if answer else None


def token_at_start(text: str, tokens: Iterable[str]) -> str | None:
    """The longest of the tokens with which the text begins, white space before it aside."""
    text = text.lstrip()
    found = [token for token in tokens if token.strip() and text.startswith(token)]
    return max(found, key=len, default=None)


def ending_of(tokenizer) -> str | None:
    """`text_after_answer` of a tokenizer's chat template."""

    def render(messages: list[dict]) -> str:
        return tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)

    return text_after_answer(render)


def turn_end(tokenizer) -> int | None:
    """The id of the token that the tokenizer's chat template writes after an answer.

    It is one of the tokenizer's added tokens (special or not): other text is cut by its context,
    so that no single token would end a turn. None where the template writes no such token.
    """
    after = ending_of(tokenizer)
    if after is None:
        return None
    ids = {added.content: token for token, added in tokenizer.added_tokens_decoder.items()}
    text = token_at_start(after, ids)
    return None if text is None else ids[text]


def configured_stops(generation, config) -> list[int]:
    """The token ids that a model's generation_config names as its end; where it names none, those
    of the config. Either may be None.
    """
    ids = getattr(generation, "eos_token_id", None)
    if ids is None:
        ids = getattr(config, "eos_token_id", None)
    if ids is None:
        return []
    return [ids] if isinstance(ids, int) else list(ids)


def stop_ids(tokenizer, configured: Iterable[int] = ()) -> list[int]:
    """Every token id that ends an answer, each once: first the template's, then the tokenizer's
    `eos_token`, then the `configured` ones of a model (`configured_stops`).
    """
    own = [turn_end(tokenizer), tokenizer.eos_token_id]
    known = [token for token in own if token is not None]
    return list(dict.fromkeys([*known, *configured]))


def model_stops(model, tokenizer) -> list[int]:
    """`stop_ids` of a tokenizer and a model."""
    generation = getattr(model, "generation_config", None)
    config = getattr(model, "config", None)
    return stop_ids(tokenizer, configured_stops(generation, config))


def learnt_stops(model, tokenizer) -> list[int]:
    """The stops that end an answer in training rows: `model_stops` without ids that are ordinary
    text in this tokenizer. A config that was made for another tokenizer names such, and an answer
    is not over at the letter "g".
    """
    own = stop_ids(tokenizer)
    added = tokenizer.added_tokens_decoder
    return [token for token in model_stops(model, tokenizer) if token in own or token in added]


def name_turn_end(model, tokenizer) -> list[int]:
    """Put the stops of the template and the tokenizer into the model's generation_config, where
    they are missing: what is trained to end a turn must end it wherever the model goes. Returns the
    ids that were added; a model without a generation_config is left alone.
    """
    generation = getattr(model, "generation_config", None)
    if generation is None:
        return []
    named = configured_stops(generation, getattr(model, "config", None))
    added = [token for token in stop_ids(tokenizer) if token not in named]
    if added:
        generation.eos_token_id = [*named, *added]
        texts = ", ".join(tokenizer.convert_ids_to_tokens(added))
        log.info(
            "generation_config ended answers at %s; it does at %s too, which the chat template or "
            "the tokenizer ends a turn with",
            named,
            texts,
        )
    return added
