"""Preference rows: from TRL's pairs and thumbs to token ids, mismatched completions for KTO, and
batches.

A pair holds the keys `prompt`, `chosen`, `rejected`; a binary row `prompt`, `completion`, `label`
(true: desirable). Texts are lists of messages, or plain strings: then one user turn and one
assistant turn, which the chat template surrounds.
"""

from __future__ import annotations

from ftlib.batches.control_tokens import ControlHandling, handling_of
from ftlib.batches.encode import keep_short, tools_of
from ftlib.batches.stops import stop_ids
from ftlib.batches.template import IGNORE, check_tokenizer, encode
from ftlib.core.errors import DataError, PairError
from ftlib.data.rows import check_binary, check_pair, says_something


def _prompt_messages(prompt: str | list[dict]) -> list[dict]:
    """The turns before the completion: context only, whatever weights they came with. So a
    template may write an earlier answer otherwise than the last one, as Qwen3's does. DataError for
    an answer that is empty: something is missing there.
    """
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    messages = []
    for i, turn in enumerate(prompt):
        message = {key: turn[key] for key in turn if key != "weight"}
        if turn["role"] == "assistant":
            if not says_something(turn):
                raise DataError(f"message {i} is an empty answer: take the turn out of the prompt")
            message["weight"] = 0
        messages.append(message)
    return messages


def _completion_message(completion: str | list[dict], name: str, where: str) -> dict:
    if isinstance(completion, str):
        return {"role": "assistant", "content": completion}
    message = completion[0]
    if message.get("weight") == 0:
        raise PairError(f"{where}: {name} has weight=0: a completion is what is learnt from")
    return message


def _split(
    tokenizer, row: dict, name: str, where: str, stops: list[int], handling: ControlHandling
) -> tuple[list[int], list[int]]:
    """Ids before the last assistant turn, and of that turn with its stop token; what a template
    writes after it is left off.
    """
    completion = _completion_message(row[name], name, where)
    tools = tools_of(row, where)
    try:
        messages = [*_prompt_messages(row["prompt"]), completion]
        encoded = encode(tokenizer, messages, tools=tools, stops=stops, control_tokens=handling)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    labels = encoded["labels"]
    end = len(labels)
    while labels[end - 1] == IGNORE:
        end -= 1
    start = end
    while start > 0 and labels[start - 1] != IGNORE:
        start -= 1
    return encoded["input_ids"][:start], encoded["input_ids"][start:end]


def _encode_pair(
    tokenizer, row: dict, where: str, stops: list[int], handling: ControlHandling
) -> dict:
    check_pair(row, where)
    prompt, chosen = _split(tokenizer, row, "chosen", where, stops, handling)
    other_prompt, rejected = _split(tokenizer, row, "rejected", where, stops, handling)
    if prompt == other_prompt and chosen == rejected:
        raise PairError(
            f"{where}: chosen and rejected become the same tokens: nothing is preferred; "
            "leave the pair out"
        )
    if prompt != other_prompt:
        raise PairError(
            f"{where}: the prompt becomes other tokens before chosen than before rejected: "
            "take the white space off their beginnings"
        )
    return {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}


def _encode_binary(
    tokenizer, row: dict, where: str, stops: list[int], handling: ControlHandling
) -> dict:
    check_binary(row, where)
    prompt_ids, completion_ids = _split(tokenizer, row, "completion", where, stops, handling)
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "label": row["label"]}


def _endings(
    tokenizer, stops: list[int] | None, control_tokens: str | ControlHandling
) -> tuple[list[int], ControlHandling]:
    """(what ends a turn, by default the tokenizer's own; how control tokens are handled)."""
    if stops is None:
        stops = stop_ids(check_tokenizer(tokenizer))
    return stops, handling_of(tokenizer, control_tokens, stops)


def encode_pairs(
    tokenizer,
    rows: list[dict],
    max_length: int = 1024,
    stops: list[int] | None = None,
    control_tokens: str | ControlHandling = "refuse",
) -> list[dict]:
    """`prompt_ids`, `chosen_ids`, `rejected_ids` of every pair. A pair of which one side is longer
    than `max_length` tokens, prompt included, is left out and counted, never cut. `stops` and
    `control_tokens` as in `encode_rows`. DataError names the row that cannot be used.
    """
    for i, row in enumerate(rows):
        if isinstance(row, dict) and "completion" in row:
            raise PairError(
                f"row {i} is a binary row (prompt, completion, label): "
                "train on it with loss='kto', or make pairs"
            )
    stops, handling = _endings(tokenizer, stops, control_tokens)
    encoded = []
    for i, row in enumerate(rows):
        encoded.append(_encode_pair(tokenizer, row, f"row {i}", stops, handling))
    handling.say_found(rows)
    lengths = []
    for pair in encoded:
        longer = max(len(pair["chosen_ids"]), len(pair["rejected_ids"]))
        lengths.append(len(pair["prompt_ids"]) + longer)
    return keep_short(encoded, lengths, max_length)


def encode_binary(
    tokenizer,
    rows: list[dict],
    max_length: int = 1024,
    stops: list[int] | None = None,
    control_tokens: str | ControlHandling = "refuse",
) -> list[dict]:
    """`prompt_ids`, `completion_ids`, `label` of every binary row; a pair becomes a desirable and
    an undesirable one. Rows longer than `max_length` tokens are left out and counted, never cut.
    `stops` and `control_tokens` as in `encode_rows`. DataError names the row that cannot be used.
    """
    stops, handling = _endings(tokenizer, stops, control_tokens)
    encoded = []
    for i, row in enumerate(rows):
        if isinstance(row, dict) and "chosen" in row:
            encoded += _two_binary(_encode_pair(tokenizer, row, f"row {i}", stops, handling))
        else:
            encoded.append(_encode_binary(tokenizer, row, f"row {i}", stops, handling))
    handling.say_found(rows)
    lengths = [row_length(row) for row in encoded]
    return keep_short(encoded, lengths, max_length)


def _two_binary(pair: dict) -> list[dict]:
    """An encoded pair as a desirable and an undesirable row."""
    prompt = pair["prompt_ids"]
    return [
        {"prompt_ids": prompt, "completion_ids": pair["chosen_ids"], "label": True},
        {"prompt_ids": prompt, "completion_ids": pair["rejected_ids"], "label": False},
    ]


def row_length(item: dict) -> int:
    """Tokens of an encoded row: the prompt once, and every completion."""
    keys = ("prompt_ids", "chosen_ids", "rejected_ids", "completion_ids")
    return sum(len(item[key]) for key in keys if key in item)


def token_lists(items: list[dict]) -> list[list[int]]:
    """All token ids of encoded rows, prompt by prompt and completion by completion."""
    keys = ("prompt_ids", "chosen_ids", "rejected_ids", "completion_ids")
    found = []
    for item in items:
        found += [item[key] for key in keys if key in item]
    return found


def sequences_of(item: dict) -> list[dict]:
    """The two sequences that an encoded row has scored: a pair's chosen and rejected one, KTO's own
    and mismatched one.
    """
    sides = ("completion_ids", "kl_completion_ids")
    if "chosen_ids" in item:
        sides = ("chosen_ids", "rejected_ids")
    return [{"prompt_ids": item["prompt_ids"], "completion_ids": item[side]} for side in sides]


def mismatch(items: list[dict], batch_size: int) -> list[dict]:
    """KTO's mismatched pairs: the items, each with the completion of another as
    `kl_completion_ids`.

    Within every `batch_size` items, as they will be batched, completions are rotated by one: item i
    gets that of item i-1, and of an earlier one where that has the same prompt (the two sides of a
    pair). A last batch of one item takes from the batch before.
    """
    if len(items) < 2:
        raise DataError(
            f"{len(items)} row for KTO: its mismatched pairs take completions of other rows; "
            "bring two or more"
        )
    out = []
    for start in range(0, len(items), batch_size):
        block = items[start : start + batch_size]
        for i, item in enumerate(block):
            others = [block[i - k] for k in range(1, len(block))]
            if not others:
                others = items[:start][::-1]
            other = _of_another_prompt(item, others)
            out.append({**item, "kl_completion_ids": other["completion_ids"]})
    return out


def _of_another_prompt(item: dict, others: list[dict]) -> dict:
    """The first of the others with another prompt than the item's; without one the first."""
    for other in others:
        if other["prompt_ids"] != item["prompt_ids"]:
            return other
    return others[0]
