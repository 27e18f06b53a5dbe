"""A conversation written by its tokenizer's chat template: the one place that calls it."""

from __future__ import annotations

import re

from jinja2 import TemplateError

from ftlib.core.errors import DataError, LoadError

MARK = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")


def apply_template(tokenizer, messages: list[dict], **options):
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
    return apply_template(tokenizer, messages, tokenize=True, return_dict=True, **options)[
        "input_ids"
    ]


def render_text(
    jinja: str, bos: str, eos: str, messages: list[dict], add_generation_prompt: bool
) -> str:
    """A conversation as transformers renders a template that belongs to no tokenizer."""
    text, _ = _render(jinja, bos, eos, messages, add_generation_prompt=add_generation_prompt)
    return text


def render_marked(
    jinja: str, bos: str, eos: str, messages: list[dict]
) -> tuple[str, list[tuple[int, int]]]:
    """(the conversation's text, the parts of it that stand between {% generation %} marks)."""
    return _render(jinja, bos, eos, messages, return_assistant_tokens_mask=True)


def _render(jinja: str, bos: str, eos: str, messages: list[dict], **options) -> tuple[str, list]:
    """(the text, the marked parts where `options` ask for them), without thinking."""
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, spans = render_jinja_template(
        [messages],
        chat_template=jinja,
        bos_token=bos,
        eos_token=eos,
        enable_thinking=False,
        **options,
    )
    return rendered[0], spans[0] if spans else []


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
