"""The Fisher diagonal of a logistic regression by hand, of a language model row by row; the penalty
and its gradient by hand.
"""

import math

import pytest
import torch
from conftest import llama, randomize
from torch.nn.functional import logsigmoid

import ftlib as ft
from ftlib.batches.collate import SFTCollator
from ftlib.batches.template import IGNORE
from ftlib.losses.ewc import EWC
from ftlib.losses.preference import LossError


def logistic(w) -> torch.nn.Linear:
    model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([w]))
    return model


def log_likelihood(model, example):
    """log σ(w·x) for y = 1, log σ(−w·x) for y = 0."""
    sign = 2 * example["y"] - 1
    return logsigmoid(sign * model(example["x"])[:, 0]).sum()


def batch(x, y) -> dict:
    return {"x": torch.tensor(x, dtype=torch.float64), "y": torch.tensor(y)}


def fisher_of(*batches):
    """At w = [ln 3, 0]."""
    model = logistic((math.log(3), 0.0))
    return ft.fisher_diagonal(model, batches, log_likelihood)["weight"][0].tolist()


def test_logistic_regression_by_hand():
    """∂ log p/∂w = (y − p)·x. w = [ln 3, 0]; x = [1, 2], y = 1: p = 3/4, gradient [1/4, 1/2],
    squares [1/16, 1/4]. x = [0, 4], y = 1: p = 1/2, [0, 2], squares [0, 4]. Their mean: [1/32,
    17/8]. The square of the mean gradient [1/8, 5/4] would be [1/64, 25/16].
    """
    want = pytest.approx([1 / 32, 17 / 8])
    assert fisher_of(batch([[1, 2], [0, 4]], [1, 1])) == want
    assert fisher_of(batch([[1, 2]], [1]), batch([[0, 4]], [1])) == want


def test_labels_as_the_model_gives_them_make_it_the_fisher_information():
    """p = 3/4 at x = [1, 2]: of four examples three have y = 1. Mean of (y − p)²: (3·1/16 + 9/16)/4
    = 3/16 = p(1 − p), the Fisher information of a logistic regression, times x². Other labels, all
    y = 0, give 9/16: the empirical one goes by the data.
    """
    x = [[1, 2]] * 4
    assert fisher_of(batch(x, [1, 1, 1, 0])) == pytest.approx([3 / 16, 3 / 4])
    assert fisher_of(batch(x, [0, 0, 0, 0])) == pytest.approx([9 / 16, 9 / 4])


def padded(tokenizer_pad=2):
    """Three rows of 5, 7 and 9 tokens, the last 3 of each scored."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for length in (5, 7, 9):
        ids = torch.randint(8, 280, (length,), generator=generator).tolist()
        rows.append({"input_ids": ids, "labels": [IGNORE] * (length - 3) + ids[-3:]})
    return SFTCollator(tokenizer_pad)(rows), rows


@pytest.mark.parametrize("adapter", ["none", "lora", "reft"])
def test_of_a_language_model(adapter):
    """One backward pass a row, without padding, of the sum of its answer's log-probabilities, here
    from full logits; in float64. The gradients that the model holds stay.
    """
    model = llama(dtype=torch.float64)
    if adapter == "lora":
        randomize(ft.add_lora(model, r=2, lora_dropout=0.5))
    if adapter == "reft":
        ft.add_reft(model, r=2)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    batch, rows = padded()
    want = {name: torch.zeros_like(p) for name, p in trained}
    for row in rows:
        model.zero_grad()
        ids = torch.tensor([row["input_ids"]])
        loss = model(ids, labels=torch.tensor([row["labels"]])).loss  # mean of 3 tokens, fp32
        (-3 * loss).backward()
        for name, p in trained:
            want[name] += p.grad.double() ** 2 / 3
    held = {name: p.grad.clone() for name, p in trained}
    model.train()
    fisher = ft.fisher_diagonal(model, [batch])
    assert model.training and fisher.keys() == want.keys()
    for name, p in trained:
        assert torch.allclose(fisher[name], want[name], rtol=1e-4, atol=1e-9)
        assert torch.equal(p.grad, held[name])
    assert sum(f.sum() for f in fisher.values()) > 0


def test_lora_as_it_starts_holds_only_b():
    """∂L/∂A has the factor B = 0."""
    fisher = ft.fisher_diagonal(ft.add_lora(llama(), r=2), [padded()[0]])
    for name, values in fisher.items():
        assert bool(values.any()) == name.endswith("lora_B")


def test_no_examples():
    with pytest.raises(LossError, match="at least one example"):
        ft.fisher_diagonal(llama(), [])


# --- the penalty ----------------------------------------------------------------------------------
FISHER = {"weight": torch.tensor([[2.0, 0.5]], dtype=torch.float64)}
ANCHOR = {"weight": torch.tensor([[1.0, 1.0]], dtype=torch.float64)}


def test_the_penalty_by_hand():
    """θ − θ* = [2, −4], F = [2, 0.5], λ = 3: 3/2·(2·4 + 0.5·16) = 24; its gradient λF(θ − θ*) =
    [12, −6].
    """
    model = logistic((3.0, -3.0))
    penalty = ft.ewc_penalty(model, FISHER, ANCHOR, 3.0)
    assert penalty.shape == () and penalty.item() == 24
    penalty.backward()
    assert model.weight.grad.tolist() == [[12, -6]]
    assert EWC(FISHER, ANCHOR, 3.0)(model).item() == 24
    assert ft.ewc_penalty(logistic((1.0, 1.0)), FISHER, ANCHOR, 3.0).item() == 0
    assert ft.ewc_penalty(model, FISHER, ANCHOR, 0).item() == 0


def test_settings_tell_penalties_apart():
    """ΣF = 2.5, ‖θ*‖ = √2."""
    settings = EWC(FISHER, ANCHOR, 3.0).settings
    assert settings == {"weight": 3.0, "fisher": 2.5, "anchor": 1.4142}


def test_bad_values():
    model = logistic((1.0, 1.0))
    for weight in (-1, float("nan"), "1", True):
        with pytest.raises(LossError, match="weight"):
            ft.ewc_penalty(model, FISHER, ANCHOR, weight)
        with pytest.raises(LossError, match="weight"):
            EWC(FISHER, ANCHOR, weight)
    with pytest.raises(LossError, match="fisher and the model"):
        ft.ewc_penalty(model, {}, ANCHOR, 1)
    with pytest.raises(LossError, match=r"anchor\['weight'\] has shape \(2,\)"):
        ft.ewc_penalty(model, FISHER, {"weight": torch.ones(2)}, 1)
    with pytest.raises(ValueError, match="requires grad"):
        ft.ewc_penalty(model.requires_grad_(False), FISHER, ANCHOR, 1)
