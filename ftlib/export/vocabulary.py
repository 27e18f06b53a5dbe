"""A byte-level BPE tokenizer and its chat template as GGUF's metadata."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from gguf import GGUFWriter, TokenType
from jinja2 import TemplateError

from ftlib.export.errors import ExportError

# How text is cut before the merges: llama.cpp knows these patterns by name. Only the run of digits
# differs.
_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS = {_SPLIT % "{1,3}": "llama-bpe", _SPLIT % "": "qwen2"}


@dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp needs to encode, decode, render a chat and stop."""

    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    special: dict[str, int]  # bos, eos, eot, eom, pad, unk -> id
    stops: list[int]  # every id that ends generation
    add_bos: bool
    add_eos: bool
    chat_template: str

    def write(self, writer: GGUFWriter) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.types)
        writer.add_token_merges(self.merges)
        for name, token in self.special.items():
            getattr(writer, f"add_{name}_token_id")(token)
        if (
            len(self.stops) > 1
        ):  # llama.cpp has one eos, one eot and one eom; Ollama's own engine reads this list
            writer.add_array("tokenizer.ggml.eos_token_ids", self.stops)
        writer.add_add_bos_token(self.add_bos)
        writer.add_add_eos_token(self.add_eos)
        writer.add_add_space_prefix(False)
        writer.add_chat_template(self.chat_template)


def strip_marks(template: str) -> str:
    """The template without `{% generation %}` and `{% endgeneration %}`, which only transformers
    knows; it renders the same text.

    Where such a tag trims white space around it, an empty comment that trims as much takes its
    place.
    """
    template = re.sub(r"\{%([-+]?)\s*(?:end)?generation\s*([-+]?)%\}", r"{#\1 \2#}", template)
    return re.sub(
        r"(?<=\S)\{# #\}(?!\n)", "", template
    )  # with neither, and inside a line, the comment does nothing


def read_vocabulary(tokenizer, vocab_size: int, stops: list[int]) -> Vocabulary:
    """The tokenizer's part of a GGUF file. `stops`: the ids at which the model's generation_config
    ends generation.

    ExportError for another kind of tokenizer than Llama 3's and Qwen's, ids beyond the vocabulary,
    or no chat template.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ExportError(
            f"{type(tokenizer).__name__} is not a tokenizers-backed tokenizer: llama.cpp's own "
            "converter may know "
            f"it (converter=…)"
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    pre, model = _pre_tokenizer(content), content["model"]
    tokens, types = _tokens(content, vocab_size)
    template = _template(tokenizer)
    add_bos, add_eos = _added(tokenizer)
    special = {
        name: i
        for name in ("bos", "eos", "pad", "unk")
        if (i := getattr(tokenizer, f"{name}_token_id")) is not None
    }
    if "eos" not in special:
        raise ExportError(
            "the tokenizer has no eos_token: set it to the token that ends the assistant's turn"
        )
    special["eot"] = _turn_end(tokenizer)
    stops = list(dict.fromkeys([special["eot"], special["eos"], *stops]))
    more = [i for i in stops if i not in (special["eos"], special["eot"])]
    if more:
        special["eom"] = more[0]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return Vocabulary(pre, tokens, types, merges, special, stops, add_bos, add_eos, template)


def _pre_tokenizer(content: dict) -> str:
    """llama.cpp's name of the way the tokenizer cuts text; refuses whatever llama.cpp would do
    otherwise.
    """
    model, steps = content["model"], content.get("pre_tokenizer") or {}
    if model["type"] != "BPE" or model.get("byte_fallback"):
        fallback = " with byte fallback" if model.get("byte_fallback") else ""
        raise ExportError(
            f"the tokenizer is {model['type']}{fallback}, not byte-level BPE: "
            "run llama.cpp's own converter (converter=…)"
        )
    steps = steps.get("pretokenizers", [steps])
    split = (
        steps[0].get("pattern", {}).get("Regex")
        if len(steps) == 2 and steps[0].get("type") == "Split"
        else None
    )
    pre = PRE_TOKENIZERS.get(split)
    if (
        not pre
        or steps[1].get("type") != "ByteLevel"
        or steps[1].get("add_prefix_space")
        or steps[1].get("use_regex")
    ):
        shown = split or " + ".join(s.get("type", "none") for s in steps)
        raise ExportError(
            f"pre-tokenizer {shown!r} is neither Llama 3's nor Qwen2's: "
            "run llama.cpp's own converter (converter=…)"
        )
    normalizer = (content.get("normalizer") or {}).get("type")
    if normalizer not in (None, "NFC") or (
        normalizer and pre != "qwen2"
    ):  # Qwen's NFC is lost in llama.cpp, whoever converts
        raise ExportError(f"normalizer {normalizer!r}: llama.cpp does not apply it to {pre}")
    if pre == "llama-bpe" and not model.get("ignore_merges"):
        raise ExportError(
            "the tokenizer's BPE has ignore_merges=False, llama.cpp's llama-bpe looks whole words "
            "up first: set "
            "it to True, "
            "if the model was trained with it"
        )
    return pre


def _tokens(content: dict, size: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; ids that the tokenizer leaves free are marked unused."""
    ids = {i: t for t, i in content["model"]["vocab"].items()}
    types = dict.fromkeys(ids, TokenType.NORMAL)
    for added in content["added_tokens"]:
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise ExportError(
                f"added token {added['content']!r} strips or needs white space around it: "
                "llama.cpp would not"
            )
        marker = added["special"] or (
            added["content"].startswith("<|") and added["content"].endswith("|>")
        )
        ids[added["id"]] = added["content"]
        types[added["id"]] = TokenType.CONTROL if marker else TokenType.USER_DEFINED
    if max(ids) >= size:
        raise ExportError(
            f"the tokenizer has ids up to {max(ids)}, the model {size} embeddings: this is "
            "another model's "
            f"tokenizer, or "
            "resize_token_embeddings was forgotten"
        )
    return [ids.get(i, f"[PAD{i}]") for i in range(size)], [
        types.get(i, TokenType.UNUSED) for i in range(size)
    ]


def _template(tokenizer) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise ExportError(
            "the tokenizer has no chat template, so nobody could chat with the file: set "
            "tokenizer.chat_template"
        )
    return strip_marks(template)


def _added(tokenizer) -> tuple[bool, bool]:
    """Whether the tokenizer puts BOS before a text, and EOS after it."""
    plain, full = tokenizer("a", add_special_tokens=False)["input_ids"], tokenizer("a")["input_ids"]
    bos, eos = full[:1] == [tokenizer.bos_token_id], full[-1:] == [tokenizer.eos_token_id]
    if full != [tokenizer.bos_token_id] * bos + plain + [tokenizer.eos_token_id] * eos:
        raise ExportError(
            f"the tokenizer encodes 'a' as {full}: llama.cpp can add one BOS and one EOS, nothing "
            "else"
        )
    return bos, eos


def _turn_end(tokenizer) -> int:
    """The special token that ends the assistant's turn in the chat template; what follows it, a
    newline say, is never generated.
    """
    try:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}],
            tokenize=False,
        )
    except TemplateError as error:
        raise ExportError(
            f"the chat template cannot render one question and answer: {error}"
        ) from None
    after = tokenizer(text.rpartition("answer")[2], add_special_tokens=False)["input_ids"]
    if not after or after[0] not in tokenizer.added_tokens_decoder:
        raise ExportError(
            f"the chat template ends the assistant's turn with {text.rpartition('answer')[2]!r}, "
            "not with a stop "
            f"token: "
            "generation would never end"
        )
    return after[0]
