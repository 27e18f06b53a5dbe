"""Lab 3.1.2, DoRA: the eight exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ftlib.adapters.functional import dora_norm, lora_delta, lora_forward
from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1 import layer_shapes


def _randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


def _positive(g: torch.Generator, n: int) -> Tensor:
    return torch.rand(n, generator=g) + 0.5


# --- 1: length and direction ----------------------------------------------------------------------
def decompose(weight: Tensor) -> tuple[Tensor, Tensor]:
    """m (out,), the length of every output row, and the rows at length 1 (out, in)."""
    m = weight.norm(dim=1)
    return m, weight / m[:, None]


def _weight_cases(g):
    for n_out, n_in in [(5, 7), (6, 6), (9, 3), (1, 8)]:
        yield (_randn(g, n_out, n_in),)


def _by_column(W):
    m = W.norm(dim=0)
    return m, W / m


def _by_matrix(W):
    m = W.norm()
    return m.expand(len(W)).clone(), W / m


def _by_sum(W):
    m = W.abs().sum(1)
    return m, W / m[:, None]


DECOMPOSE = Exercise(
    name="decompose",
    title="Length and direction",
    minutes=5,
    difficulty=1,
    reference=decompose,
    cases=_weight_cases,
    hints=(
        "PyTorch stores a linear layer's weight as (out, in): row i holds what output i reads. "
        "One length for every row.",
        "`weight.norm(dim=d)` sums over dimension d. Which d leaves one number for each output?",
        "m has shape (out,), the weight (out, in): divide by `m[:, None]`, so that row i is "
        "divided by m_i.",
        "m = weight.norm(dim=1); return m, weight / m[:, None]",
    ),
    wrong=(
        Wrong(
            "input axis",
            _by_column,
            "Norm over the wrong axis: you have one length for each input (dim=0). DoRA has one "
            "for each output row, dim=1.",
        ),
        Wrong(
            "whole matrix",
            _by_matrix,
            "That is one length for the whole matrix (Frobenius): each output row has its own.",
        ),
        Wrong(
            "squared",
            lambda W: (W.square().sum(1), W / W.square().sum(1)[:, None]),
            "Your lengths are squared: take the root of Σw².",
        ),
        Wrong("sum of sizes", _by_sum, "You added up |w|: the length is √Σw², the 2-norm."),
        Wrong(
            "direction not divided",
            lambda W: (W.norm(dim=1), W),
            "The lengths are right, but the direction still has them: divide every row by its own "
            "length.",
        ),
        Wrong(
            "column vector",
            lambda W: (W.norm(dim=1, keepdim=True), W / W.norm(dim=1, keepdim=True)),
            "m has shape (out, 1): return it as (out,), the shape of a bias and of PEFT's "
            "magnitude vector.",
        ),
    ),
)


# --- 2: the norm without the dense product --------------------------------------------------------
class _ProductSpy(TorchDispatchMode):
    """Notes whether BA, or W + BA, was made: a product or sum as large as W."""

    MAKES = ("mm", "addmm", "bmm", "baddbmm", "add", "sub")

    def __init__(self, n_out: int, n_in: int, r: int):
        super().__init__()
        self.dense = {(n_out, n_in), (n_in, n_out)}
        self.thick, self.seen = sorted((n_out, n_in, r)), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            name = func.__name__.partition(".")[0].rstrip("_")
            product = name in self.MAKES and tuple(out.shape) in self.dense
            self.seen |= product or sorted(out.shape) == self.thick
        return out


def _makes_product(function) -> bool:
    """Whether function(W, A, B) makes the product BA."""
    g = torch.Generator().manual_seed(1)
    W, A, B = _randn(g, 37, 31), _randn(g, 2, 31), _randn(g, 37, 2)
    with torch.no_grad(), _ProductSpy(37, 31, 2) as spy:
        function(W, A, B)
    return spy.seen


def _norm_property(function) -> str | None:
    if _makes_product(lambda W, A, B: function(W, A, B, 2.0)):
        return (
            "The values are right, but you built the out × in product BA: at 4096 × 4096 in fp32 "
            "that is 64 MiB, to get 4096 "
            "numbers. Expand the square: W Aᵀ is out × r and A Aᵀ is r × r."
        )
    return None


def _norm_cases(g):
    for n_out, n_in, r, s in [(5, 7, 2, 2.0), (6, 6, 3, 0.5), (9, 4, 1, 4.0), (8, 16, 4, 1.5)]:
        yield _randn(g, n_out, n_in), _randn(g, r, n_in), _randn(g, n_out, r), s


def _norm_from(cross=2.0, power=2, gram=True, root=True):
    def norm(W, A, B, s):
        inner = B @ (A @ A.T) if gram else B
        square = (
            W.square().sum(1) + cross * s * (B * (W @ A.T)).sum(1) + s**power * (inner * B).sum(1)
        )
        return square.clamp_min(0).sqrt() if root else square

    return norm


DORA_NORM = Exercise(
    name="dora_norm",
    title="The norm without the dense product",
    minutes=15,
    difficulty=3,
    reference=dora_norm,
    cases=_norm_cases,
    property=_norm_property,
    praise="equal to the reference, and BA was never made,",
    tolerance=1e-4,
    hints=(
        "Row i of V = W + s·BA is w + s·u with w = W_i and u = (BA)_i. Expand ‖w + s·u‖² into "
        "three terms.",
        "‖w‖² + 2s·w·u + s²·‖u‖². Now u = Σ_k B_ik A_k, so w·u = Σ_k B_ik (W Aᵀ)_ik: multiply "
        "elementwise and sum over k.",
        "‖u‖² = Σ_kl B_ik (A Aᵀ)_kl B_il: the rows of B @ (A @ A.T), times B, summed.",
        "square = W.square().sum(1) + 2*s*(B * (W @ A.T)).sum(1) + s**2 * ((B @ (A @ A.T)) * "
        "B).sum(1); "
        "then clamp at 0, then the root.",
    ),
    wrong=(
        Wrong(
            "cross once",
            _norm_from(cross=1.0),
            "The mixed term stands there once: (w + su)² has 2s·w·u.",
        ),
        Wrong(
            "cross missing",
            _norm_from(cross=0.0),
            "The mixed term 2s·w·u is missing: that would be right only if every row of BA were "
            "orthogonal to its row of W.",
        ),
        Wrong(
            "scaling not squared",
            _norm_from(power=1),
            "The last term has s instead of s²: the update s·u is squared as a whole.",
        ),
        Wrong(
            "A left out",
            _norm_from(gram=False),
            "Your last term is ‖B_i‖²: it needs A too, through the r × r matrix A Aᵀ.",
        ),
        Wrong("no root", _norm_from(root=False), "That is the squared norm: take the root."),
        Wrong(
            "norm of W",
            lambda W, A, B, s: W.norm(dim=1),
            "That is ‖W‖, which never changes: DoRA divides by the norm of W + s·BA as it is now.",
        ),
    ),
)


# --- 3: the forward pass --------------------------------------------------------------------------
def dora_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, A: Tensor, B: Tensor, m: Tensor, scaling: float
) -> Tensor:
    """DoRA's forward pass ``m/‖V‖ ⊙ (Vx) + b`` with V = W + s·BA: x (..., in) -> (..., out). The
    norm gets no gradient.
    """
    with torch.no_grad():
        norm = dora_norm(weight, A, B, scaling)
    y = lora_forward(x, weight, None, A, B, scaling) * (m / norm)
    return y if bias is None else y + bias


def _forward_cases(g):
    for rows, n_in, n_out, r, s, bias in [
        ((3,), 6, 5, 2, 2.0, True),
        ((2, 4), 8, 8, 4, 0.5, False),
        ((5,), 7, 7, 3, 4.0, True),
        ((), 4, 9, 1, 1.5, True),
    ]:
        yield (
            _randn(g, *rows, n_in),
            _randn(g, n_out, n_in),
            _randn(g, n_out) if bias else None,
            _randn(g, r, n_in),
            _randn(g, n_out, r),
            _positive(g, n_out),
            s,
        )


def _gradients(function) -> list[Tensor | None]:
    """∂/∂A, ∂/∂B and ∂/∂m of a weighted sum of the outputs."""
    g = torch.Generator().manual_seed(2)
    x, W, A, B, m = (
        _randn(g, 6, 5),
        _randn(g, 7, 5),
        _randn(g, 2, 5),
        _randn(g, 7, 2),
        _positive(g, 7),
    )
    trained = [t.requires_grad_() for t in (A, B, m)]
    y = function(x, W, None, A, B, m, 1.5)
    return list(torch.autograd.grad((y * _randn(g, 6, 7)).sum(), trained, allow_unused=True))


def _forward_property(function) -> str | None:
    x = torch.ones(3, 31)
    if _makes_product(lambda W, A, B: function(x, W, None, A, B, torch.ones(37), 2.0)):
        return (
            "The values are right, but you built the out × in product (BA, or W + BA): scale the "
            "*output* instead, "
            "row scale times W x + s·B(Ax), and take the norm from dora_norm."
        )
    try:
        got = _gradients(function)
    except RuntimeError:
        return "The values are right, but no gradient reaches A, B and m: only the norm belongs under torch.no_grad()."
    if any(t is None for t in got):
        return "The values are right, but A, B or m gets no gradient: only the norm belongs under torch.no_grad()."
    if not all(
        torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(got, _gradients(dora_forward))
    ):
        return (
            "The values are right, but gradients flow through the norm: section 4.3 of the paper "
            "treats ‖V‖ as a constant. "
            "Compute it under torch.no_grad(), or detach() it."
        )
    return None


def _variant(
    scale=lambda m, n: m / n, norm=dora_norm, base=True, update=True, bias="added", s_of=lambda s: s
):
    """A DoRA forward pass with one thing done wrongly."""

    def forward(x, W, b, A, B, m, s):
        s = s_of(s)
        g = scale(m, norm(W, A, B, s))
        wx, low = F.linear(x, W), F.linear(F.linear(x, A), B) * s
        if bias == "scaled" and b is not None:
            wx = wx + b
        y = (wx * g if base else wx) + (low * g if update else low)
        return y + b if bias == "added" and b is not None else y

    return forward


DORA_FORWARD = Exercise(
    name="dora_forward",
    title="DoRA's forward pass",
    minutes=15,
    difficulty=2,
    reference=dora_forward,
    cases=_forward_cases,
    property=_forward_property,
    praise="equal to the reference, values and gradients, without BA,",
    tolerance=1e-4,
    hints=(
        "Row i of W' is (m_i/‖V_i‖)·V_i, so output i is (m_i/‖V_i‖)·(V_i·x): the row scale can be "
        "applied to the output.",
        "V x = W x + s·B(Ax) is lab 1's LoRA forward pass without the bias.",
        "The norm: `with torch.no_grad(): norm = dora_norm(weight, A, B, scaling)`. Then scale = "
        "m / norm, shape (out,).",
        "Multiply W x + s·B(Ax) by the scale, and add the bias after that, unscaled.",
    ),
    wrong=(
        Wrong(
            "bias scaled",
            _variant(bias="scaled"),
            "The bias is scaled with the rows: eq. 5 decomposes the weight, so b is added after "
            "the scaling "
            "(torchtune scales it too).",
        ),
        Wrong("bias lost", _variant(bias="lost"), "The bias is lost: add it at the end, unscaled."),
        Wrong(
            "norm of W",
            _variant(norm=lambda W, A, B, s: W.norm(dim=1)),
            "You divide by ‖W‖, a constant: then m no longer is the length of the row, and BA "
            "changes the length again. "
            "Divide by ‖W + s·BA‖.",
        ),
        Wrong(
            "norm without scaling",
            _variant(norm=lambda W, A, B, s: dora_norm(W, A, B, 1.0)),
            "The norm is that of W + BA: the matrix in use is W + s·BA, so the norm needs "
            "`scaling` too.",
        ),
        Wrong(
            "not divided",
            _variant(scale=lambda m, n: m),
            "Nothing divides by the norm: m·Vx makes every row ‖V‖ times too long.",
        ),
        Wrong(
            "magnitude lost",
            _variant(scale=lambda m, n: 1 / n),
            "m is not used: all your rows have length 1.",
        ),
        Wrong(
            "upside down",
            _variant(scale=lambda m, n: n / m),
            "The row scale is upside down: m over the norm.",
        ),
        Wrong(
            "update not scaled",
            _variant(update=False),
            "Only W x is scaled: the row scale multiplies the whole of V x, W x + s·B(Ax).",
        ),
        Wrong(
            "base not scaled",
            _variant(base=False),
            "Only the update is scaled: the row scale multiplies the whole of V x, W x as well.",
        ),
        Wrong(
            "no scaling",
            _variant(s_of=lambda s: 1.0),
            "`scaling` is not used: V is W + s·BA, in the output and in the norm.",
        ),
    ),
)


# --- 4: the gradient of m -------------------------------------------------------------------------
def magnitude_gradient(y: Tensor, dy: Tensor, bias: Tensor | None, m: Tensor) -> Tensor:
    """∂L/∂m (out,) from the layer's output alone: ``Σ_t dy⊙(y − b)/m``. y, dy (N, out)."""
    scaled = y if bias is None else y - bias
    return (dy * scaled).sum(0) / m


def _magnitude_cases(g):
    for n, n_out, bias in [(5, 4, True), (8, 8, False), (1, 6, True), (12, 3, True)]:
        yield (
            _randn(g, n, n_out),
            _randn(g, n, n_out),
            _randn(g, n_out) if bias else None,
            _positive(g, n_out),
        )


MAGNITUDE_GRADIENT = Exercise(
    name="magnitude_gradient",
    title="The gradient of m",
    minutes=10,
    difficulty=2,
    reference=magnitude_gradient,
    cases=_magnitude_cases,
    hints=(
        "For one token, y_i = m_i·u_i + b_i with u_i = (V_i·x)/‖V_i‖. What is ∂y_i/∂m_i?",
        "∂y_i/∂m_i = u_i, and u_i need not be kept: it is (y_i − b_i)/m_i.",
        "One m_i serves all tokens, so its gradient is the sum over tokens of dy_i·u_i.",
        "return (dy * (y if bias is None else y - bias)).sum(0) / m",
    ),
    wrong=(
        Wrong(
            "bias left in",
            lambda y, dy, b, m: (dy * y).sum(0) / m,
            "The bias is still in y: m does not scale it, so take it off first.",
        ),
        Wrong(
            "mean",
            lambda y, dy, b, m: magnitude_gradient(y, dy, b, m) / len(y),
            "You took the mean over tokens: dy carries the loss's own averaging, so sum.",
        ),
        Wrong(
            "not divided",
            lambda y, dy, b, m: magnitude_gradient(y, dy, b, m) * m,
            "The division by m is missing: y − b is m·u, the derivative is u.",
        ),
        Wrong(
            "per token",
            lambda y, dy, b, m: dy * (y if b is None else y - b) / m,
            "That is one gradient for each token: m is shared by all of them, so sum over the "
            "tokens.",
        ),
        Wrong(
            "over outputs",
            lambda y, dy, b, m: (dy * (y if b is None else y - b) / m).sum(1),
            "You summed over the outputs: each output has its own m, sum over the tokens.",
        ),
        Wrong(
            "dy only",
            lambda y, dy, b, m: dy.sum(0) / m,
            "That is the bias's gradient divided by m: ∂y/∂m is (y − b)/m.",
        ),
    ),
)


# --- 5: the gradient of the direction, with the norm detached or not ------------------------------
def direction_gradient(grad_w: Tensor, V: Tensor, m: Tensor, detach: bool) -> Tensor:
    """∂L/∂V (out, in) from ∂L/∂W' where W' = m·V/‖V‖ by row: eq. 11 with the norm detached, else
    eq. 6.
    """
    norm = V.norm(dim=1, keepdim=True)
    scaled = grad_w * m[:, None] / norm
    if detach:
        return scaled
    unit = V / norm
    return scaled - (scaled * unit).sum(1, keepdim=True) * unit


def _direction_cases(g):
    for n_out, n_in in [(4, 6), (5, 5), (7, 3)]:
        for detach in (True, False):
            yield _randn(g, n_out, n_in), _randn(g, n_out, n_in), _positive(g, n_out), detach


def _unprojected_length(G, V, m, detach):
    scaled = direction_gradient(G, V, m, True)
    return scaled if detach else scaled - (scaled * V).sum(1, keepdim=True) * V


def _radial_part(G, V, m, detach):
    scaled = direction_gradient(G, V, m, True)
    return scaled if detach else scaled - direction_gradient(G, V, m, False)


def _whole_projection(G, V, m, detach):
    scaled = direction_gradient(G, V, m, True)
    return scaled if detach else scaled - (scaled * V).sum() / V.square().sum() * V


DIRECTION_GRADIENT = Exercise(
    name="direction_gradient",
    title="What detaching leaves out",
    minutes=15,
    difficulty=3,
    reference=direction_gradient,
    cases=_direction_cases,
    tolerance=1e-4,
    hints=(
        "Take one row: w' = m·v/‖v‖. With ‖v‖ a constant C the derivative is m/C, a number: eq. "
        "11.",
        "With ‖v‖ not constant: moving v along itself changes nothing in w', so the gradient has "
        "no part along v. "
        "Eq. 6 takes that part off.",
        "The part of a vector a along v is (a·u)u with u = v/‖v‖. Both forms share the factor "
        "m/‖v‖.",
        "scaled = grad_w * m[:, None] / norm; detached: that. Else: scaled - (scaled * "
        "unit).sum(1, keepdim=True) * unit",
    ),
    wrong=(
        Wrong(
            "always detached",
            lambda G, V, m, d: direction_gradient(G, V, m, True),
            "`detach` is ignored: without detaching, the part along each row of V has to come off "
            "(eq. 6).",
        ),
        Wrong(
            "always projected",
            lambda G, V, m, d: direction_gradient(G, V, m, False),
            "`detach` is ignored: with the norm a constant nothing is taken off (eq. 11).",
        ),
        Wrong(
            "flag reversed",
            lambda G, V, m, d: direction_gradient(G, V, m, not d),
            "The switch is the wrong way round: detached means the norm is a constant, so *no* "
            "projection.",
        ),
        Wrong(
            "m left out",
            lambda G, V, m, d: direction_gradient(G, V, torch.ones_like(m), d),
            "The factor m is missing: both equations have m/‖V‖ in front.",
        ),
        Wrong(
            "norm left out",
            lambda G, V, m, d: direction_gradient(G, V, m * V.norm(dim=1), d),
            "The factor 1/‖V‖ is missing: a longer V turns less for the same step.",
        ),
        Wrong(
            "direction not at length one",
            _unprojected_length,
            "You project on V as it is: divide each row by its length first, or the part along it "
            "is taken off ‖V‖² times.",
        ),
        Wrong(
            "radial part",
            _radial_part,
            "You return the part along V: that is what eq. 6 takes away, keep the rest.",
        ),
        Wrong(
            "whole matrix",
            _whole_projection,
            "You projected the whole matrix on V: each row has its own norm, so each row is "
            "projected by itself.",
        ),
    ),
)


# --- 6: how far a weight has moved ----------------------------------------------------------------
def weight_change(before: Tensor, after: Tensor) -> tuple[float, float]:
    """(ΔM, ΔD): mean over output rows of the change in length, in size, and of 1 − cosine (eqs. 3
    and 4).
    """
    before, after = before.double(), after.double()
    lengths = (after.norm(dim=1) - before.norm(dim=1)).abs()
    return lengths.mean().item(), (1 - F.cosine_similarity(before, after, dim=1)).mean().item()


def _change_cases(g):
    for n_out, n_in, size in [(5, 7, 0.3), (6, 6, 1.0), (9, 4, 0.1), (3, 8, 2.0)]:
        W = _randn(g, n_out, n_in)
        yield W, W + size * _randn(g, n_out, n_in)
    yield W, 2 * W


def _change_by(length, cosine):
    def change(W, V):
        W, V = W.double(), V.double()
        return length(W, V).item(), cosine(W, V).item()

    return change


def _length(W, V):
    return (V.norm(dim=1) - W.norm(dim=1)).abs().mean()


def _turn(W, V):
    return (1 - F.cosine_similarity(W, V, dim=1)).mean()


WEIGHT_CHANGE = Exercise(
    name="weight_change",
    title="How far, and which way",
    minutes=10,
    difficulty=2,
    reference=weight_change,
    cases=_change_cases,
    hints=(
        "Two numbers for a pair of matrices, each a mean over the output rows. Begin with the "
        "lengths of the rows, before and "
        "after.",
        "Eq. 3 has bars: rows that grow and rows that shrink must not cancel.",
        "Eq. 4: `F.cosine_similarity(before, after, dim=1)` gives one cosine a row; 0 change "
        "means cosine 1.",
        "Return two floats: (…).abs().mean().item() and (1 - cosine).mean().item()",
    ),
    wrong=(
        Wrong(
            "signed",
            _change_by(lambda W, V: (V.norm(dim=1) - W.norm(dim=1)).mean(), _turn),
            "ΔM is signed: growing and shrinking rows cancel. Eq. 3 takes the size of each row's "
            "change.",
        ),
        Wrong(
            "norm of the difference",
            _change_by(lambda W, V: (V - W).norm(dim=1).mean(), _turn),
            "Your ΔM is ‖ΔW‖ by row, which a mere turn makes large too: take the difference of "
            "the norms.",
        ),
        Wrong(
            "cosine",
            _change_by(_length, lambda W, V: 1 - _turn(W, V)),
            "ΔD is the cosine itself: no change must give 0, so 1 − cos.",
        ),
        Wrong(
            "input axis",
            _change_by(
                lambda W, V: (V.norm(dim=0) - W.norm(dim=0)).abs().mean(),
                lambda W, V: (1 - F.cosine_similarity(W, V, dim=0)).mean(),
            ),
            "Norm over the input axis: compare output rows, dim=1.",
        ),
        Wrong(
            "whole matrix",
            _change_by(
                lambda W, V: (V.norm() - W.norm()).abs(),
                lambda W, V: 1 - F.cosine_similarity(W.flatten(), V.flatten(), dim=0),
            ),
            "You treat the matrix as one long vector: measure each output row, then take the mean.",
        ),
        Wrong(
            "sum",
            _change_by(lambda W, V: _length(W, V) * len(W), lambda W, V: _turn(W, V) * len(W)),
            "Sums instead of means: a layer with more outputs would seem to move more.",
        ),
    ),
)


# --- 7: merging -----------------------------------------------------------------------------------
def merge_dora(weight: Tensor, A: Tensor, B: Tensor, m: Tensor, scaling: float) -> Tensor:
    """m·V/‖V‖ by output row with V = W + s·BA, computed in A's dtype and rounded once, to W's
    dtype.
    """
    V = weight.to(A.dtype) + lora_delta(A, B, scaling)
    return (V * (m / V.norm(dim=1))[:, None]).to(weight.dtype)


def _merge_cases(g):
    for n_in, n_out, r, s, dtype in [
        (6, 5, 2, 2.0, torch.float32),
        (8, 8, 4, 0.5, torch.float32),
        (9, 4, 3, 4.0, torch.float32),
        (32, 24, 4, 2.0, torch.bfloat16),
    ]:
        yield (
            _randn(g, n_out, n_in).to(dtype),
            _randn(g, r, n_in),
            _randn(g, n_out, r),
            _positive(g, n_out),
            s,
        )


def _merge_property(function) -> str | None:
    out = function(
        torch.ones(3, 4, dtype=torch.bfloat16),
        torch.ones(2, 4),
        torch.zeros(3, 2),
        torch.full((3,), 2.0),
        1.0,
    )
    if out.dtype != torch.bfloat16:
        return f"The values are right, but the merged weight is {out.dtype}: give it back in the dtype of `weight`."
    return None


def _merge_by(scale):
    def merge(W, A, B, m, s):
        V = W.to(A.dtype) + lora_delta(A, B, s)
        return (V * scale(W.to(A.dtype), V, m)).to(W.dtype)

    return merge


MERGE_DORA = Exercise(
    name="merge_dora",
    title="Merging",
    minutes=5,
    difficulty=1,
    reference=merge_dora,
    cases=_merge_cases,
    property=_merge_property,
    tolerance=1e-4,
    hints=(
        "Merging happens once, so here the dense V = W + s·BA may be built.",
        "Every output row of the result has length m_i. Check yourself: `merged.norm(dim=1)` is m.",
        "V = weight.to(A.dtype) + scaling * B @ A; multiply row i by m_i/‖V_i‖; round once at the "
        "end.",
        "return (V * (m / V.norm(dim=1))[:, None]).to(weight.dtype)",
    ),
    wrong=(
        Wrong(
            "LoRA's merge",
            _merge_by(lambda W, V, m: 1.0),
            "That is LoRA's merge, W + s·BA: the rows still have their own length instead of m.",
        ),
        Wrong(
            "norm of W",
            _merge_by(lambda W, V, m: (m / W.norm(dim=1))[:, None]),
            "You divide by ‖W‖: then the rows do not come out with length m. Divide by ‖W + s·BA‖.",
        ),
        Wrong(
            "not divided",
            _merge_by(lambda W, V, m: m[:, None]),
            "Nothing divides by the norm: the rows come out m·‖V‖ long.",
        ),
        Wrong(
            "magnitude lost",
            _merge_by(lambda W, V, m: 1 / V.norm(dim=1)[:, None]),
            "m is not used: all rows have length 1.",
        ),
        Wrong(
            "whole matrix",
            _merge_by(lambda W, V, m: m[:, None] / V.norm()),
            "You divide by the norm of the whole matrix: each output row has its own.",
        ),
        Wrong(
            "no scaling",
            lambda W, A, B, m, s: merge_dora(W, A, B, m, 1.0),
            "`scaling` is missing: the merged rows would point elsewhere than the trained ones.",
        ),
        Wrong(
            "added to W",
            lambda W, A, B, m, s: W + merge_dora(W, A, B, m, s),
            "You added the result to W: m·V/‖V‖ replaces the weight, W is inside V already.",
        ),
    ),
)


# --- 8: counting ----------------------------------------------------------------------------------
def count_dora_parameters(config: dict, r: int, targets: tuple[str, ...]) -> int:
    """Σ r·(in + out) + out over the targets of a block, times the number of blocks."""
    shapes = layer_shapes(config)
    return config["num_hidden_layers"] * sum(
        r * (shapes[t][0] + shapes[t][1]) + shapes[t][0] for t in targets
    )


def _count_cases(g):
    small = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    llama = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    for config in (small, llama):
        for r, targets in [
            (4, ("q_proj", "v_proj")),
            (16, ("gate_proj", "up_proj", "down_proj")),
            (8, tuple(layer_shapes(config))),
        ]:
            yield config, r, targets


def _count_with(extra=lambda n_out, n_in, r: n_out, blocks=True, shapes=layer_shapes):
    def count(config, r, targets):
        sizes = [shapes(config)[t] for t in targets]
        lora = sum(r * (n_out + n_in) for n_out, n_in in sizes) * config["num_hidden_layers"]
        return lora + sum(extra(n_out, n_in, r) for n_out, n_in in sizes) * (
            config["num_hidden_layers"] if blocks else 1
        )

    return count


def _all_heads(config):
    return layer_shapes({**config, "num_key_value_heads": config["num_attention_heads"]})


COUNT_DORA = Exercise(
    name="count_dora_parameters",
    title="Counting",
    minutes=5,
    difficulty=1,
    reference=count_dora_parameters,
    cases=_count_cases,
    hints=(
        "Lab 1's count, r·(in + out) for each adapted layer, plus the magnitudes.",
        "One magnitude for each output row: out more numbers a layer. For k_proj and v_proj out "
        "is small "
        "(grouped-query attention).",
        "Sum r·(in + out) + out over the targets, then multiply by num_hidden_layers.",
    ),
    wrong=(
        Wrong(
            "LoRA's count",
            _count_with(lambda n_out, n_in, r: 0),
            "That is LoRA's count: the magnitudes are missing, out for each layer.",
        ),
        Wrong(
            "per input",
            _count_with(lambda n_out, n_in, r: n_in),
            "You added one magnitude for each input: DoRA has one for each output row.",
        ),
        Wrong(
            "per rank",
            _count_with(lambda n_out, n_in, r: r * n_out),
            "You multiplied the magnitudes by r: there is one m for each layer, whatever the rank.",
        ),
        Wrong(
            "one a layer",
            _count_with(lambda n_out, n_in, r: 1),
            "You added one number for each layer: each output row has its own magnitude.",
        ),
        Wrong(
            "one block's m",
            _count_with(blocks=False),
            "The magnitudes were counted for one block only: multiply them by num_hidden_layers "
            "too.",
        ),
        Wrong(
            "dense direction",
            _count_with(lambda n_out, n_in, r: n_out + n_out * n_in - r * (n_out + n_in)),
            "You counted the whole direction matrix V: it is frozen, A and B turn it.",
        ),
        Wrong(
            "no gqa",
            _count_with(shapes=_all_heads),
            "k_proj and v_proj come out too large: with grouped-query attention they have "
            "num_key_value_heads heads.",
        ),
    ),
)

EXERCISES = [
    DECOMPOSE,
    DORA_NORM,
    DORA_FORWARD,
    MAGNITUDE_GRADIENT,
    DIRECTION_GRADIENT,
    COUNT_DORA,
    WEIGHT_CHANGE,
    MERGE_DORA,
]
