"""What the experiments of lab E3 take for granted: equal budgets, ftlib's adapters with the
student's functions inside, kinds of R that are what their names say, costs that are counted.
"""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from conftest import llama

import ftlib as ft
from ftlib.adapters import bottleneck, ia3, reft
from ftlib.batches.template import IGNORE
from ftlib.core.profiles import get_profile
from ftlib.course.lab_e3 import costs, experiments, layer, lines, readings, settings, trials
from ftlib.course.lab_e3.budget_explorer import BudgetExplorer
from ftlib.course.lab_e3.count_adapter_parameters import LLAMA_8B, METHODS, nearest_size
from ftlib.course.lab_e3.edited_positions import edited_positions
from ftlib.course.lab_e3.loreft_forward import loreft_forward
from ftlib.course.lab_e3.merge_ia3 import merge_ia3
from ftlib.course.lab_e3.orthonormal_rows import orthonormal_rows
from ftlib.course.lab_e3.prefix_attention import prefix_attention
from ftlib.course.lab_e3.schematic import DIRECTION, draw_reft

TINY = get_profile("tiny")
TARGETS = settings.settings_of(TINY).targets
HERE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4} | {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}


def filled(model, seed=0):
    """Random numbers in every trained weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


def own_reft(kind=layer.FACTOR, counts=(4, 4), **functions):
    return layer.with_own_reft(ft.add_reft(llama(), r=3), counts, kind, **functions)


# --- the exercises' references are ftlib's --------------------------------------------------------
def test_the_edit_is_ftlib_s():
    h, W, b = torch.randn(5, 9), torch.randn(2, 9), torch.randn(2)
    R = orthonormal_rows(torch.randn(2, 9))
    assert torch.allclose(loreft_forward(h, R, W, b), reft.loreft(h, R, W, b), atol=1e-5)


def test_attention_with_a_prefix_is_a_mixture():
    """He et al. 2021, arXiv 2110.04366: (1 − λ)·Attn(text) + λ·Attn(prefix). By hand for one
    query q = 1, D = 1: scores ln 3 of the text's key and ln 1 of the prefix's: weights 3/4 and 1/4.
    """
    one = torch.ones(1, 1, dtype=torch.float64)
    text = math.log(3) * one
    out, share = prefix_attention(one, text, 8 * one, 0 * one, 4 * one)
    assert share.item() == pytest.approx(1 / 4)
    assert out.item() == pytest.approx(3 / 4 * 8 + 1 / 4 * 4)


# --- budgets --------------------------------------------------------------------------------------
def test_the_budget_by_hand():
    """(IA)³ in tiny: 4·(128 + 128 + 1,024) = 5,120. LoRA of rank one on q, k, v: 4·(512 + 384 +
    384) = 5,120. LoReFT: 2 ranks 4,104, 3 ranks 6,156, nearer is 2. Prefix: 1,024 a token, 5.
    Bottleneck: 4·(513 m + 256), m = 2: 5,128.
    """
    assert settings.shape_of(trials.study_base(TINY)[0].config) == HERE
    assert experiments.method_sizes(TINY) == {
        "(IA)³": 1,
        "LoRA": 1,
        "LoReFT": 2,
        "prefix": 5,
        "bottleneck": 2,
    }


@pytest.mark.parametrize("method", METHODS)
def test_what_is_counted_is_what_trains(method):
    counts = {"(IA)³": 5120, "LoRA": 5120, "LoReFT": 4104, "prefix": 5120, "bottleneck": 5128}
    size = experiments.method_sizes(TINY)[method]
    model, _ = trials.prepared(TINY, 0, method, size, TARGETS)
    assert ft.count_parameters(model)[0] == counts[method]


def test_the_nearest_size_may_be_below_or_above():
    """LoReFT in tiny is 2,052 a rank: 3,000 is nearer to one, 3,100 to two; never less than one."""
    assert nearest_size(HERE, "LoReFT", 3000, TARGETS) == 1
    assert nearest_size(HERE, "LoReFT", 3100, TARGETS) == 2
    assert nearest_size(HERE, "LoReFT", 1, TARGETS) == 1


def test_an_unknown_method_is_refused():
    with pytest.raises(ValueError, match="method='ReFT': LoRA, LoReFT"):
        trials.prepared(TINY, 0, "ReFT", 1, TARGETS)


# --- the student's functions ----------------------------------------------------------------------
def test_own_parts_are_ftlib_s_with_other_functions(ids):
    """The same weights, the same outputs, the same gradients; no hook is left behind."""
    theirs = filled(ft.add_reft(llama(), r=3))
    mine = layer.with_own_reft(copy.deepcopy(theirs), (4, 4))
    labels = ids.clone()
    labels[:, :5] = IGNORE
    outputs = [model(ids, labels=labels) for model in (theirs, mine)]
    assert torch.allclose(outputs[0].logits, outputs[1].logits, atol=1e-5)
    for output in outputs:
        output.loss.backward()
    own = dict(mine.named_parameters())
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            assert torch.allclose(parameter.grad, own[name].grad, atol=1e-4), name
    ft.remove_reft(mine)
    assert torch.equal(mine(ids).logits, llama()(ids).logits)


def test_the_student_s_functions_are_called(ids):
    called = set()

    def edit(h, R, W, b):
        called.add("edit")
        return loreft_forward(h, R, W, b)

    def rows(X):
        called.add("rows")
        return orthonormal_rows(X)

    def positions(real, labels, first, last):
        called.add("positions")
        assert (first, last) == (1, 2)
        return edited_positions(real, labels, first, last)

    model = own_reft(
        counts=(1, 2), loreft_forward=edit, orthonormal_rows=rows, edited_positions=positions
    )
    model(ids)  # without labels: all of it is prompt
    assert called == {"edit", "rows", "positions"}


def test_an_own_bottleneck(ids):
    theirs = filled(bottleneck.add_bottleneck(llama(), 2, sublayers=("mlp",)))
    mine = layer.with_own_bottleneck(copy.deepcopy(theirs))
    assert torch.allclose(theirs(ids).logits, mine(ids).logits, atol=1e-5)
    wrong = layer.with_own_bottleneck(copy.deepcopy(theirs), lambda h, *weights: h)
    assert torch.equal(wrong(ids).logits, llama()(ids).logits)


# --- kinds of R -----------------------------------------------------------------------------------
def steps_of(model, ids, count=3):
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.05)
    course = layer.Course(model.train(), [1], layer.apart)
    for _ in range(count):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return course.end(model)


@pytest.mark.parametrize("kind", experiments.KINDS)
def test_kinds_of_rows_through_training(kind, ids):
    """Only the free R leaves orthonormality; a look before step 1, and one at the end."""
    seen = steps_of(own_reft(kind), ids)
    assert len(seen) == 2
    if kind == layer.FREE:
        assert seen[-1] > 1e-3
    else:
        assert max(seen) < 1e-5


def test_missing_by_hand():
    """R = [2, 0] is twice too long: h = [1, 0], W h + b = 3. R h = 2, the change wanted is 1, h' =
    [1, 0] + 1·[2, 0] = [3, 0], R h' = 6: off by 3, three times the change. With R = [1, 0]: h' =
    [3, 0], R h' = 3: hit.
    """
    h, W, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[3.0, 0.0]]), torch.zeros(1)
    for scale, want in ((2.0, 3.0), (1.0, 0.0)):
        R = torch.tensor([[scale, 0.0]])
        changed = loreft_forward(h, R, W, b)
        assert layer.miss(h, changed, R, W, b) == pytest.approx(want)


def test_a_turned_edit_is_as_large(ids):
    """A rotation keeps lengths, so the turned edit has the edit's size, and another direction."""
    model = filled(own_reft())
    edit = layer.edits_of(model)[0]
    h = torch.randn(7, edit.weight.shape[1])
    with torch.no_grad():
        straight = edit(h) - h
        edit.turn = trials.random_turn(h.shape[1], 0, h)
        turned = edit(h) - h
    assert torch.allclose(straight.norm(dim=1), turned.norm(dim=1), rtol=1e-4)
    assert torch.nn.functional.cosine_similarity(straight, turned).abs().max() < 0.95
    turn = trials.random_turn(5, 3, torch.zeros(1, dtype=torch.float64))
    assert torch.allclose(turn @ turn.T, torch.eye(5, dtype=torch.float64), atol=1e-12)


# --- forgetting -----------------------------------------------------------------------------------
def test_the_loss_of_second_halves_by_hand():
    """The mean of −log p over the tokens from the middle of each text on, from plain logits."""
    model, tokenizer = trials.study_base(TINY)
    total = 0.0
    count = 0
    for text in ft.load_base_text(TINY, trials.TEXTS):
        ids = torch.tensor(tokenizer(text, truncation=True, max_length=256)["input_ids"])
        with torch.no_grad():
            logps = model(ids[None]).logits[0, :-1].log_softmax(-1)
        picked = logps.gather(-1, ids[1:, None])[:, 0]
        from_the_middle = picked[round(len(ids) / 2) - 1 :]
        total -= from_the_middle.sum().item()
        count += len(from_the_middle)
    found = trials.text_loss(TINY, model, tokenizer, 0.5)
    assert found == pytest.approx(total / count, rel=1e-4)


def test_the_base_has_forgotten_nothing():
    model, tokenizer = trials.study_base(TINY)
    assert trials.forgotten(TINY, model, tokenizer, 0.5) == 0


# --- costs ----------------------------------------------------------------------------------------
def test_what_is_counted_in_a_pass_is_the_arithmetic():
    """64 tokens, 4 + 4 of them edited. LoRA: 64·1·1,280·4 = 327,680. LoReFT: 8·3·2·256·4 =
    49,152, and nothing in a step. Prefix: 64·2·5·256·4 = 655,360. Bottleneck: 64·2·2·256·4 =
    262,144.
    """
    prompt = torch.arange(10, 74)[None]
    sizes = experiments.method_sizes(TINY)
    base = costs.counted(trials.study_base(TINY)[0].eval(), prompt)
    wants = {"LoRA": 327_680, "LoReFT": 49_152, "prefix": 655_360, "bottleneck": 262_144}
    for method, want in wants.items():
        model = costs.served(TINY, method, sizes, TARGETS)
        found = [a - b for a, b in zip(costs.counted(model, prompt), base, strict=True)]
        step = 0 if method == "LoReFT" else want // 64
        assert found == [want, step], method
        args = (HERE, method, sizes[method], TARGETS)
        assert costs.extra_products(*args, 64, 8) == want
        assert costs.extra_products(*args, 1, 0) == step
    for way in costs.MERGED:
        assert costs.counted(costs.served(TINY, way, sizes, TARGETS), prompt) == base


def test_folding_ia3_changes_nothing(ids):
    model = filled(ia3.add_ia3(llama())).double()
    want = model(ids).logits
    folded = costs.fold_ia3(model, merge_ia3)
    assert torch.allclose(folded(ids).logits, want, rtol=1e-9, atol=1e-9)
    assert not torch.allclose(llama().double()(ids).logits, want, atol=1e-2)


def test_a_step_leaves_the_cache_as_it_was():
    model, _ = trials.study_base(TINY)
    prompt = torch.arange(10, 20)[None]
    cache = costs.read_prompt(model.eval(), prompt)
    before = cache.layers[0].keys.clone()
    costs.write_token(model, prompt[:, -1:], cache)
    assert torch.equal(cache.layers[0].keys, before)
    assert costs.cache_numbers(model, prompt) == 2 * 4 * 128 * 10


# --- experiments ----------------------------------------------------------------------------------
def test_all_are_tuned_over_as_many_rates():
    """An octave apart, around a middle of one's own; the best of each is one of them."""
    for name in (*experiments.METHODS, layer.FREE, layer.RETRACTED):
        rates = list(experiments.rates_of(TINY, name))
        assert len(rates) == 5
        assert all(b / a == pytest.approx(2) for a, b in itertools.pairwise(rates))
        assert experiments.best_rate(TINY, name) in rates
    for place in experiments.COUNTS:
        assert len(experiments.position_rates_of(TINY, place)) == 3


def test_kinds_of_r_differ_in_that_alone():
    arms = experiments.row_arms(TINY)
    for kind in readings.AT_A_HIGH_RATE:
        high = arms[readings.too_high(kind)]
        assert high["lr"] == 8 * experiments.middle_rate(TINY, "LoReFT")
        assert {k: v for k, v in high.items() if k != "lr"} == {
            k: v for k, v in arms[kind].items() if k != "lr"
        }
        assert high["kind_of_rows"] == kind


def test_sweeps_take_other_seeds_than_comparisons():
    most = max(e.seeds for e in experiments.EXPERIMENTS)
    assert most < trials.SWEEP_SEED


def test_letters_of_claims():
    class Decided:
        def outcome(self, claim):
            return {"x": "below", "y": "none", "z": "above"}[claim]

    assert lines.letters(Decided(), ["x", "y", "z"]) == "abc"


# --- pictures -------------------------------------------------------------------------------------
def test_the_drawn_direction_has_length_one():
    length = float(np.linalg.norm(DIRECTION))
    assert length == pytest.approx(1, abs=1e-3)
    assert len(draw_reft().axes) == 2


def test_the_explorer_follows_its_handles():
    """Longer answers cost LoReFT nothing; a rank doubles its count; (IA)³ stays."""
    explorer = BudgetExplorer({"tiny": HERE, "8B": LLAMA_8B}, TARGETS)
    short = explorer.products("tiny", 2, 4, 64, 1)
    long = explorer.products("tiny", 2, 4, 64, 256)
    assert long["LoReFT"] == short["LoReFT"] and long["LoRA"] > short["LoRA"]
    assert explorer.counts("tiny", 4)["LoReFT"] == 2 * explorer.counts("tiny", 2)["LoReFT"]
    assert explorer.counts("8B", 4)["(IA)³"] == 32 * (1024 + 1024 + 14336)
    before = explorer.headline.value
    explorer.controls["rank"].value = 8
    assert explorer.headline.value != before
    assert len(explorer.draw(**explorer.values).axes) == 2
