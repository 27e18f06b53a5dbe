"""What ftlib makes of the chat templates in a folder: Go templates, and training examples.

    python -m tools.templates FOLDER

Of each Jinja file: whether it renders a plain conversation, whether a Go template was found that
gives the same prompts, and whether every answer becomes training text that continues the prompt
which generation gives. The tokenizer is one of bytes, with the template's own markers as tokens.
"""

from __future__ import annotations

import logging
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from ftlib.batches.template import IGNORE, encode_examples, prompt_ids, template_ids
from ftlib.core.errors import DataError
from ftlib.export.chat_format import chat_format, render_jinja
from ftlib.export.errors import TemplateError
from ftlib.export.go_template import go_template

# Markers as templates write them: <|im_start|>, [INST], <start_of_turn>; and those that a template
# gives a name, as in `set eos_token = '[e~['`.
MARKER = re.compile(r"<[^<>\s'\"{}]{1,40}>|\[/?[A-Z_]{2,24}\]")
NAMED = re.compile(r"set \w+_token = '([^']+)'")
BOS = "<s>"
EOS = "</s>"
PAD = "<pad>"
CONVERSATIONS = 20  # of each template, for the masks
WORDS = (
    "Where is it?",
    "日本語で",
    '{"a": [1]}',
    "it's",
    "two\n\nlines",
    "3.14159",
    "🙂",
    "{{ x }}",
)


@dataclass(frozen=True)
class Found:
    """One template: what is wrong with it for each purpose, empty where nothing is. `examples`: how
    many tokens its answers take beside those of the whole conversation, where each is an example of
    its own.
    """

    name: str
    renders: str
    go: str
    masks: str
    examples: float


def tokenizer_for(jinja: str):
    """A tokenizer of bytes with the template's markers, a start, an end and a padding token."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    markers = [BOS, EOS, PAD, *MARKER.findall(jinja), *NAMED.findall(jinja)]
    markers = list(dict.fromkeys(markers))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*markers, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(markers)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=jinja,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
    )


def conversation(drawn: random.Random, system: bool) -> list[dict]:
    """A random conversation that ends with an answer."""
    messages = []
    if system and drawn.random() < 0.5:
        messages.append({"role": "system", "content": _content(drawn)})
    for _ in range(drawn.choice((1, 2, 3))):
        messages.append({"role": "user", "content": _content(drawn)})
        messages.append({"role": "assistant", "content": _content(drawn)})
    return messages


def _content(drawn: random.Random) -> str:
    return " ".join(drawn.choices(WORDS, k=drawn.randint(1, 4)))


def wrong_masks(tokenizer) -> tuple[str, float]:
    """(what is wrong with the training text of random conversations, or nothing; tokens of all
    examples beside those of the conversations).

    An answer's labels must be the answer and its end, and before them must stand exactly what
    `apply_chat_template(…, add_generation_prompt=True)` gives.
    """
    drawn = random.Random(0)
    system = not _refused(tokenizer, [{"role": "system", "content": "x"}])
    whole = 0
    trained = 0
    for _ in range(CONVERSATIONS):
        messages = conversation(drawn, system)
        try:
            examples = encode_examples(tokenizer, messages)
        except (DataError, TemplateError) as error:
            return str(error), 0.0
        whole += len(template_ids(tokenizer, messages))
        trained += sum(len(example["input_ids"]) for example in examples)
        if wrong := _wrong(tokenizer, messages, examples):
            return wrong, 0.0
    return "", trained / whole


def _refused(tokenizer, before: list[dict]) -> bool:
    try:
        prompt_ids(tokenizer, [*before, {"role": "user", "content": "y"}])
    except DataError:
        return True
    return False


def _wrong(tokenizer, messages: list[dict], examples: list[dict]) -> str:
    """What is wrong with the examples of a conversation; empty where nothing is."""
    answers = [i for i, message in enumerate(messages) if message["role"] == "assistant"]
    found = []
    for example in examples:
        labels = example["labels"]
        at = 0
        while at < len(labels):
            if labels[at] == IGNORE:
                at += 1
                continue
            end = at
            while end < len(labels) and labels[end] != IGNORE:
                end += 1
            found.append((example["input_ids"][:at], labels[at:end]))
            at = end
    if len(found) != len(answers):
        return f"{len(found)} stretches are trained, there are {len(answers)} answers"
    for (before, labels), i in zip(found, answers, strict=True):
        if before != prompt_ids(tokenizer, messages[:i]):
            return f"before answer {i} stands another text than the prompt of generation"
        text = tokenizer.decode(labels[:-1])
        if text.strip() != messages[i]["content"].strip():
            return f"trained are {text!r}, the answer is {messages[i]['content']!r}"
    return ""


def examine(path: Path) -> Found:
    """One Jinja file."""
    jinja = path.read_text(encoding="utf-8")
    tokenizer = tokenizer_for(jinja)
    try:
        render_jinja(chat_format(tokenizer), [{"role": "user", "content": "x"}])
    except Exception as error:  # a template may raise whatever Python does
        return Found(path.stem, f"{type(error).__name__}: {error}", "", "", 0.0)
    try:
        go_template(tokenizer)
        go = ""
    except TemplateError as error:
        go = str(error)
    masks, examples = wrong_masks(tokenizer)
    return Found(path.stem, "", go, masks, examples)


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    logging.disable(logging.WARNING)
    found = [examine(path) for path in sorted(Path(arguments[0]).glob("*.jinja"))]
    renders = [one for one in found if not one.renders]
    for one in found:
        go = one.go or "ok"
        masks = one.masks or f"ok, {one.examples:.2f} times the tokens"
        print(f"{one.name}\n    renders: {one.renders or 'ok'}")
        if not one.renders:
            print(f"    Go: {go}\n    masks: {masks}")
    print(
        f"{len(found)} templates, {len(renders)} render; of these {sum(not o.go for o in renders)} "
        f"have a Go template, {sum(not o.masks for o in renders)} training text"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
