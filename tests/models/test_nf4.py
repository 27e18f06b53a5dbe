"""NF4 from scratch: levels derived by hand, every bit as bitsandbytes has it, bounded memory, named
errors.
"""

import math

import bitsandbytes.functional as bnb
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit
from bitsandbytes_avx512 import bitsandbytes_is_right, dequantize_as_avx512, place_of_scale
from hypothesis import given, settings
from hypothesis import strategies as st

import ftlib as ft
from ftlib.models import nf4 as nf4_module
from ftlib.training.memory_meter import peak_bytes

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SHAPES = (
    (256, 512),
    (7, 13),
    (5, 33),
    (1000,),
    (3, 64),
    (64, 2),
    (1, 1),
    (1,),
    (2, 3, 32),
    (130, 1000),
)


def weight(shape, dtype=torch.float32, seed=0, size=0.05):
    return (torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * size).to(dtype)


def oracle(w, block_size=64, double_quant=True, quant_type="nf4"):
    return bnb.quantize_4bit(
        w, blocksize=block_size, compress_statistics=double_quant, quant_type=quant_type
    )


def by_definition(q):
    """level × scale of every weight, where weight i lies in block i // block_size and in half i % 2
    of byte i // 2.

    A product of two fp32 numbers is exact in float64, so rounding it once to fp32 gives every bit.
    """
    place = torch.arange(math.prod(q.shape))
    byte = q.packed[place // 2].int()
    code = torch.where(place % 2 == 0, byte // 16, byte % 16)
    scales = q.scales
    if q.outer is not None:
        level = nf4_module.DYNAMIC_LEVELS[q.scales.int()].double()
        outer = q.outer[torch.arange(len(q.scales)) // 256].double()
        scales = ((level * outer).float().double() + q.mean.double()).float()
    values = nf4_module.LEVELS[q.quant_type][code].double() * scales[place // q.block_size].double()
    return values.float().to(q.dtype).view(q.shape)


def assert_same(q, w):
    """Codes and scales as bitsandbytes' quantiser makes them, values as the definition has them;
    and as bitsandbytes dequantises them, as it is where it is right on every processor, and
    everywhere through `dequantize_packed`.
    """
    packed, state = oracle(w, q.block_size, q.outer is not None, q.quant_type)
    assert torch.equal(q.packed, packed.view(-1))
    assert torch.equal(q.scales, state.absmax)
    if q.outer is not None:
        assert torch.equal(q.outer, state.state2.absmax)
        assert torch.equal(q.mean, state.offset)
    assert torch.equal(q.dequantize(), by_definition(q))
    assert torch.equal(q.dequantize(), nf4_module.dequantize_packed(packed, state))
    if bitsandbytes_is_right(w.shape, q.block_size):
        assert torch.equal(
            q.dequantize().reshape(-1), bnb.dequantize_4bit(packed, state).reshape(-1)
        )


@pytest.fixture(autouse=True)
def bitsandbytes_uncompiled():
    """What it has no kernel for it writes in Python, under torch.compile: with nothing cached a C++
    compiler works for half a minute, to the same bits."""
    with torch.compiler.set_stance("force_eager"):
        yield


# The levels


def test_levels_are_normal_quantiles():
    """Appendix E: quantiles at equal steps of probability on either side of 0, from 1 - (1/32 +
    1/30)/2 = 0.96770833 down to 1/2. The largest is z(0.9677) = 1.84813; the second p = 0.9677 -
    0.4677/8 = 0.90924, z = 1.33612, so 1.33612/1.84813 = 0.72296.
    """
    levels = ft.NF4_LEVELS.tolist()
    assert len(levels) == 16 and levels == sorted(levels)
    assert levels[0] == -1 and levels[15] == 1 and levels[7] == 0
    assert levels[14] == pytest.approx(1.33612 / 1.84813, abs=2e-5)
    assert sum(v > 0 for v in levels) == 8 and sum(v < 0 for v in levels) == 7


@pytest.mark.parametrize("name", ["nf4", "fp4"])
def test_levels_are_those_of_bitsandbytes(name):
    assert torch.equal(nf4_module.LEVELS[name], bnb.get_4bit_type(name, "cpu"))


def test_scales_are_stored_in_the_dynamic_type():
    assert torch.equal(nf4_module.DYNAMIC_LEVELS, bnb.create_dynamic_map())


# By hand


def test_a_block_by_hand():
    """The scale is 2; 2 -> 1 (code 15), 0 -> 7, -2 -> 0. 0.9/2 = 0.45 lies between levels 12
    (0.4407) and 13 (0.5626), nearer 12. Packed: (15, 7), (0, 12).
    """
    q = ft.quantize_nf4(torch.tensor([2.0, 0.0, -2.0, 0.9]), block_size=4, double_quant=False)
    assert (
        q.scales.tolist() == [2.0]
        and q.codes().tolist() == [15, 7, 0, 12]
        and q.packed.tolist() == [0xF7, 0x0C]
    )
    assert q.dequantize().tolist() == pytest.approx([2, 0, -2, 2 * 0.4407098], abs=1e-6)


def test_halfway_is_the_lower_level():
    low, high = ft.NF4_LEVELS[10:12]
    middle = (low + high) / 2
    q = ft.quantize_nf4(
        torch.stack([torch.tensor(1.0), middle, torch.nextafter(middle, high)]),
        block_size=3,
        double_quant=False,
    )
    assert q.codes().tolist() == [15, 10, 11]


def test_int4_is_symmetric_and_even():
    q = nf4_module.quantize_4bit(
        torch.tensor([-7.0, -3.0, 0.0, 1.4, 7.0]), "int4", block_size=5, double_quant=False
    )
    assert q.dequantize().tolist() == pytest.approx([-7, -3, 0, 1, 7])


# Against bitsandbytes


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("double_quant", [True, False], ids=["double", "single"])
def test_every_bit_as_bitsandbytes(dtype, shape, double_quant):
    w = weight(shape, dtype)
    if w.numel() > 300:
        w.view(-1)[64:192] = 0  # two blocks of zeros
    before = w.clone()
    for block_size in (32, 64, 128):
        for name in ("nf4", "fp4"):
            assert_same(nf4_module.quantize_4bit(w, name, block_size, double_quant), w)
    assert torch.equal(w, before)


def test_all_zeros_stay_zeros():
    q = ft.quantize_nf4(torch.zeros(200, 7))
    assert_same(q, torch.zeros(200, 7))
    assert not q.dequantize().any()


def test_more_weights_than_one_chunk():
    w = weight((3, nf4_module.CHUNK // 2 + 100))
    assert_same(ft.quantize_nf4(w), w)


# bitsandbytes with AVX-512


def test_where_bitsandbytes_is_right_with_avx512():
    """The condition against the index that the vectorised branch computes, weight by weight, for
    some 2,000 shapes and blocks.
    """
    for rows in range(1, 11):
        for columns in (*range(1, 40), 48, 64, 80, 96, 112, 128, 144, 192, 256, 272, 320):
            for block_size in (32, 64, 128, 256):
                right = all(
                    place_of_scale(i, k, columns, block_size) == (i * columns + k) // block_size
                    for i in range(rows)
                    for k in range(0, columns, 16)
                )
                assert right == bitsandbytes_is_right((rows, columns), block_size), (
                    rows,
                    columns,
                    block_size,
                )


def test_the_case_that_was_found():
    """(3, 64) in blocks of 128: row 2 is the second block and gets the scale of the first, its own
    being four times as large. Handed over as one row it gets its own.
    """
    w = weight((3, 64))
    w[2] *= 4 * w[:2].abs().max() / w[2].abs().max()
    packed, state = oracle(w, 128, double_quant=False)
    right = ft.quantize_nf4(w, 128, double_quant=False).dequantize()
    wrong = dequantize_as_avx512(packed, state)
    assert not bitsandbytes_is_right((3, 64), 128)
    assert torch.equal(wrong[:2], right[:2])
    assert torch.allclose(4 * wrong[2], right[2])
    assert torch.equal(nf4_module.dequantize_packed(packed, state), right)


def test_dequantize_packed_is_right_with_avx512(monkeypatch):
    monkeypatch.setattr(bnb, "dequantize_4bit", dequantize_as_avx512)
    for shape in ((3, 64), (2, 3, 32), (5, 96), (6, 4304), (40, 576)):
        w = weight(shape, torch.bfloat16)
        for block_size in (32, 64, 128):
            q = ft.quantize_nf4(w, block_size)
            assert torch.equal(nf4_module.dequantize_packed(*oracle(w, block_size)), q.dequantize())


@pytest.mark.parametrize(
    "columns, touched",
    [
        (576, False),
        (896, False),
        (960, False),
        (2880, False),
        (11008, False),
        (4304, True),
        (32, True),
    ],
)
def test_which_layers_of_real_models_are_touched(columns, touched):
    """The module's docstring names them: blocks of 64, as transformers loads a model in 4 bits."""
    assert bitsandbytes_is_right((1024, columns), 64) == (not touched)
    assert nf4_module.blocks_end_with_rows((1024, columns), 64) == (not touched)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 70),
    block_size=st.sampled_from([32, 64, 256]),
    double=st.booleans(),
    name=st.sampled_from(["nf4", "fp4"]),
    size=st.sampled_from([1e-30, 1e-6, 1.0, 1e20]),
    dtype=st.sampled_from(DTYPES[:2]),
    seed=st.integers(0, 99),
)
def test_every_bit_whatever_the_shape(rows, columns, block_size, double, name, size, dtype, seed):
    w = weight((rows, columns), dtype, seed, size)
    packed, state = oracle(w, block_size, double, name)
    q = nf4_module.quantize_4bit(w, name, block_size, double)
    assert torch.equal(q.packed, packed.view(-1)) and torch.equal(q.scales, state.absmax)
    assert q.dequantize().shape == w.shape
    for scale, level in zip(q.block_scales(), w.reshape(-1).float().split(block_size), strict=True):
        if not double:
            assert scale == level.abs().max().clamp(min=1e-38 if len(level) < block_size else 0)


def test_the_saved_form_is_bitsandbytes_own():
    """A Linear4bit that loads our tensors computes what one computes that quantised the weight
    itself.
    """
    w = weight((96, 128), torch.bfloat16)
    x = weight((4, 128), torch.bfloat16, 1)
    tensors = ft.quantize_nf4(w).state_dict("weight")
    packed, state = oracle(w)
    want = {f"weight.{k}": v for k, v in state.as_dict(packed=True).items()} | {"weight": packed}
    assert tensors.keys() == want.keys()
    assert all(torch.equal(tensors[k], want[k]) for k in want)
    layer = Linear4bit(128, 96, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
    layer.weight = Params4bit.from_prequantized(
        tensors["weight"],
        {k: v for k, v in tensors.items() if k != "weight"},
        device="cpu",
        module=layer,
    )
    layer.support_avx512bf16_for_cpu = False
    assert torch.equal(layer(x), torch.nn.functional.linear(x, ft.quantize_nf4(w).dequantize()))


# Memory


def test_bits_a_weight_as_the_paper_counts():
    """4 bits, 8/64 for the scale, 32/(64·256) for its scale; one fp32 mean a tensor. Without double
    quantisation 4 + 32/64.
    """
    w = weight((512, 512))
    q = ft.quantize_nf4(w)
    assert q.nbytes == 512 * 512 // 2 + 512 * 512 // 64 + 4 * (512 * 512 // (64 * 256)) + 4
    assert q.bits_per_weight == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-3)
    assert ft.quantize_nf4(w, double_quant=False).bits_per_weight == 4.5


def test_memory_beyond_the_result_is_bounded():
    """Four times the weights take no more working space: it depends on the chunk alone."""
    small, large = (weight((n, 2048), torch.bfloat16) for n in (2048, 8192))
    extra = [
        peak_bytes(lambda w=w: ft.quantize_nf4(w)) - ft.quantize_nf4(w).nbytes
        for w in (small, large)
    ]
    assert extra[1] < 1.2 * extra[0] < 40 * nf4_module.CHUNK
    assert extra[1] < large.nbytes


def test_dequantising_fills_one_tensor():
    q = ft.quantize_nf4(weight((8192, 2048), torch.bfloat16))
    assert peak_bytes(q.dequantize) < 8192 * 2048 * 2 + 24 * nf4_module.CHUNK


# What it is for


def test_nf4_loses_least_on_normal_weights():
    w = weight((512, 512), size=1.0)
    error = {
        name: (nf4_module.quantize_4bit(w, name, double_quant=False).dequantize() - w)
        .square()
        .mean()
        .sqrt()
        .item()
        for name in nf4_module.LEVELS
    }
    assert error["nf4"] < error["int4"] < error["fp4"]


def test_double_quantisation_costs_little():
    w = weight((512, 512), size=1.0)
    single, double = (
        (ft.quantize_nf4(w, double_quant=d).dequantize() - w).norm() for d in (False, True)
    )
    assert double / single < 1.01


@pytest.mark.parametrize("block_size", [2, 6, 64, 100])
def test_quantising_again_changes_nothing(block_size):
    """The largest weight of a block keeps its value, so the scale does, so all codes do."""
    once = ft.quantize_nf4(weight((40, 50)), block_size, double_quant=False)
    again = ft.quantize_nf4(once.dequantize(), block_size, double_quant=False)
    assert torch.equal(once.codes(), again.codes()) and torch.allclose(once.scales, again.scales)


# Bad input


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_nan_and_infinity_are_named(value, dtype):
    w = weight((40, 100), dtype)
    w[31, 7] = value
    with pytest.raises(ValueError, match=rf"weight holds {value} at flat position 3107"):
        ft.quantize_nf4(w)


@pytest.mark.parametrize(
    "w, options, words",
    [
        (torch.zeros(4, dtype=torch.float64), {}, "float64: cast it"),
        (torch.zeros(4, dtype=torch.int8), {}, "int8"),
        (torch.zeros(0, 4), {}, r"shape \(0, 4\) is empty"),
        (torch.zeros(4), {"block_size": 1}, "block_size=1"),
        (torch.zeros(4), {"block_size": 64.0}, "block_size=64.0"),
        (torch.zeros(4), {"block_size": True}, "block_size=True"),
    ],
)
def test_bad_arguments(w, options, words):
    with pytest.raises(ValueError, match=words):
        ft.quantize_nf4(w, **options)


def test_unknown_type_and_no_place_for_int4():
    with pytest.raises(ValueError, match="quant_type='nf8': use one of nf4, fp4, int4"):
        nf4_module.quantize_4bit(torch.zeros(4), "nf8")
    with pytest.raises(ValueError, match="'int4' has no place"):
        nf4_module.quantize_4bit(torch.zeros(4), "int4").state_dict()
