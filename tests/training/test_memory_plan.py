"""The planner: parameters as the real models have them, parts by hand, totals against measured
peaks, refusals by name.
"""

import json

import pytest
import torch
from conftest import llama
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen3Config

import ftlib as ft
from ftlib.adapters.gated import factors_only
from ftlib.cli import main
from ftlib.training import memory_plan
from ftlib.training.memory_meter import peak_bytes
from ftlib.training.memory_plan import MODELS, count_config, read_config

PUBLISHED = {
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "mistral-7b": 7_241_732_096,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
}
TINY = {
    "vocab_size": 100,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_the_published_ones(name):
    assert sum(count_config(read_config(name)).values()) == PUBLISHED[name]


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_real_architecture(name):
    config = dict(MODELS[name])
    kind = Qwen3Config if config.pop("model_type", "llama") == "qwen3" else LlamaConfig
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(kind(**config))
        assert sum(p.numel() for p in model.parameters()) == sum(
            count_config(read_config(name)).values()
        )
        trained, _ = ft.count_parameters(ft.add_lora(model, r=16))
    assert ft.plan_memory(name, "lora").parts["adapter"] == 4 * trained


OTHER_TYPES = ("gemma", "gemma2", "gemma3_text", "olmo2", "cohere", "granite", "stablelm")
SMALL = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize("kind", [*OTHER_TYPES, "qwen2", "qwen3", "mistral", "llama"])
@pytest.mark.parametrize("form", ["dict", "config", "folder"])
def test_other_architectures_are_counted_as_they_are(kind, form, tmp_path):
    """Also what a dict leaves out and its model type has a default for: heads' width, key-value
    heads, a tied head.
    """
    described = AutoConfig.for_model(kind, **SMALL)
    described.save_pretrained(tmp_path)
    forms = {"dict": {**SMALL, "model_type": kind}, "config": described, "folder": tmp_path}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described)
        count = sum(p.numel() for p in model.parameters())
        trained, _ = ft.count_parameters(ft.add_lora(model, r=4))
    plan = ft.plan_memory(forms[form], "lora", r=4)
    assert plan.parts["weights"] == 2 * count
    assert plan.parts["adapter"] == 4 * trained
    # what would fit is planned from the same architecture
    assert plan.ways(plan.total - 1)


@pytest.mark.parametrize(
    "kind, found",
    [
        ("phi", "dense, fc1, fc2"),
        ("gpt_neox", "query_key_value"),
        ("gpt2", "c_attn"),
        ("opt", "out_proj"),
        ("starcoder2", "c_fc"),
        ("mixtral", "mlp.gate"),
        ("qwen3_moe", "experts"),
        ("deepseek_v3", "kv_a_proj_with_mqa"),
        ("mamba", "in_proj"),
    ],
)
def test_what_is_not_of_llamas_form_is_refused_by_name(kind, found):
    with pytest.raises(ValueError, match=f"model_type='{kind}', which is not of .*{found}"):
        ft.plan_memory({**SMALL, "model_type": kind})


def test_a_model_type_that_nobody_knows():
    with pytest.raises(ValueError, match="model_type='phi-9', of which transformers builds no"):
        ft.plan_memory({**SMALL, "model_type": "phi-9"})


def test_parts_by_hand():
    """Blocks: q, k, v, o 8x8 each and three of 8x12, 544 weights; three blocks 1,632; embedding and
    head 800 each; norms 8 + 3·16 = 56. In all 3,288. LoRA r=2: 2·(4·16 + 3·20) = 248 a block, 744.
    """
    full, lora, qlora = (
        ft.plan_memory(TINY, m, r=2, device="cpu", batch_size=1, seq_len=4).parts
        for m in ("full", "lora", "qlora")
    )
    assert full["weights"] == full["gradients"] == 4 * 3288 and full["optimizer"] == 8 * 3288
    assert (
        lora["weights"] == 2 * 3288
        and lora["adapter"] == lora["gradients"] == 4 * 744
        and lora["optimizer"] == 8 * 744
    )
    assert qlora["weights"] == 1632 // 2 + 2 * (800 + 800 + 56)
    assert qlora["quantisation constants"] == round(1632 * (8 / 64 + 32 / (64 * 256)) / 8)
    assert (
        lora["logits"] == 2 * 8 * 2 * 4 + 6 * 100 * 4
    )  # hidden states and gradients in bf16, a tile of all four tokens in bf16 and fp32
    assert ft.plan_memory(TINY, "lora", seq_len=4, full_logits=True).parts["logits"] == 12 * 100 * 4
    assert ft.plan_memory(TINY, "lora", r=2, target_modules=("q_proj", "v_proj")).parts[
        "adapter"
    ] == 4 * 3 * 2 * (16 + 16)
    assert ft.plan_memory(TINY, "dora", r=2).parts["adapter"] == 4 * (744 + 3 * (5 * 8 + 2 * 12))


def test_the_total_is_the_sum_of_the_parts_and_fits():
    plan = ft.plan_memory("llama-3.1-8b", "lora")
    assert (
        plan.total == sum(plan.parts.values())
        and plan.fits(plan.total)
        and not plan.fits(plan.total - 1)
    )
    assert f"{plan.total / 1e9:.2f}" in str(plan)


def test_what_circulates():
    """Seven billion parameters at 16 bytes are more than 100 GB, not 28; 70 billion in NF4 do not
    fit 24 GB, but 48.
    """
    assert ft.plan_memory("llama-2-7b", "full", batch_size=1, seq_len=512).total > 6.7e9 * 16
    big = ft.plan_memory("llama-3.1-70b", "qlora", batch_size=1, seq_len=1024)
    assert 40e9 < big.total < 48e9 and not big.fits(24e9)
    assert big.parts["weights"] + big.parts["quantisation constants"] == pytest.approx(
        35.3e9 + 4.2e9, rel=0.01
    )


def test_more_of_anything_takes_more():
    base = ft.plan_memory("llama-3.1-8b")
    for change in (
        {"r": 64},
        {"batch_size": 4},
        {"seq_len": 4096},
        {"gradient_checkpointing": False},
        {"method": "lora"},
        {"method": "qdora"},
        {"loss": "dpo", "full_logits": True},
    ):
        assert ft.plan_memory("llama-3.1-8b", **change).total > base.total, change
    assert ft.plan_memory("llama-3.1-8b", optimizer="paged_adamw_8bit").total < base.total
    assert (
        ft.plan_memory("llama-3.1-8b", loss="dpo").total
        < ft.plan_memory("llama-3.1-8b", loss="dpo", full_logits=True).total
    )


SHAPE = dict(
    layers=4,
    hidden=256,
    vocab=4096,
    intermediate_size=768,
    max_position_embeddings=512,
    tie_word_embeddings=False,
)


def measured(method, checkpointing, batch, length, full_logits, shape=SHAPE):
    """The peak of two steps, weights and optimizer included."""
    ids = torch.randint(8, 280, (batch, length))

    def run():
        model = llama(**shape).train()
        if method == "full":
            model.requires_grad_(True)
        else:
            ft.add_lora(model, r=8, use_dora=method == "dora")
        if checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        optimizer = torch.optim.AdamW(
            [p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=True
        )
        with factors_only(model):  # as training does
            for _ in range(2):
                (
                    model(input_ids=ids, labels=ids).loss
                    if full_logits
                    else -ft.sequence_logps(model, ids, torch.ones_like(ids), ids).mean()
                ).backward()
                optimizer.step()
                optimizer.zero_grad()

    with torch.device("meta"):
        config = llama(**shape).config
    return peak_bytes(run), config


@pytest.mark.parametrize("method", ["full", "lora", "dora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize(
    "batch, length, full_logits", [(1, 64, False), (2, 256, False), (2, 256, True)]
)
def test_the_plan_is_near_the_measured_peak(method, checkpointing, batch, length, full_logits):
    peak, config = measured(method, checkpointing, batch, length, full_logits)
    plan = ft.plan_memory(
        config,
        method,
        r=8,
        batch_size=batch,
        seq_len=length,
        gradient_checkpointing=checkpointing,
        dtype="float32",
        device="cpu",
        full_logits=full_logits,
    )
    print(f"{plan.total / peak:.3f} of the measured {peak / 1e6:.1f} MB")
    assert 0.90 <= plan.total / peak <= 1.10, f"{plan}\nmeasured {peak / 1e9:.4f}"


# Bad input


def test_a_configuration_in_every_form(tmp_path):
    config = LlamaConfig(**MODELS["llama-3.2-1b"])
    config.save_pretrained(tmp_path)
    totals = {
        ft.plan_memory(c).total
        for c in (
            "llama-3.2-1b",
            "LLAMA-3.2-1B",
            MODELS["llama-3.2-1b"],
            config,
            tmp_path,
            tmp_path / "config.json",
            str(tmp_path),
        )
    }
    assert len(totals) == 1


@pytest.mark.parametrize("name", memory_plan.NEEDED)
@pytest.mark.parametrize("value", [None, 0, -1, "8", 2.5, True])
def test_a_field_that_is_missing_or_absurd(name, value):
    config = {**TINY, name: value}
    if value is None:
        del config[name]
    with pytest.raises(ValueError, match=f"{name}={value!r}"):
        ft.plan_memory(config)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"method": "qloro"}, "method='qloro': use one of full, lora"),
        ({"loss": "ppo"}, "loss='ppo'"),
        ({"optimizer": "lion"}, "optimizer='lion'"),
        ({"dtype": "int8"}, "dtype='int8'"),
        ({"r": 0}, "r=0"),
        ({"batch_size": 1.5}, "batch_size=1.5"),
        ({"seq_len": -1}, "seq_len=-1"),
        ({"target_modules": ("q", "v_proj")}, r"\['q'\] unknown"),
        ({"target_modules": ()}, "target_modules"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        ft.plan_memory(TINY, **options)


def test_unknown_models_and_files(tmp_path):
    with pytest.raises(
        ValueError, match=r"'llama-9' is neither a file or folder nor one of llama-3\.2-1b"
    ):
        ft.plan_memory("llama-9")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        ft.plan_memory(tmp_path)
    with pytest.raises(ValueError, match="list"):
        ft.plan_memory([1])
    with pytest.raises(ValueError, match="num_local_experts=8: mixtures of experts"):
        ft.plan_memory({**TINY, "num_local_experts": 8})


def test_check_refuses_by_name_and_says_what_would_fit():
    plan = ft.plan_memory(
        "llama-3.1-8b", "lora", batch_size=8, seq_len=2048, gradient_checkpointing=False
    )
    with pytest.raises(
        MemoryError,
        match=r"llama-3.1-8b with lora needs .* GB, 24.0 GB are available: it would fit with",
    ) as refusal:
        plan.check(24e9)
    assert "gradient_checkpointing=True" in str(refusal.value)
    assert plan.check(plan.total) is plan
    with pytest.raises(MemoryError, match="take a smaller model"):
        ft.plan_memory("llama-3.1-70b").check(8e9)


def test_check_looks_at_this_machine(monkeypatch):
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: 1e9)
    with pytest.raises(MemoryError, match=r"1\.0 GB are available"):
        ft.plan_memory("llama-3.1-8b").check()
    monkeypatch.setattr(memory_plan, "available_bytes", lambda: None)
    ft.plan_memory("llama-3.1-8b").check()


# From a terminal


def test_the_plan_command(capsys):
    assert main(["plan", "llama-3.1-70b", "--method", "qlora", "--seq-len", "1024"]) == 0
    assert "peak" in (shown := capsys.readouterr().out) and "llama-3.1-70b" in shown
    assert main(["plan", "llama-3.1-70b", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"] == ft.plan_memory("llama-3.1-70b").total
    assert main(["plan", "llama-3.1-70b", "--fits", "24"]) == 1
    assert "it would fit" in (said := capsys.readouterr().err) or "smaller model" in said
    assert main(["plan", "nonsense"]) == 2
    assert "neither a file" in capsys.readouterr().err
