"""Lab 3.1.6, data, exercise 5: MinHash."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong

PRIME = (1 << 31) - 1  # products of two numbers below it fit into int64


def minhash_signature(hashes: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """For each function (a_i·x + b_i) mod PRIME the least value over the shingles' hashes:
    hashes (n,), a and b (k,), int64 -> (k,)."""
    return ((a[:, None] * hashes[None] + b[:, None]) % PRIME).amin(1)


def _hash_cases(g):
    for n, k in ((5, 3), (17, 8), (1, 4), (6, 6)):
        yield tuple(torch.randint(1, PRIME, (size,), generator=g) for size in (n, k, k))


def _minhash(
    value=lambda x, a, b: (a[:, None] * x[None] + b[:, None]) % PRIME, reduce=lambda v: v.amin(1)
):
    return lambda hashes, a, b: reduce(value(hashes, a, b))


MINHASH = Exercise(
    name="minhash_signature",
    title="A text in k numbers",
    minutes=10,
    difficulty=2,
    reference=minhash_signature,
    cases=_hash_cases,
    dtypes={None: "same"},
    tolerance=0.0,
    hints=(
        "Every function i has its own order of all shingles. Which comes first in the text is "
        "random, and two texts agree in it with probability |A∩B|/|A∪B|.",
        "A table of k × n values: `a[:, None] * hashes[None] + b[:, None]`, then `% PRIME`.",
        "The least of each row: `.amin(1)`.",
    ),
    wrong=(
        Wrong(
            "least over functions",
            _minhash(reduce=lambda v: v.amin(0)),
            "You took the least over the functions, one number per shingle: take it over the "
            "shingles, one number per function.",
        ),
        Wrong(
            "no modulus",
            _minhash(value=lambda x, a, b: a[:, None] * x[None] + b[:, None]),
            "Without `% PRIME` every function has the same order of shingles: all k numbers then "
            "say the same.",
        ),
        Wrong(
            "no factor",
            _minhash(value=lambda x, a, b: (x[None] + b[:, None]) % PRIME),
            "Without the factor a the functions only shift the hashes: nearly the same order each "
            "time.",
        ),
        Wrong(
            "mean",
            _minhash(reduce=lambda v: v.float().mean(1).long()),
            "A mean changes with every shingle: two texts that differ in one word would agree in "
            "no number. "
            "The minimum changes rarely.",
        ),
        Wrong(
            "largest",
            _minhash(reduce=lambda v: v.amax(1)),
            "You took the largest: just as good an estimate, but signatures must be comparable, "
            "and everyone keeps the least.",
        ),
        Wrong(
            "least shingle first",
            lambda x, a, b: (a * x.amin() + b) % PRIME,
            "You hashed the least shingle: the least must be taken after each function, or all of "
            "them follow the same shingle.",
        ),
    ),
)
