"""A conversation is scored by itself alone, or the check on the model itself says otherwise: in
every dtype, and only where it is so.
"""

import pytest
import torch
from conftest import EMBEDDED, llama

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.losses import isolation
from ftlib.losses.isolation import Shift, later_shift, packing_shift, probe_rows

ROWS = [list(range(7, 200))]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.fixture(scope="module")
def rows():
    _, tokenizer = ft.load_model(EMBEDDED)
    return [row["input_ids"] for row in encode_rows(tokenizer, ft.load_rows("validation")[:8])]


@pytest.fixture(params=DTYPES, ids=str)
def embedded(request):
    """The trained model: its log-probabilities are large, and so is their rounding."""
    model, _ = ft.load_model(EMBEDDED, dtype=request.param)
    return model


def deaf(model, monkeypatch, *names):
    """The model without these arguments, as one whose mask and positions are its own."""
    forward = model.model.forward

    def without(*args, **more):
        for name in names:
            more.pop(name, None)
        return forward(*args, **more)

    monkeypatch.setattr(model.model, "forward", without)
    return model


def test_a_model_that_keeps_conversations_apart_passes(embedded, rows):
    for shift in (packing_shift(embedded, rows, 0), later_shift(embedded, rows, 0)):
        assert not shift.is_fault and shift.nats <= 0.02


def test_a_model_that_is_given_no_positions_leaks(embedded, rows, monkeypatch):
    """Its conversations see those before them: more than a nat a token in a trained model."""
    shift = packing_shift(deaf(embedded, monkeypatch, "position_ids"), rows, 0)
    assert shift.is_fault and shift.nats > 0.3


def test_positions_that_go_on_are_found_although_nothing_leaks(monkeypatch):
    """The mask of packed rows with the positions of the row, in a model of absolute positions: what
    the neighbours say does not matter, where the conversation lies does.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=280, n_positions=64, n_embd=32, n_layer=1, n_head=4)
    ).eval()
    assert not packing_shift(model, ROWS, 0).is_fault
    embed = model.transformer.wpe.forward

    def going_on(ids):
        return embed(torch.arange(ids.shape[-1])[None])

    monkeypatch.setattr(model.transformer.wpe, "forward", going_on)
    shift = packing_shift(model, ROWS, 0)
    assert shift.is_fault and shift.rounding > 0


def test_a_model_that_sees_what_comes_is_found(monkeypatch):
    model = llama(initializer_range=0.3)
    for layer in model.model.layers:
        layer.self_attn.is_causal = False
    monkeypatch.setattr("transformers.models.llama.modeling_llama.create_causal_mask", _no_mask)
    assert later_shift(model, ROWS, 0).is_fault


def _no_mask(*args, **more):
    return None


def test_padding_that_is_not_masked_does_no_harm_on_the_right(monkeypatch):
    model = deaf(llama(initializer_range=0.3), monkeypatch, "attention_mask")
    assert not later_shift(model, ROWS, 0).is_fault


def test_what_is_a_fault_by_hand():
    """More than four times the rounding that was seen, and more than the floor; not a number is."""
    assert not Shift(0.00009, 0.0, 1e-4).is_fault
    assert Shift(0.00011, 0.0, 1e-4).is_fault
    assert not Shift(0.039, 0.01, 1e-4).is_fault
    assert Shift(0.041, 0.01, 1e-4).is_fault
    assert Shift(float("nan"), 0.0, 1e-4).is_fault


def test_a_control_that_moves_itself_does_not_hide_a_fault():
    """A control that moved by a nat counts as a thousandth in fp32."""
    zeros = torch.zeros(3)
    ones = torch.ones(3)
    shift = isolation.shift_between(zeros, ones, (zeros, ones), llama(layers=1))
    assert shift.rounding == 1e-3 and shift.is_fault


def test_probes_hold_what_occurs_and_are_the_same_each_time():
    one = probe_rows([[5, 9], [7, 5]], (4, 6))
    assert one == probe_rows([[7, 5, 9]], (4, 6))
    assert [len(row) for row in one] == [4, 6]
    assert {token for row in one for token in row} <= {5, 7, 9}


def test_the_check_leaves_the_model_as_it_was():
    model = llama().train()
    before = torch.get_rng_state()
    packing_shift(model, ROWS, 0)
    later_shift(model, ROWS, 0)
    assert model.training and torch.equal(before, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())
