"""Packing: bins by hand, the same losses as unpacked, and no conversation that sees another."""

import pytest
import torch
from conftest import EMBEDDED, llama
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import ftlib as ft
from ftlib.batches.collate import PackedCollator, SFTCollator, real_tokens
from ftlib.batches.encode import encode_rows
from ftlib.batches.packing import first_fit_decreasing, pack
from ftlib.batches.template import IGNORE
from ftlib.core.errors import DataError


def row(*ids, prompt=1):
    return {"input_ids": list(ids), "labels": [IGNORE] * prompt + list(ids[prompt:])}


def test_first_fit_decreasing_by_hand():
    """Capacity 10; lengths 6 7 3 4 2 5 1. Longest first: 7 opens bin 0; 6 opens 1; 5 opens 2; 4
    goes to 1 (6 + 4); 3 to 0 (7 + 3); 2 to 2 (5 + 2); 1 to 2. Bins of 10, 10 and 8.
    """
    assert first_fit_decreasing([6, 7, 3, 4, 2, 5, 1], 10) == [[1, 2], [0, 3], [5, 4, 6]]


def naive(lengths, capacity):
    bins = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = next((b for b in bins if sum(lengths[j] for j in b) + lengths[i] <= capacity), None)
        bins.append([i]) if fits is None else fits.append(i)
    return bins


@given(st.lists(st.integers(1, 20), max_size=40), st.integers(20, 40))
def test_the_tree_finds_the_first_bin(lengths, capacity):
    assert first_fit_decreasing(lengths, capacity) == naive(lengths, capacity)


def test_packed_rows_by_hand():
    """Lengths 2, 3, 4 in rows of 5: [4], [3, 2]. Padding before: 12 places of which 9 are used,
    1/4; after: 10 places, 1/10 of them empty. The first token of a block has no label, even where
    it had one.
    """
    packed = pack([row(1, 2, prompt=0), row(3, 4, 5), row(6, 7, 8, 9, prompt=2)], max_length=5)
    assert packed.blocks == [[2], [1, 0]] and (packed.padding_before, packed.padding_after) == (
        pytest.approx(1 / 4),
        pytest.approx(1 / 10),
    )
    assert packed.rows[1] == {
        "input_ids": [3, 4, 5, 1, 2],
        "labels": [IGNORE, 4, 5, IGNORE, 2],
        "position_ids": [0, 1, 2, 0, 1],
    }
    assert str(packed) == "packed 3 conversations into 2 rows; padding 25.0% before, 10.0% after"
    batch = PackedCollator(pad_token_id=0)(packed.rows)
    assert batch["input_ids"].tolist() == [[6, 7, 8, 9, 0], [3, 4, 5, 1, 2]] and batch["labels"][
        0
    ].tolist() == [IGNORE, IGNORE, 8, 9, IGNORE]
    assert (
        batch["position_ids"].tolist() == [[0, 1, 2, 3, 0], [0, 1, 2, 0, 1]]
        and batch["use_cache"] is False
    )
    assert real_tokens(batch["position_ids"]).tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]


def test_bad_rows():
    for rows, words in (
        ([], "no rows"),
        ([row(1, 2), row(1, 2, 3)], "row 1 has 3 tokens, max_length=2"),
        ([{"input_ids": [], "labels": []}], "row 0 has 0"),
    ):
        with pytest.raises(DataError, match=words):
            pack(rows, 2)


def losses(model, batch) -> torch.Tensor:
    """(B, T - 1) losses of the next tokens, 0 without a label."""
    with torch.no_grad():
        logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    return cross_entropy(
        logits[:, :-1].transpose(1, 2),
        batch["labels"][:, 1:],
        ignore_index=IGNORE,
        reduction="none",
    )


@pytest.fixture(scope="module")
def embedded():
    model, tokenizer = ft.load_model(EMBEDDED, dtype=torch.float64)
    return model, tokenizer, encode_rows(tokenizer, ft.load_rows("validation")[:24])


# transformers' eager attention takes its softmax in fp32 whatever the model's type, and a sum over
# another length is rounded otherwise where a processor adds sixteen numbers at a time.
ROUNDING = {"eager": 1e-5, "sdpa": 1e-9}  # nats


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("training", [True, False])
def test_packed_losses_are_the_unpacked_ones(embedded, attention, training):
    """float64, every answer token of the embedded model, in a batch with padding. A token that
    sees another block's would differ in the first digits.
    """
    model, tokenizer, rows = embedded
    model.set_attn_implementation(attention)
    packed = pack(rows, 100)
    got = losses(model.train(training), PackedCollator(tokenizer.pad_token_id)(packed.rows))
    assert len(packed.rows) < len(rows) / 2 and packed.padding_after < packed.padding_before
    for blocks, found in zip(packed.blocks, got, strict=True):
        start = 0
        for i in blocks:
            n = len(rows[i]["input_ids"])
            alone = losses(model, SFTCollator(tokenizer.pad_token_id)([rows[i]]))[0]
            difference = (found[start : start + n - 1] - alone).abs().max()
            assert alone.sum() > 0 and difference < ROUNDING[attention]
            start += n
        assert found[start - 1 :].abs().sum() == 0


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_change_in_one_block_leaves_the_others_bit_equal(embedded, attention):
    model, tokenizer, rows = embedded
    model.set_attn_implementation(attention)
    packed = pack(rows, 100)
    batch = PackedCollator(tokenizer.pad_token_id)(packed.rows[:1])
    first = len(rows[packed.blocks[0][0]]["input_ids"])
    with torch.no_grad():
        before = model(**batch).logits
        batch["input_ids"][0, :first] = (batch["input_ids"][0, :first] + 1) % 1000
        after = model(**batch).logits
    assert (
        len(packed.blocks[0]) > 1
        and torch.equal(before[0, first:], after[0, first:])
        and not torch.equal(before[0, :first], after[0, :first])
    )


def test_packing_in_training():
    """All rows in one step, packed or not, have the same loss and so the same weights after it;
    tokens are counted without padding.
    """
    rows = ft.load_rows("train")[:16]
    found = []
    for packing in (False, True):
        model, tokenizer = ft.load_model(EMBEDDED, dtype=torch.float32)
        torch.manual_seed(0)
        run = ft.finetune(
            ft.add_lora(model, r=4),
            tokenizer,
            rows,
            steps=1,
            learning_rate=1e-3,
            batch_size=16,
            max_length=128,
            packing=packing,
            show=False,
            warmup=0,
            log_steps=1,
            eval_rows=rows[:3],
        )
        found.append((run, [p.detach() for p in model.parameters() if p.requires_grad]))
    (plain, weights), (packed, others) = found
    assert packed.tokens == plain.tokens and packed.history[0]["loss"] == pytest.approx(
        plain.history[0]["loss"], rel=1e-5
    )
    assert packed.eval_history[0]["eval_loss"] == pytest.approx(
        plain.eval_history[0]["eval_loss"], rel=1e-3
    )
    moved = torch.cat([(a - b).abs().flatten() for a, b in zip(weights, others, strict=True)])
    # Adam's first step moves each weight by the learning rate: only gradients near 0 may differ in
    # sign.
    assert moved.mean() < 1e-5


def test_packing_with_noise_is_refused(tokenizer, rows):
    model = ft.add_lora(llama(), r=2)
    with pytest.raises(ft.RunError, match="packing=True and neftune_alpha=5"):
        ft.finetune(
            model,
            tokenizer,
            rows,
            steps=1,
            learning_rate=1e-3,
            packing=True,
            neftune_alpha=5,
            show=False,
        )
