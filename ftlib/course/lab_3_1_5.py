"""Lab 3.1.5, QLoRA: the nine exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.adapters.functional import lora_forward
from ftlib.course.exercise import Exercise, Wrong
from ftlib.models.nf4 import NF4_LEVELS, QuantizedTensor, quantize_nf4


# --- 1: the levels --------------------------------------------------------------------------------
def normal_levels(above: int, below: int, edge: float) -> Tensor:
    """Levels at normal quantiles, ascending: `below` negative ones, 0, `above` positive ones, the
    largest 1.
    """

    def quantiles(count: int) -> Tensor:
        probabilities = torch.linspace(edge, 0.5, count + 1)[
            :-1
        ]  # from the edge inwards, 1/2 (that is 0) left out
        return torch.special.ndtri(probabilities.double()).float()

    levels = torch.cat([quantiles(above), torch.zeros(1), -quantiles(below)]).sort().values
    return levels / levels.max()


def _levels_cases(g):
    yield from [(8, 7, 0.9677083), (4, 3, 0.93), (2, 1, 0.9), (8, 7, 0.98), (5, 3, 0.95)]


def _levels(
    spread=lambda count, edge: torch.linspace(edge, 0.5, count + 1)[:-1],
    quantile=torch.special.ndtri,
    scale=lambda v: v / v.max(),
    negative=lambda above, below: below,
):
    def levels(above, below, edge):
        up, down = (quantile(spread(count, edge)) for count in (above, negative(above, below)))
        return scale(torch.cat([up, torch.zeros(1), -down]).sort().values)

    return levels


LEVELS = Exercise(
    name="normal_levels",
    title="Sixteen levels",
    minutes=12,
    difficulty=2,
    reference=normal_levels,
    cases=_levels_cases,
    hints=(
        "`torch.special.ndtri(p)` is the normal quantile: the value below which a share p of the "
        "numbers lies. ndtri(0.5) is 0.",
        "For the positive side take `above + 1` probabilities at equal steps from `edge` down to "
        "1/2, and leave the last out: "
        "it is the zero.",
        "The negative side is the mirror image with `below` levels. Then zero once, sort, divide "
        "by the largest.",
        "half = lambda n: torch.special.ndtri(torch.linspace(edge, 0.5, n + "
        "1)[:-1].double()).float(); "
        "torch.cat([half(above), torch.zeros(1), -half(below)]).sort().values, divided by its "
        "largest",
    ),
    wrong=(
        Wrong(
            "equal values",
            _levels(quantile=lambda p: p - 0.5),
            "Your levels stand at equal distances: that is an integer grid. Equal steps of "
            "*probability* are wanted, "
            "so take the quantile of each.",
        ),
        Wrong(
            "not normalised",
            _levels(scale=lambda v: v),
            "The largest level is not 1: after the division by the block's maximum all weights "
            "lie in [−1, 1], "
            "and so must the levels.",
        ),
        Wrong(
            "zero twice",
            _levels(spread=lambda count, edge: torch.linspace(edge, 0.5, count)),
            "One side ends at the probability 1/2, which is zero again: that level is lost. "
            "Take one step more and leave the last out.",
        ),
        Wrong(
            "one more below",
            _levels(negative=lambda above, below: above),
            "There are as many levels below zero as above: with the zero that is one more than "
            "the codes can count.",
        ),
        Wrong(
            "divided by the width",
            _levels(scale=lambda v: v / (v.max() - v.min())),
            "You divided by the whole width: the levels then end at about ±1/2. Divide by the "
            "largest.",
        ),
        Wrong(
            "steps from 1",
            _levels(spread=lambda count, edge: torch.linspace(1, 0.5, count + 2)[1:-1]),
            "You went down from the probability 1 and did not use `edge`: the outermost levels "
            "stand at the wrong place.",
        ),
    ),
)


# --- 2: blocks ------------------------------------------------------------------------------------
def quantize_blocks(w: Tensor, block_size: int, levels: Tensor) -> tuple[Tensor, Tensor]:
    """(codes (n,), scales (n/block_size,)) of weights w (n,): the index of the level nearest to
    w/c, c the block's largest |w|.
    """
    blocks = w.reshape(-1, block_size)
    scales = blocks.abs().amax(1)
    scaled = (
        blocks * (1 / scales.clamp(min=1e-38))[:, None]
    )  # a product with 1/c, as bitsandbytes has it
    codes = torch.bucketize(
        scaled, (levels[1:] + levels[:-1]) / 2
    )  # between two midpoints the level is the nearest
    return codes.reshape(-1), scales


def _blocks_cases(g):
    yield torch.randn(256, generator=g), 64, NF4_LEVELS
    yield torch.cat([0.02 * torch.randn(96, generator=g), torch.zeros(32)]), 32, NF4_LEVELS
    yield torch.randn(40, generator=g) ** 3, 8, torch.linspace(-1, 1, 5)
    yield -torch.rand(64, generator=g), 16, NF4_LEVELS


def _blocks(
    scale=lambda b: b.abs().amax(1),
    code=lambda s, lv: (s[..., None] - lv).abs().argmin(-1),
    cut=lambda w, n: w.reshape(-1, n),
    divide=lambda b, c: b / c.clamp(min=1e-38)[:, None],
):
    def blocks(w, block_size, levels):
        b = cut(w, block_size)
        c = scale(b)
        return code(divide(b, c), levels).reshape(-1), c

    return blocks


BLOCKS = Exercise(
    name="quantize_blocks",
    title="Codes and scales",
    minutes=15,
    difficulty=2,
    reference=quantize_blocks,
    cases=_blocks_cases,
    hints=(
        "`w.reshape(-1, block_size)` has one block a row. The scale of a row is its largest "
        "absolute value.",
        "Divide each row by its scale. A row of zeros has scale 0: keep the divisor above 0, "
        "for instance with `clamp(min=1e-38)`.",
        "The nearest level: `(scaled[..., None] - levels).abs().argmin(-1)`; or, with a sixteenth "
        "of the memory, "
        "`torch.bucketize` with the midpoints between neighbouring levels.",
        "scaled = blocks / scales.clamp(min=1e-38)[:, None]; codes = torch.bucketize(scaled, "
        "(levels[1:] + levels[:-1]) / 2)",
    ),
    wrong=(
        Wrong(
            "maximum, not absolute",
            _blocks(scale=lambda b: b.amax(1)),
            "Your scale is the largest value, not the largest *absolute* value: "
            "a block whose extreme is negative leaves [−1, 1].",
        ),
        Wrong(
            "one scale",
            _blocks(scale=lambda b: b.abs().max().expand(len(b))),
            "All blocks share one scale: one outlier then costs the whole matrix its resolution. "
            "One scale a block.",
        ),
        Wrong(
            "rounded down",
            _blocks(
                code=lambda s, lv: (torch.bucketize(s, lv, right=True) - 1).clamp(0, len(lv) - 1)
            ),
            "You take the level below the weight, not the nearest: every weight is pulled down, "
            "and the errors no longer cancel.",
        ),
        Wrong(
            "strided blocks",
            _blocks(cut=lambda w, n: w.reshape(n, -1).T),
            "Your blocks are every n-th weight: a block is `block_size` weights that follow each "
            "other.",
        ),
        Wrong(
            "zeros divided by zero",
            _blocks(divide=lambda b, c: b / c[:, None]),
            "A block of zeros is divided by zero: NaN has no nearest level. Keep the divisor "
            "above 0.",
        ),
        Wrong(
            "standard deviation",
            _blocks(scale=lambda b: b.std(1)),
            "You scaled by the standard deviation: the largest weights of each block then fall "
            "beyond the last level. "
            "Use the largest absolute value.",
        ),
        Wrong(
            "not scaled",
            _blocks(divide=lambda b, c: b),
            "The scales are right, but the codes are those of the raw weights: divide by the "
            "scale first.",
        ),
    ),
)


# --- 3: two codes a byte --------------------------------------------------------------------------
def pack_codes(codes: Tensor) -> Tensor:
    """Two 4-bit codes a byte, the first in the high half: (n,) with even n -> (n/2,), uint8."""
    codes = codes.to(torch.uint8)
    return (codes[::2] << 4) | codes[1::2]


def _codes_cases(g):
    for n in (2, 8, 64, 130):
        yield (torch.randint(0, 16, (n,), generator=g),)


def _as_byte(function):
    return lambda c: function(c.to(torch.uint8)).to(torch.uint8)


PACK = Exercise(
    name="pack_codes",
    title="Two codes a byte",
    minutes=5,
    difficulty=1,
    reference=pack_codes,
    cases=_codes_cases,
    points=1,
    hints=(
        "A byte has eight bits, a code four: the first code goes into the upper four, which is a "
        "shift by 4.",
        "`codes[::2]` are the first of each pair, `codes[1::2]` the second. `<< 4` shifts, `|` "
        "joins.",
        "codes = codes.to(torch.uint8); return (codes[::2] << 4) | codes[1::2]",
    ),
    wrong=(
        Wrong(
            "halves swapped",
            _as_byte(lambda c: (c[1::2] << 4) | c[::2]),
            "The first code is in the low half: bitsandbytes keeps it in the high one, "
            "and would read your weights in pairs the wrong way round.",
        ),
        Wrong(
            "halves of the vector",
            _as_byte(lambda c: (c[: len(c) // 2] << 4) | c[len(c) // 2 :]),
            "You paired the first half of the vector with the second: codes that follow each "
            "other share a byte.",
        ),
        Wrong(
            "added without a shift",
            _as_byte(lambda c: c[::2] + c[1::2]),
            "You added the two codes: the sum cannot be taken apart again. Shift the first by "
            "four bits.",
        ),
        Wrong(
            "not packed",
            _as_byte(lambda c: c),
            "One code a byte: that is 8 bits a weight. Put two into one.",
        ),
        Wrong(
            "times ten",
            _as_byte(lambda c: 10 * c[::2] + c[1::2]),
            "Times ten is the shift of decimal digits: four bits are a factor of 16.",
        ),
    ),
)


# --- 4: back to numbers ---------------------------------------------------------------------------
def dequantize_packed(packed: Tensor, scales: Tensor, levels: Tensor, block_size: int) -> Tensor:
    """Weights (n,) fp32 from n/2 bytes, the scales of the blocks and the 16 levels."""
    codes = torch.stack([packed >> 4, packed & 15], 1).reshape(-1)
    return (levels[codes.int()].reshape(-1, block_size) * scales[:, None]).reshape(-1)


def _packed_cases(g):
    for n, block in ((64, 32), (256, 64), (24, 4), (128, 64)):
        w = 0.1 * torch.randn(n, generator=g)
        codes, scales = quantize_blocks(w, block, NF4_LEVELS)
        yield pack_codes(codes), scales, NF4_LEVELS, block


def _unpacked(
    halves=lambda b: torch.stack([b >> 4, b & 15], 1).reshape(-1),
    value=lambda c, lv: lv[c.int()],
    scale=lambda v, s, n: (v.reshape(-1, n) * s[:, None]).reshape(-1),
):
    return lambda packed, scales, levels, block: scale(value(halves(packed), levels), scales, block)


UNPACK = Exercise(
    name="dequantize_packed",
    title="Back to numbers",
    minutes=8,
    difficulty=2,
    reference=dequantize_packed,
    cases=_packed_cases,
    hints=(
        "`packed >> 4` is the first code of each byte, `packed & 15` the second. In which order "
        "must they stand?",
        "`torch.stack([first, second], 1).reshape(-1)` puts them back in turns.",
        "A code is an index: `levels[codes.int()]`. (A uint8 tensor would be taken for a mask.) "
        "Then each block times its scale.",
        "return (levels[codes.int()].reshape(-1, block_size) * scales[:, None]).reshape(-1)",
    ),
    wrong=(
        Wrong(
            "halves in a row",
            _unpacked(halves=lambda b: torch.cat([b >> 4, b & 15])),
            "You put all first codes before all second ones: they must alternate, `torch.stack(…, "
            "1)`.",
        ),
        Wrong(
            "low half first",
            _unpacked(halves=lambda b: torch.stack([b & 15, b >> 4], 1).reshape(-1)),
            "The low half comes first in your result: each pair of weights is swapped.",
        ),
        Wrong(
            "an even grid",
            _unpacked(value=lambda c, lv: c.float() / 7.5 - 1),
            "You took the code for a number on an even grid: it is an index into the levels.",
        ),
        Wrong(
            "scales forgotten",
            _unpacked(scale=lambda v, s, n: v),
            "Your weights all lie in [−1, 1]: multiply each block by its scale.",
        ),
        Wrong(
            "scales tiled",
            _unpacked(scale=lambda v, s, n: v * s.repeat(n)),
            "The scales run through in turns: each must hold for a whole block, "
            "so shape the values to (blocks, block_size) first.",
        ),
        Wrong(
            "divided",
            _unpacked(scale=lambda v, s, n: (v.reshape(-1, n) / s[:, None]).reshape(-1)),
            "You divided by the scale: quantising divided, so here it is a product.",
        ),
    ),
)


# --- 5: bits a weight -----------------------------------------------------------------------------
def bits_per_weight(block_size: int, scale_block: int | None) -> float:
    """Bits a weight of a 4-bit type with one scale a block.

    scale_block None: scales in fp32. Else double quantisation: 8-bit scales, and one fp32 scale for
    each `scale_block` of them.
    """
    if scale_block is None:
        return 4 + 32 / block_size
    return 4 + 8 / block_size + 32 / (block_size * scale_block)


def _bits_cases(g):
    yield from [(64, None), (64, 256), (32, 128), (128, None), (256, 256)]


def _bits(plain=lambda b: 4 + 32 / b, double=lambda b, s: 4 + 8 / b + 32 / (b * s)):
    return lambda block, scale_block: (
        plain(block) if scale_block is None else double(block, scale_block)
    )


BITS = Exercise(
    name="bits_per_weight",
    title="What a scale costs",
    minutes=5,
    difficulty=1,
    reference=bits_per_weight,
    cases=_bits_cases,
    points=1,
    hints=(
        "A scale of 32 bits is shared by `block_size` weights: how much of it falls on one?",
        "With double quantisation the scale has 8 bits. Its own scale has 32 and is shared by "
        "`scale_block` scales, that is by "
        "`block_size · scale_block` weights.",
        "return 4 + 8 / block_size + 32 / (block_size * scale_block)",
    ),
    wrong=(
        Wrong(
            "outer scale forgotten",
            _bits(double=lambda b, s: 4 + 8 / b),
            "The scales of the scales are missing: 32 bits for every block_size · scale_block "
            "weights. "
            "Little, but it is stored.",
        ),
        Wrong(
            "outer scale for its scales only",
            _bits(double=lambda b, s: 4 + 8 / b + 32 / s),
            "An outer scale is shared by scale_block *scales*, each of which serves block_size "
            "weights: divide by both.",
        ),
        Wrong(
            "inner scales kept",
            _bits(double=lambda b, s: 4 + 32 / b + 8 / b + 32 / (b * s)),
            "You count the fp32 scales as well: double quantisation puts 8 bits in their place.",
        ),
        Wrong(
            "16-bit scales",
            _bits(plain=lambda b: 4 + 16 / b),
            "You counted 16 bits for a scale: without double quantisation it is kept in fp32.",
        ),
        Wrong(
            "the weights forgotten",
            _bits(plain=lambda b: 32 / b, double=lambda b, s: 8 / b + 32 / (b * s)),
            "That is the overhead alone: add the 4 bits of the weight.",
        ),
    ),
)


# --- 6 and 7: the layer ---------------------------------------------------------------------------
def qlora_forward(x: Tensor, q: QuantizedTensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """y = x·dequant(W)ᵀ + s·B(Ax), computed in x's dtype. x (..., in), q holds W (out, in), A (r,
    in), B (out, r) -> (..., out).
    """
    return lora_forward(x, q.dequantize(x.dtype), None, A.to(x.dtype), B.to(x.dtype), scaling)


def qlora_backward(
    dy: Tensor, x: Tensor, q: QuantizedTensor, A: Tensor, B: Tensor, scaling: float
) -> tuple[Tensor, Tensor, Tensor]:
    """(dx (N, in), dA (r, in), dB (out, r)) from dy (N, out) and x (N, in); the frozen W has no
    gradient.
    """
    dlow = scaling * (dy @ B)  # the gradient of Ax, (N, r)
    return dy @ q.dequantize(dy.dtype) + dlow @ A, dlow.T @ x, scaling * (dy.T @ (x @ A.T))


def _layer_cases(g):
    for n, width, height, r, s in (
        (3, 64, 32, 2, 2.0),
        (5, 32, 64, 4, 0.5),
        (2, 128, 8, 1, 4.0),
        (7, 16, 16, 3, 1.5),
    ):
        q = quantize_nf4(0.1 * torch.randn(height, width, generator=g))
        yield (
            torch.randn(n, width, generator=g),
            q,
            torch.randn(r, width, generator=g),
            torch.randn(height, r, generator=g),
            s,
        )


def _forward(
    base=lambda q: q.dequantize(), factor=lambda s, A: s, low=lambda x, A, B: x @ A.T @ B.T
):
    return lambda x, q, A, B, s: x @ base(q).T + factor(s, A) * low(x, A, B)


def _codes_as_numbers(q):
    return q.codes().float()


def _levels_only(q):
    return NF4_LEVELS[q.codes().int()]


def _makes_the_product(function) -> str | None:
    """Whether x·dequant(W)ᵀ reaches A, B and x, and 16-bit inputs give 16-bit outputs."""
    x, q, A, B, s = next(_layer_cases(torch.Generator().manual_seed(1)))
    leaves = [t.clone().requires_grad_() for t in (x, A, B)]
    y = function(leaves[0], q, leaves[1], leaves[2], s)
    if not y.requires_grad:
        return "The values are right, but no gradient can flow: neither `no_grad` nor `detach` belongs here."
    y.sum().backward()
    if any(t.grad is None for t in leaves):
        return "The values are right, but no gradient reaches all of x, A and B: something was detached."
    try:
        y = function(x.bfloat16(), q, A, B, s)
    except RuntimeError:
        return "With x in bf16 and A, B in fp32 it fails: cast A and B to x's dtype, and dequantise W into it."
    return (
        None
        if y.dtype == torch.bfloat16
        else "With x in bf16 it answers in fp32: compute in x's dtype."
    )


FORWARD = Exercise(
    name="qlora_forward",
    title="The forward pass",
    minutes=8,
    difficulty=2,
    reference=qlora_forward,
    cases=_layer_cases,
    property=_makes_the_product,
    hints=(
        "Equation 5 of the paper. `q.dequantize(dtype)` is W (out, in) in that dtype.",
        "Linear layers multiply with the transpose: `x @ W.T`. The low-rank part is x·Aᵀ first, "
        "then ·Bᵀ, "
        "so that nothing of out×in is made.",
        "A and B are fp32 masters: cast them to `x.dtype` for the product. Do not detach anything.",
        "return x @ q.dequantize(x.dtype).T + scaling * (x @ A.to(x.dtype).T @ B.to(x.dtype).T)",
    ),
    wrong=(
        Wrong(
            "codes as weights",
            _forward(base=_codes_as_numbers),
            "You multiplied with the codes: they are indices from 0 to 15. Dequantise first.",
        ),
        Wrong(
            "levels without scales",
            _forward(base=_levels_only),
            "You multiplied with the levels in [−1, 1]: the blocks' scales are missing. "
            "`q.dequantize()` applies both.",
        ),
        Wrong(
            "scaling forgotten",
            _forward(factor=lambda s, A: 1.0),
            "The low-rank part lacks its factor `scaling`.",
        ),
        Wrong(
            "divided by r again",
            _forward(factor=lambda s, A: s / len(A)),
            "You divided by r: `scaling` is alpha/r already.",
        ),
        Wrong(
            "adapter alone",
            _forward(base=lambda q: 0 * q.dequantize()),
            "That is the adapter alone: the frozen base's product is missing.",
        ),
        Wrong(
            "base alone",
            _forward(factor=lambda s, A: 0.0),
            "That is the frozen base alone: add s·B(Ax).",
        ),
        Wrong(
            "adapter scales everything",
            lambda x, q, A, B, s: s * (x @ q.dequantize().T + x @ A.T @ B.T),
            "You scaled the base's product as well: `scaling` belongs to the low-rank part alone.",
        ),
    ),
)


def _gradient_cases(g):
    for x, q, A, B, s in _layer_cases(g):
        yield torch.randn(len(x), q.shape[0], generator=g), x, q, A, B, s


def _backward(
    dx=lambda dy, W, dlow, A: dy @ W + dlow @ A,
    dA=lambda dlow, x, s: dlow.T @ x,
    dB=lambda dy, x, A, s: s * (dy.T @ (x @ A.T)),
    base=lambda q: q.dequantize(),
):
    def backward(dy, x, q, A, B, s):
        dlow = s * (dy @ B)
        return dx(dy, base(q), dlow, A), dA(dlow, x, s), dB(dy, x, A, s)

    return backward


BACKWARD = Exercise(
    name="qlora_backward",
    title="The backward pass",
    minutes=15,
    difficulty=3,
    reference=qlora_backward,
    cases=_gradient_cases,
    hints=(
        "Write h = Ax (N, r). Then y = x·Wᵀ + s·h·Bᵀ. Work from the end: the gradient of h is dh "
        "= s·dy·B.",
        "x is used twice, once by W and once by A: dx = dy·W + dh·A. W is dequantised again for "
        "this product.",
        "dA = dhᵀ·x and dB = s·dyᵀ·h. The shapes decide what is transposed.",
        "dh = scaling * (dy @ B); return dy @ q.dequantize(dy.dtype) + dh @ A, dh.T @ x, scaling "
        "* (dy.T @ (x @ A.T))",
    ),
    wrong=(
        Wrong(
            "base not in dx",
            _backward(dx=lambda dy, W, dlow, A: dlow @ A),
            "dx lacks the way through the frozen base: W gets no gradient, but it passes one on. "
            "Without it the layers below hardly learn.",
        ),
        Wrong(
            "adapter not in dx",
            _backward(dx=lambda dy, W, dlow, A: dy @ W),
            "dx lacks the way through the adapter: x goes into A as well.",
        ),
        Wrong(
            "scaling missing in dA",
            _backward(dA=lambda dlow, x, s: (dlow / s).T @ x),
            "dA lacks the factor `scaling`: it stands before B(Ax), so both factors' gradients "
            "carry it.",
        ),
        Wrong(
            "scaling missing in dB",
            _backward(dB=lambda dy, x, A, s: dy.T @ (x @ A.T)),
            "dB lacks the factor `scaling`.",
        ),
        Wrong(
            "scaling twice",
            _backward(dA=lambda dlow, x, s: s * (dlow.T @ x)),
            "dA has the factor `scaling` twice: the gradient of Ax holds it already.",
        ),
        Wrong(
            "scales missing",
            _backward(base=_levels_only),
            "dx went through the levels without the blocks' scales: dequantise W as in the "
            "forward pass.",
        ),
    ),
)


# --- 8: bytes -------------------------------------------------------------------------------------
def qlora_bytes(linear: int, others: int, trained: int) -> dict[str, float]:
    """Bytes of QLoRA with AdamW, activations not counted.

    linear: weights of the linear layers, in NF4 with double quantisation; others: embedding, head
    and norms, in 16 bits; trained: parameters of the adapter, in fp32.
    """
    return {
        "linear": linear * bits_per_weight(64, 256) / 8,
        "others": 2 * others,
        "adapter": 4 * trained,
        "gradients": 4 * trained,
        "optimizer": 8 * trained,
    }


def _bytes_cases(g):
    yield from [
        (68_451_041_280, 2_102_665_216, 207_093_760),
        (6_476_005_376, 262_410_240, 39_976_960),
        (3_670_016, 264_448, 360_448),
        (1_000_000, 0, 10_000),
    ]


def _bytes(**wrong):
    def held(linear, others, trained):
        right = qlora_bytes(linear, others, trained)
        return {**right, **{k: f(linear, others, trained) for k, f in wrong.items()}}

    return held


BYTES = Exercise(
    name="qlora_bytes",
    title="QLoRA by hand",
    minutes=10,
    difficulty=2,
    reference=qlora_bytes,
    cases=_bytes_cases,
    tolerance=1e-6,
    hints=(
        "Bits to bytes: `bits_per_weight(64, 256) / 8` is what a weight in NF4 takes, its share "
        "of the scales included.",
        "Only linear layers are quantised. The rest stays in 16 bits: two bytes.",
        "What trains is fp32: four bytes the parameter, four its gradient, and AdamW keeps two "
        "fp32 means of it.",
        '{"linear": linear * bits_per_weight(64, 256) / 8, "others": 2 * others, "adapter": 4 * trained, '
        '"gradients": 4 * trained, "optimizer": 8 * trained}',
    ),
    wrong=(
        Wrong(
            "half a byte",
            _bytes(linear=lambda n, o, t: n / 2),
            "Half a byte is the code alone: the scales of the blocks are missing, 0.127 bit a "
            "weight. "
            "At 70B that is a gigabyte.",
        ),
        Wrong(
            "bits",
            _bytes(linear=lambda n, o, t: n * bits_per_weight(64, 256)),
            "`linear` is in bits: eight of them are a byte.",
        ),
        Wrong(
            "no double quantisation",
            _bytes(linear=lambda n, o, t: n * 4.5 / 8),
            "You counted fp32 scales, 4.5 bits a weight: with double quantisation it is 4.127.",
        ),
        Wrong(
            "all in 4 bits",
            _bytes(others=lambda n, o, t: o * bits_per_weight(64, 256) / 8),
            "Embedding and head stay in 16 bits: bitsandbytes replaces linear layers, and leaves "
            "the head out.",
        ),
        Wrong(
            "one mean",
            _bytes(optimizer=lambda n, o, t: 4 * t),
            "AdamW keeps two numbers for every trained parameter: the mean of its gradient and of "
            "its square, 8 bytes.",
        ),
        Wrong(
            "gradients of everything",
            _bytes(gradients=lambda n, o, t: 4 * (n + o + t)),
            "Frozen weights have no gradient: count what trains.",
        ),
        Wrong(
            "optimizer of everything",
            _bytes(optimizer=lambda n, o, t: 8 * (n + o + t)),
            "The optimizer knows only what trains: frozen weights have no state.",
        ),
        Wrong(
            "16-bit adapter",
            _bytes(adapter=lambda n, o, t: 2 * t),
            "The adapter is kept in fp32 here, 4 bytes: updates of 1e-4 and less would be lost in "
            "16 bits.",
        ),
    ),
)


# --- 9: checkpointing -----------------------------------------------------------------------------
def activation_bytes(layers: int, tokens: int, kept: int, entry: int, checkpointing: bool) -> int:
    """The most that the blocks' activations hold at one moment.

    kept: bytes a token that one block keeps for its backward pass; entry: bytes a token of a
    block's input. With checkpointing every block keeps its input alone, and the one whose backward
    pass runs is recomputed.
    """
    return tokens * (layers * entry + kept) if checkpointing else tokens * layers * kept


def _activation_cases(g):
    yield from [
        (80, 1024, 397_000, 16_384, True),
        (80, 1024, 397_000, 16_384, False),
        (4, 512, 25_000, 1024, True),
        (32, 8, 9000, 700, False),
        (1, 100, 500, 20, True),
    ]


def _activation(on=lambda n, t, k, e: t * (n * e + k), off=lambda n, t, k, e: t * n * k):
    return lambda layers, tokens, kept, entry, checkpointing: (on if checkpointing else off)(
        layers, tokens, kept, entry
    )


ACTIVATIONS = Exercise(
    name="activation_bytes",
    title="What recomputing saves",
    minutes=8,
    difficulty=2,
    reference=activation_bytes,
    cases=_activation_cases,
    hints=(
        "Without checkpointing all blocks keep all they need until the backward pass comes by: "
        "layers · kept for each token.",
        "With it, each block keeps its input: layers · entry. When the backward pass reaches a "
        "block, "
        "that block runs forward once more and then holds `kept`, it alone.",
        "return tokens * (layers * entry + kept) if checkpointing else tokens * layers * kept",
    ),
    wrong=(
        Wrong(
            "recomputed block forgotten",
            _activation(on=lambda n, t, k, e: t * n * e),
            "The block that is being recomputed holds its activations too: one `kept` on top of "
            "the entries.",
        ),
        Wrong(
            "both in full",
            _activation(on=lambda n, t, k, e: t * n * (e + k)),
            "You recompute all blocks at once: they come one after the other, so only one `kept` "
            "is there at a time.",
        ),
        Wrong(
            "entries forgotten",
            _activation(on=lambda n, t, k, e: t * k),
            "The blocks' inputs are missing: they are what recomputing starts from, and they all "
            "wait.",
        ),
        Wrong(
            "entry once",
            _activation(on=lambda n, t, k, e: t * (e + k)),
            "You kept one block's input: every block keeps its own until the backward pass comes "
            "by.",
        ),
        Wrong(
            "one layer without",
            _activation(off=lambda n, t, k, e: t * k),
            "Without checkpointing all blocks keep their activations at once, not one of them.",
        ),
        Wrong(
            "wrong way round",
            _activation(on=lambda n, t, k, e: t * n * k, off=lambda n, t, k, e: t * (n * e + k)),
            "The two cases are swapped: checkpointing is the one that keeps less.",
        ),
    ),
)

EXERCISES = [LEVELS, BLOCKS, PACK, UNPACK, BITS, FORWARD, BACKWARD, BYTES, ACTIVATIONS]
