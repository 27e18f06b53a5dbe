"""`ftlib export`: from an adapter folder or a run to GGUFs and a Modelfile that fit each other."""
import json
import shutil

import pytest
from conftest import ROOT

pytest.importorskip("gguf", reason="needs the extra `export`")
from ftlib import cli
from ftlib.adapter_io import AdapterError
from ftlib.deploy import export_run, find_adapter
from ftlib.modelfile import parse_modelfile

ADAPTER = ROOT / "data" / "sft-adapter"


@pytest.fixture
def run(tmp_path):
    shutil.copytree(ADAPTER, tmp_path / "run" / "adapter")
    (tmp_path / "run" / "manifest.json").write_text(json.dumps({"base": "world-llama-4m"}))
    return tmp_path / "run"


def test_merged_and_as_two_files(run, capsys):
    assert cli.main(["export", str(run), "--name", "me/w:q4", "--quant", "F16", "--system", 'Say "hi"']) == 0
    read = parse_modelfile(run / "export" / "Modelfile")
    assert read.base == "./me-w-q4-f16.gguf" and read.adapter is None and read.system == 'Say "hi"'
    assert read.parameters == {"num_ctx": 512, "stop": ["<|end|>", "<|eos|>"]}  # the model's own context is 512
    assert str(run / "export" / "me-w-q4-f16.gguf") in capsys.readouterr().out
    exported = export_run(run, "w", quant="f16", adapter=True, num_ctx=64, output=run / "two")
    assert parse_modelfile(exported.modelfile).adapter == "./w-adapter.gguf" and [p.name for p in exported.files] == ["w-f16.gguf", "w-adapter.gguf"]


def test_bad_input(run, capsys, monkeypatch):
    assert find_adapter(ADAPTER)[0] == ADAPTER and find_adapter(run) == (run / "adapter", "world-llama-4m")
    (run / "manifest.json").write_text("{")
    with pytest.raises(AdapterError, match="manifest.json is damaged"):
        find_adapter(run)
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:1")
    for arguments, word in ((["--name", "a b"], "name the model"), (["--name", "w", "--ollama"], "no Ollama answers")):
        assert cli.main(["export", str(ADAPTER), *arguments]) == 2 and word in capsys.readouterr().err
    assert cli.main(["export", str(run.parent), "--name", "w"]) == 2 and "holds no adapter" in capsys.readouterr().err
    assert not (ADAPTER / "export").exists()
