"""LoRA and DoRA in a model: at step zero, merged, disabled, frozen, copied, compiled, refused."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from conftest import VARIANTS, assert_untouched, llama, randomize, snapshot
from torch import nn

import ftlib as ft
from ftlib.adapters.lora_layer import AdapterConfig, LoRALinear
from ftlib.adapters.targets import target_names


@pytest.mark.parametrize("variant", VARIANTS)
def test_step_zero_is_the_base_model(variant, model, ids):
    base = model(ids).logits
    adapted = ft.add_lora(model, r=4, **VARIANTS[variant])(ids).logits
    assert torch.allclose(adapted, base, rtol=1e-5, atol=1e-6)
    if "dora" not in variant:
        assert torch.equal(adapted, base)


def test_initialisation():
    """A ~ kaiming_uniform(√5), that is uniform in ±1/√in; B = 0; m = row norms of W."""
    model = ft.add_lora(llama(hidden=64), r=16, use_dora=True)
    for layer in ft.lora_layers(model).values():
        bound = 1 / math.sqrt(layer.in_features)
        assert layer.lora_A.abs().max() <= bound and layer.lora_A.abs().max() > 0.9 * bound
        assert abs(layer.lora_A.std().item() / (bound / math.sqrt(3)) - 1) < 0.15
        assert not layer.lora_B.any()
        assert torch.allclose(layer.lora_magnitude_vector, layer.base_layer.weight.norm(dim=1))


@pytest.mark.parametrize("variant", VARIANTS)
def test_disabled_is_the_base_bit_for_bit_also_after_training(variant, model, ids):
    base = model(ids).logits.detach()
    ft.add_lora(model, r=4, **VARIANTS[variant])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(3):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    adapted = model(ids).logits
    assert not torch.allclose(adapted, base, atol=1e-3)
    with ft.disable_adapter(model) as same:
        assert same is model and torch.equal(model(ids).logits, base)
        with ft.disable_adapter(model):
            pass
        assert torch.equal(
            model(ids).logits, base
        )  # the inner block's end does not switch it on again
    assert torch.equal(model(ids).logits, adapted)
    with pytest.raises(RuntimeError, match="stop"), ft.disable_adapter(model):
        raise RuntimeError("stop")
    assert torch.equal(model(ids).logits, adapted)


def test_only_the_adapter_trains_and_the_base_gets_no_gradient(model, ids):
    ft.add_lora(model, r=2, target_modules=("q_proj", "v_proj"), use_dora=True)
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == {
        f"model.layers.{i}.self_attn.{p}.{a}"
        for i in (0, 1)
        for p in ("q_proj", "v_proj")
        for a in ("lora_A", "lora_B", "lora_magnitude_vector")
    }
    model(ids, labels=ids).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == names


@pytest.mark.parametrize("training", [True, False])
def test_new_layers_take_the_models_mode(training, ids):
    """from_pretrained returns a model in evaluation mode: dropout must not act before .train() is
    called.
    """
    model = randomize(ft.add_lora(llama().train(training), r=4, lora_dropout=0.5))
    assert all(m.training is training for m in model.modules())
    assert torch.equal(model(ids).logits, model(ids).logits) is not training


def test_dropout_falls_on_the_low_rank_branch_only(model, ids):
    base = model(ids).logits
    ft.add_lora(model, r=4, lora_dropout=0.9, use_dora=True).train()
    assert torch.allclose(
        model(ids).logits, base, atol=1e-5
    )  # B = 0: dropout of the base's input would show


def test_targets(model):
    every = target_names(model, "all-linear")
    assert len(every) == 14 and not any("lm_head" in n for n in every)
    assert target_names(model, ["q_proj", "model.layers.1.mlp.up_proj"]) == [
        "model.layers.0.self_attn.q_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.mlp.up_proj",
    ]
    assert target_names(model, "down_proj") == [f"model.layers.{i}.mlp.down_proj" for i in (0, 1)]
    assert target_names(model, ["lm_head"]) == ["lm_head"]


@pytest.mark.parametrize(
    "target", ["q_prj", "proj", "model.layers.7.self_attn.q_proj", "embed_tokens"]
)
def test_unknown_target_names_what_there_is_and_touches_nothing(target, model):
    before = snapshot(model)
    with pytest.raises(
        ValueError,
        match="(?s)target_modules.*" + target.replace(".", r"\.") + ".*down_proj.*q_proj",
    ):
        ft.add_lora(model, target_modules=["q_proj", target])
    assert_untouched(model, before)


@pytest.mark.parametrize(
    "option, word",
    [
        ({"r": 0}, "r=0"),
        ({"r": -1}, "r=-1"),
        ({"r": 2.5}, "r=2.5"),
        ({"r": True}, "r=True"),
        ({"lora_alpha": 0}, "lora_alpha=0"),
        ({"lora_alpha": float("nan")}, "lora_alpha=nan"),
        ({"lora_alpha": float("inf")}, "lora_alpha=inf"),
        ({"lora_dropout": 1.0}, "lora_dropout=1.0"),
        ({"lora_dropout": -0.1}, "lora_dropout"),
        ({"target_modules": []}, "target_modules"),
        ({"target_modules": ""}, "target_modules"),
    ],
)
def test_bad_options_name_the_argument(option, word, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=word):
        ft.add_lora(model, **option)
    assert_untouched(model, before)


def test_calls_in_the_wrong_order_say_what_to_do(model):
    for call in (ft.merge_adapter, ft.unmerge_adapter, lambda m: ft.disable_adapter(m).__enter__()):
        with pytest.raises(ValueError, match=r"no adapter.*add_lora"):
            call(model)
    ft.add_lora(model, r=2)
    with pytest.raises(ValueError, match="already has an adapter"):
        ft.add_lora(model, r=2)
    with pytest.raises(ValueError, match="not merged"):
        ft.unmerge_adapter(model)
    ft.merge_adapter(model)
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"merged already.*unmerge_adapter"):
        ft.merge_adapter(model)
    with pytest.raises(ValueError, match="unmerge_adapter"), ft.disable_adapter(model):
        pass
    assert all(torch.equal(v, weights[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("tied", [True, False])
def test_the_output_head_can_be_adapted_on_request(tied, ids, caplog):
    """Adapting a tied head leaves the input embeddings alone, and says that merging would not."""
    import logging

    model = llama(tie_word_embeddings=tied)
    embeddings = model.get_input_embeddings().weight.detach().clone()
    with caplog.at_level(logging.WARNING, "ftlib"):
        randomize(ft.add_lora(model, r=2, target_modules=["lm_head"]))
    assert ("tied" in caplog.text) is tied
    assert model.get_output_embeddings().weight.shape == (280, 32)
    adapted = model(ids).logits
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    with ft.disable_adapter(model):
        assert not torch.equal(model(ids).logits, adapted)


def test_all_linear_on_a_tied_model_merges_without_touching_the_embeddings(model):
    embeddings = model.get_input_embeddings().weight.detach().clone()
    ft.merge_adapter(randomize(ft.add_lora(model, r=2)))
    assert torch.equal(model.get_input_embeddings().weight, embeddings)
    assert model.lm_head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


@pytest.mark.parametrize("variant", ["lora", "dora"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_base_keeps_an_fp32_adapter(variant, dtype, ids):
    model = randomize(ft.add_lora(llama(dtype=dtype), r=4, **VARIANTS[variant]))
    out = model(ids, labels=ids)
    out.loss.backward()
    assert out.logits.dtype == dtype
    for layer in ft.lora_layers(model).values():
        assert layer.base_layer.weight.dtype == dtype
        assert all(
            p.dtype == torch.float32
            and p.grad.dtype == torch.float32
            and torch.isfinite(p.grad).all()
            for p in layer.parameters(recurse=False)
        )
    weights = {n: layer.base_layer.weight.clone() for n, layer in ft.lora_layers(model).items()}
    ft.merge_adapter(model)
    for name, layer in ft.lora_layers(
        model
    ).items():  # the delta is computed in fp32 and rounded once
        exact = weights[name].float() + layer.scaling * layer.lora_B @ layer.lora_A
        if variant == "lora":
            assert torch.equal(layer.base_layer.weight, exact.to(dtype))


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_gradient_checkpointing_gives_the_same_gradients(variant, ids):
    """Although the embedding output needs no gradient, the adapters inside the checkpointed blocks
    get theirs.
    """
    plain, checkpointed = (
        randomize(ft.add_lora(llama(), r=4, **VARIANTS[variant])).train() for _ in range(2)
    )
    checkpointed.gradient_checkpointing_enable({"use_reentrant": False})
    for model in (plain, checkpointed):
        model(ids, labels=ids).loss.backward()
    pairs = [
        (p, q)
        for p, q in zip(plain.parameters(), checkpointed.parameters(), strict=True)
        if p.requires_grad
    ]
    assert len(pairs) == (42 if variant == "dora" else 28)
    assert all(
        torch.allclose(p.grad, q.grad, rtol=1e-5, atol=1e-7) and p.grad.any() for p, q in pairs
    )


def test_an_adapted_model_is_still_a_pretrained_model_that_generates(model, ids):
    from transformers import PreTrainedModel

    randomize(ft.add_lora(model, r=2))
    assert isinstance(model, PreTrainedModel) and model.dtype == torch.float32
    assert (
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=3, do_sample=False
        ).shape[1]
        <= 10
    )


def test_deepcopy_is_independent(model, ids):
    randomize(ft.add_lora(model, r=2))
    twin = copy.deepcopy(model)
    before = model(ids).logits
    ft.merge_adapter(twin)
    randomize(twin, seed=9)
    assert torch.equal(model(ids).logits, before) and not any(
        layer.merged for layer in ft.lora_layers(model).values()
    )


def test_autocast_does_not_round_the_norm():
    """In bf16 the products would be off by 1e-3; the kept norm is fp32's, computed inside autocast
    or out.
    """
    layer = LoRALinear(nn.Linear(64, 48), AdapterConfig(r=4, use_dora=True))
    nn.init.normal_(layer.lora_B)
    outside = layer._row_norm().clone()
    layer.forget_norm()
    with torch.autocast("cpu", torch.bfloat16):
        inside = layer._row_norm()
    assert inside.dtype == torch.float32 and torch.equal(inside, outside)


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_torch_compile_changes_nothing(variant, ids):
    """Traced by dynamo and AOT autograd, before and after an optimizer step; LoRA without a graph
    break. One block, two of its layers, one wide and one narrow: DoRA breaks the graph in each, and
    every piece is traced.
    """
    model = randomize(
        ft.add_lora(
            llama(layers=1), r=4, target_modules=("q_proj", "down_proj"), **VARIANTS[variant]
        )
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    torch._dynamo.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=variant == "lora")
    for _step in range(2):
        results = []
        for f in (model, compiled):
            model.zero_grad()
            loss = f(ids, labels=ids).loss
            loss.backward()
            results.append([loss.detach(), *(p.grad.clone() for p in trained)])
        for a, b in zip(*results, strict=True):
            assert torch.allclose(a, b, atol=1e-6)
        torch.optim.SGD(trained, lr=0.1).step()


def test_a_merged_adapter_becomes_the_reference_of_the_next():
    """SFT's adapter goes into the weights; over them a new one begins as the same function, and
    switched off it stays that.
    """
    model = llama(dtype=torch.float64)
    ft.add_lora(model, r=4)
    for layer in ft.lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    ids = torch.arange(8, 20)[None]
    after_sft = model(ids).logits.detach()
    name = model.config._name_or_path
    ft.merge_and_unload(model)
    assert not ft.lora_layers(model) and torch.allclose(model(ids).logits, after_sft, atol=1e-10)
    ft.add_lora(model, r=4)
    assert (
        torch.allclose(model(ids).logits, after_sft, atol=1e-10)
        and model.config._name_or_path != name
    )
    for layer in ft.lora_layers(model).values():
        torch.nn.init.normal_(layer.lora_B, std=0.1)
    assert not torch.allclose(model(ids).logits, after_sft, atol=1e-2)
    with ft.disable_adapter(model):
        assert torch.allclose(model(ids).logits, after_sft, atol=1e-10)


def test_an_adapter_trained_over_a_merged_one_is_refused_on_the_plain_base(tmp_path):
    plain, model = llama(), ft.add_lora(llama(), r=4)
    plain.config._name_or_path = model.config._name_or_path = "a-base"
    ft.add_lora(ft.merge_and_unload(model), r=4)
    ft.save_adapter(model, tmp_path / "a")
    with pytest.raises(ft.AdapterError, match="with an adapter merged"):
        ft.load_adapter(plain, tmp_path / "a")


def mamba():
    from transformers import MambaConfig, MambaForCausalLM

    sizes = {"vocab_size": 280, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 1}
    return MambaForCausalLM(MambaConfig(**sizes)).eval()


def test_layers_whose_weight_the_model_reads_itself_stay_without_an_adapter(caplog):
    """Mamba's kernels take the weights of `x_proj`, `dt_proj` and `out_proj`: an adapter there is
    passed by, and merging would put it in.
    """
    caplog.set_level("INFO", logger="ftlib")
    model = ft.add_lora(mamba(), r=2)
    assert {name.rsplit(".", 1)[-1] for name in ft.lora_layers(model)} == {"in_proj"}
    assert "dt_proj" in caplog.text
    with pytest.raises(ValueError, match=r"target_modules: .*out_proj cannot have an adapter"):
        ft.add_lora(mamba(), r=2, target_modules=["in_proj", "out_proj"])


def test_a_linear_layer_that_gives_something_else_stays_without_an_adapter():
    """Llama 4's router is an `nn.Linear` that returns the experts' scores and logits."""

    class Router(nn.Linear):
        def forward(self, x):
            logits = super().forward(x)
            return logits.softmax(-1), logits

    class Doubled(nn.Linear):
        """Equal to ``Wx + b`` in other words."""

        def forward(self, x):
            return x @ self.weight.T + self.bias

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.router = Router(4, 2)
            self.up = Doubled(4, 4)

        def forward(self, x):
            return self.up(x) * self.router(x)[0][..., :1]

    model = nn.Sequential(Block())
    ft.add_lora(model, r=2)
    assert list(ft.lora_layers(model)) == ["0.up"]
    assert model(torch.ones(3, 4)).shape == (3, 4)


def test_a_set_of_targets_is_the_same_adapter_in_every_process():
    """A set's own order is another in each: a run would not know its own adapter again."""
    model = ft.add_lora(llama(), r=2, target_modules={"v_proj", "q_proj", "up_proj"})
    assert model.adapter_config.target_modules == ("q_proj", "up_proj", "v_proj")


def test_numpys_numbers_can_be_saved(tmp_path):
    model = ft.add_lora(
        llama(), r=np.int64(2), lora_alpha=np.float32(0.5), lora_dropout=np.float32(0.5)
    )
    ft.save_adapter(model, tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert (stored["r"], stored["lora_alpha"], stored["lora_dropout"]) == (2, 0.5, 0.5)


def test_an_adapted_layers_output_may_be_written_over():
    """As an activation in place does."""
    x = torch.randn(3, 6)
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 6))
    apart = copy.deepcopy(model)
    apart[1].inplace = False
    results = []
    for each in (model, apart):
        torch.manual_seed(0)
        randomize(ft.add_lora(each, r=2, target_modules=("0", "2")))
        each(x).sum().backward()
        results.append([p.grad for p in each.parameters() if p.grad is not None])
    assert len(results[0]) == 4
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_hooks_on_a_base_layer_are_called():
    model = ft.add_lora(nn.Sequential(nn.Linear(6, 4)), r=2, target_modules=("0",))
    randomize(model)
    x = torch.randn(3, 6)
    plain = model(x)
    seen = []
    model[0].base_layer.register_forward_hook(lambda module, args, out: seen.append(out))
    torch.testing.assert_close(model(x), plain)
    assert torch.equal(seen[0], nn.functional.linear(x, model[0].weight, model[0].bias))
