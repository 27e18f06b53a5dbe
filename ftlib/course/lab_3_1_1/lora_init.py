"""Lab 3.1.1, LoRA, exercise 3: the initial values."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


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
        "One factor is random, the other is zero. §4.1 of the paper says which is which.",
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
