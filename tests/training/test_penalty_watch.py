"""A penalty and a watch in `finetune`: once a step whatever is accumulated, recorded, resumed to
the same result, stopped at the threshold and no further.
"""

import json
import shutil

import pytest
import torch
from conftest import llama

import ftlib as ft
from ftlib.evaluation.metrics import mean_nll

SETTINGS = {
    "steps": 6,
    "learning_rate": 2e-2,
    "batch_size": 4,
    "save_steps": 2,
    "log_steps": 1,
    "precision": "fp32",
    "show": False,
}
TEXTS = ["the lake is north of the town", "a smith lives there"]


def adapted(dtype=torch.float32):
    torch.manual_seed(0)
    return ft.add_lora(llama(layers=1, dtype=dtype), r=2, lora_dropout=0.1)


def equal(one, other) -> bool:
    one, other = ft.trained_weights(one), ft.trained_weights(other)
    return all(torch.equal(one[name], other[name]) for name in one)


def ewc(model, weight):
    anchor = ft.trained_weights(model)
    return ft.EWC({n: torch.ones_like(p) for n, p in anchor.items()}, anchor, weight)


def two(model):
    """A penalty of 2 that pulls nowhere."""
    return 2 + 0 * sum(p.sum() for p in ft.trained_parameters(model).values())


# --- penalty --------------------------------------------------------------------------------------
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_penalty_is_added_once_a_step(accumulate, tokenizer, rows):
    """Every loss is 2 above that of the run without, however many batches a step has, and the
    weights are the same.
    """
    options = {**SETTINGS, "batch_size": 4 // accumulate, "accumulate": accumulate}
    plain = adapted()
    want = ft.finetune(plain, tokenizer, rows, **options)
    model = adapted()
    run = ft.finetune(model, tokenizer, rows, **options, penalty=two)
    assert [entry["penalty"] for entry in run.history] == [2.0] * 6
    for entry, before in zip(run.history, want.history, strict=True):
        assert entry["loss"] == pytest.approx(before["loss"] + 2, abs=1e-3)
        assert "penalty" not in before
    assert equal(model, plain)


def test_its_gradient_is_taken_once_a_step(tokenizer, rows):
    """EWC moves the weights alike where a step is one batch of four rows and where it is two of
    two; in float64.
    """
    trained = []
    for accumulate in (1, 2):
        model = adapted(torch.float64).eval()
        for layer in ft.lora_layers(model).values():
            layer.dropout.p = 0.0
        options = {**SETTINGS, "batch_size": 4 // accumulate, "accumulate": accumulate}
        ft.finetune(model, tokenizer, rows, **options, penalty=ewc(model, 3.0))
        trained.append(ft.trained_weights(model))
    one, other = trained
    assert all(torch.allclose(one[name], other[name], atol=1e-7) for name in one)


def test_ewc_holds_what_it_weighs(tokenizer, rows):
    """The heavier, the nearer to the anchor; the record has the penalty of the weights at each
    step, 0 at the first.
    """
    moved = []
    for weight in (0.0, 1.0, 100.0):
        model = adapted()
        penalty = ewc(model, weight)
        run = ft.finetune(model, tokenizer, rows, **SETTINGS, penalty=penalty)
        assert run.history[0]["penalty"] == 0
        assert (run.history[-1]["penalty"] > 0) == (weight > 0)
        after = ft.trained_weights(model)
        moved.append(sum((after[n] - p).square().sum() for n, p in penalty.anchor.items()))
    assert moved[0] > moved[1] > moved[2] > 0


def test_a_penalised_run_resumes_to_the_same_and_with_no_other_penalty(tokenizer, rows, tmp_path):
    whole = adapted()
    want = ft.finetune(whole, tokenizer, rows, **SETTINGS, penalty=ewc(whole, 3.0))
    model = adapted()
    penalty = ewc(model, 3.0)
    folder = tmp_path / "run"
    ft.finetune(model, tokenizer, rows, **SETTINGS, penalty=penalty, output_dir=folder)
    shutil.rmtree(folder / "checkpoint-6")
    again = adapted()
    for other in (None, two, ewc(again, 4.0)):
        with pytest.raises(ft.RunError, match="penalty"):
            ft.finetune(again, tokenizer, rows, **SETTINGS, penalty=other, output_dir=folder)
    run = ft.finetune(
        again, tokenizer, rows, **SETTINGS, penalty=ewc(again, 3.0), output_dir=folder
    )
    assert run.resumed_from == 4 and run.history == want.history
    assert equal(again, whole)
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["penalty"] == {"name": "EWC", **penalty.settings}


@pytest.mark.parametrize(
    "penalty, word",
    [(3, "penalty=3"), (lambda model: 1.0, "float"), (lambda m: torch.ones(2), "2")],
)
def test_bad_penalties(penalty, word, tokenizer, rows):
    with pytest.raises(ft.RunError, match=word):
        ft.finetune(adapted(), tokenizer, rows, **SETTINGS, penalty=penalty)


# --- watch ----------------------------------------------------------------------------------------
def test_it_measures_what_it_says_and_changes_nothing(tokenizer, rows):
    """At step 0, every four steps and at the last; the same weights as without it; the first value
    the base's, the last the trained model's, and the forgetting their difference.
    """
    plain = adapted()
    ft.finetune(plain, tokenizer, rows, **SETTINGS)
    model = adapted()
    start = mean_nll(model, tokenizer, TEXTS)
    run = ft.finetune(model, tokenizer, rows, **SETTINGS, watch=ft.ForgettingWatch(TEXTS, every=4))
    assert equal(model, plain) and not run.stopped
    assert [entry["step"] for entry in run.watched] == [0, 4, 6]
    end = mean_nll(model, tokenizer, TEXTS)
    assert run.watched[0] == {"step": 0, "watched": pytest.approx(start), "forgetting": 0}
    assert run.watched[-1]["watched"] == pytest.approx(end)
    assert run.watched[-1]["forgetting"] == pytest.approx(end - start)


class Rising:
    """As many nats as it was asked before: 0, 1, 2 …"""

    every = 1
    threshold = 2.5

    def __init__(self):
        self.asked = -1

    def measure(self, model, tokenizer):
        self.asked += 1
        return float(self.asked)


def test_it_stops_at_the_first_measurement_above_the_threshold(tokenizer, rows):
    """0 at the start, 3 > 2.5 at step 3."""
    run = ft.finetune(adapted(), tokenizer, rows, **SETTINGS, watch=Rising())
    assert run.stopped and [entry["step"] for entry in run.history] == [1, 2, 3]
    assert [entry["forgetting"] for entry in run.watched] == [0, 1, 2, 3]


class Moved:
    """How far B is from its start at zero, squared: it rises from the first step on."""

    every = 1

    def __init__(self, threshold):
        self.threshold = threshold
        self.settings = {"threshold": threshold}

    def measure(self, model, tokenizer):
        total = sum(p.square().sum() for n, p in model.named_parameters() if "lora_B" in n)
        return total.item()


@pytest.fixture(scope="module")
def measured(tokenizer, rows):
    """A threshold that a run crosses at step 3, after a checkpoint at step 2."""
    run = ft.finetune(adapted(), tokenizer, rows, **SETTINGS, watch=Moved(None))
    values = [entry["forgetting"] for entry in run.watched]
    assert not run.stopped and values[2] < values[3]
    return (values[2] + values[3]) / 2


def test_a_stopped_run_is_at_its_end(measured, tokenizer, rows, tmp_path):
    """It leaves its artifact, and called again it takes no further step."""
    folder = tmp_path / "run"
    model = adapted()
    options = {**SETTINGS, "watch": Moved(measured), "output_dir": folder}
    run = ft.finetune(model, tokenizer, rows, **options)
    assert run.stopped and run.history[-1]["step"] == 3
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["metrics"]["stopped"] is True
    assert manifest["metrics"]["forgetting"] == run.watched[-1]["forgetting"]
    assert manifest["watch"] == {"name": "Moved", "threshold": measured}
    again = adapted()
    same = ft.finetune(again, tokenizer, rows, **options)
    assert same.resumed_from == 3 and same.stopped
    assert same.history == run.history and same.watched == run.watched
    assert equal(again, model) and (folder / "adapter").is_dir()
    assert json.loads((folder / "manifest.json").read_text()) == manifest


def test_a_run_that_goes_on_stops_where_it_would_have(measured, tokenizer, rows, tmp_path):
    """From the checkpoint at step 2: the start is that of the whole run, and so are the stop, the
    record and the weights.
    """
    folder = tmp_path / "run"
    whole = adapted()
    options = {**SETTINGS, "watch": Moved(measured), "output_dir": folder}
    want = ft.finetune(whole, tokenizer, rows, **options)
    shutil.rmtree(folder / "checkpoint-3")
    model = adapted()
    run = ft.finetune(model, tokenizer, rows, **options)
    assert run.resumed_from == 2 and run.stopped
    assert run.watched == want.watched and run.history == want.history
    assert run.history[-1]["step"] == 3 and equal(model, whole)
    for other in (None, Moved(None), Moved(2 * measured), ft.ForgettingWatch(TEXTS, every=1)):
        with pytest.raises(ft.RunError, match="watch"):
            ft.finetune(model, tokenizer, rows, **{**options, "watch": other})


def test_bad_watches(tokenizer, rows):
    for options in (
        {"texts": "one", "every": 1},
        {"texts": [], "every": 1},
        {"texts": TEXTS, "every": 0},
        {"texts": TEXTS, "every": 1, "threshold": 0},
        {"texts": TEXTS, "every": 1, "batch_size": 0},
    ):
        name = "texts" if options["texts"] != TEXTS else list(options)[-1]
        with pytest.raises(ValueError, match=name):
            ft.ForgettingWatch(**options)
    with pytest.raises(ft.RunError, match="watch"):
        ft.finetune(adapted(), tokenizer, rows, **SETTINGS, watch=5)
    broken = Rising()
    broken.measure = lambda model, tokenizer: float("nan")
    with pytest.raises(ft.RunError, match="diverged"):
        ft.finetune(adapted(), tokenizer, rows, **SETTINGS, watch=broken)


# --- replay ---------------------------------------------------------------------------------------
def test_replayed_text_trains_beside_conversations(tokenizer, rows):
    """24 conversations and 6 texts, a fifth of 30: the run reads them, and forgets less of them
    than without.
    """
    texts = [f"{text}, {i}" for text in TEXTS for i in range(3)]
    replay = ft.text_rows(tokenizer, texts)
    mixed = ft.mix_rows(rows, replay, 0.2)
    after = []
    for given in (rows, mixed):
        model = llama().requires_grad_(True)
        ft.finetune(model, tokenizer, given, **{**SETTINGS, "steps": 15, "batch_size": 15})
        after.append(mean_nll(model, tokenizer, texts))
    assert after[1] < after[0] - 0.1
