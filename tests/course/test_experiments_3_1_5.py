"""What lab 3.1.5's bases, controls and measures are said to be."""

import itertools

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_5 import (
    about_weights,
    bases,
    experiments,
    lines,
    lines_bases,
    lines_merging,
    nvfp4,
    outlier_block,
    outputs,
    readings,
    sharding,
    trials,
)
from ftlib.course.lab_3_1_5.schematic import draw_block
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record
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


# --- lines over the record ------------------------------------------------------------------------
def made_up(name: str, metrics, seeds: int = 10, profile_name: str = "tiny") -> Result:
    """A result whose runs have the values of metrics(arm), and noise of 0.001."""
    profile = get_profile(profile_name)
    experiment = find_experiment("3.1.5", name)
    record = Record("3.1.5", name, profile_name, experiment.title)
    for place, (arm, settings) in enumerate(experiment.arms(profile).items()):
        for seed in range(seeds):
            noise = 1e-3 * np.random.default_rng([place, seed]).normal()
            values = {key: value + noise for key, value in metrics(arm).items()}
            record.entries[arm, seed] = Entry(arm, seed, dict(settings), values, 0.0, {})
    return Result(experiment, profile, record, {}, True, "", 0.0)


def opposite_costs(arm: str) -> dict[str, float]:
    """FP4 better than NF4 at the lower rate, as much worse at the middle one; 3 bits for nothing,
    coarser doses by steps.
    """
    kind, place = arm.rsplit(", ", 1)
    errors = {bases.WHOLE: 0.0, "NF4": 0.09, "FP4": 0.12, "3 bits": 0.2, "2 bits": 0.56}
    cost = {"2 bits": 0.2, readings.THREE_COARSE: 0.03}.get(kind, 0.0)
    if kind == "FP4":
        cost = {"lower rate": -0.02, "middle rate": 0.02}.get(place, 0.0)
    return {"loss": 0.2 + cost, "weight_error": errors.get(kind, 0.33), "training_loss": 0.1}


def test_opposite_signs_are_said_although_they_cancel_in_the_mean():
    result = made_up("bases", opposite_costs)
    assert result.decisions()["fp4"].outcome == "none"
    gaps = lines_bases.by_rate(result, "fp4")
    assert [gap.sign for gap in gaps] == [-1, 1, 0]
    assert [gap.place for gap in gaps] == ["0.00075", "0.0015", "0.003"]
    assert lines_bases.outcome(gaps) == "both"
    note = lines_bases.rate_note(result, "fp4")
    assert "higher beyond chance at 0.0015 and lower at 0.00075: the signs cancel" in note
    assert lines_bases.claim_line(result, "fp4").endswith(note)
    assert lines_bases.rate_note(result, "three") == ""


def test_a_rate_is_noted_only_where_the_mean_shows_nothing():
    """2 bits costs 0.2 at every rate: its mean says so, and no rate has to be named."""
    result = made_up("bases", opposite_costs)
    assert result.outcome("two") == "above"
    assert lines_bases.outcome(lines_bases.by_rate(result, "two")) == "above"
    assert lines_bases.rate_note(result, "two") == ""
    assert lines_bases.claim_line(result, "two") == result.conclude("two")


def test_a_few_seeds_show_nothing_at_a_rate():
    result = made_up("bases", opposite_costs, seeds=3)
    assert lines_bases.outcome(lines_bases.by_rate(result, "fp4")) == "open"
    assert lines_bases.rate_note(result, "fp4") == ""
    assert "Too few seeds" in lines_bases.dose_line(result)


def test_only_doses_that_were_seen_are_named_as_seen():
    said = lines_bases.dose_line(made_up("bases", opposite_costs))
    assert "Doses seen by the mean over rates: 3 bits, one scale (error 0.33), 2 bits" in said
    assert "Not seen: 3 bits (error 0.20" in said and "Below an error of 0.33" in said


def test_a_record_of_fewer_arms_says_what_it_has_and_then_what_tiny_has():
    """pocket: the whole base, NF4 and 2 bits, at the middle rate alone."""
    result = made_up("bases", opposite_costs, 5, "pocket")
    assert experiments.measured_kinds(result) == [bases.WHOLE, "NF4", "2 bits"]
    two = lines_bases.claim_line(result, "two")
    assert two.startswith("test loss, 2 bits − 16 bits, in pocket: at 0.001 0.2")
    assert "**Higher beyond chance.** In tiny" in two
    assert "No difference shown." in lines_bases.claim_line(result, "qlora")
    assert "not measured in pocket. In tiny" in lines_bases.claim_line(result, "fp4")
    assert "at a rate of 0.001 alone" in lines_bases.scope_line(result)
    assert "is not known here" in lines_bases.yardstick(result)
    said = lines_bases.dose_line(result)
    assert "Doses seen by the loss at one rate: 2 bits (error 0.56)" in said
    assert [row["base"] for row in lines_bases.cost_rows(result)] == ["NF4", "2 bits"]
    assert lines_bases.share_of_loss(result, "NF4").endswith("at 0.001")
    assert lines_bases.cost_falls(result).startswith(("At every rate", "The mean cost"))


def test_a_whole_record_needs_no_word_on_its_scope():
    result = made_up("bases", opposite_costs)
    assert lines_bases.scope_line(result) == "" and lines.whose(result) == ""
    assert lines_bases.yardstick(result).startswith("A yardstick")


def same_everywhere(arm: str) -> dict[str, float]:
    return {"loss": 0.2, "weight_error": 0.1, "training_loss": 0.1}


def test_a_measure_that_sees_no_dose_is_said_to_be_blind():
    assert "the measure is blind" in lines_bases.dose_line(made_up("bases", same_everywhere))


@pytest.mark.parametrize(
    ("once", "original", "said"),
    [
        (0.2, 0.2, "not rounding as such"),
        (0.4, 0.2, "Rounding as such costs"),
        (0.3, 0.3, "is not"),
    ],
)
def test_way_4_says_whether_it_is_rounding_as_such(once, original, said):
    def losses(arm):
        names = [metric.name for metric in find_experiment("3.1.5", "merging").metrics]
        return {**dict.fromkeys(names, 0.5), "beside": 0.3, "once": once, "original": original}

    result = made_up("merging", losses)
    assert said in lines_merging.merged_line(result)
    assert "(50% of the gain kept, the loss 1.7 times that beside)" in lines_merging.drift_text(
        result, "half"
    )


def test_where_a_cost_falls_although_the_error_grows():
    """b → c falls; c and d have one error, so they are no step."""
    points = {"d": (0.3, 0.0), "a": (0.1, 1.0), "b": (0.2, 2.0), "c": (0.3, 1.5)}
    assert lines.falls({key: points[key] for key in "abcd"}) == ["b → c"]


def test_a_prediction_that_is_right_has_no_minus():
    assert lines.off_by(99.99, 100) == "+0.0%" and lines.off_by(90, 100) == "-10.0%"


def test_the_two_bits_are_those_of_the_reading():
    levels = ", ".join(f"{level:.3g}" for level in bases.levels_of("2 bits").tolist())
    assert levels == "-1, 0, 0.338, 1"


def test_a_card_holds_its_part_and_what_is_whole():
    parts = {"weights": 8.0, "adapter": 2.0, "quantisation constants": 1.0, "activations": 3.0}
    assert sharding.bytes_per_card(parts, 2) == 9.0
    assert sharding.bytes_per_card(parts, 1) == 14.0


def test_a_time_is_written_in_seconds_below_two_minutes():
    assert lines.time_span(141, 284) == "2 to 5 minutes"
    assert lines.time_span(53, 106) == "53 to 106 seconds"


# --- what is said of weights ----------------------------------------------------------------------
def test_weights_that_were_in_four_bits_are_known_by_their_values():
    w = weights(64, 64)
    assert about_weights.values_in_groups([w]) == 32 and about_weights.four_bits_line(32) == ""
    flat = w.view(-1, 32)
    step = flat.abs().amax(1, keepdim=True) / 7
    again = (flat / step).round() * step
    values = about_weights.values_in_groups([again])
    assert values <= 16 and "stored in four bits once" in about_weights.four_bits_line(values)


def test_how_normal_the_weights_are_is_read_from_the_counts():
    assert about_weights.bell_line(0.01, 0.2, 0.055, 0.05) == (
        "So: block by block nearly normal, and over a whole matrix the tails are heavier than "
        "normal."
    )
    said = about_weights.bell_line(0.1, 0.0, 0.25, 0.05)
    assert "20% more rejected" in said and "no heavier than normal; between the quartiles" in said


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
