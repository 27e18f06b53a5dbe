"""4-bit quantisation in blocks, from scratch: NF4, and FP4 and INT4 to compare it with; double
quantisation.

QLoRA (Dettmers et al. 2023, arXiv 2305.14314). A block of 64 weights shares one scale, its largest
absolute value c; each weight w is stored as the index of the level nearest to w/c (eq. 1 and 2).
NF4's 16 levels are quantiles of a normal distribution (section 3, appendix E), so that normal
weights use every level about equally often. Double quantisation stores the scales themselves in 8
bits, in blocks of 256: 4 + 8/64 + 32/(64·256) = 4.127 bits per weight.

Codes, scales and values equal those of bitsandbytes bit for bit; `state_dict` gives the tensors
that it and transformers load. One exception: on a processor with AVX-512, bitsandbytes (0.50.2,
`dequantizeBlockwise4bitCpu`) takes the scale of column k in row i of an m x n weight from place
i·⌊n/block⌋ + ⌊k/block⌋. Blocks lie along the flat order, so the right place is ⌊(i·n + k)/block⌋,
and the two differ as soon as a block runs over the end of a row: where n is no multiple of the
block, m is above 1 and the weight is more than one block. (That code is reached only where n is a
multiple of 16 and the block is below 2048; elsewhere, without AVX-512 and on a GPU bitsandbytes
counts the blocks along the flat order.) Its evaluation, its gradients and its merging then read
another weight than the one that was quantised, and nothing says so.

With blocks of 64 this touches linear layers whose in-features are 16, 32 or 48 above a multiple of
64. The hidden sizes of the usual language models are multiples (576, 896, 960, 2880, 4096, 11008),
so none of theirs is touched; the second feed-forward layer of a SigLIP vision tower is (4304 =
67·64 + 16), and so are toy models of 32 features. `dequantize_packed` is right for every shape, and
`fix_4bit_layers` has such layers use it: `load_model` and `add_lora` call it.
"""

from __future__ import annotations

import copy
import functools
import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

log = logging.getLogger("ftlib")

SCALE_BLOCK = 256  # scales that share one scale of their own
CHUNK = 1 << 20  # weights that are worked on at a time: the temporaries stay in the cache
FLOATS = (torch.float32, torch.bfloat16, torch.float16)


class QuantizationError(ValueError):
    """A tensor that cannot be quantised, with the reason."""


def normal_float_levels() -> Tensor:
    """The 16 levels of NF4, fp32, ascending from -1 to 1.

    Quantiles of N(0, 1) at equal steps of probability, 8 above zero and 7 below, so that 0 itself
    is a level; divided by the largest. The outermost probability is 1 - (1/32 + 1/30)/2, kept to
    the seven digits that bitsandbytes keeps.
    """

    def quantiles(count: int) -> Tensor:
        probabilities = torch.linspace(0.9677083, 0.5, count + 1)[:-1]
        return torch.special.ndtri(probabilities.double()).float()

    levels = torch.cat([quantiles(8), torch.zeros(1), -quantiles(7)]).sort().values
    return levels / levels.max()


NF4_LEVELS = normal_float_levels()
# One sign bit, two of exponent, one of mantissa, in the order of bitsandbytes' bit patterns.
FP4_LEVELS = torch.tensor([0, 1 / 16, 8, 12, 4, 6, 2, 3, 0, -1 / 16, -8, -12, -4, -6, -2, -3]) / 12
INT4_LEVELS = torch.arange(-7.0, 9.0).clamp(max=7) / 7  # symmetric: 15 distinct levels
LEVELS = {"nf4": NF4_LEVELS, "fp4": FP4_LEVELS, "int4": INT4_LEVELS}


def dynamic_levels() -> Tensor:
    """The 256 levels of the 8-bit dynamic type (Dettmers 2016, arXiv 1511.04561), fp32, ascending:
    what scales are stored in.

    The decade 10^(i-6) is cut into 2^i equal steps, whose centres are the levels, with either sign;
    then 0 and 1.
    """
    positive = []
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1)
        positive.append(10.0 ** (i - 6) * ((edges[:-1] + edges[1:]) / 2))
    positive = torch.cat(positive)
    return torch.cat([positive, -positive, torch.tensor([0.0, 1.0])]).sort().values


DYNAMIC_LEVELS = dynamic_levels()


def _nearest(scaled: Tensor, levels: Tensor) -> Tensor:
    """Index (uint8) of the level nearest to each value; halfway the lower one."""
    ordered, order = levels.to(scaled.device).sort(stable=True)
    bounds = (ordered[:-1] + ordered[1:]) / 2
    if len(levels) > 16:
        return torch.bucketize(scaled, bounds, out_int32=True).to(torch.uint8)
    index = torch.zeros_like(scaled, dtype=torch.uint8)
    above = torch.empty_like(scaled, dtype=torch.bool)
    # Fifteen vectorised comparisons take a quarter of the time of a binary search.
    for bound in bounds.tolist():
        index += torch.gt(scaled, bound, out=above).view(torch.uint8)
    if torch.equal(ordered, levels.to(ordered)):
        return index
    return order.to(torch.uint8)[index.int()]


def _block_scales(values: Tensor, block: int) -> Tensor:
    """The largest absolute value of every block, fp32; the last block may be short."""
    whole = values.numel() // block * block
    scales = values[:whole].view(-1, block).float().abs().amax(1)
    tail = values[whole:].float().abs()
    if not len(tail):
        return scales
    return torch.cat([scales, tail.amax().view(1)])


def _over(values: Tensor, scales: Tensor, block: int, weights: bool) -> Tensor:
    """w/c, flat fp32 in [-1, 1]. To round to the same last bit as bitsandbytes it is a product with
    1/c, but in a short last block of weights (not of scales) a quotient; where c = 0 it is 0 for
    weights, NaN for scales.
    """
    divisors = scales.clamp(min=1e-38) if weights else scales
    inverse = 1 / divisors
    whole = values.numel() // block * block
    scaled = values.to(torch.float32, copy=True)
    scaled[:whole].view(-1, block).mul_(inverse[: whole // block, None])
    tail = scaled[whole:]
    if weights:
        tail.div_(scales[-1])
    else:
        tail.mul_(inverse[-1])
    return scaled.clamp_(-1, 1)


def _quantize_scales(scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Double quantisation of fp32 scales: (codes uint8, the scale of every 256 of them, their
    mean).

    On a CPU bitsandbytes looks the nearest of the 256 levels up in a table with 65,536 places; so
    here, to give its codes.
    """
    mean = scales.mean()
    centred = scales - mean
    outer = _block_scales(centred, SCALE_BLOCK)
    scaled = _over(centred, outer, SCALE_BLOCK, weights=False)
    if scales.device.type == "cpu":
        place = ((scaled + 1) * 32767.5 + 0.5).floor()
        zero = (outer == 0).repeat_interleave(SCALE_BLOCK)[: len(scaled)]
        # Times 0 any code will do; there it is the first.
        scaled = (place / 32767.5 - 1).masked_fill_(zero, -1)
    return _nearest(scaled, DYNAMIC_LEVELS), outer, mean


@dataclass(frozen=True)
class QuantizedTensor:
    """A weight in 4 bits: two codes a byte (the first in the high half), and the scales of its
    blocks.

    `scales` are fp32, or with double quantisation uint8 codes of `DYNAMIC_LEVELS`, to be multiplied
    by `outer` (fp32, one for 256 of them) and added to `mean`. `nbytes` is what these tensors hold;
    the tables of levels are shared by all weights.
    """

    packed: Tensor  # uint8 (ceil(n/2),)
    scales: Tensor  # (ceil(n/block_size),)
    shape: torch.Size
    dtype: torch.dtype  # of the weight that was quantised, and of `dequantize()`
    block_size: int = 64
    quant_type: str = "nf4"
    outer: Tensor | None = None  # (ceil(len(scales)/256),)
    mean: Tensor | None = None  # ()

    @property
    def nbytes(self) -> int:
        """Bytes of the codes and of all scales."""
        held = (self.packed, self.scales, self.outer, self.mean)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / math.prod(self.shape)

    def codes(self) -> Tensor:
        """The index of every weight's level, uint8, in the weight's shape."""
        both = torch.stack([self.packed >> 4, self.packed & 15], 1).view(-1)
        return both[: math.prod(self.shape)].view(self.shape)

    def block_scales(self) -> Tensor:
        """The scale c of every block, fp32, double quantisation undone."""
        if self.outer is None:
            return self.scales
        outer = self.outer.repeat_interleave(SCALE_BLOCK)[: len(self.scales)]
        return DYNAMIC_LEVELS.to(outer.device)[self.scales.int()] * outer + self.mean

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """level·c of every weight, in the weight's shape and `dtype` (default: the weight's)."""
        device = self.packed.device
        levels = LEVELS[self.quant_type].to(device)
        pairs = torch.stack([levels.repeat_interleave(16), levels.repeat(16)], 1)  # (256, 2)
        out = torch.empty(2 * len(self.packed), dtype=dtype or self.dtype, device=device)
        scales = self.block_scales()
        block = self.block_size
        step = _whole_blocks(block)
        for start in range(0, len(out), step):
            end = start + step
            chunk = self.packed[start // 2 : end // 2].int()  # a byte holds two weights
            part = pairs.index_select(0, chunk).view(-1)
            own = scales[start // block : end // block]
            whole = len(part) // block
            part[: whole * block].view(-1, block).mul_(own[:whole, None])
            part[whole * block :].mul_(own[-1])
            out[start : start + len(part)] = part
        return out[: math.prod(self.shape)].view(self.shape)

    def state_dict(self, prefix: str = "weight") -> dict[str, Tensor]:
        """The tensors under the names in which bitsandbytes saves a 4-bit weight, and transformers
        loads it.
        """
        if self.quant_type not in ("nf4", "fp4"):
            raise QuantizationError(
                f"quant_type={self.quant_type!r} has no place in bitsandbytes' format: "
                "use 'nf4' or 'fp4'"
            )
        rest = {
            "quant_type": self.quant_type,
            "blocksize": self.block_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "shape": tuple(self.shape),
        }
        out = {
            prefix: self.packed.view(-1, 1),
            f"{prefix}.absmax": self.scales,
            f"{prefix}.quant_map": LEVELS[self.quant_type].clone(),
        }
        if self.outer is not None and self.mean is not None:
            out |= {
                f"{prefix}.nested_absmax": self.outer,
                f"{prefix}.nested_quant_map": DYNAMIC_LEVELS.clone(),
            }
            rest |= {
                "nested_blocksize": SCALE_BLOCK,
                "nested_dtype": "float32",
                "nested_offset": self.mean.item(),
            }
        text = bytearray(json.dumps(rest).encode())
        key = f"{prefix}.quant_state.bitsandbytes__{self.quant_type}"
        out[key] = torch.frombuffer(text, dtype=torch.uint8)
        return out


def _whole_blocks(block_size: int) -> int:
    """Weights to work on at a time: about CHUNK, an even number of whole blocks."""
    return max(1, CHUNK // (2 * block_size)) * 2 * block_size


def _check(weight: Tensor, block_size: int, quant_type: str) -> None:
    if quant_type not in LEVELS:
        raise QuantizationError(f"quant_type={quant_type!r}: use one of {', '.join(LEVELS)}")
    if isinstance(block_size, bool) or not isinstance(block_size, int) or block_size < 2:
        raise QuantizationError(
            f"block_size={block_size!r}: must be a whole number of at least 2; 64 is usual"
        )
    if weight.dtype not in FLOATS:
        raise QuantizationError(
            f"weight is {weight.dtype}: cast it to float32, bfloat16 or float16"
        )
    if not weight.numel():
        raise QuantizationError(
            f"weight of shape {tuple(weight.shape)} is empty: there is nothing to quantise"
        )


def _packed_codes(part: Tensor, scales: Tensor, block_size: int, quant_type: str) -> Tensor:
    """The codes of weights (n,), two a byte, uint8 (ceil(n/2),)."""
    levels = LEVELS[quant_type]
    codes = _nearest(_over(part, scales, block_size, weights=True), levels)
    if len(codes) % 2:  # the last half byte stays empty: the level of 0
        zero = codes.new_zeros(1, dtype=torch.float32)
        codes = torch.cat([codes, _nearest(zero, levels)])
    return (codes[::2] << 4) | codes[1::2]


@torch.no_grad()
def quantize_4bit(
    weight: Tensor, quant_type: str = "nf4", block_size: int = 64, double_quant: bool = True
) -> QuantizedTensor:
    """Quantise a tensor of any shape, in fp32, bf16 or fp16, to "nf4", "fp4" or "int4",
    in blocks of `block_size` along its flat order.

    Beyond the result it holds a few megabytes at most. QuantizationError (a ValueError) for other
    dtypes, an empty tensor, NaN or infinity.
    """
    _check(weight, block_size, quant_type)
    flat = weight.detach().reshape(-1)  # (n,)
    step = _whole_blocks(block_size)
    packed = torch.empty((len(flat) + 1) // 2, dtype=torch.uint8, device=flat.device)
    scales = torch.empty(-(len(flat) // -block_size), device=flat.device)
    for start in range(0, len(flat), step):
        part = flat[start : start + step]
        own = _block_scales(part, block_size)
        if not own.isfinite().all():
            bad = (~part.isfinite()).nonzero()[0].item()
            raise QuantizationError(
                f"weight holds {part[bad].item()} at flat position {start + bad}: "
                "a block with NaN or infinity has no scale"
            )
        # bitsandbytes gives a short block of zeros this scale, and a whole one 0.
        if len(part) % block_size:
            own[-1].clamp_(min=1e-38)
        first_block = start // block_size
        scales[first_block : first_block + len(own)] = own
        packed[start // 2 : (start + step) // 2] = _packed_codes(part, own, block_size, quant_type)
    outer = None
    mean = None
    if double_quant:
        scales, outer, mean = _quantize_scales(scales)
    return QuantizedTensor(
        packed, scales, weight.shape, weight.dtype, block_size, quant_type, outer, mean
    )


def quantize_nf4(
    weight: Tensor, block_size: int = 64, double_quant: bool = True
) -> QuantizedTensor:
    """Quantise to NF4, QLoRA's type: `quantize_4bit` with `quant_type="nf4"`."""
    return quantize_4bit(weight, "nf4", block_size, double_quant)


def blocks_end_with_rows(shape: Sequence[int], block_size: int) -> bool:
    """Whether no block of scales runs over the end of a row of a weight of `shape`."""
    return shape[-1] % block_size == 0


def dequantize_packed(packed: Tensor, state) -> Tensor:
    """The weight that bitsandbytes packed, in its shape and dtype: `dequantize_4bit`, right on
    every processor.

    packed, state: as `bitsandbytes.functional.quantize_4bit` returns them. A weight with blocks
    across its rows is handed over as one long row, which has no end for a block to run over (see
    the module's docstring).
    """
    from bitsandbytes.functional import dequantize_4bit

    shape = torch.Size(state.shape)
    if blocks_end_with_rows(shape, state.blocksize):
        return dequantize_4bit(packed, state)
    flat = copy.copy(state)
    flat.shape = torch.Size([1, shape.numel()])
    return dequantize_4bit(packed.reshape(-1, 1), flat).view(shape)


def _forward_4bit(layer: nn.Module, x: Tensor) -> Tensor:
    """What a `Linear4bit` computes, from the right weight: in its compute dtype, returned in the
    input's.
    """
    dtype = layer.compute_dtype or x.dtype
    weight = dequantize_packed(layer.weight.data, layer.weight.quant_state).to(dtype)
    bias = None if layer.bias is None else layer.bias.to(dtype)
    y = nn.functional.linear(x.to(dtype), weight, bias)
    return y.to(x.dtype)


def fix_4bit_layers(model: nn.Module) -> list[str]:
    """Have a model's 4-bit layers on a CPU that bitsandbytes would dequantise wrongly with AVX-512
    use `dequantize_packed`, on every processor alike; returns their names. They keep their class,
    and their weight stays packed; where a gradient flows through one that has no adapter, its
    dequantised weight is kept until backward.
    """
    fixed = []
    for name, layer in model.named_modules():
        weight = getattr(layer, "weight", None)
        state = getattr(weight, "quant_state", None)
        if state is None or not hasattr(layer, "compute_dtype"):
            continue
        if layer.weight.device.type != "cpu":
            continue
        if blocks_end_with_rows(state.shape, state.blocksize):
            continue
        layer.forward = functools.partial(_forward_4bit, layer)
        fixed.append(name)
    if fixed:
        log.info(
            "%d 4-bit layers, the first %s, have blocks across their rows: ftlib dequantises "
            "them, since bitsandbytes takes wrong scales there on a CPU with AVX-512",
            len(fixed),
            fixed[0],
        )
    return fixed
