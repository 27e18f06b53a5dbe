"""Lab 3.1.10's experiments: the samples are apart, the controls share what they claim to share,
and a super-block comes apart as the `gguf` package reads it.
"""

from __future__ import annotations

import dataclasses
import re
from types import SimpleNamespace

import gguf
import numpy as np
import pytest
import torch

from ftlib.adapters.lora import disable_adapter
from ftlib.adapters.lora_layer import lora_layers
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_10 import faults, held_out, merging, mix, shown, super_block, trials
from ftlib.course.lab_3_1_10.q4_k_weights import q4_k_weights
from ftlib.course.records.experiment import (
    LIVE_SEED,
    SEEDS,
    Experiment,
    Metric,
    find_experiment,
)
from ftlib.course.records.kit import rows_of
from ftlib.course.records.live import Result
from ftlib.course.records.shown import alongside, whose
from ftlib.course.records.store import Entry, Record
from ftlib.export.go_template import WORLD, render_go

TINY = get_profile("tiny")
CHAT = [{"role": "user", "content": "What?"}]


def test_no_prompt_is_in_two_samples_and_none_was_trained_on():
    samples = [held_out.sample_rows(TINY, seed) for seed in (*range(SEEDS), LIVE_SEED)]
    prompts = [row["messages"][0]["content"] for rows in samples for row in rows]
    assert {len(rows) for rows in samples} == {TINY.export.prompts}
    assert len(set(prompts)) == len(prompts) == 11 * TINY.export.prompts
    trained = {row["messages"][0]["content"] for row in rows_of(TINY, "train")}
    assert not trained & set(prompts)


def test_a_record_asks_for_the_shipped_adapter_or_for_the_rows_that_make_one():
    """An adapter that is trained on the spot is another file on every machine."""
    assert set(held_out.adapter_inputs(TINY)) == {"adapter"}
    elsewhere = dataclasses.replace(TINY, model="elsewhere")
    assert held_out.adapter_inputs(elsewhere) == {"train": rows_of(elsewhere, "train")}


@pytest.mark.parametrize("seed", [0, 5])
def test_another_order_is_the_same_function_and_another_rounding(seed):
    """Adapter on and off; the weights are the same numbers in other blocks."""
    ids = torch.tensor([[0, 4, 500, 17, 900, 33, 6, 5, 410, 411]])
    plain = held_out.lab_model(TINY, 3)
    other = held_out.lab_model(TINY, seed)
    with torch.no_grad():
        assert (plain(ids).logits - other(ids).logits).abs().max() < 1e-3
        with disable_adapter(plain), disable_adapter(other):
            assert (plain(ids).logits - other(ids).logits).abs().max() < 1e-3
    there = lora_layers(other)
    for name, layer in lora_layers(plain).items():
        one, two = layer.base_layer.weight, there[name].base_layer.weight
        assert not torch.equal(one, two)
        assert torch.equal(one.flatten().sort().values, two.flatten().sort().values)


def test_a_seed_has_its_own_model_and_a_trial_its_own_copy():
    model = held_out.own_model(TINY, 1)
    torch.nn.init.zeros_(model.get_input_embeddings().weight)
    assert held_out.lab_model(TINY, 1).get_input_embeddings().weight.abs().sum() > 0


# --- a super-block --------------------------------------------------------------------------------
def some_blocks(n: int = 7) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    blocks = torch.randint(0, 256, (n, super_block.BYTES), generator=g, dtype=torch.uint8)
    units = (torch.rand(n, 2, generator=g) / 100).half()
    blocks[:, :4] = units.view(torch.uint8)
    return blocks


def test_a_super_block_comes_apart_as_gguf_reads_it():
    blocks = some_blocks()
    parts = super_block.take_apart(blocks)
    mine = q4_k_weights(parts.d, parts.dmin, parts.scales, parts.mins, parts.nibbles)
    theirs = gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType.Q4_K)
    torch.testing.assert_close(mine, torch.from_numpy(theirs.reshape(-1, 256)))
    possible = super_block.levels(parts, 2)
    for j, weights in enumerate(mine[2].reshape(8, 32)):
        nearest = np.abs(weights.numpy()[:, None] - possible[j]).min(axis=1)
        assert nearest.max() < 1e-6
    assert sum(size for _, _, size in super_block.PARTS) == super_block.BYTES


def test_what_is_no_super_block_is_refused():
    for wrong in (torch.zeros(2, 143, dtype=torch.uint8), torch.zeros(2, 144)):
        with pytest.raises(ValueError, match=r"pass \(n, 144\) of uint8"):
            super_block.take_apart(wrong)
    with pytest.raises(ValueError, match="x is Q6_K: choose a Q4_K tensor"):
        super_block.blocks_of(SimpleNamespace(name="x", tensor_type=gguf.GGMLQuantizationType.Q6_K))


# --- controls -------------------------------------------------------------------------------------
def a_recipe(layers: int, larger: tuple[int, ...]) -> dict[str, str]:
    recipe = {"token_embd.weight": "Q6_K"}
    for layer in range(layers):
        for matrix in ("attn_k", "attn_v", "ffn_up", "ffn_down"):
            gets_more = layer in larger and matrix in ("attn_v", "ffn_down")
            recipe[f"blk.{layer}.{matrix}.weight"] = "Q6_K" if gets_more else "Q4_K"
    return recipe


def mixed(recipe: dict[str, str], name: str) -> dict[str, str]:
    """The recipe after the patterns of a mix, the first that fits counting."""
    types = trials.mix_types(recipe, name)
    found = {}
    for matrix, kind in recipe.items():
        fitting = [chosen for pattern, chosen in types.items() if re.search(pattern, matrix)]
        found[matrix] = fitting[0] if fitting else kind
    return found


@pytest.mark.parametrize("layers, larger", [(4, (2, 3)), (12, (0, 3, 6, 9, 11))])
def test_the_same_bytes_go_to_matrices_of_the_same_shape(layers, larger):
    recipe = a_recipe(layers, larger)
    shape = {"attn_v": "small", "attn_k": "small", "ffn_up": "large", "ffn_down": "large"}

    def given(types: dict[str, str]) -> list[str]:
        got = [
            name.split(".")[2] for name, kind in types.items() if kind == "Q6_K" and "blk" in name
        ]
        return sorted(shape[matrix] for matrix in got)

    assert mixed(recipe, "recipe") == recipe
    assert (
        given(mixed(recipe, "elsewhere")) == given(recipe) == given(mixed(recipe, "other layers"))
    )
    assert given(mixed(recipe, "plain")) == []
    elsewhere = mixed(recipe, "elsewhere")
    assert all(elsewhere[f"blk.{i}.attn_k.weight"] == "Q6_K" for i in larger)
    others = mixed(recipe, "other layers")
    for i in larger:
        assert others[f"blk.{i}.ffn_down.weight"] == "Q4_K"
    config = held_out.lab_model(TINY, 0).config
    assert config.num_attention_heads % config.num_key_value_heads == 0  # k and v have one shape


def test_the_shuffled_importance_has_the_same_numbers_in_other_columns(monkeypatch):
    own = {"a": np.arange(50.0), "b": np.arange(20.0) ** 2}
    monkeypatch.setattr(trials, "importance_matrix", lambda model, texts: own)
    shuffled = trials.calibration_of(TINY, 3, "shuffled")
    assert trials.calibration_of(TINY, 3, "own") == own
    for name, values in own.items():
        assert not np.array_equal(shuffled[name], values)
        assert np.array_equal(np.sort(shuffled[name]), np.sort(values))
    assert trials.calibration_of(TINY, 3, "none") == {}


def test_calibration_texts_are_the_seeds_own(monkeypatch):
    seen = []
    monkeypatch.setattr(trials, "importance_matrix", lambda model, texts: seen.append(texts) or {})
    for calibration in ("own", "own", "other"):
        trials.calibration_of(TINY, len(seen), calibration)
    assert [len(texts) for texts in seen] == [trials.CALIBRATION_TEXTS] * 3
    assert seen[0] != seen[1] and max(map(len, seen[2])) <= trials.CALIBRATION_TOKENS


# --- merging --------------------------------------------------------------------------------------
def test_an_update_below_half_a_step_is_lost_in_bf16_however_the_sum_is_taken():
    W = torch.tensor([[1.0, -2.0, 0.5]])
    exact = W * (1 + 2.0**-10)
    for form in ("bf16", "bf16 sum"):
        assert torch.equal(merging.stored_as(form, W, exact), W)
    assert torch.equal(merging.stored_as("f16", W, exact), exact)
    blocks = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    rounding = (merging.stored_as("Q8_0", 0 * blocks, blocks) - blocks).abs().amax(1)
    assert (rounding <= blocks.abs().amax(1) / 127 * 0.51).all()


# --- faults ---------------------------------------------------------------------------------------
def test_each_template_fault_changes_one_thing():
    right = "<|user|>What?<|end|><|assistant|>"
    wanted = {
        "turn not closed": "<|user|>What?<|assistant|>",
        "answer not opened": "<|user|>What?<|end|>",
        "newline after each turn": "<|user|>What?<|end|>\n<|assistant|>",
        "as trained": right,
    }
    for fault, text in wanted.items():
        assert render_go(faults.spoiled(WORLD, fault), CHAT) == text
    assert "<|im_start|>" in faults.spoiled(WORLD, "another family's template")


def test_prompts_are_those_of_the_students_function():
    sample = held_out.Sample(
        [{"messages": [*CHAT, {"role": "assistant", "content": "x"}]}], [], [], []
    )
    tokenizer = held_out.lab_tokenizer(TINY)
    (ids,) = faults.prompt_ids(TINY, sample, "as trained", lambda render, chat: "<|user|>mine")
    assert tokenizer.decode(ids) == "<|bos|><|user|>mine"
    (twice,) = faults.prompt_ids(TINY, sample, "start token twice")
    (once,) = faults.prompt_ids(TINY, sample, "as trained")
    assert twice == once[:1] + once
    assert once == tokenizer.apply_chat_template(CHAT, add_generation_prompt=True)["input_ids"]


# --- the planner of mixes -------------------------------------------------------------------------
def kinds_result() -> Result:
    g = np.random.default_rng(0)
    record = Record("3.1.10", "kinds", "tiny")
    for size, arm in ((1, "Q6_K"), (10, "Q4_K"), (100, "Q2_K")):
        for seed in range(2):
            metrics = {"answer_kl": (size * g.uniform(1, 5, 8)).tolist()}
            record.entries[arm, seed] = Entry(arm, seed, {}, metrics, 0.0, {})
    experiment = Experiment(
        name="kinds",
        title="",
        trial=lambda profile, seed: {},
        arms=lambda profile: {"Q6_K": {}, "Q4_K": {}, "Q2_K": {}},
        metrics=(Metric("answer_kl", "KL"),),
        inputs=lambda profile: {},
    )
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def test_the_planner_sums_and_its_frontier_is_the_best_of_all_mixes():
    counts = {name: 1000 * (i + 1) for i, name in enumerate(mix.NAMES)}
    planner = mix.MixPlanner(kinds_result(), counts, {"Q4_K_M": (0.02, 50.0)}, q="F16")
    assert planner.megabytes == pytest.approx((1000 * 16 + 35_000 * 4.5) / 8e6)
    expected = sum(planner.kl_of[name]["Q4_K"] for name in mix.NAMES if name != "q")
    assert planner.kl == pytest.approx(expected)
    sizes = np.zeros(1)
    kls = np.zeros(1)
    for name in mix.NAMES:
        size = np.array([planner.size_of[name][kind] for kind in mix.TYPES])
        kl = np.array([planner.kl_of[name][kind] for kind in mix.TYPES])
        sizes = (sizes[:, None] + size).ravel()
        kls = (kls[:, None] + kl).ravel()
    for size, kl in zip(*planner.frontier, strict=True):
        smaller = sizes < size - 1e-9
        assert kls[smaller].min(initial=np.inf) > kl
        assert np.hypot(sizes - size, kls - kl).min() < 1e-9
    planner.controls["embedding"].value = "Q2_K"
    assert "expected" in planner.headline.value and planner.mix["embedding"] == "Q2_K"
    assert planner.draw().axes and "embedding Q2_K" in repr(planner)
    with pytest.raises(ValueError, match="q='Q9'"):
        mix.MixPlanner(kinds_result(), counts, {}, q="Q9")


def test_every_matrix_has_a_kind():
    names = {
        "blk.0.attn_output.weight": "o",
        "output.weight": "embedding",
        "token_embd.weight": "embedding",
    }
    for tensor, kind in names.items():
        assert mix.kind_of(tensor) == kind
    with pytest.raises(ValueError, match=r"'rope_freqs\.weight' is none of"):
        mix.kind_of("rope_freqs.weight")


@pytest.mark.parametrize("count", [28, 56, 196, 210, 224])
def test_some_layers_are_of_every_kind_in_a_deep_model(count):
    """Seven adapted layers a block: a stride of seven would meet one kind alone."""
    layers = {f"layer {i}": i % 7 for i in range(count)}
    some = shown.some_of(layers)
    assert set(some.values()) == set(range(7))
    assert len(some) == 28 if count <= 56 else 20 < len(some) <= 32


def test_tinys_runs_stand_beside_tinys_files(tmp_path):
    """A result of another profile takes that one's files; the notebook's own takes its own."""
    experiment = find_experiment("3.1.10", "files")
    mine = {"F16": tmp_path / "mine.gguf"}
    own = Result(experiment, TINY, Record("3.1.10", "files", "tiny"), {}, True, "", 0.0)
    assert shown.files_of(own, mine, tmp_path) == mine and whose(own) == ""
    tinys = dataclasses.replace(own, shown_in="pocket")
    files = shown.files_of(tinys, mine, tmp_path)
    assert set(files) == {"F16", *TINY.export.quantizations}
    assert all(file.parent == tmp_path / "tiny" and file.is_file() for file in files.values())
    assert shown.with_super_blocks(files, tmp_path) == files
    assert alongside(own, own) is own
    pocket = dataclasses.replace(own, profile=get_profile("pocket"))
    assert alongside(pocket, tinys).profile.name == "tiny"
