"""Two processes train as one does, the model whole or cut, and each holds what the planner says."""

import bitsandbytes as bnb
import pytest
import torch
from sharded_runs import all_of_two, one_process
from transformers import LlamaConfig

import ftlib as ft
from ftlib.training.processes import run_processes
from ftlib.training.shards import decoder_blocks, store_packed_as

CASES = (
    ("lora", "ddp", 4),
    ("lora", "full", 4),
    ("lora", "zero2", 4),
    ("lora", "full", 3),  # an A of three rows: two here, one and a row of padding there
    ("full", "full", 4),
    ("qlora", "full", 4),
    ("qlora", "full", 4, torch.bfloat16),  # the packed bytes called bf16
)


@pytest.fixture(scope="module")
def both():
    """One launch for all tests: each process imports the libraries again."""
    return run_processes(all_of_two, CASES)


@pytest.fixture(scope="module")
def alone():
    runs = {(method, r): one_process(method, r) for method, _, r, *_ in CASES}
    return runs


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_two_processes_train_as_one(case, both, alone):
    """Losses are the means of both halves, whose rows are of one length; weights are put together
    again. DDP's processes hold them whole.
    """
    method, _, r, *_ = case
    losses, weights, _ = alone[method, r]
    for rank in (0, 1):
        found_losses, found_weights, *_ = both[rank][case]
        assert found_losses == pytest.approx(losses, abs=1e-5)
        assert found_weights.keys() == weights.keys() and len(weights) > 10
        for name, weight in weights.items():
            torch.testing.assert_close(found_weights[name], weight, atol=1e-5, rtol=0)
    assert losses[0] - losses[-1] > 0.01


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_each_process_holds_what_the_plan_says(case, both):
    """To the byte: rank 0 has no less than the other, and the plan is rank 0's."""
    method, shard, r, *_ = case
    _, _, found, config = both[0][case]
    plan = ft.plan_memory(
        config, method, r=r, dtype="float32", device="cpu", gpus=2, shard=shard
    ).parts
    for part, size in found.items():
        if part != "quantisation constants":
            assert size == plan.get(part, 0), part
    other = both[1][case][2]
    assert all(other[part] <= size for part, size in found.items())


def test_constants_of_4_bit_weights_are_whole_everywhere(both, alone):
    case = ("qlora", "full", 4)
    part = "quantisation constants"
    whole = alone["qlora", 4][2]
    for rank in (0, 1):
        assert both[rank][case][2][part] == whole[part] > 0
    plan = ft.plan_memory(both[0][case][3], "qlora", gpus=2, shard="full").parts
    assert whole[part] == pytest.approx(plan[part], rel=0.01)


def test_bytes_that_do_not_fill_the_dtype():
    """Of 160 weights 80 bytes, ten numbers of 8; of 6 weights 3 bytes, which no bf16 fill."""
    layer = bnb.nn.Linear4bit(10, 16, bias=False, quant_type="nf4")
    layer.weight = bnb.nn.Params4bit(torch.randn(16, 10), requires_grad=False, quant_type="nf4")
    model = torch.nn.Sequential(layer.to("cpu"))
    before = layer.weight.data.clone()
    store_packed_as(model, torch.float64)
    assert layer.weight.shape == (10, 1)
    assert torch.equal(layer.weight.data.view(torch.uint8).view(-1, 1), before)
    odd = bnb.nn.Linear4bit(3, 2, bias=False, quant_type="nf4")
    odd.weight = bnb.nn.Params4bit(torch.randn(2, 3), requires_grad=False, quant_type="nf4")
    with pytest.raises(ValueError, match="the 3 bytes of 0 do not fill it"):
        store_packed_as(torch.nn.Sequential(odd.to("cpu")), torch.bfloat16)


def test_blocks_that_are_not_there():
    config = LlamaConfig(num_hidden_layers=3)
    headless = torch.nn.Linear(2, 2)
    headless.config = config
    with pytest.raises(ValueError, match="Linear has no list of its 3 blocks"):
        decoder_blocks(headless)
