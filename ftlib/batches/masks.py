"""Which tokens of a rendered conversation belong to the assistant's answers: by the template's
{% generation %} marks, or by what each answer adds to the text before it.
"""

from __future__ import annotations

from ftlib.batches.omissions import has_thought
from ftlib.batches.render import apply_template, template_ids
from ftlib.core.errors import DataError, OpenTurnError, RewrittenTurnError


def is_learnt(message: dict) -> bool:
    """Whether a turn is an answer that the model is to learn."""
    return message["role"] == "assistant" and message.get("weight") != 0


def mask_by_marks(
    tokenizer, messages: list[dict], tools: list | None, stops: list[int]
) -> tuple[list[int], list[int]]:
    out = apply_template(
        tokenizer,
        messages,
        tools=tools,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    ids = out["input_ids"]
    mask = _end_at_stops(tokenizer, ids, out["assistant_masks"], stops)
    answers = [m for m in messages if m["role"] == "assistant"]
    if all(is_learnt(answer) for answer in answers):
        return ids, mask
    runs = runs_of(mask)
    if len(runs) != len(answers):
        raise DataError(
            f"the template's {{% generation %}} marks are around {len(runs)} stretches of text, "
            f"the conversation has {len(answers)} answers: which of them has weight 0 cannot be "
            "told; leave the weights out, or put marks around each answer"
        )
    for (start, end), answer in zip(runs, answers, strict=True):
        if not is_learnt(answer):
            mask[start:end] = [0] * (end - start)
    return ids, mask


def mask_by_prefix(
    tokenizer, messages: list[dict], tools: list | None, stops: list[int]
) -> tuple[list[int], list[int]]:
    """Mask for templates without generation marks: what each assistant turn adds to the text before
    it, up to its stop token.
    """
    ids = template_ids(tokenizer, messages, tools=tools)
    mask = [0] * len(ids)
    for i, message in enumerate(messages):
        if not is_learnt(message):
            continue
        before = template_ids(tokenizer, messages[:i], tools=tools, add_generation_prompt=True)
        after = template_ids(tokenizer, messages[: i + 1], tools=tools)
        start = len(before)
        if after[:start] != before or ids[:start] != before:
            raise RewrittenTurnError(rewritten(message))
        end = start
        while end < len(after) and after[end] not in stops:
            end += 1
        if end == len(after):
            raise OpenTurnError(without_stop(tokenizer, after[start:]))
        end += 1  # the stop token is learnt, what a template writes after it is not
        if ids[:end] != after[:end]:
            raise RewrittenTurnError(rewritten(message))
        mask[start:end] = [1] * (end - start)
    return ids, mask


def rewritten(message: dict) -> str:
    if has_thought(message):
        return (
            "the chat template writes the thought of an answer otherwise than the prompt of an "
            "answer without thinking (enable_thinking=False), which is what ftlib asks: take the "
            "thought out"
        )
    return (
        "this chat template rewrites earlier turns, so the answer cannot be told from the prompt: "
        "encode_rows makes an example of each answer; for one of the whole conversation set a "
        "template with {% generation %} marks, such as training_template(tokenizer)"
    )


def without_stop(tokenizer, answer: list[int]) -> str:
    return (
        "the chat template writes no stop token after the answer, which ends with "
        f"{tokenizer.decode(answer)[-40:]!r}: the model would never learn to stop; let the "
        "template write one token of the tokenizer there, such as {{ eos_token }}"
    )


def _end_at_stops(tokenizer, ids: list[int], mask: list[int], stops: list[int]) -> list[int]:
    """The mask without what follows a stop token: white space (ChatML writes a newline) and
    further stops (Phi writes one at the end of a conversation). DataError where a run of ones does
    not come to a stop token, for then nothing would teach the model to stop.
    """
    mask = [int(m) for m in mask]
    for start, end in runs_of(mask):
        ended = False
        for at in range(start, end):
            is_stop = ids[at] in stops
            if ended and (is_stop or _is_space(tokenizer, ids[at])):
                mask[at] = 0
            else:
                ended = is_stop
        if not ended:
            raise _open_run(tokenizer, ids, start, end, stops)
    return mask


def _is_space(tokenizer, token: int) -> bool:
    return not tokenizer.decode([token]).strip()


def _open_run(tokenizer, ids: list[int], start: int, end: int, stops: list[int]) -> DataError:
    """The error of a marked stretch of text that does not end in a stop token."""
    after = end
    while after < len(ids) and ids[after] not in stops and _is_space(tokenizer, ids[after]):
        after += 1
    if after < len(ids) and ids[after] in stops:
        return DataError(
            f"the template's {{% generation %}} marks end before the stop token "
            f"{tokenizer.decode([ids[after]])!r}, which must be learnt: put it inside them"
        )
    return OpenTurnError(without_stop(tokenizer, ids[start:end]))


def runs_of(mask: list[int]) -> list[tuple[int, int]]:
    """(start, end) of every run of ones."""
    runs = []
    start = None
    for i, marked in enumerate([*mask, 0]):
        if marked and start is None:
            start = i
        elif not marked and start is not None:
            runs.append((start, i))
            start = None
    return runs
