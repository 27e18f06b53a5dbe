"""`ftlib export`: from an adapter folder or a run to GGUFs and a Modelfile that fit each other."""

import json
import shutil

import pytest
import torch
from conftest import ROOT

pytest.importorskip("gguf", reason="needs the extra `export`")
import ftlib as ft
from ftlib import cli
from ftlib.adapters.io import AdapterError
from ftlib.export.modelfile import parse_modelfile
from ftlib.export.run import export_run, find_adapter

ADAPTER = ROOT / "data" / "sft-adapter"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(ADAPTER, tmp_path / "run" / "adapter")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"base": "world-llama-4m"}))
    return tmp_path / "run"


def test_merged_and_as_two_files(run, capsys):
    assert (
        cli.main(
            ["export", str(run), "--name", "me/w:q4", "--quant", "F16", "--system", 'Say "hi"']
        )
        == 0
    )
    read = parse_modelfile(run / "export" / "Modelfile")
    assert read.base == "./me-w-q4-f16.gguf" and read.adapter is None and read.system == 'Say "hi"'
    assert read.parameters == {
        "num_ctx": 512,
        "stop": ["<|end|>", "<|eos|>"],
    }  # the model's own context is 512
    assert str(run / "export" / "me-w-q4-f16.gguf") in capsys.readouterr().out
    exported = export_run(run, "w", quant="f16", adapter=True, num_ctx=64, output=run / "two")
    assert parse_modelfile(exported.modelfile).adapter == "./w-adapter.gguf" and [
        p.name for p in exported.files
    ] == ["w-f16.gguf", "w-adapter.gguf"]


def test_bad_input(run, capsys, monkeypatch):
    assert find_adapter(ADAPTER)[0] == ADAPTER and find_adapter(run) == (
        run / "adapter",
        "world-llama-4m",
    )
    (run / "manifest.json").write_text("{")
    with pytest.raises(AdapterError, match=r"manifest\.json is damaged"):
        find_adapter(run)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    for arguments, word in (
        (["--name", "a b"], "name the model"),
        (["--name", "w", "--ollama"], "no Ollama answers"),
    ):
        assert (
            cli.main(["export", str(ADAPTER), *arguments]) == 2 and word in capsys.readouterr().err
        )
    assert (
        cli.main(["export", str(run.parent), "--name", "w"]) == 2
        and "holds no adapter" in capsys.readouterr().err
    )
    assert cli.main(["export", str(ADAPTER), "--name", "w", "--quant", "Q9_K"]) == 2
    assert "quant='Q9_K': use one of Q8_0, Q6_K" in capsys.readouterr().err
    assert not (ADAPTER / "export").exists()


def test_full_fine_tuning_is_exported_from_its_own_weights(run, tmp_path):
    """The run's model, not its base: a weight that was changed is in the file. Its tokenizer is the
    base's. There is no adapter to part.
    """
    from gguf import GGUFReader

    model, _ = ft.load_model("world-llama-4m")
    with torch.no_grad():
        model.model.norm.weight.fill_(0.25)
    full = tmp_path / "full"
    model.save_pretrained(full / "model")
    (full / "manifest.json").write_text(json.dumps({"base": "world-llama-4m"}))
    exported = export_run(full, "w", quant="F32")
    norm = next(t for t in GGUFReader(exported.files[0]).tensors if t.name == "output_norm.weight")
    assert (norm.data == 0.25).all() and parse_modelfile(exported.modelfile).parameters["stop"] == [
        "<|end|>",
        "<|eos|>",
    ]
    with pytest.raises(AdapterError, match="whole model"):
        find_adapter(full)
    with pytest.raises(AdapterError, match="no adapter to ship apart"):
        export_run(full, "w", adapter=True)
    (full / "manifest.json").unlink()
    with pytest.raises(AdapterError, match="names no base model: pass base="):
        export_run(full, "v")
