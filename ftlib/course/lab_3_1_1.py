"""Lab 3.1.1, LoRA: the eight exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ftlib.adapters.functional import lora_delta
from ftlib.adapters.functional import lora_forward as _lora_forward
from ftlib.adapters.lora import AdapterConfig
from ftlib.course.exercise import Exercise, Wrong


def _randn(g: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=g)


# --- 1: the forward pass --------------------------------------------------------------------------
def _forward_cases(g):
    for rows, n_in, n_out, r, scaling, bias in [
        ((3,), 6, 5, 2, 2.0, True),
        ((2, 4), 8, 8, 4, 0.5, False),
        ((5,), 7, 7, 3, 4.0, True),
        ((), 4, 9, 1, 16.0, True),
        ((2,), 6, 6, 6, 0.25, True),
    ]:
        yield (
            _randn(g, *rows, n_in),
            _randn(g, n_out, n_in),
            _randn(g, n_out) if bias else None,
            _randn(g, r, n_in),
            _randn(g, n_out, r),
            scaling,
        )


def _branch(x, A, B):
    return F.linear(F.linear(x, A), B)


def _inside_scaling(x, W, b, A, B, s):
    return s * (F.linear(x, W, b) + _branch(x, A, B))


class _DenseSpy(TorchDispatchMode):
    """Notes whether any new tensor has the shape of the dense product."""

    def __init__(self, shape):
        super().__init__()
        self.shape, self.seen = tuple(shape), False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        views = func.is_view or func.__name__.startswith(("t.", "transpose", "detach", "alias"))
        if (
            isinstance(out, Tensor)
            and not views
            and tuple(out.shape) in (self.shape, self.shape[::-1])
        ):
            self.seen = True
        return out


def _makes_dense(function) -> str | None:
    g = torch.Generator().manual_seed(1)
    x, W, A, B = _randn(g, 3, 31), _randn(g, 37, 31), _randn(g, 2, 31), _randn(g, 37, 2)
    with torch.no_grad(), _DenseSpy(W.shape) as spy:
        function(x, W, None, A, B, 2.0)
    if spy.seen:
        return (
            "The values are right, but you built the out × in product (BA, or W + BA): at 4096 × "
            "4096 in fp32 that is 64 MiB "
            "for every layer and call. Multiply by A first, then by B."
        )
    return None


LORA_FORWARD = Exercise(
    name="lora_forward",
    title="The forward pass",
    minutes=10,
    difficulty=2,
    reference=_lora_forward,
    cases=_forward_cases,
    property=_makes_dense,
    praise="equal to the reference, and no out × in tensor was made,",
    hints=(
        "There are two roads from x to y, and they meet in a sum. Write the frozen one first: "
        "`F.linear(x, weight, bias)`.",
        "`F.linear(x, M)` computes x Mᵀ, so a matrix stored as (out, in) needs no transpose. A is "
        "(r, in): what shape does "
        "`F.linear(x, A)` have?",
        "The low-rank road is two calls: down to r numbers with A, up again with B. Multiply that "
        "by `scaling`, and only that.",
        "return F.linear(x, weight, bias) + F.linear(F.linear(x, A), B) * scaling",
    ),
    wrong=(
        Wrong(
            "no scaling",
            lambda x, W, b, A, B, s: F.linear(x, W, b) + _branch(x, A, B),
            "`scaling` is not used: alpha would have no effect, and every rank would have another "
            "step size.",
        ),
        Wrong(
            "divided by r again",
            lambda x, W, b, A, B, s: F.linear(x, W, b) + _branch(x, A, B) * s / A.shape[0],
            "Your update is r times too small: `scaling` is alpha/r already, and you divided by r "
            "twice.",
        ),
        Wrong(
            "scaling on everything",
            _inside_scaling,
            "You scaled the frozen road too: `scaling` multiplies B(Ax) only, or the base model "
            "changes at step 0.",
        ),
        Wrong(
            "bias lost",
            lambda x, W, b, A, B, s: F.linear(x, W) + _branch(x, A, B) * s,
            "The bias is lost: pass it to the frozen layer's `F.linear(x, weight, bias)`.",
        ),
        Wrong(
            "bias scaled",
            lambda x, W, b, A, B, s: F.linear(x, W) + F.linear(F.linear(x, A), B, b) * s,
            "The bias went into the low-rank road, so it is scaled: it belongs to Wx.",
        ),
        Wrong(
            "update only",
            lambda x, W, b, A, B, s: _branch(x, A, B) * s,
            "You return the update alone: Wx + b is missing, so the model would start from "
            "nothing instead of from the base.",
        ),
        Wrong(
            "minus",
            lambda x, W, b, A, B, s: F.linear(x, W, b) - _branch(x, A, B) * s,
            "The update is taken away instead of added: training would still work, but merging W "
            "+ s·BA would then be wrong.",
        ),
    ),
)


# --- 2: the initial values ------------------------------------------------------------------------
def lora_init(uniform: Tensor, out_features: int) -> tuple[Tensor, Tensor]:
    """A (r, in) uniform in ±1/√in from numbers uniform in ±1, and B (out, r) zero: what PEFT and
    `LoRALinear` start from.
    """
    r, n_in = uniform.shape
    return uniform / math.sqrt(n_in), uniform.new_zeros(out_features, r)


def _init_cases(g):
    for r, n_in, n_out in [(2, 8, 5), (4, 16, 16), (1, 9, 3), (8, 32, 64)]:
        yield 2 * torch.rand(r, n_in, generator=g) - 1, n_out


def _init_b_random(u, n_out):
    return torch.zeros_like(u), u.flatten().repeat(n_out)[: n_out * u.shape[0]].reshape(
        n_out, -1
    ) / math.sqrt(u.shape[0])


LORA_INIT = Exercise(
    name="lora_init",
    title="Who is zero",
    minutes=5,
    difficulty=1,
    reference=lora_init,
    cases=_init_cases,
    hints=(
        "One factor is random, the other is zero. Which is which stands in §4.1 of the paper.",
        "Shapes first: `uniform` has the shape of A, (r, in). B must be (out, r), so that BA is "
        "(out, in).",
        "A's spread comes from its number of inputs: divide by √in = "
        "`math.sqrt(uniform.shape[1])`, "
        "so that Ax has about the size of x.",
        "return uniform / math.sqrt(uniform.shape[1]), torch.zeros(out_features, uniform.shape[0])",
    ),
    wrong=(
        Wrong(
            "both zero",
            lambda u, n: (torch.zeros_like(u), torch.zeros(n, u.shape[0])),
            "Both factors are zero: ∂L/∂A contains B and ∂L/∂B contains A, so neither would ever "
            "move.",
        ),
        Wrong(
            "A zero",
            _init_b_random,
            "You made A zero and B random: ΔW is zero too, but the paper (§4.1) and every library "
            "start A random and B zero.",
        ),
        Wrong(
            "fan of r",
            lambda u, n: (u / math.sqrt(u.shape[0]), torch.zeros(n, u.shape[0])),
            "A's spread comes from r, it must come from in: A sums over `in` inputs, so divide by "
            "√in.",
        ),
        Wrong(
            "divided by in",
            lambda u, n: (u / u.shape[1], torch.zeros(n, u.shape[0])),
            "You divided by in instead of √in: variances add up, so the bound is 1/√in.",
        ),
        Wrong(
            "not scaled",
            lambda u, n: (u, torch.zeros(n, u.shape[0])),
            "A keeps the bound ±1: with in = 4096 inputs Ax would be 64 times too large.",
        ),
        Wrong(
            "B transposed",
            lambda u, n: (u / math.sqrt(u.shape[1]), torch.zeros(u.shape[0], n)),
            "B has the shape (r, out): it must be (out, r), or BA has no meaning.",
        ),
    ),
)


# --- 3: the gradients -----------------------------------------------------------------------------
def lora_gradients(
    x: Tensor, dy: Tensor, A: Tensor, B: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    """(∂L/∂A, ∂L/∂B) of y = Wx + s·B(Ax), from x (N, in) and dy = ∂L/∂y (N, out)."""
    return scaling * (dy @ B).T @ x, scaling * dy.T @ (x @ A.T)


def _gradient_cases(g):
    for n, n_in, n_out, r, s in [
        (3, 6, 5, 2, 2.0),
        (7, 8, 8, 4, 0.5),
        (2, 5, 5, 5, 4.0),
        (4, 4, 4, 4, 3.0),
    ]:
        yield _randn(g, n, n_in), _randn(g, n, n_out), _randn(g, r, n_in), _randn(g, n_out, r), s


def _gradients_wrong(
    a=lambda x, dy, A, B, s: s * (dy @ B).T @ x, b=lambda x, dy, A, B, s: s * dy.T @ (x @ A.T)
):
    return lambda x, dy, A, B, s: (a(x, dy, A, B, s), b(x, dy, A, B, s))


LORA_GRADIENTS = Exercise(
    name="lora_gradients",
    title="Which factor moves first",
    minutes=15,
    difficulty=3,
    reference=lora_gradients,
    cases=_gradient_cases,
    tolerance=1e-4,
    hints=(
        "For a plain layer y = xMᵀ the gradient is ∂L/∂M = dyᵀ x. Here two such layers follow "
        "each other.",
        "Call h = xAᵀ, (N, r). Then y = s·hBᵀ + …, so ∂L/∂B = s·dyᵀ h, and ∂L/∂h = s·dy B.",
        "Now A is the plain layer with input x and output gradient ∂L/∂h: ∂L/∂A = (∂L/∂h)ᵀ x, of "
        "shape (r, in).",
        "return scaling * (dy @ B).T @ x, scaling * dy.T @ (x @ A.T)",
    ),
    wrong=(
        Wrong(
            "no scaling",
            lambda x, dy, A, B, s: ((dy @ B).T @ x, dy.T @ (x @ A.T)),
            "The chain rule passes through `scaling` as well: both gradients lack the factor s.",
        ),
        Wrong(
            "scaling in one",
            _gradients_wrong(a=lambda x, dy, A, B, s: (dy @ B).T @ x),
            "∂L/∂A lacks the factor s: the gradient reaches A through s·B.",
        ),
        Wrong(
            "scaling in the other",
            _gradients_wrong(b=lambda x, dy, A, B, s: dy.T @ (x @ A.T)),
            "∂L/∂B lacks the factor s: y holds s·Bh, not Bh.",
        ),
        Wrong(
            "swapped",
            lambda x, dy, A, B, s: lora_gradients(x, dy, A, B, s)[::-1],
            "The two are swapped: return (∂L/∂A, ∂L/∂B), in this order.",
        ),
        Wrong(
            "mean",
            lambda x, dy, A, B, s: tuple(t / len(x) for t in lora_gradients(x, dy, A, B, s)),
            "You took the mean over the N tokens: dy carries the loss's own averaging already, so "
            "sum.",
        ),
        Wrong(
            "transposed",
            lambda x, dy, A, B, s: tuple(t.T for t in lora_gradients(x, dy, A, B, s)),
            "Both gradients are transposed: a gradient has its parameter's shape, (r, in) and "
            "(out, r).",
        ),
    ),
)


# --- 4: the scaling -------------------------------------------------------------------------------
def lora_scaling(alpha: float, r: int, use_rslora: bool = False) -> float:
    """s in W + s·BA: alpha/r, or alpha/√r for rsLoRA."""
    return AdapterConfig(r=r, lora_alpha=alpha, use_rslora=use_rslora).scaling


def _scaling_cases(g):
    for alpha, r in [(16, 8), (32, 16), (1, 4), (16, 64), (8, 2)]:
        for use_rslora in (False, True):
            yield alpha, r, use_rslora


LORA_SCALING = Exercise(
    name="lora_scaling",
    title="alpha/r, and rsLoRA",
    minutes=5,
    difficulty=1,
    reference=lora_scaling,
    cases=_scaling_cases,
    hints=(
        "Two formulas and a switch: §4.1 of the LoRA paper, and the abstract of rsLoRA (arXiv "
        "2312.03732).",
        "LoRA divides alpha by r. rsLoRA divides it by the square root of r.",
        "return alpha / (math.sqrt(r) if use_rslora else r)",
    ),
    wrong=(
        Wrong(
            "flag ignored",
            lambda alpha, r, rs: alpha / r,
            "`use_rslora` is ignored: with it the divisor is √r.",
        ),
        Wrong(
            "always root",
            lambda alpha, r, rs: alpha / math.sqrt(r),
            "You always divide by √r: plain LoRA divides by r.",
        ),
        Wrong(
            "flag reversed",
            lambda alpha, r, rs: alpha / (r if rs else math.sqrt(r)),
            "The switch is the wrong way round: rsLoRA is the one with the root.",
        ),
        Wrong(
            "inverse",
            lambda alpha, r, rs: (math.sqrt(r) if rs else r) / alpha,
            "It is upside down: alpha is the numerator.",
        ),
        Wrong(
            "alpha only",
            lambda alpha, r, rs: alpha,
            "Nothing divides alpha: with a fixed alpha the update would grow with the rank.",
        ),
        Wrong(
            "root of the quotient",
            lambda alpha, r, rs: math.sqrt(alpha / r) if rs else alpha / r,
            "rsLoRA takes the root of r only, you took that of alpha/r.",
        ),
    ),
)


# --- 5: counting ----------------------------------------------------------------------------------
def layer_shapes(config: dict) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven linear layers in one Llama block."""
    d, ff = config["hidden_size"], config["intermediate_size"]
    q, kv = (
        config["num_attention_heads"] * config["head_dim"],
        config["num_key_value_heads"] * config["head_dim"],
    )
    return {
        "q_proj": (q, d),
        "k_proj": (kv, d),
        "v_proj": (kv, d),
        "o_proj": (d, q),
        "gate_proj": (ff, d),
        "up_proj": (ff, d),
        "down_proj": (d, ff),
    }


def count_lora_parameters(config: dict, r: int, targets: tuple[str, ...]) -> int:
    """Σ r·(in + out) over the targets of a block, times the number of blocks."""
    shapes = layer_shapes(config)
    return config["num_hidden_layers"] * sum(r * (shapes[t][0] + shapes[t][1]) for t in targets)


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
            (16, ("q_proj", "k_proj", "v_proj", "o_proj")),
            (8, ("gate_proj", "up_proj", "down_proj")),
            (1, tuple(layer_shapes(config))),
        ]:
            yield config, r, targets


def _count_with(
    per_layer=lambda n_out, n_in, r: r * (n_in + n_out), shapes=layer_shapes, blocks=True
):
    def count(config, r, targets):
        total = sum(per_layer(*shapes(config)[t], r) for t in targets)
        return total * config["num_hidden_layers"] if blocks else total

    return count


def _without_gqa(config):
    return layer_shapes({**config, "num_key_value_heads": config["num_attention_heads"]})


def _square_q(config):
    return layer_shapes(
        {**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]}
    )


def _square_mlp(config):
    return layer_shapes({**config, "intermediate_size": config["hidden_size"]})


COUNT = Exercise(
    name="count_lora_parameters",
    title="Counting",
    minutes=10,
    difficulty=2,
    reference=count_lora_parameters,
    cases=_count_cases,
    hints=(
        "One adapted layer (out, in) costs A and B: r·in + out·r. The rest is knowing each "
        "layer's out and in.",
        "q_proj maps hidden → heads·head_dim, o_proj maps back. "
        "gate_proj and up_proj map hidden → intermediate, down_proj maps back.",
        "k_proj and v_proj have num_key_value_heads heads: 8 instead of 32 in Llama-3.1-8B. That "
        "is grouped-query attention.",
        "Sum r·(in + out) over the targets, then multiply by num_hidden_layers.",
    ),
    wrong=(
        Wrong(
            "no gqa",
            _count_with(shapes=_without_gqa),
            "k_proj and v_proj come out too large: with grouped-query attention they have "
            "num_key_value_heads heads.",
        ),
        Wrong(
            "one block",
            _count_with(blocks=False),
            "You counted one block: multiply by num_hidden_layers.",
        ),
        Wrong(
            "A only",
            _count_with(lambda n_out, n_in, r: r * n_in),
            "You counted A only: B holds out × r more.",
        ),
        Wrong(
            "dense",
            _count_with(lambda n_out, n_in, r: n_in * n_out),
            "That is the full layer, in·out: LoRA trains r·(in + out).",
        ),
        Wrong(
            "r times dense",
            _count_with(lambda n_out, n_in, r: r * n_in * n_out),
            "You multiplied in by out: A is r × in and B is out × r, so the sizes add up, r·(in + "
            "out).",
        ),
        Wrong(
            "square mlp",
            _count_with(shapes=_square_mlp),
            "The MLP's layers are not square: gate and up map hidden → intermediate, down maps "
            "back.",
        ),
        Wrong(
            "head_dim ignored",
            _count_with(shapes=_square_q),
            "Read head_dim from the config: heads · head_dim need not be hidden_size (Qwen3 is "
            "such a model).",
        ),
        Wrong(
            "2dr",
            _count_with(lambda n_out, n_in, r: 2 * r * n_in),
            "2·r·in is right for square layers only: use r·(in + out).",
        ),
    ),
)


# --- 6: merging -----------------------------------------------------------------------------------
def merge_weights(weight: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """W + s·BA (out, in), computed in A's dtype and rounded once, to W's dtype."""
    return (weight.to(A.dtype) + lora_delta(A, B, scaling)).to(weight.dtype)


def _merge_cases(g):
    for n_in, n_out, r, s, dtype in [
        (6, 5, 2, 2.0, torch.float32),
        (8, 8, 8, 0.5, torch.float32),
        (9, 9, 3, 4.0, torch.float32),
        (32, 24, 4, 2.0, torch.bfloat16),
        (16, 16, 16, 0.5, torch.bfloat16),
    ]:
        yield _randn(g, n_out, n_in).to(dtype), _randn(g, r, n_in), _randn(g, n_out, r), s


def _merge_dtype(function) -> str | None:
    out = function(torch.ones(3, 4, dtype=torch.bfloat16), torch.ones(2, 4), torch.zeros(3, 2), 1.0)
    if out.dtype != torch.bfloat16:
        return f"The values are right, but the merged weight is {out.dtype}: give it back in the dtype of `weight`."
    return None


MERGE = Exercise(
    name="merge_weights",
    title="Merging",
    minutes=5,
    difficulty=1,
    reference=merge_weights,
    cases=_merge_cases,
    tolerance=1e-5,
    property=_merge_dtype,
    hints=(
        "The merged layer must give for every x what the forward pass gave. Which matrix M has Mx "
        "= Wx + s·B(Ax)?",
        "M = W + s·BA. Check the shapes: B (out, r) @ A (r, in) is (out, in), like W.",
        "W may be bf16 while A and B are fp32: add in fp32, round once at the end with "
        "`.to(weight.dtype)`.",
        "return (weight.to(A.dtype) + scaling * B @ A).to(weight.dtype)",
    ),
    wrong=(
        Wrong(
            "no scaling",
            lambda W, A, B, s: merge_weights(W, A, B, 1.0),
            "`scaling` is missing: the merged model would not be the one that was trained.",
        ),
        Wrong(
            "delta only",
            lambda W, A, B, s: merge_weights(torch.zeros_like(W), A, B, s),
            "That is ΔW alone: add it to W.",
        ),
        Wrong(
            "divided by r",
            lambda W, A, B, s: merge_weights(W, A, B, s / A.shape[0]),
            "Divided by r once too often: `scaling` is alpha/r already.",
        ),
        Wrong(
            "subtracted",
            lambda W, A, B, s: merge_weights(W, A, B, -s),
            "You took the update away: that is unmerging.",
        ),
        Wrong(
            "rounded early",
            lambda W, A, B, s: W + (lora_delta(A, B, s)).to(W.dtype),
            "You rounded ΔW to bf16 before adding, so it is rounded twice: add in fp32, round "
            "once.",
        ),
        Wrong(
            "not rounded",
            lambda W, A, B, s: W.to(A.dtype) + lora_delta(A, B, s),
            "The result is wider than `weight`: round it to weight.dtype, the layer's own.",
        ),
    ),
)


# --- 7: leaks -------------------------------------------------------------------------------------
def find_leaks(model: nn.Module) -> list[str]:
    """Names of the parameters that require grad and are not an adapter's."""
    return [name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name]


class _Block(nn.Module):
    """Two linear layers, a norm and an embedding, some of them trainable: a model to look for leaks
    in.
    """

    def __init__(self, adapted=("q_proj",), trainable=()):
        super().__init__()
        self.embed, self.norm = nn.Embedding(5, 4), nn.LayerNorm(4)
        self.q_proj, self.up_proj = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        for name in adapted:
            layer = getattr(self, name)
            layer.lora_A, layer.lora_B = (
                nn.Parameter(torch.ones(2, 4)),
                nn.Parameter(torch.zeros(4, 2)),
            )
        for name, p in self.named_parameters():
            p.requires_grad_("lora_" in name or any(t in name for t in trainable))


def _leak_cases(g):
    for adapted, trainable in [
        (("q_proj",), ()),
        (("q_proj",), ("up_proj",)),
        (("q_proj", "up_proj"), ("norm",)),
        (("up_proj",), ("embed", "q_proj.bias")),
        (("q_proj",), ("q_proj", "up_proj", "embed", "norm")),
    ]:
        yield (_Block(adapted, trainable),)


def _linear_leaks(model):
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [n for n in find_leaks(model) if n.rpartition(".")[0] in linear]


LEAKS = Exercise(
    name="find_leaks",
    title="Ask the model what trains",
    minutes=10,
    difficulty=2,
    reference=find_leaks,
    cases=_leak_cases,
    hints=(
        "Do not reason about what you froze: ask. `model.named_parameters()` yields (name, "
        "parameter).",
        "A leak is a parameter with `requires_grad` that does not belong to the adapter.",
        "The adapter's own parameters have `lora_` in their name, by PEFT's convention and ours.",
        'return [n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]',
    ),
    wrong=(
        Wrong(
            "all trainable",
            lambda m: [n for n, p in m.named_parameters() if p.requires_grad],
            "The adapter's own parameters are in your list: they are meant to train.",
        ),
        Wrong(
            "not asked",
            lambda m: [n for n, p in m.named_parameters() if "lora_" not in n],
            "You list everything that is not the adapter's, frozen or not: ask `requires_grad`.",
        ),
        Wrong(
            "frozen",
            lambda m: [n for n, p in m.named_parameters() if not p.requires_grad],
            "These are the frozen ones: the leak is what is not frozen.",
        ),
        Wrong(
            "linear only",
            _linear_leaks,
            "You look at linear layers only: norms and embeddings leak as well.",
        ),
        Wrong(
            "weights only",
            lambda m: [n for n in find_leaks(m) if n.endswith("weight")],
            "You look at weights only: biases leak as well.",
        ),
        Wrong(
            "by gradient",
            lambda m: [
                n for n, p in m.named_parameters() if p.grad is not None and "lora_" not in n
            ],
            "You ask for `.grad`, which is None before the first backward pass: ask "
            "`requires_grad`, before training.",
        ),
        Wrong(
            "no path",
            lambda m: [n.rpartition(".")[2] for n in find_leaks(m)],
            'The names have lost their path: "weight" says nothing, give the full name from `named_parameters`.',
        ),
    ),
)


# --- 8: effective rank ----------------------------------------------------------------------------
def effective_rank(singular_values: Tensor, share: float = 0.9) -> int:
    """The smallest k whose k largest singular values hold `share` of Σσ²."""
    energy = singular_values.double().square().cumsum(0)
    return int((energy < share * energy[-1]).sum()) + 1


def _rank_cases(g):
    yield torch.tensor([3.0, 2.0, 1.0, 0.0]), 0.9
    yield torch.tensor([10.0, 1.0, 1.0, 1.0, 1.0]), 0.9
    yield torch.ones(20), 0.88
    yield torch.linalg.svdvals(_randn(g, 24, 16)), 0.9
    yield torch.linalg.svdvals(_randn(g, 30, 3) @ _randn(g, 3, 20)), 0.99
    yield torch.linalg.svdvals(_randn(g, 32, 32)), 0.5


def _rank_of(energy, offset=1, share_of=lambda e: e[-1]):
    def rank(s, share):
        e = energy(s.double()).cumsum(0)
        return int((e < share * share_of(e)).sum()) + offset

    return rank


EFFECTIVE_RANK = Exercise(
    name="effective_rank",
    title="Effective rank",
    minutes=10,
    difficulty=2,
    reference=effective_rank,
    cases=_rank_cases,
    hints=(
        "‖M‖² = Σσᵢ² (Frobenius), and the best rank-k approximation keeps the k largest σ "
        "(Eckart–Young). "
        "So ask how many σ² you need.",
        "`torch.cumsum(s ** 2, 0)` is the energy kept at rank 1, 2, 3 …; its last entry is all of "
        "it.",
        "Count the ranks that do not reach `share` of the total yet: the answer is one more.",
        "energy = s.square().cumsum(0); return int((energy < share * energy[-1]).sum()) + 1",
    ),
    wrong=(
        Wrong(
            "not squared",
            _rank_of(lambda s: s),
            "You sum σ, not σ²: the share of ‖M‖² is a share of the squares.",
        ),
        Wrong(
            "off by one",
            _rank_of(lambda s: s.square(), offset=0),
            "One too small: you count the ranks that are not enough yet, so add one (or you "
            "return an index from 0).",
        ),
        Wrong(
            "above share of the largest",
            lambda s, share: int((s >= share * s[0]).sum()),
            "You count singular values near the largest one: add up the squares from the top "
            "until they reach the share.",
        ),
        Wrong(
            "numerical rank",
            lambda s, share: int((s > 1e-5 * s[0]).sum()),
            "That is the numerical rank, how many are not zero: `share` is not used.",
        ),
        Wrong(
            "the rest",
            lambda s, share: _rank_of(lambda t: t.square())(s, 1 - share),
            "You stop at 1 − share of the energy: go on to `share`.",
        ),
    ),
)

EXERCISES = [
    LORA_FORWARD,
    LORA_INIT,
    LORA_GRADIENTS,
    LORA_SCALING,
    COUNT,
    MERGE,
    LEAKS,
    EFFECTIVE_RANK,
]
