"""llama.cpp cuts text into a tokenizer's own tokens: both are held against each other on texts of
every kind, by a file that holds the vocabulary alone.

Before its merges a byte-level BPE cuts text by a pattern. llama.cpp knows patterns by name
(`tokenizer.ggml.pre`) and reads none from the file, so that a name is right if the tokens are.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import tempfile
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from gguf import GGUFWriter

from ftlib.export.cut_texts import proof_texts
from ftlib.export.errors import ExportError
from ftlib.export.gguf_vocabulary import Vocabulary
from ftlib.export.llama_probe import probe_llama

log = logging.getLogger("ftlib")
# llama.cpp's names (llama-vocab.cpp, August 2026), one of each pattern, the oldest first: a name
# that the llama.cpp at hand does not know is passed over. Those of other tokenizers than byte-level
# BPE are left out.
NAMES = (
    "gpt-2",
    "llama-bpe",
    "qwen2",
    "smollm",
    "tekken",
    "gpt-4o",
    "deepseek-llm",
    "deepseek-coder",
    "deepseek-v3",
    "falcon",
    "mpt",
    "starcoder",
    "refact",
    "command-r",
    "stablelm2",
    "olmo",
    "dbrx",
    "smaug-bpe",
    "poro-chat",
    "chatglm-bpe",
    "glm4",
    "viking",
    "jais",
    "codeshell",
    "bloom",
    "gpt3-finnish",
    "exaone",
    "chameleon",
    "minerva-7b",
    "trillion",
    "superbpe",
    "bailingmoe",
    "seed-coder",
    "hunyuan",
    "hunyuan-dense",
    "kimi-k2",
    "grok-2",
    "afmoe",
    "minimax-m2",
    "granite-docling",
    "qwen35",
    "exaone-moe",
    "youtu",
    "solar-open",
    "tiny_aya",
    "joyai-llm",
    "jais-2",
    "granite-embed-multi-97m",
    "minicpm5",
    "spark2_5",
    "hy_v4",
    "laguna",
    "mellum2",
    "ufakzeka",
    "default",
)


def _normalises(tokenizer: Any) -> bool:
    """Whether the tokenizer brings text to NFC, which llama.cpp does not: what is normal already is
    compared then.
    """
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer is not None and "NFC" in type(normalizer).__name__


# --- llama.cpp ------------------------------------------------------------------------------------
class _LoadedVocabulary:
    """A file's vocabulary in llama.cpp, without weights."""

    def __init__(self, model: Any):
        import llama_cpp

        self.model = model
        self.vocabulary = llama_cpp.llama_model_get_vocab(model)

    def tokens(self, text: str, add_special: bool = False) -> list[int]:
        """The ids; control tokens in the text are read as such. `add_special`: with what the file
        says to put before and after a text.
        """
        import llama_cpp

        content = text.encode()
        room = len(content) + 8
        ids = (llama_cpp.llama_token * room)()
        count = llama_cpp.llama_tokenize(
            self.vocabulary, content, len(content), ids, room, add_special, True
        )
        return list(ids[:count])


@contextlib.contextmanager
def _loaded(path: Path, pre: str) -> Iterator[_LoadedVocabulary | None]:
    """The file's vocabulary under this name of a pre-tokenizer; None where llama.cpp refuses it."""
    import llama_cpp

    # The list ends with an entry without a key.
    overrides = (llama_cpp.llama_model_kv_override * 2)()
    overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].key = b"tokenizer.ggml.pre"
    ctypes.memmove(
        ctypes.addressof(overrides[0].value), pre.encode() + b"\0", len(pre.encode()) + 1
    )
    options = llama_cpp.llama_model_default_params()
    options.vocab_only = True
    options.n_gpu_layers = 0
    options.kv_overrides = overrides
    with contextlib.redirect_stderr(io.StringIO()):  # it says why it refuses a file
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
    if not model:
        yield None
        return
    try:
        yield _LoadedVocabulary(model)
    finally:
        llama_cpp.llama_model_free(model)


@contextlib.contextmanager
def _written(vocabulary: Vocabulary) -> Iterator[Path]:
    """A GGUF that holds the vocabulary alone."""
    with tempfile.TemporaryDirectory(prefix="ftlib-vocabulary-") as folder:
        path = Path(folder) / "vocabulary.gguf"
        writer = GGUFWriter(path, "llama")
        vocabulary.write(writer)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        yield path


class _Proof:
    """A tokenizer's ids of the texts, and where a file's vocabulary gives others."""

    def __init__(self, vocabulary: Vocabulary, tokenizer: Any, thorough: bool = False):
        texts = proof_texts(vocabulary, tokenizer, thorough)
        if _normalises(tokenizer):
            texts = [unicodedata.normalize("NFC", text) for text in texts]
        self.texts = texts
        self.wanted = tokenizer(texts, add_special_tokens=False)["input_ids"]
        self.whole = tokenizer(texts[0])["input_ids"]

    def difference(self, path: Path, pre: str) -> tuple[int, str]:
        """(how many texts are right before the first that is not, that one in words); without a
        difference the words are empty.
        """
        with _loaded(path, pre) as loaded:
            if loaded is None:
                return -1, f"llama.cpp does not load a vocabulary of {pre!r}"
            for i, (text, wanted) in enumerate(zip(self.texts, self.wanted, strict=True)):
                given = loaded.tokens(text)
                if given != wanted:
                    return i, _in_words(text, wanted, given)
            given = loaded.tokens(self.texts[0], add_special=True)
            if given != self.whole:
                return len(self.texts), _in_words(self.texts[0], self.whole, given)
        return len(self.texts), ""

    def wrong(self, path: Path, pre: str) -> int:
        """How many texts become other tokens."""
        with _loaded(path, pre) as loaded:
            if loaded is None:
                return len(self.texts)
            pairs = zip(self.texts, self.wanted, strict=True)
            return sum(loaded.tokens(text) != wanted for text, wanted in pairs)


def _in_words(text: str, wanted: list[int], given: list[int]) -> str:
    shown = text if len(text) <= 60 else text[:60] + "…"
    return f"{shown!r} becomes {given[:12]} there, {wanted[:12]} in the tokenizer"


# --- the proof ------------------------------------------------------------------------------------
def proven(vocabulary: Vocabulary, tokenizer: Any) -> Vocabulary:
    """The vocabulary, under a name with which llama.cpp cuts all proof texts as the tokenizer does:
    its own, or, said in one line, another that does where its own does not. As it is where
    llama.cpp is not there. ExportError with the first text that differs where no name fits.
    """
    if not probe_llama().fine:
        return vocabulary
    proof = _Proof(vocabulary, tokenizer)
    with _written(vocabulary) as path:
        _, differs = proof.difference(path, vocabulary.pre)
        if not differs:
            return vocabulary
        name = ""
        if vocabulary.model == "gpt2":
            name, _, _ = _search(_Proof(vocabulary, tokenizer, thorough=True), path)
        wrong = 0 if name else proof.wrong(path, vocabulary.pre)
    if not name:
        raise ExportError(
            f"llama.cpp cuts {wrong} of {len(proof.texts)} texts otherwise than the tokenizer, "
            f"under the name {vocabulary.pre!r}, and none of its names fits: {differs}. On such "
            "texts a served model sees other tokens than it was trained on; prove=False "
            "(--no-proof) writes it all the same"
        )
    log.info(
        "the tokenizer's pattern has the name %r in llama.cpp, which cuts otherwise (%s): %r, "
        "which cuts as the tokenizer does, is written",
        vocabulary.pre,
        differs,
        name,
    )
    return replace(vocabulary, pre=name)


def find_pre_tokenizer(vocabulary: Vocabulary, tokenizer: Any, shown: str) -> str:
    """llama.cpp's first name under which it cuts all proof texts as the tokenizer does.

    vocabulary: with any name. shown: the pattern, for messages. ExportError where no name fits,
    with the first text that differs under the one that comes closest; and where llama.cpp is not
    there to prove one.
    """
    found = probe_llama()
    if not found.fine:
        raise ExportError(
            f"pre-tokenizer {shown!r} is none of Llama 3's, Qwen2's, SmolLM's, GPT-2's, tekken. "
            f"Other names of llama.cpp's are found by proof, which needs it: {found.problem}"
        )
    with _written(vocabulary) as path:
        name, closest, differs = _search(_Proof(vocabulary, tokenizer, thorough=True), path)
    if not name:
        raise ExportError(
            f"pre-tokenizer {shown!r} is none of llama.cpp's {len(NAMES)}: {closest!r} comes "
            f"closest, but {differs}. llama.cpp's own converter may know it (converter=…)"
        )
    return name


def _search(proof: _Proof, path: Path) -> tuple[str, str, str]:
    """(the first name without a difference, or none; the one that comes closest, and where it
    differs).
    """
    most = -2
    closest = ""
    first = ""
    for name in NAMES:
        right, differs = proof.difference(path, name)
        if not differs:
            return name, name, ""
        if right > most:
            most = right
            closest = name
            first = differs
    return "", closest, first
