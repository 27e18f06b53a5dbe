"""Chat templates and loss masks: from a conversation to token ids and the labels that the loss
counts.
"""

from __future__ import annotations

import html
import itertools
import json
import re
from dataclasses import dataclass
from importlib.resources import files
from string import Template
from typing import TYPE_CHECKING

from jinja2 import TemplateError

from ftlib.core.errors import DataError, LoadError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


IGNORE = -100
_MARK = re.compile(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}")
# Before the first branch of training_template.jinja where the layout knows a system turn.
_SYSTEM_BRANCH = Template(
    "if m['role'] == 'system' and loop.first %}"
    "{{ ${system} ~ (${system_content}) ~ ${after} }}{% el"
)


# --- tokens and masks -----------------------------------------------------------------------------
def template_ids(tokenizer, messages, **options) -> list[int]:
    """The conversation's token ids, as its template writes them."""
    # The template writes BOS itself; apply_chat_template does not let the tokenizer add a second
    # one. Qwen3's writes an empty thought before an answer: without thinking it belongs to the
    # prompt. Other templates ignore the option.
    return tokenizer.apply_chat_template(
        messages, tokenize=True, return_dict=True, enable_thinking=False, **options
    )["input_ids"]


def _mask_by_marks(tokenizer, messages) -> tuple[list[int], list[int]]:
    out = tokenizer.apply_chat_template(
        messages,
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
        enable_thinking=False,
    )
    return out["input_ids"], out["assistant_masks"]


def _mask_by_prefix(tokenizer, messages) -> tuple[list[int], list[int]]:
    """Mask for templates without generation marks: what each assistant turn adds to the text before
    it.
    """
    ids = template_ids(tokenizer, messages)
    mask: list[int] = []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = template_ids(tokenizer, messages[:i], add_generation_prompt=True)
        after = template_ids(tokenizer, messages[: i + 1])
        if ids[: len(after)] != after or after[: len(before)] != before:
            raise DataError(
                "this chat template rewrites earlier turns, so the answer cannot be told from the "
                "prompt: "
                "set a template with {% generation %} marks, such as training_template(tokenizer)"
            )
        mask += [0] * (len(before) - len(mask))
        mask += [1] * (len(after) - len(before))
    mask += [0] * (len(ids) - len(mask))
    return ids, mask


def _end_at_stop(ids: list[int], mask: list[int], stop: int | None) -> list[int]:
    """The mask with each run ending at its last stop token: ChatML writes a newline after it.
    DataError where the template's marks end before the stop token, for then nothing would teach the
    model to stop.
    """
    mask = [int(m) for m in mask]
    for start, end in _runs(mask):
        if stop in ids[start:end]:
            last = end - 1 - ids[start:end][::-1].index(stop)
            mask[last + 1 : end] = [0] * (end - last - 1)
        elif end < len(ids) and ids[end] == stop:
            raise DataError(
                "the template's {% generation %} marks end before the stop token, which must be "
                "learnt: put it inside them"
            )
    return mask


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


def _refuse_dropped(tokenizer, messages) -> None:
    """DataError where the template leaves out a system or tool turn, or another role, without a
    word.
    """
    if all(m["role"] in ("user", "assistant") for m in messages):
        return
    text = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False)
    for i, m in enumerate(messages):
        content = m["content"].strip()
        as_json = json.dumps(content, ensure_ascii=False)[1:-1]
        if content not in text and as_json not in text:
            raise DataError(
                f"the chat template drops message {i} of the role {m['role']!r}: "
                "take it out, or put its text into a user turn"
            )


def encode(tokenizer, messages: list[dict], train_on_prompt: bool = False) -> dict[str, list[int]]:
    """Token ids of a conversation, and labels that are -100 outside the assistant's turns:
    {"input_ids", "labels"}, one list each.

    The stop token that ends a turn belongs to the turn: it must be learnt, or the model never
    stops; a newline after it does not. With `train_on_prompt` every token is a label. DataError
    where a BOS would be doubled, the template refuses or drops a turn, its marks leave the stop
    token out, or no token would be trained on.
    """
    check_tokenizer(tokenizer)
    try:
        _refuse_dropped(tokenizer, messages)
        if _MARK.search(tokenizer.chat_template):
            ids, mask = _mask_by_marks(tokenizer, messages)
        else:
            ids, mask = _mask_by_prefix(tokenizer, messages)
    except TemplateError as error:
        raise DataError(f"the chat template refuses these messages: {error}") from None
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        raise DataError(
            "the chat template and the tokenizer both write BOS: "
            "tokenise with add_special_tokens=False"
        )
    if not any(mask):
        raise DataError(
            "no token of this conversation belongs to the assistant: there is nothing to learn"
        )
    if train_on_prompt:
        labels = list(ids)
    else:
        mask = _end_at_stop(ids, mask, tokenizer.eos_token_id)
        labels = [token if m else IGNORE for token, m in zip(ids, mask, strict=True)]
    return {"input_ids": ids, "labels": labels}


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

    return _MARK.sub(strip, template)


def training_template(tokenizer: PreTrainedTokenizerBase) -> str:
    """The tokenizer's chat template with {% generation %} marks around each answer and its stop
    token; sets nothing.

    A template that has marks is returned as it is. Of another one the layout is learnt by rendering
    conversations whose contents are known, and written as a template of its own: an optional system
    turn first, then user and assistant in turn. That covers ChatML, Llama 3, Qwen 2.5 and 3,
    Mistral and Gemma, with what they write unasked (a default system turn, a date, an empty thought
    before the last answer). It is compared with the original on further conversations; DataError
    where a template's layout is not of this kind. Other roles and tool calls are refused by name.
    Qwen3 cuts answers at `</think>`; this one does not. Train with it, but save the tokenizer with
    the template that it came with.
    """
    check_tokenizer(tokenizer)
    original = tokenizer.chat_template
    if _MARK.search(original):
        return original
    parts, trims = _learn(tokenizer, original)
    template = _write(parts, trims)
    for talk in _probes(system="system" in trims):
        for prompt in (False, True):
            ours = _render(tokenizer, template, talk, prompt)
            theirs = _render(tokenizer, original, talk, prompt)
            if ours != theirs:
                raise DataError(
                    "this chat template's turns differ from one another, so no marks can be put "
                    "into it automatically: write {% generation %} and {% endgeneration %} around "
                    "the answer and its stop token by hand"
                )
    return template


def _render(tokenizer, template: str, messages, prompt: bool = False) -> str | None:
    """The text of a conversation, or None where the template refuses it."""
    try:
        return tokenizer.apply_chat_template(
            messages,
            chat_template=template,
            tokenize=False,
            add_generation_prompt=prompt,
            enable_thinking=False,
        )
    except TemplateError:
        return None


def _talk(roles: str, content: str = "qz{}zq") -> list[dict]:
    """A conversation of one message a letter: s, u, a."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[r], "content": content.format(i)} for i, r in enumerate(roles)]


def _probes(system: bool) -> list[list[dict]]:
    """Conversations on which a learnt template must write what the original writes."""
    contents = ("x{}", " \n {} y\n\n", "{}: a <b> {{{{ c }}}}\n    d")
    starts = ("", "s") if system else ("",)
    turns = ("ua", "uau", "uaua", "uauaua")
    return [
        _talk(start + roles, content)
        for start, content, roles in itertools.product(starts, contents, turns)
    ]


def _pieces(tokenizer, template: str, roles: str, prompt: bool = False) -> list[str]:
    """What is before, between and after the contents of a conversation."""
    talk = _talk(roles)
    text = _render(tokenizer, template, talk, prompt)
    pieces = re.split("|".join(m["content"] for m in talk), text or "")
    if len(pieces) != len(talk) + 1:
        problem = "refuses" if text is None else "does not write each turn once of"
        spoken = ", ".join(m["role"] for m in talk)
        raise DataError(
            f"this chat template {problem} a conversation of {spoken}: "
            "no marks can be put into it automatically"
        )
    return pieces


def _learn(tokenizer, template: str) -> tuple[dict[str, str], dict[str, bool]]:
    """(the fixed texts of a layout, whether each role's content is trimmed)."""
    first, history, user, last, close = _pieces(tokenizer, template, "uaua")
    shut = _pieces(tokenizer, template, "u")[1]
    before_eos, eos, _ = close.partition(tokenizer.eos_token)
    stop = before_eos + eos if eos else close.rstrip()
    parts = {
        "first": first,
        "user": user.removeprefix(close),
        "shut": shut,
        "history": history.removeprefix(shut),
        "last": last.removeprefix(shut),
        "stop": stop,
        "close": close[len(stop) :],
    }
    trims = {}
    if _render(tokenizer, template, _talk("su")) is not None:
        system, after, _ = _pieces(tokenizer, template, "su")
        parts["system"] = system
        parts["after"] = after
        spaced = _render(tokenizer, template, _talk("su", " {} ")) or ""
        trims["system"] = " 0 " not in spaced
    spaced = _render(tokenizer, template, _talk("ua", " {} ")) or ""
    trims["user"] = " 0 " not in spaced
    trims["assistant"] = " 1 " not in spaced
    return parts, trims


def _write(parts: dict[str, str], trims: dict[str, bool]) -> str:
    """The layout as a Jinja template with marks."""
    values = {name: repr(text) for name, text in parts.items()}
    for role, trim in trims.items():
        values[f"{role}_content"] = "m['content'] | trim" if trim else "m['content']"
    if "system" in trims:
        values["system_branch"] = _SYSTEM_BRANCH.substitute(values)
        values["system_place"] = "after a system turn at most"
    else:
        values["system_branch"] = ""
        values["system_place"] = "without a system turn"
    # Lines of the file are for the reader: a template writes its line ends too.
    lines = (
        (files("ftlib.batches") / "training_template.jinja")
        .read_text(encoding="utf-8")
        .splitlines()
    )
    return Template("".join(lines)).substitute(values)


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
    tokenizer: PreTrainedTokenizerBase, messages: list[dict], train_on_prompt: bool = False
) -> ShownMask:
    """Show which tokens of a conversation the loss counts, special tokens among them; `str()` of it
    counts them.
    """
    row = encode(tokenizer, messages, train_on_prompt)
    pieces = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        pieces.append((tokenizer.decode([token]), label != IGNORE))
    added = tokenizer.added_tokens_decoder.values()
    special = {token.content for token in added if token.special}
    special.update(tokenizer.all_special_tokens)
    return ShownMask(pieces, frozenset(special))


def check_tokenizer(tokenizer, name: str = "tokenizer"):
    """Raise LoadError unless the tokenizer can render and pad a chat; returns it."""
    if not tokenizer.chat_template:
        raise LoadError(
            f"{name} has no chat template: "
            "use the model's -Instruct tokenizer or set tokenizer.chat_template"
        )
    if tokenizer.pad_token is None:
        raise LoadError(
            f"{name} has no pad token: set tokenizer.pad_token to a reserved token "
            "(not to the end-of-turn token, which must be learnt)"
        )
    return tokenizer
