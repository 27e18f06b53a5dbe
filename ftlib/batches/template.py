"""Chat templates and loss masks: from a conversation to token ids and the labels that the loss
counts.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from ftlib.batches.omissions import has_thought, refuse_omissions, strings_in
from ftlib.batches.stops import stop_ids
from ftlib.core.errors import DataError, LoadError, RewrittenTurnError
from ftlib.data.rows import check_turn, says_something

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


IGNORE = -100
MARK = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


# --- tokens and masks -----------------------------------------------------------------------------
def _apply(tokenizer, messages: list[dict], **options):
    """`apply_chat_template`, with DataError where the template cannot write these messages."""
    # Qwen3's template writes an empty thought before an answer: without thinking it belongs to the
    # prompt. Other templates ignore the option.
    try:
        return tokenizer.apply_chat_template(messages, enable_thinking=False, **options)
    except (TemplateError, TypeError) as error:
        raise DataError(f"the chat template refuses these messages: {error}") from None


def template_ids(tokenizer, messages: list[dict], **options) -> list[int]:
    """The conversation's token ids, as its template writes them. DataError where it refuses."""
    # The template writes BOS itself; apply_chat_template does not let the tokenizer add a second
    # one.
    return _apply(tokenizer, messages, tokenize=True, return_dict=True, **options)["input_ids"]


def _check_omissions(tokenizer, messages: list[dict], tools: list | None) -> None:
    def render(some_messages: list[dict], some_tools: list | None) -> str:
        return _apply(tokenizer, some_messages, tools=some_tools, tokenize=False)

    refuse_omissions(render, messages, tools)


def prompt_ids(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of a conversation that the assistant is to answer. DataError where it is empty,
    ends with an answer, has an unknown role, or the template refuses or leaves out a turn.
    """
    check_tokenizer(tokenizer)
    _check_turns(messages)
    last = messages[-1]
    if last["role"] in ("assistant", "system", "developer"):
        raise DataError(
            f"the conversation ends with the turn of {last['role']!r} {last['content'][:40]!r}: a "
            "prompt ends with the turn that is to be answered"
        )
    _check_omissions(tokenizer, messages, tools=None)
    return template_ids(tokenizer, messages, add_generation_prompt=True)


def _check_turns(messages: list[dict]) -> None:
    if not messages:
        raise DataError("the conversation has no messages: a user's turn is needed at least")
    for i, message in enumerate(messages):
        check_turn(message, i, "conversation")


def _is_learnt(message: dict) -> bool:
    return message["role"] == "assistant" and message.get("weight") != 0


def _check_answers(tokenizer, messages: list[dict], stops: list[int]) -> None:
    """DataError for a weight that cannot be had, an empty answer, and an answer that holds a stop
    token, which the template writes after it: the model would learn to stop in mid-answer, or
    twice.
    """
    markers = [text for text in tokenizer.convert_ids_to_tokens(stops) if text]
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


def _mask_by_marks(
    tokenizer, messages: list[dict], tools: list | None, stops: list[int]
) -> tuple[list[int], list[int]]:
    out = _apply(
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
    if all(_is_learnt(answer) for answer in answers):
        return ids, mask
    runs = _runs(mask)
    if len(runs) != len(answers):
        raise DataError(
            f"the template's {{% generation %}} marks are around {len(runs)} stretches of text, "
            f"the conversation has {len(answers)} answers: which of them has weight 0 cannot be "
            "told; leave the weights out, or put marks around each answer"
        )
    for (start, end), answer in zip(runs, answers, strict=True):
        if not _is_learnt(answer):
            mask[start:end] = [0] * (end - start)
    return ids, mask


def _mask_by_prefix(
    tokenizer, messages: list[dict], tools: list | None, stops: list[int]
) -> tuple[list[int], list[int]]:
    """Mask for templates without generation marks: what each assistant turn adds to the text before
    it, up to its stop token.
    """
    ids = template_ids(tokenizer, messages, tools=tools)
    mask = [0] * len(ids)
    for i, message in enumerate(messages):
        if not _is_learnt(message):
            continue
        before = template_ids(tokenizer, messages[:i], tools=tools, add_generation_prompt=True)
        after = template_ids(tokenizer, messages[: i + 1], tools=tools)
        start = len(before)
        if after[:start] != before or ids[:start] != before:
            raise RewrittenTurnError(_rewritten(message))
        end = start
        while end < len(after) and after[end] not in stops:
            end += 1
        if end == len(after):
            raise DataError(_without_stop(tokenizer, after[start:]))
        end += 1  # the stop token is learnt, what a template writes after it is not
        if ids[:end] != after[:end]:
            raise RewrittenTurnError(_rewritten(message))
        mask[start:end] = [1] * (end - start)
    return ids, mask


def _rewritten(message: dict) -> str:
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


def _without_stop(tokenizer, answer: list[int]) -> str:
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
    for start, end in _runs(mask):
        ended = False
        for at in range(start, end):
            is_stop = ids[at] in stops
            if ended and (is_stop or _is_space(tokenizer, ids[at])):
                mask[at] = 0
            else:
                ended = is_stop
        if not ended:
            raise DataError(_open_run(tokenizer, ids, start, end, stops))
    return mask


def _is_space(tokenizer, token: int) -> bool:
    return not tokenizer.decode([token]).strip()


def _open_run(tokenizer, ids: list[int], start: int, end: int, stops: list[int]) -> str:
    """What is wrong with a marked stretch of text that does not end in a stop token."""
    after = end
    while after < len(ids) and ids[after] not in stops and _is_space(tokenizer, ids[after]):
        after += 1
    if after < len(ids) and ids[after] in stops:
        return (
            f"the template's {{% generation %}} marks end before the stop token "
            f"{tokenizer.decode([ids[after]])!r}, which must be learnt: put it inside them"
        )
    return _without_stop(tokenizer, ids[start:end])


def _runs(mask: list[int]) -> list[tuple[int, int]]:
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


def _check_thoughts(tokenizer, messages: list[dict], tools: list | None, ids: list[int]) -> None:
    """DataError where an answer with its reasoning does not continue the prompt that ftlib asks
    with: the model would learn to think, and be asked not to.
    """
    for i, message in enumerate(messages):
        if not _is_learnt(message) or not has_thought(message):
            continue
        before = template_ids(tokenizer, messages[:i], tools=tools, add_generation_prompt=True)
        prompt = tokenizer.decode(before).rstrip()
        if ids[: len(before)] != before or prompt.endswith("</think>"):
            raise DataError(f"message {i}: {_rewritten(message)}")


def encode(
    tokenizer,
    messages: list[dict],
    train_on_prompt: bool = False,
    tools: list[dict] | None = None,
    stops: list[int] | None = None,
) -> dict[str, list[int]]:
    """Token ids of a conversation, and labels that are -100 outside the assistant's turns:
    {"input_ids", "labels"}, one list each.

    The stop token that ends a turn belongs to the turn: it must be learnt, or the model never
    stops; what a template writes after it, such as a newline, does not. `stops`: the ids of such
    tokens, by default `stop_ids(tokenizer)`, which takes a few tenths of a millisecond. An
    assistant's turn with `weight` 0 is context only. Its `tool_calls` and `reasoning_content`, and
    the conversation's `tools`, go through the template. With `train_on_prompt` every token is a
    label. DataError where a BOS would be doubled, the template refuses or leaves out a turn, a tool
    or a thought, no stop token would be learnt, an answer is empty or holds a stop token, or no
    token would be trained on.
    """
    check_tokenizer(tokenizer)
    _check_turns(messages)
    if stops is None:
        stops = stop_ids(tokenizer)
    _check_answers(tokenizer, messages, stops)
    _check_omissions(tokenizer, messages, tools)
    by_marks = MARK.search(chat_template_of(tokenizer, tools))
    mask_of = _mask_by_marks if by_marks else _mask_by_prefix
    ids, mask = mask_of(tokenizer, messages, tools, stops)
    _check_thoughts(tokenizer, messages, tools, ids)
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
) -> list[dict[str, list[int]]]:
    """`encode`, as one example; or as one an answer, where the template writes an answer otherwise
    once a further turn follows.
    """
    try:
        return [encode(tokenizer, messages, train_on_prompt, tools, stops)]
    except RewrittenTurnError:
        parts = one_an_answer(messages)
        if parts == [messages]:
            raise
    return [encode(tokenizer, part, train_on_prompt, tools, stops) for part in parts]


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


# --- showing a mask -------------------------------------------------------------------------------
@dataclass
class ShownMask:
    """A conversation with its loss mask, token by token: colour in a notebook, brackets in a
    terminal.
    """

    pieces: list[tuple[str, bool]]  # one a token: its text, and whether the loss counts it
    special: frozenset[str] = frozenset()  # the tokens that are markers, not text

    def __str__(self) -> str:
        mask = [int(trained) for _, trained in self.pieces]
        turns = len(_runs(mask))
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
) -> ShownMask:
    """Show which tokens of a conversation the loss counts, special tokens among them; `str()` of it
    counts them. Where `encode_rows` makes an example of each answer, so does this, one below the
    other.
    """
    pieces: list[tuple[str, bool]] = []
    for row in encode_examples(tokenizer, messages, train_on_prompt, tools):
        if pieces:
            pieces.append(("\n", False))
        for token, label in zip(row["input_ids"], row["labels"], strict=True):
            pieces.append((tokenizer.decode([token]), label != IGNORE))
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special}
    special.update(tokenizer.all_special_tokens)
    return ShownMask(pieces, frozenset(special))


def chat_template_of(tokenizer, tools: list | None = None) -> str:
    """The template that `apply_chat_template` takes: of several by name that for tool use where
    there are tools, else the default one. LoadError where there is none.
    """
    template = tokenizer.chat_template
    if not isinstance(template, dict):
        return template
    if tools and "tool_use" in template:
        return template["tool_use"]
    if not template.get("default"):
        raise LoadError(
            f"tokenizer.chat_template is a dict of {', '.join(template) or 'nothing'}: put the one "
            "to train with under 'default', or set tokenizer.chat_template to its text"
        )
    return template["default"]


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
