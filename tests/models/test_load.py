"""Loading: one clear error for each thing that can be wrong, and the code paths of the large
profiles on tiny copies.
"""

import json
import shutil

import pytest
import torch
from conftest import CHATML, EMBEDDED, LLAMA3, byte_tokenizer, llama, unmarked

import ftlib as ft
from ftlib.batches.template import check_tokenizer
from ftlib.core.paths import pocket_folder
from ftlib.core.profiles import PROFILES
from ftlib.models.load import base_name


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A complete tiny checkpoint on disk."""
    path = tmp_path_factory.mktemp("checkpoint")
    llama().save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "checkpoint")


def fails(name, *words, **options):
    with pytest.raises(ft.LoadError) as caught:
        ft.load_model(name, **options)
    for word in words:
        assert str(word) in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value).strip() and isinstance(caught.value, ValueError)


def test_a_folder(folder, ids):
    model, tokenizer = ft.load_model(folder)
    assert torch.allclose(model(ids).logits, llama()(ids).logits, atol=1e-6) and not model.training
    assert model.dtype == torch.float32 and tokenizer.pad_token == "<|pad|>"
    assert ft.load_model(str(folder), dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    assert ft.load_model(str(folder), profile="small")[0].dtype == torch.bfloat16


def test_missing_folder_and_config(folder, tmp_path):
    fails(tmp_path / "nowhere", "nowhere", "does not exist")
    fails("./nowhere", "nowhere", "does not exist")
    (folder / "config.json").unlink()
    fails(folder, "config.json")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no-such-model"}', "{}"])
def test_a_config_that_says_nothing(text, folder):
    (folder / "config.json").write_text(text)
    fails(folder, folder)


def test_missing_weights(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    fails(folder, "lacks model.safetensors", ".bin")


@pytest.mark.parametrize("keep", [0, 5, 100, 0.5, -1])
def test_truncated_weights(keep, folder):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    fails(folder, "model.safetensors", "damaged or truncated")


@pytest.fixture
def sharded(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "sharded")
    (folder / "model.safetensors").unlink()
    llama().save_pretrained(folder, max_shard_size="40KB")
    return folder


def test_shards(sharded, ids):
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    assert torch.allclose(ft.load_model(sharded)[0](ids).logits, llama()(ids).logits, atol=1e-6)


def test_missing_and_truncated_shard(sharded):
    shard = sorted(sharded.glob("model-*.safetensors"))[1]
    data = shard.read_bytes()
    shard.write_bytes(data[:-8])
    fails(sharded, shard.name, "damaged or truncated")
    shard.unlink()
    fails(sharded, shard.name, "lacks")


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"weight_map": 3}'])
def test_broken_index(text, sharded):
    (sharded / "model.safetensors.index.json").write_text(text)
    fails(sharded, "model.safetensors.index.json")


def test_a_checkpoint_without_some_layer_is_not_filled_with_random_numbers(folder):
    """transformers warns and draws the missing weights; the model would run, and talk nonsense."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fails(folder, "model.layers.1.mlp.up_proj.weight")


def test_missing_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    fails(folder, folder)


def test_no_chat_template(folder):
    (folder / "chat_template.jinja").unlink()
    fails(folder, "no chat template")


def test_no_pad_token(folder):
    byte_tokenizer(pad_token=None, unk_token=None).save_pretrained(folder)
    text = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(text.replace("<unk>", "<odd>"))
    fails(folder, "no pad token")


def test_a_reserved_token_becomes_the_pad_token(folder):
    """Llama-3.1 ships without a pad token; its end-of-turn token must not become one."""
    byte_tokenizer(LLAMA3).save_pretrained(folder)
    _, tokenizer = ft.load_model(folder)
    assert tokenizer.pad_token == "<|finetune_right_pad_id|>" != tokenizer.eos_token


def test_check_tokenizer_returns_what_is_good():
    tokenizer = byte_tokenizer()
    assert check_tokenizer(tokenizer) is tokenizer


@pytest.mark.parametrize("value", ["nf8", "4bit", "NF4", True])
def test_bad_quantization(value, folder):
    fails(folder, f"quantization={value!r}", "'nf4'", quantization=value)


def test_an_unknown_hub_id_while_offline():
    fails(
        "no-such-org/no-such-model", "no-such-org/no-such-model", "HF_HUB_OFFLINE=1", "FTLIB_MODEL"
    )
    fails("gpt-none", "gpt-none", "FTLIB_MODEL")


def test_an_unknown_profile(folder):
    with pytest.raises(ValueError, match=r"'huge'.*tiny, pocket, small, spark"):
        ft.load_model(folder, profile="huge")


def test_the_model_that_the_environment_names_stands_in(folder, monkeypatch):
    monkeypatch.setenv("FTLIB_MODEL", str(folder))
    for profile in PROFILES:
        model, _ = ft.load_model(profile=profile)
        assert (
            model.config._name_or_path == str(folder)
            and model.dtype == ft.get_profile(profile).torch_dtype
        )
    monkeypatch.setenv("FTLIB_MODEL", str(folder / "not-here"))
    fails(None, "not-here", "does not exist")
    assert ft.load_model(folder)[0].config._name_or_path == str(
        folder
    )  # a folder that was asked for stays


def test_pickled_weights_and_remote_code_are_not_loaded(folder):
    config = json.loads((folder / "config.json").read_text())
    config.update(
        model_type="evil",
        auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"},
    )
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text(
        f"open({str(folder / 'ran')!r}, 'w')\nclass Config: pass\nclass Model: pass\n"
    )
    fails(folder)
    assert not (folder / "ran").exists()


def test_the_embedded_model():
    model, tokenizer = ft.load_model("world-llama-4m")
    assert EMBEDDED.is_dir() and model.dtype == torch.float32 and tokenizer.chat_template
    assert base_name(model) == "world-llama-4m"  # the same on every machine


def test_a_base_goes_by_the_name_that_its_profile_has_for_it(tmp_path, monkeypatch):
    """Pocket's folder in whoever's cache, the copy in a mirror by its id; a folder of one's own by
    its path.
    """
    monkeypatch.setenv("FTLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FTLIB_HUB", str(tmp_path / "mirror"))
    names = {
        pocket_folder(): "smollm2-135m-instruct",
        tmp_path / "of another user" / pocket_folder().name: "smollm2-135m-instruct",
        tmp_path / "mirror" / "org" / "model": "org/model",
        tmp_path / "own": str(tmp_path / "own"),
    }
    model = llama()
    for folder, name in names.items():
        model.config._name_or_path = str(folder)
        assert base_name(model) == name


# --- the large profiles on random copies of their architectures -----------------------------------
def qwen3(path):
    """Qwen3 as in profile `small`: ChatML, no BOS, norms on queries and keys, tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=280,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            tie_word_embeddings=True,
            max_position_embeddings=512,
            eos_token_id=1,
            pad_token_id=2,
        )
    ).to(torch.bfloat16).save_pretrained(path)
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.chat_template = unmarked(CHATML)
    tokenizer.save_pretrained(path)
    return path


def llama31(path):
    """Llama-3.1 as in the profile `spark`: scaled rotary positions, an untied head, no pad token,
    several stop tokens.
    """
    llama(
        hidden=64,
        dtype=torch.bfloat16,
        tie_word_embeddings=False,
        max_position_embeddings=1024,
        eos_token_id=[1, 4],
        pad_token_id=None,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 256,
        },
    ).save_pretrained(path)
    tokenizer = byte_tokenizer(LLAMA3)
    tokenizer.chat_template = unmarked(LLAMA3)
    tokenizer.save_pretrained(path)
    return path


def two_steps(model, tokenizer, rows, profile):
    """What a lab does: adapter, two steps with the profile's settings, golden set."""
    torch.manual_seed(0)
    ft.add_lora(model, r=4, lora_alpha=8)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    run = ft.finetune(
        model,
        tokenizer,
        rows,
        steps=2,
        learning_rate=1e-2,
        batch_size=4,
        warmup=0.0,
        show=False,
        log_steps=1,
        checkpointing=profile.gradient_checkpointing,
        max_length=profile.max_length,
        eval_rows=rows[:4],
    )
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert changed and all("lora_" in n for n in changed)
    assert (
        all(torch.isfinite(torch.tensor(e["loss"])) for e in run.history) and len(run.history) == 2
    )
    accuracy = ft.golden_accuracy(model, tokenizer, rows[:6], max_new_tokens=4)
    assert 0 <= accuracy <= 1 and set(accuracy.by_family) == {"odd", "even"}
    return run


@pytest.mark.parametrize("profile, make", [("small", qwen3), ("spark", llama31)])
def test_the_large_profiles_run_on_a_local_copy_of_their_architecture(
    profile, make, tmp_path, monkeypatch, rows
):
    monkeypatch.setenv("FTLIB_PROFILE", profile)
    monkeypatch.setenv("FTLIB_MODEL", str(make(tmp_path / "model")))
    model, tokenizer = ft.load_model()
    assert model.dtype == torch.bfloat16 == ft.get_profile().torch_dtype
    two_steps(model, tokenizer, rows, ft.get_profile())
    ft.save_adapter(model, tmp_path / "adapter")
    fresh = ft.load_adapter(ft.load_model()[0], tmp_path / "adapter")
    conversations = [r["messages"][:1] for r in rows[:4]]
    assert ft.evaluation.generate.generate_answers(
        fresh, tokenizer, conversations, 4
    ) == ft.evaluation.generate.generate_answers(model, tokenizer, conversations, 4)
    assert ft.perplexity(ft.merge_adapter(fresh), tokenizer, ["some text"]) > 1


@pytest.mark.parametrize("make", [qwen3, llama31])
def test_nf4_trains_lora_on_the_cpu(make, tmp_path, rows):
    """QLoRA's path: 4-bit frozen base through bitsandbytes, adapter trained above it, merged into
    16 bits and back.
    """
    from bitsandbytes.nn import Linear4bit

    folder = make(tmp_path / "model")
    model, tokenizer = ft.load_model(folder, quantization="nf4", profile="small")
    quantized = [m for m in model.modules() if isinstance(m, Linear4bit)]
    assert len(quantized) == 14 and all(
        m.weight.quant_state.quant_type == "nf4" and m.weight.quant_state.nested for m in quantized
    )
    assert (
        ft.count_parameters(model)[1] == ft.count_parameters(ft.load_model(folder)[0])[1]
    )  # by element, not by stored byte
    stored = [m.weight.data.clone() for m in quantized]
    two_steps(model, tokenizer, rows, ft.get_profile("small"))
    assert all(torch.equal(m.weight.data, s) for m, s in zip(quantized, stored, strict=True))
    trained = model(torch.tensor([[5, 6, 7]])).logits.float()
    merged = ft.merge_adapter(model)(torch.tensor([[5, 6, 7]])).logits.float()
    assert torch.allclose(merged, trained, atol=0.05 * trained.abs().max().item())
    ft.unmerge_adapter(model)
    assert all(
        torch.equal(m.weight.data, s)
        for m, s in zip(
            (m for m in model.modules() if isinstance(m, Linear4bit)), stored, strict=True
        )
    )
    with ft.disable_adapter(model):
        assert torch.isfinite(model(torch.tensor([[5, 6, 7]])).logits).all()


def test_nf4_weights_are_the_same_before_and_after_an_evaluation(tmp_path, ids):
    """bitsandbytes repacks at the first forward pass in evaluation mode, where the processor has
    AVX512-BF16.

    What the layer computes and what dequantising gives must agree: before, after, and in training.
    """
    from bitsandbytes.functional import dequantize_4bit

    model, _ = ft.load_model(llama31(tmp_path / "model"), quantization="nf4", profile="spark")
    layer = model.model.layers[0].mlp.up_proj
    before = dequantize_4bit(layer.weight.data, layer.weight.quant_state).clone()
    with torch.no_grad():
        model(ids)
    assert torch.equal(dequantize_4bit(layer.weight.data, layer.weight.quant_state), before)
    x = torch.randn(3, 64, dtype=torch.bfloat16)
    want = x @ before.T
    for training in (False, True):
        y = layer.train(training)(x.clone().requires_grad_(training))
        assert torch.allclose(y.float(), want.float(), atol=0.02 * want.abs().max().item())


def test_dora_on_nf4_starts_as_the_base(tmp_path, ids):
    model, _ = ft.load_model(llama31(tmp_path / "model"), quantization="nf4", profile="spark")
    base = model(ids).logits.float()
    ft.add_lora(model, r=4, use_dora=True)
    assert torch.allclose(model(ids).logits.float(), base, atol=0.05 * base.abs().max().item())
    model(ids, labels=ids).loss.backward()
    assert all(
        layer.lora_magnitude_vector.grad.isfinite().all()
        for layer in ft.lora_layers(model).values()
    )


def test_nf4_layers_with_blocks_across_their_rows_are_dequantised_by_ftlib(folder, monkeypatch):
    """A hidden size of 32 under blocks of 64: with AVX-512 bitsandbytes would take wrong scales, so
    it is not asked.
    """
    from bitsandbytes_avx512 import dequantize_as_avx512

    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", dequantize_as_avx512)
    monkeypatch.setattr("bitsandbytes.matmul_4bit", None)
    model, _ = ft.load_model(folder, quantization="nf4")
    layer = model.model.layers[0].mlp.up_proj
    dense = ft.load_model(folder)[0].model.layers[0].mlp.up_proj.weight
    W = ft.quantize_nf4(dense.detach()).dequantize()
    assert torch.equal(layer(torch.eye(32)).T, W.to(layer.compute_dtype).float())


# What 4 bits do not reach, and advice that cannot be followed


def test_nf4_names_the_experts_that_stay_in_16_bits(tmp_path, caplog):
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=280,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_local_experts=4,
        bos_token_id=0,
        eos_token_id=6,
        pad_token_id=2,
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    for quantization in (None, "nf4"):
        caplog.clear()
        with caplog.at_level("WARNING", "ftlib"):
            model, _ = ft.load_model(tmp_path, quantization=quantization)
        assert ("experts.gate_up_proj" in caplog.text) is (quantization == "nf4")
    assert model.model.layers[0].mlp.experts.gate_up_proj.dtype == torch.float32


def test_nf4_of_a_llama_has_nothing_to_name(folder, caplog):
    with caplog.at_level("WARNING", "ftlib"):
        ft.load_model(folder, quantization="nf4")
    assert not caplog.records


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"intermediate_size": 72},
            r"layers.0.mlp.down_proj.weight has shape \(32, 64\), its .* asks for \(32, 72\)",
        ),
        (
            {"model_type": "strange", "auto_map": {"AutoConfig": "a.B"}},
            "needs Python code of its own, which ftlib does not run",
        ),
        ({"model_type": "strange"}, "does not recognize this architecture"),
    ],
)
def test_no_error_advises_what_load_model_does_not_take(changes, words, folder, tmp_path):
    import inspect
    import re
    import shutil

    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(ft.LoadError, match=words) as refusal:
        ft.load_model(copy)
    takes = set(inspect.signature(ft.load_model).parameters)
    assert set(re.findall(r"(\w+)=(?:True|False|\w+)", str(refusal.value))) <= takes
    assert "ignore_mismatched_sizes" not in str(refusal.value)


def test_a_base_without_a_template_takes_its_sibling_s(tmp_path, monkeypatch, caplog):
    """Copies of both lie in a mirror; any other model without a template stays refused."""
    monkeypatch.setenv("FTLIB_HUB", str(tmp_path))
    base, lender = "meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct"
    for name in (base, lender, "meta-llama/Other"):
        llama31(tmp_path / name)
    for name in (base, "meta-llama/Other"):
        (tmp_path / name / "chat_template.jinja").unlink()
    with caplog.at_level("INFO", logger="ftlib"):
        _, tokenizer = ft.load_model(base, profile="spark")
    assert tokenizer.chat_template == unmarked(LLAMA3)
    assert f"{base} has no chat template: that of {lender} is used" in caplog.text
    with pytest.raises(ft.LoadError, match="chat template"):
        ft.load_model("meta-llama/Other", profile="spark")
