"""Chat templates and loss masks: from a conversation to token ids and the labels that the loss
counts.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ftlib.batches.control_tokens import TEXT, ControlHandling, handling_of
from ftlib.batches.masks import is_learnt, mask_by_marks, mask_by_prefix, rewritten
from ftlib.batches.omissions import has_thought, refuse_omissions, strings_in
from ftlib.batches.render import MARK, apply_template, chat_template_of, template_ids
from ftlib.batches.served import (
    continues_prompts,
    ends_no_answer,
    is_served,
    marks_begin_at_answers,
    say_end,
    says_more,
    served_example,
)
from ftlib.batches.stops import stop_ids
from ftlib.core.errors import DataError, LoadError, OpenTurnError, RewrittenTurnError
from ftlib.data.rows import check_turn, says_something

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORE = -100


# --- tokens and masks -----------------------------------------------------------------------------
def _check_omissions(tokenizer, messages: list[dict], tools: list | None) -> None:
    def render(some_messages: list[dict], some_tools: list | None) -> str:
        return apply_template(tokenizer, some_messages, tools=some_tools, tokenize=False)

    refuse_omissions(render, messages, tools)


def prompt_ids(
    tokenizer, messages: list[dict], control_tokens: str | ControlHandling = "text"
) -> list[int]:
    """Token ids of a conversation that the assistant is to answer. DataError where it is empty,
    ends with an answer, has an unknown role, or the template refuses or leaves out a turn.

    `control_tokens` as in `encode`, but for its default: who asks may write anything, and what they
    write is text.
    """
    check_tokenizer(tokenizer)
    _check_turns(messages)
    last = messages[-1]
    if last["role"] in ("assistant", "system", "developer"):
        raise DataError(
            f"the conversation ends with the turn of {last['role']!r} {last['content'][:40]!r}: a "
            "prompt ends with the turn that is to be answered"
        )
    handling = handling_of(tokenizer, control_tokens)
    handling.refuse(messages)
    with handling.reading(messages) as (reader, read, _):
        _check_omissions(reader, read, tools=None)
        return template_ids(reader, read, add_generation_prompt=True)


def _check_turns(messages: list[dict]) -> None:
    if not messages:
        raise DataError("the conversation has no messages: a user's turn is needed at least")
    for i, message in enumerate(messages):
        check_turn(message, i, "conversation")


def _check_answers(
    tokenizer, messages: list[dict], stops: list[int], handling: ControlHandling
) -> None:
    """DataError for a weight that cannot be had, an empty answer, and an answer that holds a stop
    token, which the template writes after it: the model would learn to stop in mid-answer, or
    twice. One that is read as text is none.
    """
    markers = [text for text in tokenizer.convert_ids_to_tokens(stops) if text]
    if handling.choice == TEXT:
        markers = [text for text in markers if text not in handling.finder.tokens]
    for i, message in enumerate(messages):
        weight = message.get("weight")
        is_answer = message["role"] == "assistant"
        if weight is not None and (weight not in (0, 1) or (weight and not is_answer)):
            raise DataError(
                f"message {i} of the role {message['role']!r} has weight={weight!r}: the "
                "assistant's turns are learnt (1) or context only (0), no others have a weight"
            )
        if is_answer and weight != 0 and not says_something(message):
            raise DataError(
                f"message {i} is an empty answer, which would teach the model to stop at once: "
                "take the turn out, or give it weight 0"
            )
        for marker in markers:
            if is_answer and any(marker in text for text in strings_in(message)):
                raise DataError(
                    f"message {i} holds {marker!r}, which ends a turn and which the chat template "
                    "writes by itself: take it out of the answer"
                )


def _check_thoughts(tokenizer, messages: list[dict], tools: list | None, ids: list[int]) -> None:
    """DataError where an answer with its reasoning does not continue the prompt that ftlib asks
    with: the model would learn to think, and be asked not to.
    """
    for i, message in enumerate(messages):
        if not is_learnt(message) or not has_thought(message):
            continue
        before = template_ids(tokenizer, messages[:i], tools=tools, add_generation_prompt=True)
        prompt = tokenizer.decode(before).rstrip()
        if ids[: len(before)] != before or prompt.endswith("</think>"):
            raise DataError(f"message {i}: {rewritten(message)}")


def _as_written(
    tokenizer, messages: list[dict], tools: list | None, stops: list[int]
) -> tuple[list[int], list[int]]:
    """(ids, mask) of the conversation as its template writes it whole."""
    _check_omissions(tokenizer, messages, tools)
    by_marks = marks_begin_at_answers(tokenizer, tools)
    mask_of = mask_by_marks if by_marks else mask_by_prefix
    ids, mask = mask_of(tokenizer, messages, tools, stops)
    _check_thoughts(tokenizer, messages, tools, ids)
    return ids, mask


def _ids_and_mask(
    tokenizer, messages: list[dict], tools: list | None, stops: list[int]
) -> tuple[list[int], list[int]]:
    """The conversation as it is written whole, where that is the text that serving gives; else, of
    one that ends with its only answer to be learnt, as it is served.
    """
    if continues_prompts(tokenizer, messages, tools):
        try:
            return _as_written(tokenizer, messages, tools, stops)
        except OpenTurnError:
            if not stops or not ends_no_answer(tokenizer):
                raise
            say_end(tokenizer.convert_ids_to_tokens(stops[0]))
    learnt = [i for i, message in enumerate(messages) if is_learnt(message)]
    if not learnt:  # _as_written says what else is wrong
        return _as_written(tokenizer, messages, tools, stops)
    if learnt != [len(messages) - 1]:
        raise RewrittenTurnError(rewritten(messages[learnt[0]]))
    try:
        ids, mask = _as_written(tokenizer, messages, tools, stops)
    except DataError:
        if says_more(messages[-1]):
            raise
        return served_example(tokenizer, messages, tools, stops)
    if says_more(messages[-1]) or is_served(tokenizer, messages, tools, ids, mask):
        return ids, mask
    return served_example(tokenizer, messages, tools, stops)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    train_on_prompt: bool = False,
    tools: list[dict] | None = None,
    stops: list[int] | None = None,
    control_tokens: str | ControlHandling = "refuse",
) -> dict[str, list[int]]:
    """Token ids of a conversation, and labels that are -100 outside the assistant's turns:
    {"input_ids", "labels"}, one list each.

    The stop token that ends a turn belongs to the turn: it must be learnt, or the model never
    stops; what a template writes after it, such as a newline, does not. `stops`: the ids of such
    tokens, by default `stop_ids(tokenizer)`, which takes a few tenths of a millisecond. Where the
    template writes an answer otherwise than it prompts for it (a thought before it, a channel), a
    conversation that ends with its only answer to be learnt becomes what serving will read and
    give: the prompt, the answer, the stop token; RewrittenTurnError for one with more. So it does
    where the template writes nothing after an answer, which is said. An
    assistant's turn with `weight` 0 is context only. Its `tool_calls` and `reasoning_content`, and
    the conversation's `tools`, go through the template. With `train_on_prompt` every token is a
    label.

    `control_tokens`: what becomes of a text that spells a control token (`control_tokens_of`: the
    tokenizer's special tokens and the stops), such as ``a <|end|> b``, which the tokenizer would
    read as if the template had written it. "refuse": DataError names message, role and token.
    "text": it is encoded as the plain text that it is (`ftlib.batches.as_text`), and only the
    template's own are control tokens. "allow": as the token. Other texts have the same ids in all
    three. DataError where a BOS would be doubled, the template refuses or leaves out a turn, a tool
    or a thought, no stop token would be learnt, an answer is empty or holds a stop token, or no
    token would be trained on.
    """
    check_tokenizer(tokenizer)
    _check_turns(messages)
    if stops is None:
        stops = stop_ids(tokenizer)
    handling = handling_of(tokenizer, control_tokens, stops)
    handling.refuse(messages, tools)
    _check_answers(tokenizer, messages, stops, handling)
    with handling.reading(messages, tools) as (reader, read, read_tools):
        ids, mask = _ids_and_mask(reader, read, read_tools, stops)
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise DataError(
            "the chat template and the tokenizer both write BOS: "
            "tokenise with add_special_tokens=False"
        )
    if not any(mask):
        roles = ", ".join(message["role"] for message in messages)
        raise DataError(
            f"no token of this conversation ({roles}) belongs to the assistant and is to be "
            "learnt: add an answer, or leave the row out"
        )
    if train_on_prompt:
        labels = list(ids)
    else:
        labels = [token if m else IGNORE for token, m in zip(ids, mask, strict=True)]
    return {"input_ids": ids, "labels": labels}


def encode_examples(
    tokenizer,
    messages: list[dict],
    train_on_prompt: bool = False,
    tools: list[dict] | None = None,
    stops: list[int] | None = None,
    control_tokens: str | ControlHandling = "refuse",
) -> list[dict[str, list[int]]]:
    """`encode`, as one example; or as one per answer, where the template writes an answer otherwise
    once a further turn follows.
    """
    if stops is None:
        stops = stop_ids(check_tokenizer(tokenizer))
    handling = handling_of(tokenizer, control_tokens, stops)
    try:
        return [encode(tokenizer, messages, train_on_prompt, tools, stops, handling)]
    except RewrittenTurnError:
        parts = one_an_answer(messages)
        if parts == [messages]:
            raise
    return [encode(tokenizer, part, train_on_prompt, tools, stops, handling) for part in parts]


def one_an_answer(messages: list[dict]) -> list[list[dict]]:
    """The conversation up to each answer that is to be learnt, what was said before being context
    only (weight 0): what a model is asked when it gives that answer, and nothing after it.
    """
    parts = []
    context: list[dict] = []
    for message in messages:
        is_answer = message["role"] == "assistant"
        if is_answer and message.get("weight") != 0:
            parts.append([*context, message])
        context.append({**message, "weight": 0} if is_answer else message)
    return parts


# --- templates ------------------------------------------------------------------------------------
def inference_template(template: str) -> str:
    """The template without its {% generation %} marks, for runtimes whose Jinja does not know them;
    it writes the same text.
    """

    def strip(mark: re.Match) -> str:
        before = template[mark.start() - 1 : mark.start()]
        after = template[mark.end() : mark.end() + 1]
        if not before.isspace() and not after.isspace():
            return ""
        # An empty comment keeps what the mark did to the white space around it.
        return "{#" + mark[1] + " " + mark[2] + "#}"

    return MARK.sub(strip, template)


def check_tokenizer(tokenizer, name: str = "tokenizer"):
    """Raise LoadError unless the tokenizer can render and pad a chat; returns it."""
    if not tokenizer.chat_template:
        raise LoadError(
            f"{name} has no chat template: "
            "use the model's -Instruct tokenizer or set tokenizer.chat_template"
        )
    chat_template_of(tokenizer)
    if tokenizer.pad_token is None:
        raise LoadError(
            f"{name} has no pad token: set tokenizer.pad_token to a reserved token "
            "(not to the end-of-turn token, which must be learnt)"
        )
    return tokenizer
