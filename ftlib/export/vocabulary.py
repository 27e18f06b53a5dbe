"""A tokenizer and its chat template as GGUF's metadata: byte-level BPE (Llama 3, Qwen, SmolLM,
GPT-2, Mistral's tekken) and SentencePiece's BPE with bytes to fall back to (Llama 2, Gemma).
"""

from __future__ import annotations

import json
from dataclasses import replace

from gguf import TokenType

from ftlib.batches.render import chat_template_of
from ftlib.batches.stops import ending_of, stop_ids, turn_end
from ftlib.batches.template import inference_template
from ftlib.export.cut_proof import find_pre_tokenizer
from ftlib.export.errors import ExportError
from ftlib.export.gguf_vocabulary import Vocabulary
from ftlib.export.sentencepiece import is_sentencepiece, read_sentencepiece

# How text is cut before the merges: llama.cpp knows these patterns by name. Only the run of digits
# differs.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS = {_SPLIT % "{1,3}": "llama-bpe", _SPLIT % "": "qwen2", _TEKKEN: "tekken"}
WHOLE_WORDS_FIRST = ("llama-bpe", "tekken")  # llama.cpp looks words up before it merges


def read_vocabulary(tokenizer, vocab_size: int, stops: list[int]) -> Vocabulary:
    """The tokenizer's part of a GGUF file. `stops`: the ids at which the model's generation_config
    ends generation.

    How a byte-level BPE cuts text is known by its pattern, or llama.cpp's name for it is found by
    proof, where llama.cpp is there (`find_pre_tokenizer`). ExportError for a tokenizer that
    llama.cpp would cut otherwise, ids beyond the vocabulary, or no chat template.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ExportError(
            f"{type(tokenizer).__name__} is not a tokenizers-backed tokenizer: llama.cpp's own "
            "converter may know it (converter=…)"
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    tokens, types = _tokens(content, vocab_size)
    merges: list[str] = []
    scores: list[float] = []
    space_prefix = False
    if is_sentencepiece(content):
        model, pre = "llama", "default"
        scores, types, space_prefix = read_sentencepiece(content, tokens, types)
    else:
        model, pre = "gpt2", _pre_tokenizer(content)
        given = content["model"]["merges"]
        merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in given]
    chat_template = _template(tokenizer)
    add_bos, add_eos = _added(tokenizer)
    special, stops = _special(tokenizer, stops)
    read = Vocabulary(
        model=model,
        pre=pre,
        tokens=tokens,
        types=types,
        merges=merges,
        scores=scores,
        space_prefix=space_prefix,
        special=special,
        stops=stops,
        add_bos=add_bos,
        add_eos=add_eos,
        chat_template=chat_template,
    )
    if not pre:
        read = replace(read, pre=find_pre_tokenizer(read, tokenizer, _shown_cut(content)))
    return read


def _special(tokenizer, stops: list[int]) -> tuple[dict[str, int], list[int]]:
    """(ids of the special tokens by GGUF's name for them, every id that ends generation)."""
    special = {}
    for name in ("bos", "eos", "pad", "unk"):
        token = getattr(tokenizer, f"{name}_token_id")
        if token is not None:
            special[name] = token
    if "eos" not in special:
        raise ExportError(
            "the tokenizer has no eos_token: set it to the token that ends the assistant's turn"
        )
    special["eot"] = _turn_end(tokenizer)
    stops = stop_ids(tokenizer, stops)
    others = [token for token in stops if token not in (special["eos"], special["eot"])]
    if others:
        special["eom"] = others[0]
    return special, stops


def _pre_tokenizer(content: dict) -> str:
    """llama.cpp's name of the way the tokenizer cuts text, empty where it has to be found; refuses
    whatever llama.cpp would do otherwise.
    """
    model = content["model"]
    if model["type"] != "BPE":
        raise ExportError(
            f"the tokenizer is {model['type']}, not BPE: "
            "run llama.cpp's own converter (converter=…)"
        )
    steps = _steps(content)
    pre = _name_of_split(steps)
    normalizer = (content.get("normalizer") or {}).get("type")
    # Qwen's NFC is lost in llama.cpp, whoever converts.
    if normalizer is not None and not (normalizer == "NFC" and pre in ("qwen2", "")):
        raise ExportError(f"normalizer {normalizer!r}: llama.cpp does not apply it to {pre}")
    if not pre:
        return ""
    ignores = bool(model.get("ignore_merges"))
    if ignores != (pre in WHOLE_WORDS_FIRST):
        habit = "merges from single bytes always" if ignores else "looks whole words up first"
        raise ExportError(
            f"the tokenizer's BPE has ignore_merges={ignores}, llama.cpp's {pre} {habit}: set it "
            f"to {not ignores}, if the model was trained with it"
        )
    return pre


def _steps(content: dict) -> list[dict]:
    """The steps of the cut. ExportError where none makes bytes of letters."""
    pre_tokenizer = content.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    if not any(step.get("type") == "ByteLevel" for step in steps):
        raise ExportError(
            f"pre-tokenizer {_shown_cut(content)!r} has no bytes as letters (ByteLevel): run "
            "llama.cpp's own converter (converter=…)"
        )
    return steps


def _shown_cut(content: dict) -> str:
    """The cut in messages: its pattern, or the names of its steps."""
    pre_tokenizer = content.get("pre_tokenizer") or {}
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return _pattern(steps) or " + ".join(step.get("type", "none") for step in steps)


def _pattern(steps: list[dict]) -> str:
    """The pattern of a split by one, followed by bytes as letters; empty for other steps."""
    if len(steps) == 2 and steps[0].get("type") == "Split":
        return steps[0].get("pattern", {}).get("Regex", "")
    return ""


def _name_of_split(steps: list[dict]) -> str:
    """llama.cpp's name for a split by a known pattern, followed by bytes as letters; empty for
    another.
    """
    by_words = _by_gpt2s_words(steps)
    if by_words:
        return by_words
    pre = PRE_TOKENIZERS.get(_pattern(steps), "")
    return pre if pre and _is_plain_byte_level(steps[1]) else ""


def _by_gpt2s_words(steps: list[dict]) -> str:
    """The name of a split that ends with GPT-2's own pattern: alone, or with every digit by itself
    before it (SmolLM). Empty for any other.
    """
    *before, byte_level = steps
    if byte_level.get("type") != "ByteLevel" or byte_level.get("add_prefix_space"):
        return ""
    if not byte_level.get("use_regex"):
        return ""
    if not before:
        return "gpt-2"
    digits = before[0]
    alone = len(before) == 1 and digits.get("type") == "Digits"
    return "smollm" if alone and digits.get("individual_digits") else ""


def _is_plain_byte_level(step: dict) -> bool:
    if step.get("type") != "ByteLevel":
        return False
    return not step.get("add_prefix_space") and not step.get("use_regex")


def _tokens(content: dict, size: int) -> tuple[list[str], list[int]]:
    """Token texts and types by id; ids that the tokenizer leaves free are marked unused."""
    texts = {token: text for text, token in content["model"]["vocab"].items()}
    types = dict.fromkeys(texts, TokenType.NORMAL)
    for added in content["added_tokens"]:
        text = added["content"]
        if added["lstrip"] or added["rstrip"] or added["single_word"]:
            raise ExportError(
                f"added token {text!r} strips or needs white space around it: llama.cpp would not"
            )
        is_marker = added["special"] or (text.startswith("<|") and text.endswith("|>"))
        texts[added["id"]] = text
        types[added["id"]] = TokenType.CONTROL if is_marker else TokenType.USER_DEFINED
    if max(texts) >= size:
        raise ExportError(
            f"the tokenizer has ids up to {max(texts)}, the model {size} embeddings: this is "
            "another model's tokenizer, or resize_token_embeddings was forgotten"
        )
    all_texts = [texts.get(token, f"[PAD{token}]") for token in range(size)]
    all_types = [types.get(token, TokenType.UNUSED) for token in range(size)]
    return all_texts, all_types


def _template(tokenizer) -> str:
    if not tokenizer.chat_template:
        raise ExportError(
            "the tokenizer has no chat template, so nobody could chat with the file: set "
            "tokenizer.chat_template"
        )
    return inference_template(chat_template_of(tokenizer))


def _added(tokenizer) -> tuple[bool, bool]:
    """Whether the tokenizer puts BOS before a text, and EOS after it."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    bos = [tokenizer.bos_token_id]
    eos = [tokenizer.eos_token_id]
    add_bos = full[:1] == bos
    add_eos = full[-1:] == eos
    if full != bos * add_bos + plain + eos * add_eos:
        raise ExportError(
            f"the tokenizer encodes 'a' as {full}: llama.cpp can add one BOS and one EOS, nothing "
            "else"
        )
    return add_bos, add_eos


def _turn_end(tokenizer) -> int:
    """The token that ends the assistant's turn in the chat template."""
    end = turn_end(tokenizer)
    if end is not None:
        return end
    ending = ending_of(tokenizer)
    if ending is None:
        raise ExportError(
            "the chat template refuses one question and answer, or rewrites the answer: set "
            "tokenizer.chat_template to one that takes them"
        )
    raise ExportError(
        f"the chat template ends the assistant's turn with {ending!r}, not with a stop token: "
        "generation would never end; let it write one, such as {{ eos_token }}"
    )
