"""Tokenizers as llama.cpp reads them: ten thousand strings of every script become the same tokens,
and what llama.cpp would cut otherwise is refused.
"""

from __future__ import annotations

import json
import unicodedata

import pytest
from conftest import EMBEDDED, needs_llama
from export_models import odd_strings, small_llama, world_tokenizer
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

import ftlib as ft
from ftlib.export.errors import ExportError
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.llamacpp import open_llama
from ftlib.export.sentencepiece import SPACE
from ftlib.export.vocabulary import PRE_TOKENIZERS, read_vocabulary

SIZE = 1024  # of the vocabulary
STRINGS = 10_000
SPECIALS = ("<|bos|>", "<|end|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>")
NAMES = {name: pattern for pattern, name in PRE_TOKENIZERS.items()}


def texts() -> list[str]:
    """To train tokenizers on: the world's text, digits, capitals and other scripts."""
    own = [
        "ALL CAPITALS and 1234567890 DIGITS",
        "don't we'LL they'RE",
        "  four    spaces\n\n",
        "Où est-ce ?",
        "日本語の文です。",
        "привет, мир",
        "def f(x):\n    return x ** 2",
    ]
    return ft.load_base_text("tiny", count=200) + own


def finished(backend: Tokenizer):
    """The backend with the world's markers and chat template."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        unk_token="<unk>" if backend.token_to_id("<unk>") is not None else None,
        chat_template=AutoTokenizer.from_pretrained(EMBEDDED).chat_template,
        clean_up_tokenization_spaces=False,
    )


# --- byte-level BPE -------------------------------------------------------------------------------
def cut_of(name: str):
    """The pre-tokenizer that llama.cpp calls so."""
    by_words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "gpt-2":
        return by_words
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), by_words])
    from tokenizers import Regex

    split = pre_tokenizers.Split(Regex(NAMES[name]), behavior="isolated", invert=False)
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([split, bytes_alone])


def byte_level(name: str):
    """A tokenizer trained with this cut."""
    from tokenizers import decoders

    backend = Tokenizer(models.BPE(ignore_merges=name in ("llama-bpe", "tekken")))
    backend.pre_tokenizer = cut_of(name)
    backend.decoder = decoders.ByteLevel()
    if name == "qwen2":
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts(), trainer)
    return finished(backend)


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "tekken", "llama-bpe", "qwen2"])
def test_ten_thousand_strings_become_the_same_tokens(tmp_path, name):
    """And back into the same text. llama.cpp does not normalise, Qwen's tokenizer does: it gets
    what is normal already.
    """
    needs_llama()
    tokenizer = byte_level(name)
    assert read_vocabulary(tokenizer, SIZE, []).pre == name
    with open_llama(export_gguf(small_llama(), tokenizer, tmp_path / "m.gguf")) as llama:
        for text in odd_strings(STRINGS):
            if name == "qwen2":
                text = unicodedata.normalize("NFC", text)
            theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
            assert theirs == tokenizer(text)["input_ids"], repr(text)
            assert llama.detokenize(theirs, special=True).decode() == text


# --- SentencePiece --------------------------------------------------------------------------------
def sentencepiece(prefix: bool):
    """As transformers converts a SentencePiece model: bytes, tokens by score, every way to join two
    tokens into a third; with Llama 2's space before a text, or Gemma's none.
    """
    from tokenizers import decoders

    learnt = Tokenizer(models.BPE())
    learnt.normalizer = normalizers.Replace(" ", SPACE)
    learnt.pre_tokenizer = pre_tokenizers.Split("\n", behavior="isolated")
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False)
    learnt.train_from_iterator(texts(), trainer)
    by_id = sorted(learnt.get_vocab(), key=learnt.get_vocab().get)
    pieces = [piece for piece in by_id if len(piece) > 1]
    letters = [piece for piece in by_id if len(piece) == 1]
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    tokens = [*SPECIALS, "<unk>", *bytes_, *pieces, *letters]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = []
    for piece in pieces:
        for cut in range(1, len(piece)):
            if piece[:cut] in vocabulary and piece[cut:] in vocabulary:
                merges.append((piece[:cut], piece[cut:]))
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    steps = [normalizers.Prepend(SPACE)] if prefix else []
    backend.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
    shown = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence(shown)
    backend.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    return finished(backend)


@pytest.mark.parametrize("prefix", [True, False], ids=["llama-2", "gemma"])
def test_ten_thousand_strings_become_sentencepieces(tmp_path, prefix):
    """Bytes where a character has no token, a space before each stretch of text or none."""
    needs_llama()
    tokenizer = sentencepiece(prefix)
    found = read_vocabulary(tokenizer, SIZE, [])
    assert (found.model, found.space_prefix) == ("llama", prefix)
    with open_llama(export_gguf(small_llama(), tokenizer, tmp_path / "m.gguf")) as llama:
        for text in odd_strings(STRINGS):
            theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
            assert theirs == tokenizer(text)["input_ids"], repr(text)


def changed(tokenizer, **changes):
    """The tokenizer with parts of its JSON replaced, by dotted path."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for path, value in changes.items():
        *way, last = path.split("__")
        target = content
        for step in way:
            target = target[step]
        target[last] = value(target[last]) if callable(value) else value
    return finished(Tokenizer.from_str(json.dumps(content)))


def without_one_way(merges: list) -> list:
    """Without one of the merges that make the same token."""
    made = ["".join(pair) for pair in merges]
    twice = next(i for i in range(1, len(merges)) if made[i] == made[i - 1])
    return merges[:twice] + merges[twice + 1 :]


def interleaved(merges: list) -> list:
    """A merge that makes an earlier token again, moved to the end."""
    made = ["".join(pair) for pair in merges]
    twice = next(i for i in range(1, len(merges)) if made[i] == made[i - 1])
    return [*merges[:twice], *merges[twice + 1 :], merges[twice]]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model__merges": without_one_way}, r"can be joined of two others in \d ways, and"),
        ({"model__merges": interleaved}, "again after merges of other tokens"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer .*Lowercase"),
        (
            {
                "normalizer": None,
                "pre_tokenizer": {
                    "type": "Metaspace",
                    "replacement": SPACE,
                    "prepend_scheme": "first",
                    "split": False,
                },
            },
            "pre-tokenizer .*first",
        ),
    ],
    ids=["a way missing", "interleaved", "lowercase", "first alone"],
)
def test_sentencepieces_that_llama_cpp_would_join_otherwise_are_refused(changes, message):
    with pytest.raises(ExportError, match=message):
        read_vocabulary(changed(sentencepiece(True), **changes), SIZE, [])


def test_the_same_pieces_by_metaspace():
    """Newer files say with one pre-tokenizer what older ones say with two normalizers."""
    metaspace = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always"}
    metaspace["split"] = False
    tokenizer = changed(sentencepiece(True), normalizer=None, pre_tokenizer=metaspace)
    assert read_vocabulary(tokenizer, SIZE, []).space_prefix


def test_a_whole_word_is_looked_up_first_or_not():
    """llama.cpp decides it by the cut's name."""
    with pytest.raises(ExportError, match=r"ignore_merges=False.*looks whole words up first"):
        read_vocabulary(world_tokenizer(model__ignore_merges=False), SIZE, [])
    with pytest.raises(ExportError, match=r"ignore_merges=True.*merges from single bytes"):
        read_vocabulary(changed(byte_level("gpt-2"), model__ignore_merges=True), SIZE, [])
