"""The planner for several processes: parts by hand; that they are the measured ones is in
test_shards.py.
"""

import json

import pytest

import ftlib as ft
from ftlib.cli import main
from ftlib.training.memory_plan import MODELS
from ftlib.training.model_sizes import read_config
from ftlib.training.sharding_plan import Tensors, cut_bytes

TINY = {
    "vocab_size": 101,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
OPTIONS = {"r": 3, "device": "cpu", "batch_size": 1, "seq_len": 4}


def plan(method: str, shard: str | None = None, gpus: int = 2, **more) -> dict[str, int]:
    if shard is None:
        return ft.plan_memory(TINY, method, **OPTIONS, **more).parts
    return ft.plan_memory(TINY, method, **OPTIONS, **more, gpus=gpus, shard=shard).parts


def test_rows_are_rounded_up():
    """Five rows over two processes: three, and two with a row of padding."""
    assert Tensors(2, 5, 7, 4).bytes(2) == 2 * 3 * 7 * 4
    assert Tensors(2, 5, 7, 4).bytes() == 2 * 5 * 7 * 4


def test_ddp_by_hand():
    """All is whole; the buckets are as large as the gradients: LoRA r=3 is 3·(4·16 + 3·20) = 372 a
    block, 1,116 in all, 4 bytes each.
    """
    alone, ddp = plan("lora"), plan("lora", "ddp")
    assert ddp.pop("all-reduce buckets") == 4 * 1116 == ddp["gradients"]
    assert ddp == alone


def test_fully_sharded_by_hand():
    """LoRA r=3 in two processes, weights in 2 bytes. A (3, in): two rows, q, k, v, o, gate and up
    2·8, down 2·12: 120 numbers a block. B (out, 3): half, 4·3 for q, k, v, o and down, 6·3 for gate
    and up: 96. In all 3·216 = 648 trained numbers. Frozen: a block's 544 and 16 of norms, halved,
    280; embedding and head 51 of 101 rows of 8, 816; the last norm 4: 3·280 + 816 + 4 = 1,660.

    Gathered: embedding, head and norm, 2·(2·808 + 8); two blocks, each 2·560 + 4·372; a block's
    gradients twice, 2·4·372.
    """
    parts = plan("lora", "full")
    assert parts["weights"] == 2 * 1660
    assert parts["adapter"] == parts["gradients"] == 4 * 648
    assert parts["optimizer"] == 8 * 648
    block = 2 * 560 + 4 * 372
    assert parts["gathered from the others"] == 2 * 1624 + 2 * block + 8 * 372


def test_zero2_has_all_weights_while_it_computes():
    full, zero2 = plan("lora", "full"), plan("lora", "zero2")
    for part in ("weights", "adapter", "gradients", "optimizer"):
        assert full[part] == zero2[part]
    third_block = 2 * 560 + 4 * 372
    gathered = "gathered from the others"
    assert zero2[gathered] - full[gathered] == third_block


def test_packed_weights_by_hand():
    """Two weights a byte: a block's matrices are 272 bytes, 136 on each of two; the constants stay
    whole.
    """
    alone, parts = plan("qlora"), plan("qlora", "full")
    others = 2 * (3 * 8 + 2 * 51 * 8 + 4)
    assert parts["weights"] == 3 * 136 + others
    assert parts["quantisation constants"] == alone["quantisation constants"]


@pytest.mark.parametrize("method", ["full", "lora", "dora", "qlora", "qdora"])
@pytest.mark.parametrize("name", MODELS)
def test_cut_over_one_process_is_the_plan_for_one(name, method):
    whole = ft.plan_memory(name, method)
    cut = cut_bytes(read_config(name), whole.settings, 1)
    for part, size in cut.items():
        # Norms are counted a block, rounded up, and NF4's bytes rounded.
        assert size == pytest.approx(whole.parts[part], abs=2 * 80), part


def test_70b_over_two_and_eight():
    """The weights halve exactly: all of their first dimensions are even."""
    one = ft.plan_memory("llama-3.1-70b", seq_len=512)
    two = ft.plan_memory("llama-3.1-70b", seq_len=512, gpus=2, shard="full")
    assert two.total < one.total
    assert two.parts["weights"] == pytest.approx(one.parts["weights"] / 2, rel=1e-6)
    assert ft.plan_memory("llama-3.1-70b", seq_len=512, gpus=8, shard="full").total < two.total


def test_full_training_fits_more_the_more_is_cut():
    totals = [
        ft.plan_memory("llama-3.1-8b", "full", gpus=8, shard=shard).total
        for shard in ("full", "zero2", "ddp")
    ]
    assert totals == sorted(totals) and totals[0] < totals[1] < totals[2]


def test_zero3_is_full():
    assert plan("lora", "zero3") == plan("lora", "full")


def test_what_would_fit_keeps_the_gpus():
    plan = ft.plan_memory("llama-3.1-8b", "lora", gpus=2, shard="ddp")
    sharded = ft.plan_memory("llama-3.1-8b", "lora", gpus=2, shard="full").total
    assert sharded < plan.total and "shard=full" in plan.ways(sharded)
    assert "gpus 2, shard ddp" in str(plan)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"gpus": 2}, "gpus=2 with shard=None: say how"),
        ({"shard": "full"}, "shard='full' with gpus=1: there is nobody"),
        ({"gpus": 2, "shard": "zero1"}, "shard='zero1': use one of 'ddp', 'zero2', 'full'"),
        ({"gpus": 0}, "gpus=0"),
        ({"gpus": 2.0, "shard": "ddp"}, "gpus=2.0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(ValueError, match=words):
        ft.plan_memory(TINY, **options)


def test_the_command(capsys):
    assert main(["plan", "llama-3.1-70b", "--gpus", "2", "--shard", "full", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["total"] == ft.plan_memory("llama-3.1-70b", gpus=2, shard="full").total
    assert main(["plan", "llama-3.1-70b", "--gpus", "2"]) == 2
    assert "say how the model lies on them" in capsys.readouterr().err
