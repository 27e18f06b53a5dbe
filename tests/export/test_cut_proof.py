"""How a tokenizer cuts text, found among llama.cpp's names by proof, and proven before a file is
written: a name is taken only if llama.cpp's tokens are the tokenizer's.
"""

from __future__ import annotations

import dataclasses
import unicodedata

import pytest
from conftest import needs_llama
from export_models import odd_strings, small_llama
from test_vocabulary import SIZE, SPECIALS, finished, sentencepiece, texts
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing

from ftlib.export import cut_proof, vocabulary
from ftlib.export.cut_proof import NAMES, find_pre_tokenizer, proven
from ftlib.export.cut_texts import proof_texts
from ftlib.export.errors import ExportError
from ftlib.export.gguf_file import open_gguf
from ftlib.export.gguf_writer import export_gguf
from ftlib.export.llama_probe import Probe
from ftlib.export.vocabulary import PRE_TOKENIZERS, read_vocabulary

UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
# The patterns of published tokenizers, which `vocabulary` does not know: of GPT-4o (o200k),
# Qwen 3.5 (marks belong to letters) and DeepSeek V3.
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{ENDING}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{ENDING}|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|"
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ\u30a0-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
WORDS = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def split(pattern: str):
    return pre_tokenizers.Split(Regex(pattern), behavior="isolated", invert=False)


CUTS = {
    "gpt-4o": lambda: [split(O200K), BYTES],
    "qwen35": lambda: [split(QWEN35), BYTES],
    "deepseek-v3": lambda: [*[split(part) for part in DEEPSEEK], BYTES],
    "digits by threes, then words": lambda: [split(r"\p{N}{1,3}"), WORDS],
    "punctuation first": lambda: [pre_tokenizers.Punctuation(), BYTES],
    "by e": lambda: [split("e"), BYTES],
}


def more_texts() -> list[str]:
    """Of what the patterns differ in, so that merges of it are learnt."""
    own = [
        "HTTPServer camelCase snake_case",
        "e\u0301te\u0301 a\u0308 n\u0303",
        "1234567 2024 100000",
        "x = (a[0] + b) * c / d; //",
        "日本語の文章です。",
        "हिन्दी में लिखा हुआ वाक्य",
        "don't DON'T Don't",
    ]
    return texts() + own * 40


def trained(steps: list, size: int = SIZE, nfc: bool = False):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if nfc:
        backend.normalizer = normalizers.NFC()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(more_texts(), trainer)
    return finished(backend)


# --- found by proof -------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["gpt-4o", "qwen35", "deepseek-v3"])
def test_a_name_is_found_for_a_pattern_that_is_not_known(tmp_path, name):
    """On a thousand other strings than the proof's the tokens are the tokenizer's. (For GPT-4o's
    own pattern llama.cpp's "gpt-4o" is not exact: it leaves marks out of words. Another name is.)
    """
    needs_llama()
    from ftlib.export.llamacpp import open_llama

    nfc = name == "qwen35"
    tokenizer = trained(CUTS[name](), nfc=nfc)
    found = read_vocabulary(tokenizer, SIZE, []).pre
    assert found == {"gpt-4o": "granite-embed-multi-97m"}.get(name, name)
    with open_llama(export_gguf(small_llama(), tokenizer, tmp_path / "m.gguf")) as llama:
        for text in odd_strings(1_000):
            if nfc:
                text = unicodedata.normalize("NFC", text)
            theirs = llama.tokenize(text.encode(), add_bos=False, special=True)
            assert theirs == tokenizer(text)["input_ids"], repr(text)


@pytest.mark.parametrize("name", ["punctuation first", "by e"])
def test_where_no_name_fits_the_first_text_that_differs_is_shown(name):
    needs_llama()
    tokenizer = trained(CUTS[name]())
    with pytest.raises(ExportError, match=r"comes closest, but .* becomes \[.*in the tokenizer"):
        read_vocabulary(tokenizer, SIZE, [])


def test_a_cut_without_bytes_is_refused_at_once():
    tokenizer = finished(Tokenizer(models.BPE({token: i for i, token in enumerate(SPECIALS)}, [])))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ExportError, match="'Whitespace' has no bytes as letters"):
        read_vocabulary(tokenizer, SIZE, [])


def test_names_of_an_older_llama_cpp(monkeypatch):
    """One that does not know a name refuses the file, and the next is tried."""
    needs_llama()
    tokenizer = trained(CUTS["qwen35"](), nfc=True)
    read = read_vocabulary(tokenizer, SIZE, [])
    monkeypatch.setattr(cut_proof, "NAMES", ("tomorrow's", "gpt-2", "qwen35"))
    assert find_pre_tokenizer(read, tokenizer, "x") == "qwen35"
    monkeypatch.setattr(cut_proof, "NAMES", ("tomorrow's",))
    with pytest.raises(ExportError, match='does not load a vocabulary of "tomorrow\'s"'):
        find_pre_tokenizer(read, tokenizer, "x")


# --- proven ---------------------------------------------------------------------------------------
def by_llama3s_pattern():
    pattern = next(p for p, name in PRE_TOKENIZERS.items() if name == "llama-bpe")
    return pattern, trained([split(pattern), BYTES])


def test_a_wrong_name_is_put_right_by_the_proof(tmp_path, monkeypatch, caplog):
    """As if `vocabulary` took Llama 3's pattern for GPT-2's: another name is found, and said."""
    needs_llama()
    pattern, tokenizer = by_llama3s_pattern()
    monkeypatch.setitem(vocabulary.PRE_TOKENIZERS, pattern, "gpt-2")
    with caplog.at_level("INFO", "ftlib"):
        path = export_gguf(small_llama(), tokenizer, tmp_path / "m.gguf")
    written = open_gguf(path).fields["tokenizer.ggml.pre"].contents()
    assert written != "gpt-2" and f"{written!r}, which cuts as the tokenizer does" in caplog.text


def test_where_no_name_is_right_nothing_is_written(tmp_path, monkeypatch):
    needs_llama()
    pattern, tokenizer = by_llama3s_pattern()
    monkeypatch.setitem(vocabulary.PRE_TOKENIZERS, pattern, "gpt-2")
    monkeypatch.setattr(cut_proof, "NAMES", ("gpt-2", "falcon"))
    with pytest.raises(ExportError, match=r"otherwise than the tokenizer, under the name 'gpt-2'"):
        export_gguf(small_llama(), tokenizer, tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())
    path = export_gguf(small_llama(), tokenizer, tmp_path / "m.gguf", prove=False)
    assert open_gguf(path).fields["tokenizer.ggml.pre"].contents() == "gpt-2"


def test_tekken_of_a_vocabulary_with_marks(caplog, monkeypatch):
    """llama.cpp's "tekken" leaves marks out of words, the tokenizer's pattern does not: where the
    vocabulary has tokens of that kind, it is seen, and how many texts it is.
    """
    needs_llama()
    pattern = next(p for p, name in PRE_TOKENIZERS.items() if name == "tekken")
    tokenizer = trained([split(pattern), BYTES])
    tokenizer.backend_tokenizer.model.ignore_merges = True
    read = read_vocabulary(tokenizer, SIZE, [])
    assert read.pre == "tekken"
    with caplog.at_level("INFO", "ftlib"):
        found = proven(read, tokenizer)
    assert found.pre != "tekken" and "'हिन्दी में' becomes" in caplog.text
    monkeypatch.setattr(cut_proof, "NAMES", ("tekken", "gpt-2"))
    with pytest.raises(ExportError, match=r"cuts \d+ of \d{4} texts otherwise .*no-proof"):
        proven(read, tokenizer)


@pytest.mark.parametrize("prefix", [True, False])
def test_sentencepieces_are_proven_too(prefix):
    needs_llama()
    tokenizer = sentencepiece(prefix)
    read = read_vocabulary(tokenizer, SIZE, [])
    assert proven(read, tokenizer) is read


def test_a_start_token_that_the_file_does_not_say():
    """The tokenizer puts <|bos|> first; a file that says otherwise is seen by it."""
    needs_llama()

    tokenizer = trained(CUTS["gpt-4o"]())
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", 0)]
    )
    read = read_vocabulary(tokenizer, SIZE, [])
    assert read.add_bos and proven(read, tokenizer) is read
    with pytest.raises(
        ExportError, match=r"'7' becomes \[\d+\] there, \[0, \d+\] in the tokenizer"
    ):
        proven(dataclasses.replace(read, add_bos=False), tokenizer)


def test_what_the_proof_tries():
    """Every added token, tokens that no merge makes, digits, contractions, spaces, scripts."""
    _, tokenizer = by_llama3s_pattern()
    tokenizer.add_tokens(["<tool>"])
    read = read_vocabulary_by_hand(tokenizer)
    tried = proof_texts(read, tokenizer)
    assert tried == proof_texts(read, tokenizer)
    for token in (*SPECIALS, "<tool>"):
        assert f"a{token}b" in tried
    for text in (
        "1234567890",
        "don't",
        "     ",
        "日本語の文です。",
        "👩‍👩‍👧",
        "e\u0301a\u0308\u0323",
    ):
        assert text in tried
    assert len(proof_texts(read, tokenizer, thorough=True)) > len(tried) + 1000


def read_vocabulary_by_hand(tokenizer):
    """Under Llama 3's name, for which no proof is needed."""
    tokenizer.backend_tokenizer.model.ignore_merges = True
    return read_vocabulary(tokenizer, SIZE + 1, [])


# --- without llama.cpp ----------------------------------------------------------------------------
def test_without_llama_cpp_the_known_patterns_remain(monkeypatch):
    missing = Probe("missing", "llama-cpp-python is not installed")
    monkeypatch.setattr(cut_proof, "probe_llama", lambda: missing)
    with pytest.raises(ExportError, match=r"is none of Llama 3's, .*not installed: "):
        read_vocabulary(trained(CUTS["gpt-4o"]()), SIZE, [])
    known = trained([WORDS])
    read = read_vocabulary(known, SIZE, [])
    assert read.pre == "gpt-2" and proven(read, known) is read


def test_names_are_each_once():
    assert len(set(NAMES)) == len(NAMES) and set(PRE_TOKENIZERS.values()) <= set(NAMES)
