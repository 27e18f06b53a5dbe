"""What the experiments of lab 3.1.2 take for granted: controls keep what they claim, m moves when
and as fast as it should, sweeps and the figure with handles are read off rightly.
"""

import numpy as np
import pytest
import torch
from torch import nn

from ftlib.adapters.lora import add_lora
from ftlib.adapters.lora_layer import lora_layers
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_2 import experiments, layer, lines, moves, readings, sweeps, trials
from ftlib.course.lab_3_1_2.plane import DoRAPlane, moved_row
from ftlib.course.lab_3_1_2.schematic import draw_dora
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")


class Block(nn.Module):
    """Two linear layers and a head."""

    def __init__(self, n_in=12, n_mid=20):
        super().__init__()
        self.up_proj = nn.Linear(n_in, n_mid)
        self.down_proj = nn.Linear(n_mid, n_in)

    def forward(self, x):
        return self.down_proj(torch.tanh(self.up_proj(x)))


@pytest.fixture
def adapted():
    """`adapted(kind, **options)`: a block with its two layers replaced, the same for each call."""

    def make(kind, **options):
        torch.manual_seed(0)
        block = Block()
        torch.manual_seed(1)
        for name in ("up_proj", "down_proj"):
            setattr(block, name, kind(getattr(block, name), 3, 6.0, **options))
        return block

    return make


def stepped(model, steps=1, rate=0.01):
    """The model after steps of Adam towards small outputs."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=rate)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(2))
    for _ in range(steps):
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model


# --- layers ---------------------------------------------------------------------------------------
def test_every_kind_starts_as_the_base_with_the_librarys_a(adapted):
    torch.manual_seed(0)
    base = Block()
    torch.manual_seed(1)
    library = lora_layers(
        add_lora(base, r=3, lora_alpha=6.0, target_modules=("up_proj", "down_proj"))
    )
    x = torch.randn(5, 12)
    for kind in (layer.MyLoRA, layer.MyDoRA, layer.DenseDoRA):
        model = adapted(kind)
        torch.testing.assert_close(model(x), base(x))
        for name, own in layer.adapters(model).items():
            assert torch.equal(own.lora_A, library[name].lora_A)


@pytest.mark.parametrize("kind", [layer.MyLoRA, layer.MyDoRA, layer.DenseDoRA])
def test_the_weight_that_a_layer_applies_is_what_it_computes_with(adapted, kind):
    model = stepped(adapted(kind), steps=5, rate=0.02)
    x = torch.randn(5, 12)
    up = model.up_proj
    torch.testing.assert_close(up(x), x @ up.applied().T + up.base.bias)
    if kind is not layer.MyLoRA:
        torch.testing.assert_close(up.applied().norm(dim=1), up.m.detach())


def test_m_moves_by_its_speed_and_its_gradient_is_the_same(adapted):
    """Adam's first step is the rate, whatever the gradient: 0.01 for m, 0.1 at ten times."""
    one = stepped(adapted(layer.MyDoRA)).up_proj
    ten = stepped(adapted(layer.MyDoRA, speed=10.0)).up_proj
    none = stepped(adapted(layer.MyDoRA, speed=0.0)).up_proj
    moved = (one.m - one.start).detach()
    torch.testing.assert_close(moved.abs(), torch.full((20,), 0.01), rtol=1e-3, atol=0)
    torch.testing.assert_close((ten.m - ten.start).detach(), 10 * moved, rtol=1e-3, atol=1e-6)
    assert torch.equal(none.m, none.start) and none.learnt_m.grad is None
    gradients = []
    for speed in (1.0, 10.0):
        model = adapted(layer.MyDoRA, speed=speed)
        model(torch.ones(2, 12)).sum().backward()
        gradients.append(model.up_proj.learnt_m.grad)
    assert torch.equal(*gradients)


def test_m_trains_in_its_steps_only(adapted):
    model = adapted(layer.MyDoRA)
    switch = trials.MSwitch(model, first=2, last=4)
    seen = []
    for _ in range(6):
        before = model.up_proj.m.detach().clone()
        stepped(model)
        seen.append(not torch.equal(before, model.up_proj.m.detach()))
    switch.hook.remove()
    assert seen == [False, False, True, True, False, False]


def test_a_course_looks_after_the_steps_it_was_given(adapted):
    model = adapted(layer.MyDoRA)
    course = trials.Course(model, [0, 2], lambda model: model.up_proj.lora_B.norm().item())
    model.eval()
    model(torch.ones(1, 12))  # not in training: no step
    model.train()
    stepped(model, steps=3)
    seen = course.end(model)
    assert len(seen) == 3 and seen[0] == 0 and 0 < seen[1] < seen[2]
    model(torch.ones(1, 12))
    assert len(course.seen) == 3


# --- controls -------------------------------------------------------------------------------------
@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    before = {"a": torch.randn(10, 40, generator=generator)}
    low_rank = torch.randn(10, 2, generator=generator) @ torch.randn(2, 40, generator=generator)
    return before, {"a": before["a"] + low_rank}


def test_a_turned_update_keeps_rank_singular_values_and_rows(weights):
    before, after = weights
    update = after["a"] - before["a"]
    other = moves.turned(before, after, seed=3)["a"] - before["a"]
    torch.testing.assert_close(other.norm(dim=1), update.norm(dim=1), rtol=1e-4, atol=1e-4)
    values = torch.linalg.svdvals(update)
    torch.testing.assert_close(torch.linalg.svdvals(other), values, rtol=1e-4, atol=1e-4)
    assert abs(torch.cosine_similarity(other.flatten(), update.flatten(), dim=0)) < 0.3
    assert not torch.allclose(other, moves.turned(before, after, seed=4)["a"] - before["a"])


def test_reset_lengths_keep_directions_and_scrambled_ones_keep_their_sizes(weights):
    before, after = weights
    reset = moves.lengths_reset(before, after)["a"]
    torch.testing.assert_close(reset.norm(dim=1), before["a"].norm(dim=1))
    cosines = torch.cosine_similarity(reset, after["a"], dim=1)
    torch.testing.assert_close(cosines, torch.ones(10))
    growth = after["a"].norm(dim=1) / before["a"].norm(dim=1)
    mixed = moves.lengths_scrambled(before, after, seed=0)["a"]
    other = mixed.norm(dim=1) / before["a"].norm(dim=1)
    torch.testing.assert_close(other.sort().values, growth.sort().values)
    assert not torch.allclose(other, growth)


def test_weights_replace_an_adapter(adapted):
    model = adapted(layer.MyDoRA)
    new = {"up_proj": torch.ones(20, 12)}
    moves.with_weights(model, new)
    assert type(model.up_proj) is nn.Linear
    assert torch.equal(moves.linear_weights(model, ["up_proj"])["up_proj"], new["up_proj"])
    assert isinstance(model.down_proj, layer.MyDoRA)


def test_turns_lengths_and_correlation():
    """A row turned by 90° and twice as long; and points on a line."""
    before = {"a": torch.tensor([[1.0, 0.0], [0.0, 3.0]])}
    after = {"a": torch.tensor([[0.0, 2.0], [0.0, 3.0]])}
    assert moves.turn(before, after) == pytest.approx(45)
    assert moves.relative_lengths(before, after) == pytest.approx([0.5])
    assert moves.correlation([[1, 2], [2, 4], [3, 6]]) == pytest.approx(1)
    assert moves.correlation([[1, 0], [2, 0], [3, 0]]) == 0.0


# --- sweeps and claims ----------------------------------------------------------------------------
def result_of(name: str, metrics, seeds: int = 2) -> Result:
    """A result whose entries have `metrics(settings)`."""
    experiment = find_experiment("3.1.2", name)
    record = Record("3.1.2", name, "tiny")
    for arm, own in experiment.arms(TINY).items():
        for seed in range(seeds):
            record.entries[arm, seed] = Entry(arm, seed, dict(own), metrics(own), 0.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def test_lora_and_dora_share_nine_rates():
    grids = [list(experiments.arms_of(TINY, method)) for method in readings.TUNED_ALIKE]
    assert len(grids[0]) == 9 and grids[0] == grids[1] == grids[2]
    assert all(len(experiments.arms_of(TINY, method)) >= 5 for method in experiments.METHODS)


def test_what_half_a_step_costs_and_how_wide_a_valley_is():
    """Loss = log₂(rate/best)²: half of half an octave beside the best costs ¼² = 1/16; rates from
    half to twice the best one are at most 1 nat above.
    """
    best = TINY.study.lr_lora

    def metrics(own):
        loss = float(np.log2(own["lr"] / best) ** 2)
        return {"validation_loss": loss, "training_loss": 0.0}

    result = result_of("rates", metrics)
    arms = experiments.arms_of(TINY, "DoRA")
    assert sweeps.best_place(result, arms) == (best, True)
    assert sweeps.half_step_cost(result, arms) == pytest.approx(1 / 16)
    assert sweeps.width(result, arms, 1.0) == pytest.approx(4, rel=0.02)
    low = {rate: arm for rate, arm in arms.items() if rate <= best}
    assert sweeps.half_step_cost(result, low) is None
    assert "edge" in sweeps.sweep_line(result, {"DoRA": low})


def test_what_neighbouring_rates_cost_and_who_is_below_whom():
    """Loss = log₂(rate/best)² again, plus 0.1 for LoRA: half an octave beside the best costs ¼, and
    DoRA lies below LoRA at every rate.
    """
    best = TINY.study.lr_lora

    def metrics(own):
        loss = float(np.log2(own["lr"] / best) ** 2) + 0.1 * (own["method"] == "LoRA")
        return {"validation_loss": loss, "training_loss": 0.0}

    result = result_of("rates", metrics)
    series = {method: experiments.arms_of(TINY, method) for method in ("LoRA", "DoRA")}
    cost = sweeps.neighbours_cost(result, series["DoRA"])
    assert cost.mean == pytest.approx(0.25) and cost.low == pytest.approx(0.25)
    one_rate = dict(list(series["DoRA"].items())[:1])
    assert sweeps.neighbours_cost(result, one_rate) is None
    assert "9 of 9" in sweeps.shared_rates_line(result, series, "DoRA", "LoRA")
    assert "0 of 9" in sweeps.shared_rates_line(result, series, "LoRA", "DoRA")


def test_a_sweep_without_runs_or_with_few_is_read_as_far_as_it_goes():
    """A profile may record three rates of two methods, and nothing of the others."""

    def metrics(own):
        return {"validation_loss": own["lr"], "training_loss": 0.0}

    result = result_of("rates", metrics)
    unknown = {1.0: "no such arm"}
    series = {"DoRA": experiments.arms_of(TINY, "DoRA"), "new": unknown}
    assert sweeps.width(result, unknown, 0.25) is None
    assert sweeps.half_step_cost(result, unknown) is None
    assert sweeps.neighbours_cost(result, unknown) is None
    assert sweeps.shared_rates_line(result, series, "DoRA", "new") == ""
    assert "new" not in sweeps.sweep_line(result, series)


def test_where_runs_take_minutes_the_first_look_chooses_the_rate():
    pocket = get_profile("pocket")
    for method in ("LoRA", "DoRA"):
        assert experiments.best_rate(pocket, method) in experiments.arms_of(pocket, method)
    assert find_experiment("3.1.2", "methods").live_arms(pocket) == ["DoRA"]


def test_small_shares_and_large_perplexities_stay_readable():
    assert [lines.share_text(x) for x in (0.0, 1e-8, 0.0031, 0.06)] == ["0%", "0%", "0.31%", "6%"]
    assert [lines.fine(x) for x in (0.0172, 0.00004)] == ["1.7%", "0.004%"]
    assert [lines.perplexity_text(x) for x in (1.664, 51012.03)] == ["1.66", "51,012"]


def test_what_the_high_rate_costs_is_counted_from_each_methods_own_best():
    def metrics(own):
        is_high = own["lr"] == experiments.high_rate(TINY)
        lost = 2.0 if own["method"] == "LoRA" else 1.0
        return {"loss": 3.0 + lost * is_high}

    line = lines.high_rate_cost_line(result_of("methods", metrics), ("LoRA", "DoRA"))
    assert "LoRA 2 [2, 2]; DoRA 1 [1, 1] nats (each interval by itself" in line


def test_the_second_look_shares_its_rates_and_lies_inside_the_first():
    near = [list(experiments.near_arms_of(TINY, method)) for method in readings.TUNED_ALIKE]
    assert near[0] == near[1] == near[2] and len(near[0]) == 4
    assert set(near[0]) < set(experiments.arms_of(TINY, "LoRA"))
    assert find_experiment("3.1.2", "near-rates").seeds == 10


def test_the_high_rate_is_one_for_all():
    arms = experiments.method_arms(TINY)
    high = {arms[readings.too_high(method)]["lr"] for method in readings.TUNED_ALIKE}
    assert len(high) == 1 and high < set(experiments.arms_of(TINY, "DoRA"))


# --- figures --------------------------------------------------------------------------------------
def test_a_row_is_turned_alike_and_only_lora_makes_it_longer():
    assert moved_row(1.0, 90) == pytest.approx((2**0.5, 45))
    assert moved_row(1.0, 90, m=1.2) == pytest.approx((1.2, 45))
    assert moved_row(1.0, 180) == pytest.approx((0, 0))


def test_the_planes_handles_redraw_both_rows():
    blank = dict.fromkeys(
        (metric.name for metric in find_experiment("3.1.2", "methods").metrics), 0.0
    )

    def metrics(own):
        return {**blank, "turn": 30.0, "longer": [0.1, 0.3]}

    explorer = DoRAPlane(result_of("methods", metrics), size=1.0)
    assert explorer.runs["LoRA"].tolist() == [[30.0, 20.0], [30.0, 20.0]]
    assert "LoRA: 1.41 times as long, turned by 45°" in explorer.headline.value
    assert "DoRA: 1.00 times as long, turned by 45°" in explorer.headline.value
    explorer.controls["m"].value = 1.5
    assert "DoRA: 1.50 times as long" in explorer.headline.value
    assert len(explorer.draw(**explorer.values).axes) == 2
    with pytest.raises(ValueError, match="no handle radius: use size, angle, m"):
        DoRAPlane(explorer.result, radius=1)


def test_the_schematic_says_all_shapes():
    figure = draw_dora(256, 512, 8)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    for shape in ("512 × 256", "8 × 256", "512 × 8", "$m$   512"):
        assert shape in words
