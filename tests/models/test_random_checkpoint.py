"""Random checkpoints: of the real shape, loadable, bounded in memory, and nothing half-written."""

import json
import shutil

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from safetensors.torch import load_file
from transformers import LlamaConfig, Qwen3Config

import ftlib as ft
from ftlib.models import random_checkpoint
from ftlib.models.random_checkpoint import CheckpointError, write_random_checkpoint
from ftlib.training.memory_meter import peak_bytes
from ftlib.training.memory_plan import count_config, read_config

SHAPE = dict(
    vocab_size=2048,
    hidden_size=256,
    intermediate_size=512,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    tie_word_embeddings=False,
    bos_token_id=0,
    eos_token_id=6,
    pad_token_id=2,
)
CONFIG = LlamaConfig(**SHAPE)


def tensors(folder):
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


@pytest.mark.parametrize("kind", [LlamaConfig, Qwen3Config])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard_gb", [4.0, 0.001], ids=["one file", "shards"])
def test_it_loads_as_that_architecture(kind, tied, shard_gb, tmp_path):
    config = kind(**{**SHAPE, "tie_word_embeddings": tied})
    folder = write_random_checkpoint(config, tmp_path / "model", shard_gb=shard_gb)
    model, tokenizer = ft.load_model(folder)
    assert type(model).__name__ == kind.__name__.replace("Config", "ForCausalLM")
    planned = count_config(read_config(folder))
    assert ft.count_parameters(model)[1] == sum(planned.values())
    files = list(folder.glob("*.safetensors"))
    assert (len(files) == 1) == (shard_gb == 4.0) and (
        len(files) == 1 or all(f.stat().st_size < 3e6 for f in files)
    )
    weight = model.model.layers[1].mlp.up_proj.weight.float()
    assert weight.std().item() == pytest.approx(0.02, rel=0.05) and abs(weight.mean()) < 1e-3
    assert torch.isfinite(model(**tokenizer("A word.", return_tensors="pt")).logits).all()


def test_prequantised_it_is_what_bitsandbytes_reads(tmp_path):
    folder = write_random_checkpoint(CONFIG, tmp_path / "model", "nf4", shard_gb=0.0005)
    for asked in (None, "nf4"):
        model, _ = ft.load_model(folder, asked)
        layers = [m for m in model.modules() if isinstance(m, Linear4bit)]
        assert len(layers) == 3 * 7 and type(model.lm_head) is torch.nn.Linear
    stored = tensors(folder)
    layer = model.model.layers[2].mlp.down_proj
    assert torch.equal(layer.weight.data, stored["model.layers.2.mlp.down_proj.weight"])
    adapted = ft.add_lora(model, r=2)
    dense = ft.lora_layers(adapted)["model.layers.2.mlp.down_proj"].dense_weight()
    assert dense.shape == (256, 512) and dense.float().std().item() == pytest.approx(0.02, rel=0.3)


def test_it_trains_and_saves_its_adapter(tmp_path):
    model, tokenizer = ft.load_model(write_random_checkpoint(CONFIG, tmp_path / "model", "nf4"))
    run = ft.finetune(
        ft.add_lora(model, r=2),
        tokenizer,
        ft.load_rows("train")[:8],
        steps=2,
        learning_rate=1e-3,
        batch_size=2,
        show=False,
        log_steps=1,
        output_dir=tmp_path / "run",
        optimizer="paged_adamw_8bit",
        checkpointing=True,
    )
    assert (
        len(run.history) == 2
        and (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    )


def test_the_same_seed_gives_the_same_weights(tmp_path):
    a, b, c = (
        tensors(write_random_checkpoint(CONFIG, tmp_path / name, seed=s))
        for name, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert all(torch.equal(a[k], b[k]) for k in a) and not torch.equal(
        a["lm_head.weight"], c["lm_head.weight"]
    )


def test_one_shard_is_in_memory_at_a_time(tmp_path):
    """Three times the layers take no more memory to write."""

    def peak(layers):
        config = LlamaConfig(**{**SHAPE, "num_hidden_layers": layers})
        return peak_bytes(
            lambda: write_random_checkpoint(config, tmp_path / str(layers), shard_gb=0.002)
        )

    assert peak(12) < 1.3 * peak(4)


# Bad input


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder"):
        write_random_checkpoint(CONFIG, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_too_little_disk_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(
        shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 10**5)
    )
    with pytest.raises(CheckpointError, match=r"needs 0.0 GB of disk, 0.0 GB are free"):
        write_random_checkpoint(CONFIG, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("disk full")])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    real, calls = random_checkpoint.save_file, []

    def fails(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise error
        real(*args, **options)

    monkeypatch.setattr(random_checkpoint, "save_file", fails)
    with pytest.raises((KeyboardInterrupt, OSError)):
        write_random_checkpoint(CONFIG, tmp_path / "model", shard_gb=0.001)
    assert not list(tmp_path.iterdir())


def test_an_unknown_quantisation(tmp_path):
    with pytest.raises(ValueError, match="quantization='int3'"):
        write_random_checkpoint(CONFIG, tmp_path / "model", "int3")


def test_other_quantisations_are_refused_by_name(tmp_path):
    folder = write_random_checkpoint(CONFIG, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    )
    with pytest.raises(ft.LoadError, match="is quantised with 'gptq'"):
        ft.load_model(folder)


def test_an_architecture_without_linear_layers_has_no_nf4(tmp_path):
    """GPT-2's Conv1D: the folder's config would say 4 bits of weights in 16."""
    from transformers import GPT2Config

    config = GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=1024)
    with pytest.raises(ValueError, match=r"quantization='nf4': gpt2 has no linear.*c_attn.weight"):
        write_random_checkpoint(config, tmp_path / "new", "nf4")
    assert not (tmp_path / "new").exists()
