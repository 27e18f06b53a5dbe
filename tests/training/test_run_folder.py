"""What a run keeps and what makes it itself: tokenizer, template and new tokens travel with it; it
goes on only as the run that it was; its folder is one process's at a time; damage is named by file.
"""

import copy
import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
import torch
from conftest import chat, llama, randomize

import ftlib as ft
from ftlib.core.locks import LockedError, locked
from ftlib.training import trainer as trainer_module

ROWS = [chat("what is that", "a house"), chat("and this", "a tree"), chat("who", "me")]
SETTINGS = {
    "steps": 4,
    "learning_rate": 1e-2,
    "batch_size": 2,
    "save_steps": 2,
    "precision": "fp32",
    "show": False,
}
TOKEN = "<tool>"


def adapted(**options):
    torch.manual_seed(0)
    return ft.add_lora(llama(layers=1), r=2, **options)


def train(model, tokenizer, rows=ROWS, **changes):
    return ft.finetune(model, tokenizer, rows, **{**SETTINGS, **changes})


# --- what it keeps --------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def embedded_run(tmp_path_factory):
    """A token added to the embedded model, its embedding resized and trained, a template of its
    own, LoRA: (folder of the run, model, tokenizer).
    """
    torch.manual_seed(0)
    model, tokenizer = ft.load_model("world-llama-4m")
    tokenizer.add_tokens([TOKEN])
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = f"{{# with {TOKEN} #}}" + tokenizer.chat_template
    ft.add_lora(model, r=2)
    model.get_input_embeddings().weight.requires_grad_(True)
    folder = tmp_path_factory.mktemp("run")
    train(model, tokenizer, steps=2, output_dir=folder)
    randomize(model)
    ft.save_adapter(model, folder / "adapter")
    return folder, model, tokenizer


def test_the_export_reads_what_was_trained(embedded_run, tmp_path):
    """The token is one token in the file, the embedding has its row, the template is the run's."""
    gguf = pytest.importorskip("gguf", reason="needs the extra `export`")
    from ftlib.export.run import export_run

    folder, model, tokenizer = embedded_run
    exported = export_run(folder, "w", quant="F32", output=tmp_path)
    reader = gguf.GGUFReader(exported.files[0])
    tokens = reader.get_field("tokenizer.ggml.tokens").contents()
    assert tokens[len(tokenizer) - 1] == TOKEN and len(tokens) == len(tokenizer)
    assert TOKEN in reader.get_field("tokenizer.chat_template").contents()
    stored = next(t for t in reader.tensors if t.name == "token_embd.weight").data
    weight = model.get_input_embeddings().weight.detach().float()
    torch.testing.assert_close(torch.tensor(stored.copy()), weight)
    with pytest.raises(ft.ExportError, match="an embedding of its own"):
        export_run(folder, "w", quant="F32", output=tmp_path / "two", adapter=True)


def test_a_whole_model_keeps_its_tokens(tmp_path):
    """Full fine-tuning: the folder loads by itself, token, template and all."""
    torch.manual_seed(0)
    model, tokenizer = ft.load_model("world-llama-4m")
    tokenizer.add_tokens([TOKEN])
    model.resize_token_embeddings(len(tokenizer))
    tokenizer.chat_template = f"{{# with {TOKEN} #}}" + tokenizer.chat_template
    train(model.requires_grad_(True), tokenizer, steps=1, output_dir=tmp_path / "run")
    again, same = ft.load_model(tmp_path / "run" / "model")
    assert len(again.get_input_embeddings().weight) == len(tokenizer)
    assert same.chat_template == tokenizer.chat_template
    assert same.encode(TOKEN, add_special_tokens=False) == [len(tokenizer) - 1]


def test_frozen_new_rows_are_told(caplog):
    """Of the embedded model; nothing is said where the embedding trains, or no token is new."""
    model, tokenizer = ft.load_model("world-llama-4m")
    ft.add_lora(model, r=2)
    train(model, tokenizer, steps=1)
    assert "rows in the embedding are frozen" not in caplog.text
    tokenizer.add_tokens([TOKEN])
    model.resize_token_embeddings(len(tokenizer))
    train(model, tokenizer, steps=1)
    assert f"1 tokens, the first '{TOKEN}'" in caplog.text
    caplog.clear()
    model.get_input_embeddings().weight.requires_grad_(True)
    train(model, tokenizer, steps=1)
    assert "rows in the embedding are frozen" not in caplog.text


def test_a_tokenizer_larger_than_the_embedding(tokenizer):
    model = ft.add_lora(llama(layers=1, vocab=60), r=2)
    pairs = [{"prompt": "who", "chosen": "me", "rejected": "you"}]
    for call in (
        lambda: train(model, tokenizer),
        lambda: ft.prefer(model, tokenizer, pairs, **SETTINGS),
        lambda: ft.golden_accuracy(model, tokenizer, ROWS),
        lambda: ft.perplexity(model, tokenizer, ["a text"]),
    ):
        with pytest.raises(ft.DataError, match=r"embedding 60 rows.*resize_token_embeddings"):
            call()


def test_what_would_be_lost_is_refused(tokenizer):
    model = adapted()
    model.model.norm.weight.requires_grad_(True)
    with pytest.raises(ft.RunError, match=r"the first 'model\.norm\.weight'.*does not hold them"):
        train(model, tokenizer)


def test_a_reference_that_the_embedding_leaves(tokenizer):
    model = adapted()
    model.get_input_embeddings().weight.requires_grad_(True)
    pairs = [{"prompt": "who", "chosen": "me", "rejected": "you"}]
    with pytest.raises(ft.RunError, match="the embedding trains too"):
        ft.prefer(model, tokenizer, pairs, **SETTINGS, reference="adapter_off")


# --- what makes it itself -------------------------------------------------------------------------
@pytest.fixture(scope="module")
def begun(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("begun") / "run"
    train(adapted(), tokenizer, output_dir=folder)
    return folder


def other_template(model, tokenizer):
    tokenizer.chat_template = "{# another #}" + tokenizer.chat_template


def other_weights(model, tokenizer):
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.base_layer.weight.add_(1)


@pytest.mark.parametrize(
    "change, name", [(other_template, "chat_template"), (other_weights, "base_weights")]
)
def test_a_run_goes_on_only_as_itself(change, name, begun, tokenizer):
    model = adapted()
    tokenizer = copy.deepcopy(tokenizer)
    change(model, tokenizer)
    with pytest.raises(ft.RunError, match=rf"other settings \({name}: "):
        train(model, tokenizer, output_dir=begun)


def test_a_run_of_an_earlier_version_goes_on(begun, tokenizer, tmp_path):
    """One that did not record template, tokens and weights yet."""
    folder = shutil.copytree(begun, tmp_path / "run")
    settings = json.loads((folder / "settings.json").read_text())
    for name in ("chat_template", "encoded", "base_weights"):
        del settings[name]
    (folder / "settings.json").write_text(json.dumps(settings))
    assert train(adapted(), tokenizer, output_dir=folder).resumed_from == 4


# --- one at a time --------------------------------------------------------------------------------
def _hold(folder, ready, go) -> None:
    with locked(folder, "run"):
        ready.set()
        go.wait(60)


def test_two_processes_in_one_folder(tokenizer, tmp_path):
    """The second is refused by name; when the first is killed, nothing is left of its lock."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    folder = tmp_path / "run"
    other = context.Process(target=_hold, args=(folder, ready, context.Event()))
    other.start()
    ready.wait(30)
    with pytest.raises(ft.RunError, match=f"{folder}: another process trains in it now"):
        train(adapted(), tokenizer, output_dir=folder)
    assert not folder.exists()
    other.kill()
    other.join()
    assert train(adapted(), tokenizer, output_dir=folder).resumed_from == 0


def test_a_failed_run_frees_its_folder(tokenizer, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "completion_logps", None)
        with pytest.raises(TypeError):
            train(adapted(), tokenizer, output_dir=tmp_path / "run")
    train(adapted(), tokenizer, output_dir=tmp_path / "run")


# --- damage ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "file", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
@pytest.mark.parametrize("how", ["cut", "noise"])
def test_damaged_state_is_named(file, how, tokenizer, tmp_path):
    """A truncated file, and one of other bytes."""
    folder = tmp_path / "run"
    train(adapted(), tokenizer, output_dir=folder, steps=6, save_steps=2)
    shutil.rmtree(folder / "checkpoint-6")
    damaged = folder / "checkpoint-4" / file
    content = damaged.read_bytes()
    damaged.write_bytes(content[: len(content) // 2] if how == "cut" else b"\x80" * 64)
    with pytest.raises(ft.RunError, match=f"{file}.* delete"):
        train(adapted(), tokenizer, output_dir=folder, steps=6, save_steps=2)


def test_a_full_disk_is_named_and_leaves_nothing_half_written(tokenizer, tmp_path, monkeypatch):
    """The second checkpoint cannot be written: the first is whole, and the run goes on from it."""
    folder = tmp_path / "run"
    save = trainer_module.Trainer._save_optimizer_and_scheduler

    def full(self, output_dir):
        if "checkpoint-4" in str(output_dir):
            raise OSError(28, "No space left on device")
        save(self, output_dir)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module.Trainer, "_save_optimizer_and_scheduler", full)
        with pytest.raises(ft.RunError, match=r"checkpoint-4 could not be written .*No space left"):
            train(adapted(), tokenizer, output_dir=folder)
    assert not (folder / "checkpoint-4").exists()
    assert train(adapted(), tokenizer, output_dir=folder).resumed_from == 2


def test_a_full_disk_names_the_file(tmp_path):
    from ftlib.core.atomic import replacing

    message = r"No space left.*manifest\.json"
    with pytest.raises(OSError, match=message), replacing(tmp_path / "manifest.json"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("method", ["_load_optimizer_and_scheduler", "_save_checkpoint"])
def test_too_little_memory_is_no_damage(method, tokenizer, tmp_path, monkeypatch):
    """Whoever runs out of memory is told that, and not to delete a checkpoint or make room."""
    folder = tmp_path / "run"
    given = {"output_dir": folder, "steps": 6}
    train(adapted(), tokenizer, **given)
    shutil.rmtree(folder / "checkpoint-6")

    def out_of_memory(self, *arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer_module.Trainer, method, out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        train(adapted(), tokenizer, **given)
    assert (folder / "checkpoint-4/complete").is_file()


def test_several_templates_by_name(tokenizer, tmp_path):
    """The default one trains, and is what the run is known by."""
    one = copy.deepcopy(tokenizer)
    several = copy.deepcopy(tokenizer)
    several.chat_template = {"default": tokenizer.chat_template, "tool_use": "{{ messages }}"}
    train(adapted(), several, output_dir=tmp_path / "run")
    assert train(adapted(), one, output_dir=tmp_path / "run").resumed_from == 4


def test_one_folder_by_two_names_is_one_folder(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    with locked(folder, "run"):
        for name in ("link", "run/../run"):
            with pytest.raises(LockedError), locked(tmp_path / name, "run", wait=False):
                pass


def test_the_order_of_the_targets_makes_no_other_run(tokenizer, tmp_path):
    def start(*targets):
        model = ft.add_lora(llama(), r=2, target_modules=targets)
        return train(model, tokenizer, output_dir=tmp_path / "run")

    start("q_proj", "v_proj")
    assert start("v_proj", "q_proj").resumed_from == 4
    with pytest.raises(ft.RunError, match=r"\(adapter: \{'target_modules': \['q_proj', 'v_proj'\]"):
        start("q_proj", "k_proj")


def test_a_model_that_is_saved_again_is_whole_at_every_moment(tokenizer, tmp_path, monkeypatch):
    """The second writing is interrupted half-way: the first one's files are still there."""
    folder = tmp_path / "run"
    train(llama().requires_grad_(True), tokenizer, output_dir=folder)
    before = {file.name: file.read_bytes() for file in (folder / "model").iterdir()}

    def interrupted(self, path, **options):
        Path(path, "model.safetensors").write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(llama().requires_grad_(True), tokenizer, output_dir=folder)
    assert {file.name: file.read_bytes() for file in (folder / "model").iterdir()} == before
