"""An answer as serving reads and gives it: the prompt of generation, the answer, its stop token.
For templates that write a conversation otherwise than they prompt for its answers.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from ftlib.batches.as_text import unmarked
from ftlib.batches.omissions import MEANT, has_thought, refuse_omissions
from ftlib.batches.render import (
    MARK,
    apply_template,
    chat_template_of,
    render_marked,
    render_text,
    template_ids,
)
from ftlib.batches.stops import ending_of
from ftlib.core.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("ftlib")
CONTENT = "qz{}zq"  # a content that no template writes by itself
BY_TRAINING_TEMPLATE = "by ftlib's training_template"  # in the templates that it writes


def says_more(message: dict) -> bool:
    """Whether an answer has a thought or calls a tool beside its content."""
    return has_thought(message) or any(message.get(key) for key in MEANT)


def continues_prompts(
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], tools: list | None
) -> bool:
    """Whether in conversations of this template every answer stands right behind the prompt that
    generation gives. Tried on a conversation of two answers, with a system turn where `messages`
    begin with one. Templates with thoughts mostly fail: they prompt for one, and take those of
    earlier answers out. Those of `training_template` count as such: who sets one asks for whole
    conversations.
    """
    jinja = chat_template_of(tokenizer, tools)
    has_system = bool(messages) and messages[0]["role"] == "system"
    return _continues(jinja, tokenizer.bos_token or "", tokenizer.eos_token or "", has_system)


@functools.lru_cache(maxsize=64)
def _continues(jinja: str, bos: str, eos: str, has_system: bool) -> bool:
    roles = ["user", "assistant", "user", "assistant"]
    if has_system:
        roles = ["system", *roles]
    messages = [{"role": role, "content": CONTENT.format(i)} for i, role in enumerate(roles)]

    def render(some: list[dict], prompt: bool) -> str:
        return render_text(jinja, bos, eos, some, add_generation_prompt=prompt)

    if BY_TRAINING_TEMPLATE in jinja:
        return True
    try:
        question = messages[:-1]
        opens = render(question, prompt=True) != render(question, prompt=False)
        if MARK.search(jinja) and not opens:
            return True  # marks without a prompt of generation: there is nothing to continue
        whole = render(messages, prompt=False)
        for i, role in enumerate(roles):
            if role != "assistant":
                continue
            served = render(messages[:i], prompt=True) + CONTENT.format(i)
            alone = render(messages[: i + 1], prompt=False)
            if not whole.startswith(served) or not alone.startswith(served):
                return False
    except Exception:  # what a template raises is named where the rows are rendered
        return True
    return True


def marks_begin_at_answers(tokenizer: PreTrainedTokenizerBase, tools: list | None) -> bool:
    """Whether the template has {% generation %} marks, and each begins with its answer and not
    before it, such as with the header of its turn.
    """
    jinja = chat_template_of(tokenizer, tools)
    if not MARK.search(jinja):
        return False
    return _begin_at_answers(jinja, tokenizer.bos_token or "", tokenizer.eos_token or "")


@functools.lru_cache(maxsize=64)
def _begin_at_answers(jinja: str, bos: str, eos: str) -> bool:
    messages = [
        {"role": "user", "content": CONTENT.format(0)},
        {"role": "assistant", "content": CONTENT.format(1)},
    ]
    try:
        text, spans = render_marked(jinja, bos, eos, messages)
    except Exception:  # what a template raises is named where the rows are rendered
        return True
    return [start for start, _ in spans] == [text.rfind(CONTENT.format(1))]


def ends_no_answer(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes nothing but white space after an answer."""
    after = ending_of(tokenizer)
    return after is not None and not after.strip()


@functools.lru_cache(maxsize=8)
def say_end(token: str) -> None:
    """Say once which token ends the answers of a template that writes none."""
    log.warning(
        "the chat template writes nothing after an answer: each example ends with %r, at which "
        "generation stops",
        token,
    )


def is_served(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    tools: list | None,
    ids: list[int],
    mask: list[int],
) -> bool:
    """Whether the last answer stands in `ids` as it is served: what is learnt is the answer and one
    token more, behind the prompt of generation.
    """
    learnt = [i for i, marked in enumerate(mask) if marked]
    if not learnt or learnt != list(range(learnt[0], learnt[-1] + 1)):
        return False
    prompt = template_ids(tokenizer, messages[:-1], tools=tools, add_generation_prompt=True)
    if ids[: learnt[0]] != prompt:
        return False
    answer = tokenizer.decode([ids[i] for i in learnt[:-1]])
    return answer.strip() == unmarked(tokenizer, messages[-1]["content"]).strip()


def served_example(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[dict],
    tools: list | None,
    stops: list[int],
) -> tuple[list[int], list[int]]:
    """(ids, mask) of the prompt of `messages[:-1]`, the last answer, and the first of the `stops`.
    DataError where the template leaves out a turn of the prompt, or no stop is known.
    """

    def render(some: list[dict], some_tools: list | None) -> str:
        return apply_template(
            tokenizer, some, tools=some_tools, tokenize=False, add_generation_prompt=True
        )

    before = messages[:-1]
    refuse_omissions(render, before, tools)
    if not stops:
        raise DataError(
            "the tokenizer has no token that ends an answer: set tokenizer.eos_token, or let the "
            "chat template write one after the answer"
        )
    prompt = template_ids(tokenizer, before, tools=tools, add_generation_prompt=True)
    content = messages[-1]["content"]
    if _trims(tokenizer, messages):
        content = content.strip()
    answer = _ids_after(tokenizer, render(before, tools), prompt, content)
    ids = [*prompt, *answer, stops[0]]
    return ids, [0] * len(prompt) + [1] * (len(answer) + 1)


def _trims(tokenizer: PreTrainedTokenizerBase, messages: list[dict]) -> bool:
    """Whether the template takes the white space around the answer away."""
    content = messages[-1]["content"]
    if content == content.strip():
        return False
    return content not in apply_template(tokenizer, messages, tokenize=False)


def _ids_after(
    tokenizer: PreTrainedTokenizerBase, text: str, prompt: list[int], content: str
) -> list[int]:
    """The ids of a content after a prompt: cut with the prompt where that leaves its ids as they
    are, for some tokenizers cut the beginning of a text otherwise; else by itself.
    """
    whole = tokenizer(text + content, add_special_tokens=False)["input_ids"]
    if whole[: len(prompt)] == prompt:
        return whole[len(prompt) :]
    return tokenizer(content, add_special_tokens=False)["input_ids"]
