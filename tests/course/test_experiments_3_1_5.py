"""What lab 3.1.5's bases, controls and measures are said to be."""

import itertools

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_5 import (
    bases,
    experiments,
    nvfp4,
    outlier_block,
    outputs,
    readings,
    trials,
)
from ftlib.course.lab_3_1_5.schematic import draw_block
from ftlib.models.nf4 import quantize_4bit


def weights(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- NVFP4 ----------------------------------------------------------------------------------------
def e2m1_values() -> set[float]:
    """Every code of E2M1 by its bits: exponent 0 is subnormal, m/2; else 2^(e-1)·(1 + m/2)."""
    found = set()
    for sign, exponent, mantissa in itertools.product((1, -1), range(4), range(2)):
        size = mantissa / 2 if exponent == 0 else 2 ** (exponent - 1) * (1 + mantissa / 2)
        found.add(sign * size)
    return found


def test_e2m1_has_fifteen_values_for_sixteen_codes():
    assert set(nvfp4.E2M1_LEVELS.tolist()) == e2m1_values()
    assert len(e2m1_values()) == 15


def test_nvfp4_gives_back_what_it_can_hold():
    """Largest 6·448 in the tensor: its scale is 1 and block scales are whole E4M3 numbers."""
    values = torch.tensor([6.0, 4, 3, 2, 1.5, 1, 0.5, 0, -0.5, -1, -1.5, -2, -3, -4, -6, 0])
    held = torch.cat([448 * values, 3.5 * values, torch.zeros(16)])
    assert torch.equal(nvfp4.round_nvfp4(held), held)


def test_nvfp4_takes_the_nearest_value_of_its_block():
    w = 0.05 * weights(8, 64)
    again = nvfp4.round_nvfp4(w)
    largest = w.abs().max()
    for block, rounded in zip(w.view(-1, 16), again.view(-1, 16), strict=True):
        outer = largest / (6 * 448)
        scale = (block.abs().max() / 6 / outer).to(torch.float8_e4m3fn).float() * outer
        candidates = scale * torch.tensor(sorted(e2m1_values()))
        nearest = (block[:, None] - candidates).abs().amin(1)
        torch.testing.assert_close((rounded - block).abs(), nearest, atol=1e-7, rtol=0)


def test_nvfp4_refuses_what_is_no_multiple_of_its_block():
    with pytest.raises(ValueError, match="weight has 24 entries: NVFP4 needs a multiple of 16"):
        nvfp4.round_nvfp4(weights(24))


def test_nvfp4_takes_four_and_a_half_bits():
    """4 + 8/16, and 32 bits for 64 weights are another half."""
    assert nvfp4.nvfp4_bits(64) == 5.0


# --- rounded bases --------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["NF4", "FP4", "INT4"])
def test_a_rounded_weight_is_ftlibs_with_double_quantisation(kind):
    """Up to the step of a scale's 8 bits: on a CPU ftlib finds the nearest of its levels in a table
    (bitsandbytes does), which may differ by one.
    """
    w = 0.05 * weights(64, 256)
    want = quantize_4bit(w, kind.lower()).dequantize()
    torch.testing.assert_close(bases.rounded_weight(w, kind), want, rtol=5e-3, atol=1e-6)


def test_scales_that_fill_no_whole_block_of_scales():
    """300 scales: 256 and 44."""
    scales = weights(300).abs() + 1
    again = bases.rounded_scales(scales)
    assert again.shape == scales.shape
    assert ((again - scales).abs() / scales).max() < 0.05


def test_the_control_has_nf4s_errors_block_by_block_in_another_order():
    w = 0.05 * weights(32, 128)
    errors = bases.rounded_weight(w, "NF4") - w
    control = bases.rounded_weight(w, bases.NF4_SHUFFLED, seed=1) - w
    own = errors.view(-1, 64).sort(1).values
    torch.testing.assert_close(control.view(-1, 64).sort(1).values, own, atol=1e-7, rtol=0)
    assert (control - errors).norm() > errors.norm()
    another = bases.rounded_weight(w, bases.NF4_SHUFFLED, seed=2) - w
    assert (another - control).norm() > errors.norm()


def test_the_students_functions_make_the_base():
    """Levels −1, 0, 1: every weight of a block of 64 comes back as 0 or ± its largest."""

    def three_levels(above, below, edge):
        return torch.tensor([-1.0, 0.0, 1.0])

    w = weights(1, 64)
    again = bases.rounded_weight(w, "NF4", normal_levels=three_levels)
    assert len(torch.unique(again)) <= 3
    torch.testing.assert_close(again.max().abs(), w.abs().max())


def test_nf4s_two_companions_differ_from_it_in_one_thing_each():
    arms = experiments.base_arms(get_profile("tiny"))
    for place in readings.PLACES:
        plain = arms[readings.base_arm("NF4", place)]
        shuffled = arms[readings.base_arm(bases.NF4_SHUFFLED, place)]
        assert shuffled == {**plain, "kind": bases.NF4_SHUFFLED}
        assert arms[readings.base_arm(bases.NF4_16, place)] == {**plain, "block": 16}


def test_bases_are_compared_at_equal_rates():
    profile = get_profile("tiny")
    rates = [list(experiments.shared_rates(profile, kind)) for kind in experiments.COMPARED]
    assert all(found == rates[0] for found in rates) and len(rates[0]) == 3
    by_arm = {}
    for i, place in enumerate(readings.PLACES):
        by_arm[readings.base_arm("NF4", place)] = {"loss": 1.0 + i}
        by_arm[readings.base_arm(bases.WHOLE, place)] = {"loss": 0.5}
    contrast = readings.over_rates("NF4", bases.WHOLE)
    assert contrast(by_arm) == pytest.approx(1.5) and set(contrast.arms) == set(by_arm)


def test_smaller_blocks_of_nf4_have_smaller_errors():
    w = 0.05 * weights(64, 256)
    errors = [(bases.rounded_weight(w, "NF4", block=size) - w).norm() for size in (16, 64)]
    assert errors[0] < 0.95 * errors[1]


# --- merging --------------------------------------------------------------------------------------
def test_what_is_left_of_an_update():
    """All of it, half of it, none of it; what is at right angles does not count."""
    before = {"a": torch.zeros(2)}
    update = {"a": torch.tensor([2.0, 0.0])}
    for after, share in (([2.0, 0.0], 1), ([1.0, 0.0], 0.5), ([0.0, 7.0], 0)):
        assert trials.share_left(before, {"a": torch.tensor(after)}, update) == share


def test_a_small_update_is_lost_on_the_grid_and_kept_off_it():
    w = {"a": 0.05 * weights(256, 256)}
    grid = trials.rounded_again(w, {})
    size = 0.1 * (grid["a"] - w["a"]).norm()
    direction = weights(256, 256, seed=1)
    update = {"a": direction * size / direction.norm()}
    for start, low, high in ((grid, 0.0, 0.2), (w, 0.8, 1.2)):
        before = trials.rounded_again(start, {})
        after = trials.rounded_again(trials.plus(start, update), {})
        assert low <= trials.share_left(before, after, update) <= high


# --- outputs --------------------------------------------------------------------------------------
def test_with_the_identity_as_input_the_output_error_is_that_of_the_weights():
    w = weights(8, 32)
    again = w + 0.1 * weights(8, 32, seed=1)
    wrong = ((again - w).norm() / w.norm()).item()
    assert outputs.output_error(torch.eye(32), w, again) == pytest.approx(wrong)
    shares = outputs.channel_shares(torch.eye(32), w, again)
    assert shares.sum().item() == pytest.approx(1)
    assert shares[0].item() == pytest.approx(
        ((again - w)[:, 0].square().sum() / (again - w).square().sum()).item()
    )


def test_the_shuffled_channels_keep_their_sizes():
    x = weights(50, 16) * torch.arange(1, 17)
    control = outputs.shuffled_channels(x)
    assert not torch.equal(control, x)
    sizes = outputs.channel_sizes(x)
    assert torch.equal(outputs.channel_sizes(control).sort().values, sizes.sort().values)
    assert outputs.outlier_ratio(control) == pytest.approx(outputs.outlier_ratio(x))


def test_layer_inputs_are_what_the_layer_gets():
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    path = "model.layers.0.self_attn.q_proj"
    ids = torch.arange(10)[None]
    found = outputs.layer_inputs(model, [ids, ids[:, :4]], [path])
    first = model.model.layers[0].input_layernorm(model.model.embed_tokens(ids))[0]
    assert list(found) == [path] and found[path].shape == (14, 32)
    torch.testing.assert_close(found[path][:10], first.detach())
    assert not model.get_submodule(path)._forward_pre_hooks


# --- pictures -------------------------------------------------------------------------------------
def test_dragging_the_outlier_costs_its_own_block_alone():
    calm = outlier_block.round_with(2.0, "NF4", 16)
    wild = outlier_block.round_with(20.0, "NF4", 16)
    neighbours = wild.neighbours()
    assert int(neighbours.sum()) == 15 and not neighbours[outlier_block.PLACE]
    assert wild.error(neighbours) > 2 * calm.error(neighbours)
    others = ~neighbours
    others[outlier_block.PLACE] = False
    assert wild.error(others) == calm.error(others)


def test_every_handle_of_the_block_changes_what_is_said():
    block = outlier_block.outlier_block()
    said = [block.headline.value]
    for name, value in (("outlier", 20.0), ("kind", "INT4"), ("block", 16)):
        block.controls[name].value = value
        said.append(block.headline.value)
    assert len(set(said)) == len(said)
    assert "15 neighbours" in said[-1] and "other 48" in said[-1]


def test_the_schematic_writes_the_codes_of_the_block():
    """A block of zeros but for 1: code 15 there (1111), code 7 (0111) for zero."""
    w = torch.zeros(2, 64)
    w[0, 0] = 1
    figure = draw_block(w, (2, 64), 4)
    texts = [text.get_text() for text in figure.axes[1].texts]
    assert "1111 0111" in texts and "0111 0111" in texts
    assert any("A 4 × 64 and B 2 × 4" in text for text in texts)
