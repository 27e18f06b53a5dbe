"""What the experiments of lab 3.1.1 take for granted: controls have the size that they claim, the
adapter is the library's, an intruder is counted.
"""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from ftlib.adapters.lora import add_lora
from ftlib.adapters.lora_layer import lora_layers
from ftlib.core.profiles import get_profile
from ftlib.course.lab_3_1_1 import closing, experiments, shown, sweeps, trials, updates
from ftlib.course.lab_3_1_1.layer import PISSA, adapt, adapters
from ftlib.course.lab_3_1_1.map_explorer import RankMap
from ftlib.course.lab_3_1_1.schematic import draw_lora
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.shown import whose
from ftlib.course.records.store import Entry, Record, read_record

TINY = get_profile("tiny")


class Block(nn.Module):
    """Two of a block's linear layers, under the names that the lab looks for."""

    def __init__(self, n_in=12, n_mid=20):
        super().__init__()
        self.up_proj = nn.Linear(n_in, n_mid, bias=False, dtype=torch.float64)
        self.down_proj = nn.Linear(n_mid, n_in, bias=False, dtype=torch.float64)

    def forward(self, x, attention_mask=None):
        return self.down_proj(torch.tanh(self.up_proj(x)))


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block()


def test_the_random_control_moves_outputs_as_far_and_keeps_the_rank():
    """‖ΔW x‖ over all tokens is kept; the padded token, which is 100 times as long, does not
    count.
    """
    torch.manual_seed(0)
    block = Block()
    delta = {"up_proj": torch.randn(20, 3).double() @ torch.randn(3, 12).double()}
    x = torch.randn(2, 5, 12).double()
    x[1, 4] *= 100
    mask = torch.ones(2, 5, dtype=torch.long)
    mask[1, 4] = 0
    seen = updates.inputs_of(block, {"x": x, "attention_mask": mask}, ["up_proj"])
    assert seen["up_proj"].shape == (9, 12)
    random = updates.random_updates(delta, seen, 3, seed=1)["up_proj"]
    wanted = (seen["up_proj"] @ delta["up_proj"].T).norm()
    torch.testing.assert_close((seen["up_proj"] @ random.T).norm(), wanted)
    assert torch.linalg.matrix_rank(random.float(), rtol=1e-4) == 3
    assert abs(torch.cosine_similarity(random.flatten(), delta["up_proj"].flatten(), 0)) < 0.5
    full = updates.random_updates(delta, seen, None, seed=1)["up_proj"]
    assert torch.linalg.matrix_rank(full.float(), rtol=1e-4) == 12


def test_shuffled_rows_keep_questions_and_answers_and_no_pair():
    rows = []
    for i in range(30):
        question = {"role": "user", "content": f"question {i}"}
        said = {"role": "assistant", "content": f"answer {i}"}
        rows.append({"messages": [question, said], "answer": f"answer {i}", "key": i})
    mixed = trials.shuffled(rows, seed=3)
    answers = [row["messages"][1]["content"] for row in mixed]
    assert [row["messages"][0] for row in mixed] == [row["messages"][0] for row in rows]
    assert sorted(answers) == sorted(row["answer"] for row in rows)
    assert all(answer != row["answer"] for answer, row in zip(answers, rows, strict=True))
    assert [row["answer"] for row in mixed] == answers and rows[0]["answer"] == "answer 0"


def test_an_intruder_is_a_direction_that_the_base_lacks():
    """W = diag(10, 9, …, 1) with 4 rows more than columns. A large update along a row that W does
    not reach adds one intruder; one along W's own first direction adds none.
    """
    base = torch.zeros(14, 10)
    base[:10] = torch.diag(torch.arange(10.0, 0, -1))
    left = torch.linalg.svd(base, full_matrices=False).U
    assert updates.intruders(base, left) == 0
    foreign = base.clone()
    foreign[12, 3] += 50
    assert updates.intruders(foreign, left) == 1
    own = base.clone()
    own[0, 0] += 50
    assert updates.intruders(own, left) == 0


def test_pissa_starts_as_the_base_and_with_its_largest_directions(block):
    x = torch.randn(4, 12).double()
    before = block(x)
    values = torch.linalg.svdvals(block.up_proj.weight.detach())
    adapt(block, 3, 6.0, ("up_proj",), start=PISSA)
    layer = adapters(block)["up_proj"]
    torch.testing.assert_close(block(x), before)
    torch.testing.assert_close(torch.linalg.svdvals(layer.delta().detach())[:3], values[:3])
    left = torch.linalg.svdvals(layer.base.weight.detach())
    torch.testing.assert_close(left[0], values[3])
    assert layer.scaling == 2 and not layer.base.weight.requires_grad


def test_the_labs_layer_is_the_librarys(block):
    mine = adapt(block, 3, 6.0, ("up_proj", "down_proj"))
    torch.manual_seed(0)
    library = add_lora(Block(), r=3, lora_alpha=6.0, target_modules=("up_proj", "down_proj"))
    with torch.no_grad():
        for name, layer in lora_layers(library).items():
            own = adapters(mine)[name]
            own.lora_B.normal_()
            layer.lora_A.copy_(own.lora_A)
            layer.lora_B.copy_(own.lora_B)
            layer.base_layer.weight.copy_(own.base.weight)
    x = torch.randn(4, 12).double()
    torch.testing.assert_close(mine(x), library(x))
    weights = updates.linear_weights(mine)
    for name, layer in lora_layers(library).items():
        torch.testing.assert_close(weights[name], layer.merged_weight())


def test_steps_are_watched_where_asked():
    weight = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    with updates.watching((1, 3), weight.item) as seen:
        for _ in range(4):
            weight.grad = torch.ones(1)
            optimizer.step()
    optimizer.step()
    assert seen == [-1.0, -3.0]


def test_places_have_one_budget():
    """Ranks on q and v, and on the MLP, that train as much as the profile's rank on all layers,
    to half a rank: 16·5632/896 = 100.6 and 16·5632/3840 = 23.5.
    """
    assert experiments.rank_within_budget(TINY, "all linear") == TINY.rank
    assert experiments.rank_within_budget(TINY, "q, v") == 101
    assert experiments.rank_within_budget(TINY, "MLP") == 23


@pytest.fixture
def map_result():
    """A map whose loss is |log₂(rate/best)| + 1/r, with the best rate in the middle of each
    alpha's.
    """
    experiment = find_experiment("3.1.1", "grid")
    record = Record("3.1.1", "grid", "tiny")
    for arm, own in experiment.arms(TINY).items():
        off = np.log2(own["lr"] / experiments.middle_rate(TINY, own["alpha"]))
        metrics = {
            "validation_loss": abs(off) + 1 / own["r"],
            "training_loss": 1.0,
            "forgotten": 0.1,
            "norm": 1.0,
        }
        record.entries[arm, 0] = Entry(arm, 0, dict(own), metrics, 0.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def test_the_valley_of_the_map_is_found(map_result):
    found = sweeps.best_rates(map_result)
    assert len(found) == 12 and found[64, 256] == pytest.approx((5e-4, 1 / 64))
    alphas = experiments.ALPHAS
    rates = [found[16, alpha][0] for alpha in alphas]
    assert sweeps.exponent(alphas, rates) == pytest.approx(-0.75)
    arms = sweeps.rates_at(map_result, 16, 256)
    assert sweeps.best_place(map_result, arms, "validation_loss")[1]
    low = {rate: arm for rate, arm in arms.items() if rate <= 5.1e-4}
    assert "edge" in sweeps.sweep_line(map_result, {"LoRA": low}, "validation_loss")


def test_the_maps_handles_choose_a_run(map_result):
    """The best run first; another alpha keeps the place among its rates: at a quarter of the middle
    rate the loss is 2 + 1/r.
    """
    explorer = RankMap(map_result)
    assert "r=64" in explorer.arm and "loss 0.016" in explorer.headline.value
    explorer.controls["r"].value = 1
    assert "r=1," in explorer.arm
    explorer.controls["alpha"].value = 16
    assert explorer.arm == experiments.grid_arm(1, 16, 4e-3)
    explorer.controls["factor"].value = 0.25
    assert explorer.arm == experiments.grid_arm(1, 16, 1e-3)
    assert "loss 3.00" in explorer.headline.value
    assert len(explorer.draw(**explorer.values).axes) == 2
    with pytest.raises(ValueError, match=r"factor=3: rank 1, alpha 16 has runs at 0\.25, 0\.5, 1"):
        explorer.arm_of(1, 16, 3)


def test_a_coarser_map_has_its_own_multiples_and_says_what_it_lacks(map_result):
    """One alpha and every second rate: a rate keeps its place beside the middle one."""
    arms = map_result.record.entries
    kept = {}
    for r in experiments.grid_ranks(TINY):
        rates = sweeps.rates_at(map_result, r, 256)
        for rate in sorted(rates)[::2]:
            kept[rates[rate], 0] = arms[rates[rate], 0]
    coarse = Record("3.1.1", "grid", "tiny")
    coarse.entries.update(kept)
    result = dataclasses.replace(map_result, record=coarse)
    explorer = RankMap(result)
    assert set(explorer.controls["factor"].options) == {0.25, 1.0, 4.0}
    assert "one alpha, 256, so" in sweeps.map_line(result)


def test_a_sweep_leaves_out_methods_without_runs_and_tinys_has_all():
    experiment = find_experiment("3.1.1", "rates")
    pocket = get_profile("pocket")
    record = Record("3.1.1", "rates", "pocket")
    for arm, own in experiment.arms(pocket).items():
        record.entries[arm, 0] = Entry(arm, 0, dict(own), {"validation_loss": 1.0}, 0.0, {})
    result = Result(experiment, pocket, record, {}, True, "", 0.0)
    assert set(sweeps.by_method(result, ("full", "LoRA", "PiSSA"))) == {"full", "LoRA"}
    assert sweeps.left_out(result, ("LoRA", "PiSSA")) == " pocket has no runs of PiSSA."
    assert sweeps.left_out(result, ("LoRA",)) == ""
    assert shown.with_all(result, ("LoRA",)) is result
    other = shown.with_all(result, ("LoRA", "PiSSA"))
    assert other.profile.name == "tiny" and other.shown_in == "pocket"
    assert sweeps.rates_of(other, "PiSSA") and whose(other).startswith("In tiny")


def test_settings_and_base_are_the_notebooks_own_where_runs_are_of_another_profile():
    pocket = get_profile("pocket")
    tinys = Result(
        find_experiment("3.1.1", "methods"),
        TINY,
        read_record("3.1.1", "methods", TINY),
        {},
        True,
        "",
        0.0,
        "pocket",
    )
    own = {"r": pocket.rank, "alpha": 2 * pocket.rank, "lr": pocket.study.lr_lora}
    assert shown.settings_here(tinys, pocket) == own
    here = dataclasses.replace(tinys, shown_in="")
    assert shown.settings_here(here, TINY) == tinys.settings("LoRA")
    mine = nn.Linear(2, 2)
    assert shown.base_of(here, mine) is mine
    assert shown.base_of(tinys, mine).config.hidden_size == 256
    assert shown.base_loss(tinys) == pytest.approx(11.36, abs=0.01)


@pytest.mark.parametrize(
    "value, text", [(1.234, "1.23"), (0.0394, "0.039"), (-0.0041, "-0.0041"), (0.1, "0.10")]
)
def test_a_small_loss_keeps_two_digits(value, text):
    assert sweeps.two_digits(value) == text


def test_the_schematic_says_all_shapes():
    figure = draw_lora(256, 512, 8)
    words = " ".join(text.get_text() for text in figure.axes[0].texts)
    for shape in ("512 × 256", "8 × 256", "512 × 8"):
        assert shape in words


def test_the_map_says_what_alpha_does_and_where_an_edge_is(map_result):
    """By hand: every best rate is the middle one, which falls like alpha to the power −0.75, and is
    the same for all ranks.
    """
    line = sweeps.map_line(map_result)
    assert "rank 16: -0.75, -0.75, -0.75" in line
    assert "1 at alpha 256" in line and "Every best rate lies inside the grid." in line
    lowest = min(sweeps.rates_at(map_result, 64, 16).values(), key=_rate_of(map_result))
    map_result.record.entries[lowest, 0].metrics["validation_loss"] = 0.0
    assert "At the edge of the rates tried: rank 64 at alpha 16." in sweeps.map_line(map_result)


def _rate_of(result):
    def rate(arm: str) -> float:
        return result.settings(arm)["lr"]

    return rate


@pytest.mark.parametrize(
    "factor, said", [(1.0, "no end of capacity is shown"), (3.0, "rank 1 falls behind")]
)
def test_a_rank_falls_behind_where_its_multiple_grows(factor, said):
    """Rank 1's loss is the highest rank's with few rows, and `factor` times it with many."""
    experiment = find_experiment("3.1.1", "capacity")
    record = Record("3.1.1", "capacity", "tiny")
    for arm, own in experiment.arms(TINY).items():
        grown = own["r"] == 1 and own["rows"] == max(experiments.ROWS)
        metrics = {"own_loss": factor if grown else 1.0, "validation_loss": 1.0}
        for seed in range(2):
            record.entries[arm, seed] = Entry(arm, seed, dict(own), metrics, 0.0, {})
    result = Result(experiment, TINY, record, {}, True, "", 0.0)
    assert said in sweeps.capacity_line(result, experiments.grid_ranks(TINY), experiments.ROWS)


# --- the table that closes section 6 --------------------------------------------------------------
def of_methods(forgotten: dict[str, float], name: str = "methods", shown_in: str = "") -> Result:
    """Five seeds of three arms: test losses equal but for noise, forgotten as given, +0.01 a seed
    of LoRA alone (differences 0.01 apart).
    """
    record = Record("3.1.1", name, "tiny")
    for arm, level in forgotten.items():
        for seed in range(5):
            of_seed = 0.01 * seed if arm == "LoRA" else 0.0
            metrics = dict.fromkeys(("random_loss", "random_forgotten", "intruders"), of_seed)
            metrics |= {"loss": 1.0 + (-1) ** seed * of_seed, "forgotten": level + of_seed}
            record.entries[arm, seed] = Entry(arm, seed, {}, metrics, 0.0, {})
    experiment = find_experiment("3.1.1", name)
    return Result(experiment, TINY, record, {}, True, "", 0.0, shown_in)


def test_the_closing_table_says_where_lora_forgets_less_and_where_more():
    """LoRA 2, full 3, the slower full 1: less at the best rates, more at equal learning. The
    differences over seeds are −1 + 0.01·(0 … 4), mean −0.98; s = 0.0158, t₄ = 2.776: ±0.0196.
    """
    short = of_methods({"full": 3.0, "full, slower": 1.0, "LoRA": 2.0})
    longer = of_methods({"full": 3.0, "full, slower": 1.0, "LoRA": 2.0}, "long")
    rows = closing.closing_rows(short, longer)
    assert [row["outcome"] for row in rows] == [
        "no difference shown",
        "LoRA forgets less",
        "LoRA forgets more",
        "LoRA forgets more",
    ]
    assert rows[1]["LoRA − full, nats per token"] == "-0.98 [-1, -0.96]"
    assert "depends on the condition" in closing.closing_line(rows)


def test_the_closing_table_leaves_out_what_was_not_run_and_marks_another_model():
    """Without the slower full fine-tuning two rows are left; the longer runs are tiny's."""
    short = of_methods({"full": 1.0, "LoRA": 2.0})
    longer = of_methods({"full": 3.0, "full, slower": 1.0, "LoRA": 2.0}, "long", "pocket")
    rows = closing.closing_rows(short, longer)
    assert [row["condition"].endswith("(in tiny)") for row in rows] == [False, False, True]
    assert "another model" in closing.closing_line(rows)
    assert closing.closing_line(rows[:2]).endswith("says the same: LoRA forgets more.")
    assert closing.closing_line([]) == "None of this section's comparisons has runs here."
