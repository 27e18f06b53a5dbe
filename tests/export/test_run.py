"""`ftlib export`: from an adapter folder or a run to GGUFs and a Modelfile that fit each other."""

import json
import shutil

import pytest
import torch
from conftest import ROOT

pytest.importorskip("gguf", reason="needs the extra `export`")
from gguf import GGUFReader
from ollama_stand_in import StandIn

import ftlib as ft
from ftlib import cli
from ftlib.adapters.peft_format import AdapterError
from ftlib.export.errors import ExportError, ServingError, TemplateError
from ftlib.export.modelfile import parse_modelfile
from ftlib.export.run import export_run
from ftlib.export.trained import find_adapter

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
        "repeat_penalty": 1,
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


# --- into a GGUF ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def base_file(tmp_path_factory):
    """The embedded model without its adapter, in Q8_0."""
    from ftlib.export.gguf_writer import export_gguf

    path = tmp_path_factory.mktemp("base") / "base.gguf"
    return export_gguf("world-llama-4m", None, path, "q8_0")


def test_into_a_gguf(run, base_file, tmp_path, capsys):
    """No checkpoint is read. Only what the adapter changes differs from the base; the Modelfile is
    the one of the merged export.
    """
    (run / "manifest.json").unlink()
    command = ["export", str(run), "--into", str(base_file), "--name", "w", "--quant", "F16"]
    assert cli.main(command) == 0
    merged = run / "export" / "w-f16.gguf"
    assert str(merged) in capsys.readouterr().out
    read = parse_modelfile(run / "export" / "Modelfile")
    assert read.base == "./w-f16.gguf"
    shutil.copytree(ADAPTER, tmp_path / "other")
    whole = export_run(tmp_path / "other", "w", quant="F16", base="world-llama-4m")
    wanted = parse_modelfile(whole.modelfile)
    assert (read.template, read.parameters) == (wanted.template, wanted.parameters)
    found = {t.name: t.tensor_type.name for t in GGUFReader(merged).tensors if len(t.shape) > 1}
    assert set(found.values()) == {"F16", "Q8_0"}
    assert found["token_embd.weight"] == "Q8_0" and found["blk.0.attn_q.weight"] == "F16"
    close = {t.name: t for t in GGUFReader(whole.files[0]).tensors}
    for tensor in GGUFReader(merged).tensors:
        if "attn_q" in tensor.name:
            theirs = close[tensor.name].data.astype("f4")
            gap = abs(tensor.data.astype("f4") - theirs).max()
            assert gap < 0.02 * abs(theirs).max()  # Q8_0's rounding of the base


def test_an_adapter_gguf_into_a_gguf(base_file, tmp_path):
    """The template, the stops and the context are the base file's own."""
    from ftlib.export.gguf_adapter import export_adapter_gguf

    file = export_adapter_gguf(ADAPTER, tmp_path / "adapter.gguf", base="world-llama-4m")
    exported = export_run(file, "w", quant="f16", into=base_file)
    assert exported.files == [tmp_path / "export" / "w-f16.gguf"]
    read = parse_modelfile(exported.modelfile)
    assert read.parameters["num_ctx"] == 512 and "<|end|>" in read.parameters["stop"]
    assert read.template


def test_into_bad_input(run, base_file, tmp_path):
    from transformers import AutoTokenizer

    with pytest.raises(ExportError, match="leave adapter and base out"):
        export_run(run, "w", into=base_file, adapter=True)
    with pytest.raises(ExportError, match="leave adapter and base out"):
        export_run(run, "w", into=base_file, base="world-llama-4m")
    with pytest.raises(ExportError, match=r"nowhere\.gguf does not exist"):
        export_run(run, "w", into=tmp_path / "nowhere.gguf")
    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "world-llama-4m")
    tokenizer.add_tokens(["<new-token>"])
    tokenizer.save_pretrained(run / "adapter")
    with pytest.raises(ExportError, match="tokens were added"):
        export_run(run, "w", into=base_file)
    assert not (run / "export").exists()


def test_other_tokens_than_the_files_are_refused(base_file):
    from ftlib.export.into import check_tokens

    class Other:
        def __len__(self):
            return 3

        def convert_ids_to_tokens(self, ids):
            return [None, "<|eos|>", "something else"]

    with pytest.raises(ExportError, match=r"as its token 2, the run's tokenizer 'something else'"):
        check_tokens(Other(), base_file)


# --- by the version of Ollama ---------------------------------------------------------------------
WITHOUT_GO = (  # a conversation's length, which Go's templates are not told
    "{{ messages | length }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def with_template(run, jinja: str) -> None:
    """The run's tokenizer, with another chat template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(ROOT / "data" / "world-llama-4m")
    tokenizer.chat_template = jinja
    tokenizer.save_pretrained(run / "adapter")


def test_without_a_go_template_the_modelfile_requires_an_ollama_that_serves_jinja(run, caplog):
    with_template(run, WITHOUT_GO)
    exported = export_run(run, "w", quant="f16")
    assert "TEMPLATE is left out, and Ollama 0.30.0 or newer is required" in caplog.text
    read = parse_modelfile(exported.modelfile)
    assert read.template is None and read.others == [("REQUIRES", "0.30.0")]
    assert "TEMPLATE" not in exported.modelfile.read_text()


@pytest.mark.parametrize("version", ["0.24.0", "0.32.15", "0.34.1"])
def test_what_the_ollama_at_hand_cannot_do_is_refused_before_any_work(run, monkeypatch, version):
    with StandIn(version) as ollama:
        monkeypatch.setenv("OLLAMA_HOST", ollama.url)
        if version == "0.34.1":
            with pytest.raises(ServingError, match=r"takes no adapter beside a base.*--into"):
                export_run(run, "w", quant="f16", adapter=True, ollama=True)
            assert not (run / "export").exists()
        else:
            export_run(run, "w", quant="f16", adapter=True, ollama=True)
            assert ollama.models["w"]["adapters"]
        with_template(run, WITHOUT_GO)
        if version == "0.24.0":
            with pytest.raises(
                TemplateError, match=r"0\.24\.0 does not serve .* 0\.30\.0 or newer"
            ):
                export_run(run, "v", quant="f16", ollama=True, output=run / "v")
            assert not (run / "v").exists()
        else:
            export_run(run, "v", quant="f16", ollama=True, output=run / "v")
            assert ollama.models["v"].get("template") is None
