"""What a model gives both answers of held-out pairs."""

import numpy as np
import pytest
import torch
from conftest import randomize
from preference_runs import F64, PAIRS, adapted, hand_logps

import ftlib as ft
from ftlib.batches.preference import encode_pairs
from ftlib.training import row_checks
from ftlib.training.row_checks import why_apart


def policy(**options):
    return randomize(adapted(dtype=F64, **options), scale=0.3).train()


def by_hand(model, tokenizer, pairs) -> np.ndarray:
    model.eval()
    rows = []
    with torch.no_grad():
        for item in encode_pairs(tokenizer, pairs):
            chosen = hand_logps(model, item, "chosen_ids")
            rejected = hand_logps(model, item, "rejected_ids")
            rows.append((float(chosen), float(rejected)))
    return np.array(rows)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_scores_are_those_by_hand_in_the_order_of_the_pairs(batch_size, tokenizer):
    model = policy()
    uneven = [PAIRS[3], {**PAIRS[1], "prompt": "Say it, whatever it may be."}, *PAIRS[4:8]]
    scores = ft.score_pairs(model, tokenizer, iter(uneven), batch_size=batch_size)
    assert model.training
    assert scores.logps == pytest.approx(by_hand(model, tokenizer, uneven), rel=1e-9)
    items = encode_pairs(tokenizer, uneven)
    counts = [[len(item["chosen_ids"]), len(item["rejected_ids"])] for item in items]
    assert scores.tokens.tolist() == counts


def largest_log_ratio(model, tokenizer) -> float:
    now = ft.score_pairs(model, tokenizer, PAIRS[:5]).logps
    with ft.disable_adapter(model):
        then = ft.score_pairs(model, tokenizer, PAIRS[:5]).logps
    return np.abs(now - then).max()


def test_implicit_rewards_of_an_adapter_that_does_nothing_are_zero(tokenizer):
    """B = 0 is the reference; another B is not."""
    model = adapted(dtype=F64)
    assert largest_log_ratio(model, tokenizer) < 1e-9
    assert largest_log_ratio(randomize(model, scale=0.3), tokenizer) > 0.1


def test_prompts_run_twice_where_once_would_not_be_exact(tokenizer, monkeypatch):
    """Sliding windows: the numbers are right all the same."""
    model = policy()
    want = by_hand(model, tokenizer, PAIRS[:4])
    monkeypatch.setattr(row_checks, "why_unshared", lambda model: "it slides")
    seen = []
    model.register_forward_pre_hook(
        lambda module, args, inputs: seen.append(inputs["input_ids"].shape[0]), with_kwargs=True
    )
    assert ft.score_pairs(model, tokenizer, PAIRS[:4]).logps == pytest.approx(want, rel=1e-9)
    assert seen == [8]  # chosen and rejected of four pairs


def test_a_long_pair_is_not_left_out(tokenizer):
    long = {**PAIRS[0], "prompt": "Say it. " * 150}
    scores = ft.score_pairs(policy(), tokenizer, [long, PAIRS[1]])
    assert scores.logps.shape == (2, 2) and np.isfinite(scores.logps).all()


def test_a_model_is_tried_once_for_each_of_its_forms(tokenizer, monkeypatch):
    tried = []
    monkeypatch.setattr(row_checks, "why_inexact", lambda *args: tried.append(args))
    model = adapted()
    rows = [[3, 4, 5]]
    for _ in range(2):
        assert why_apart(model, rows, 0) is None
    assert len(tried) == 1
    with torch.autocast("cpu", torch.bfloat16):
        why_apart(model, rows, 0)
    assert len(tried) == 2
    model.set_attn_implementation("eager")
    why_apart(model, rows, 0)
    assert len(tried) == 3
    ft.merge_and_unload(model)
    why_apart(model, rows, 0)
    assert len(tried) == 4


def test_bad_input(tokenizer):
    with pytest.raises(ft.DataError, match="pairs is empty"):
        ft.score_pairs(adapted(), tokenizer, [])
    with pytest.raises(ft.DataError, match="pairs is a dict"):
        ft.score_pairs(adapted(), tokenizer, PAIRS[0])
    with pytest.raises(ValueError, match="row 1"):
        ft.score_pairs(adapted(), tokenizer, [PAIRS[0], {"prompt": "Say it."}])
    with pytest.raises(ValueError, match="batch_size"):
        ft.score_pairs(adapted(), tokenizer, PAIRS[:2], batch_size=0)
