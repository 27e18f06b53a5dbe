"""Conversations as token ids and labels, those too long left out and counted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ftlib.batches.control_tokens import ALLOW, REFUSE, ControlHandling, handling_of
from ftlib.batches.stops import stop_ids
from ftlib.batches.template import IGNORE, check_tokenizer, encode_examples
from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import DataError
from ftlib.data.rows import check_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Keys beside a row's messages that change what other libraries train on.
_UNREAD = {
    "functions": "give them as 'tools'",
    "system": "make it the first message",
    "chat_template_kwargs": "set a chat template that does without",
}


def tools_of(row: dict, where: str) -> list[dict] | None:
    """The tools that a row offers, for the chat template. DataError for another form of them, and
    for a key of the row that would change its text and is not read.
    """
    for key, fix in _UNREAD.items():
        value = row.get(key)
        if value and not (key == "system" and _is_system_turn(row, value)):
            raise DataError(f"{where}: {key} is {repr(value)[:60]}, which is not read: {fix}")
    tools = row.get("tools")
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise DataError(
            f"{where}: tools is {type(tools).__name__} {repr(tools)[:60]}: a list of "
            "{'type': 'function', 'function': {'name', 'description', 'parameters'}} is needed"
        )
    return tools


def _is_system_turn(row: dict, text) -> bool:
    """Whether the row's messages or prompt begin with this system turn."""
    turns = row.get("messages", row.get("prompt"))
    if not isinstance(turns, list) or not turns or not isinstance(turns[0], dict):
        return False
    return turns[0].get("role") == "system" and turns[0].get("content") == text


def _is_encoded(row) -> bool:
    if not isinstance(row, dict) or row.keys() != {"input_ids", "labels"}:
        return False
    return len(row["input_ids"]) == len(row["labels"])


def _check_encoded(row: dict, where: str) -> dict:
    # The first token is predicted by nothing.
    if all(label == IGNORE for label in row["labels"][1:]):
        raise DataError(
            f"{where}: none of its {len(row['labels'])} labels is to be learnt (all are {IGNORE}): "
            "leave the row out, or label its answer"
        )
    return row


def _encode_row(
    tokenizer,
    row: dict,
    where: str,
    train_on_prompt: bool,
    stops: list[int],
    handling: ControlHandling,
) -> list[dict[str, list[int]]]:
    """The row's example, or one per answer where the template allows no other way."""
    if _is_encoded(row):
        return [_check_encoded(row, where)]
    if isinstance(row, dict) and "input_ids" in row and "messages" not in row:
        raise DataError(
            f"{where} has the keys {', '.join(map(str, row))}: an encoded row has 'input_ids' and "
            "'labels', equally long, and nothing else"
        )
    messages = check_row(row, where)["messages"]
    tools = tools_of(row, where)
    try:
        return encode_examples(tokenizer, messages, train_on_prompt, tools, stops, handling)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None


def encode_rows(
    tokenizer,
    rows: list[dict],
    max_length: int = 1024,
    train_on_prompt: bool = False,
    stops: list[int] | None = None,
    control_tokens: str | ControlHandling = "refuse",
) -> list[dict]:
    """Encode every row that is not encoded yet (`train_on_prompt`, `stops` and `control_tokens` as
    in `encode`; where such tokens are not refused, one line says how many rows hold some). Rows
    longer than max_length are left out, and one line says how many: a cut answer would teach the
    model to stop in mid-sentence.

    Some templates write an answer otherwise once a further turn follows (Qwen3 and the DeepSeek-R1
    distillates take its thoughts out). Then each answer of a conversation becomes an example of its
    own, after the prompt that generation gives, and one line says how many tokens that makes.
    """
    if stops is None:
        stops = stop_ids(check_tokenizer(tokenizer))
    handling = handling_of(tokenizer, control_tokens, stops)
    encoded = []
    split = []
    for i, row in enumerate(rows):
        examples = _encode_row(tokenizer, row, f"row {i}", train_on_prompt, stops, handling)
        encoded += examples
        if len(examples) > 1:
            split.append([len(example["input_ids"]) for example in examples])
    handling.say_found(rows)
    if split:
        _say_split(split)
    lengths = [len(row["input_ids"]) for row in encoded]
    return keep_short(encoded, lengths, max_length)


def _say_split(split: list[list[int]]) -> None:
    """One line on conversations that became several examples, by the tokens of each."""
    examples = sum(len(lengths) for lengths in split)
    tokens = sum(sum(lengths) for lengths in split)
    whole = sum(max(lengths) for lengths in split)
    noun = "conversation" if len(split) == 1 else "conversations"
    print(
        f"{len(split)} {noun} became {examples} examples, one per answer: this chat template "
        f"rewrites earlier turns; {tokens:,} tokens where a whole conversation once would be about "
        f"{whole:,}"
    )


def _check_text(handling: ControlHandling, text: str, where: str) -> None:
    found = handling.found_in(text)
    if found:
        raise DataError(
            f"{where}, holds {found[0]!r}, a control token: break it with "
            "ftlib.ControlTokens(tokenizer).defused(texts), or take it as the token that it is "
            "with control_tokens='allow'"
        )


def text_rows(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int = 1024,
    control_tokens: str = "refuse",
) -> list[dict]:
    """Plain texts as encoded rows of which every token is learnt, as in pretraining: replay for
    `finetune` (`ftlib.mix_rows`). Longer texts are cut at max_length. `control_tokens`: "refuse"
    those in a text, or "allow" them, such as the end of a document between two. DataError for a
    text that holds one, for one that has not two tokens, and for what is no list of texts.
    """
    check_positive_integer("max_length", max_length)
    if isinstance(texts, str):
        raise DataError(f"texts is one text, {texts[:40]!r}: pass a list of texts")
    if control_tokens not in (REFUSE, ALLOW):
        raise DataError(
            f"control_tokens={control_tokens!r}: use 'refuse' or 'allow'; to read them as plain "
            "text, break them first with ftlib.ControlTokens(tokenizer).defused(texts)"
        )
    handling = ControlHandling(control_tokens, tokenizer)
    rows = []
    for i, text in enumerate(texts):
        if control_tokens == REFUSE:
            _check_text(handling, text, f"text {i}, {text[:40]!r}")
        ids = tokenizer(text, truncation=True, max_length=max_length)["input_ids"]
        if len(ids) < 2:
            raise DataError(f"text {i}, {text[:40]!r}, is {len(ids)} tokens: leave it out")
        rows.append({"input_ids": ids, "labels": list(ids)})
    return rows


@contextlib.contextmanager
def said_of(name: str) -> Iterator[None]:
    """Errors in the block name the argument whose rows they are about."""
    try:
        yield
    except DataError as error:
        raise type(error)(f"{name}, {error}") from None


def encode_both(
    encode: Callable[[list[dict]], list[dict]], rows: list[dict], eval_rows: list[dict]
) -> tuple[list[dict], list[dict] | None]:
    """(what `encode` makes of the rows to train on, of the rows to evaluate on or None without
    any). Messages call the latter eval_rows.
    """
    train_set = encode(rows)
    if not eval_rows:
        return train_set, None
    with said_of("eval_rows"):
        return train_set, encode(eval_rows)


def keep_short(encoded: list[dict], lengths: list[int], max_length: int) -> list[dict]:
    """The rows of at most max_length tokens; one line says how many are left out. DataError if none
    is left.
    """
    kept = [row for row, n in zip(encoded, lengths, strict=True) if n <= max_length]
    if len(kept) < len(encoded):
        print(
            f"left out {len(encoded) - len(kept)} of {len(encoded)} rows longer than "
            f"max_length={max_length} (longest {max(lengths)})"
        )
    if not encoded:
        raise DataError("no rows to train on")
    if not kept:
        raise DataError(
            f"all {len(encoded)} rows are longer than max_length={max_length}: raise it"
        )
    return kept
