"""Lab 3.1.8, SimPO and ORPO, exercise 3: how hard a token is pushed."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


def token_push(
    chosen_sum: Tensor,
    rejected_sum: Tensor,
    lengths: Tensor,
    beta: float,
    gamma: float,
    average: bool,
) -> Tensor:
    """|∂loss/∂log p_t| for one token of the chosen and of the rejected answer, SimPO with means or
    with sums -> (B, 2).
    """
    counts = lengths if average else torch.ones_like(lengths)
    means = torch.stack([chosen_sum, rejected_sum], 1) / counts
    weight = beta * torch.sigmoid(gamma - beta * (means[:, 0] - means[:, 1]))
    return weight[:, None] / counts


def _push_cases(g):
    for average in (True, False, True, False):
        lengths = torch.randint(4, 20, (4, 2), generator=g).float()
        sums = -lengths * (0.2 + 0.3 * torch.rand(4, 2, generator=g))
        yield sums[:, 0], sums[:, 1], lengths, 2.0, 1.0, average


def _push(
    counts=lambda n, average: n if average else torch.ones_like(n),
    z=lambda d, b, g: g - b * d,
    out=lambda w, n, b: b * w[:, None] / n,
):
    def push(chosen_sum, rejected_sum, lengths, beta, gamma, average):
        n = counts(lengths, average)
        p = torch.stack([chosen_sum, rejected_sum], 1) / n
        return out(torch.sigmoid(z(p[:, 0] - p[:, 1], beta, gamma)), n, beta)

    return push


PUSH = Exercise(
    name="token_push",
    title="How hard one token is pushed",
    minutes=12,
    difficulty=3,
    reference=token_push,
    cases=_push_cases,
    hints=(
        "The derivative of −log σ(z) by z is −σ(−z). Here z = β·(p_c − p_r) − γ, with p a mean or "
        "a sum.",
        "Chain rule: ∂z/∂p_c = β, ∂z/∂p_r = −β, and ∂p/∂(log p_t) is 1/n for a mean, 1 for a sum. "
        "Take absolute values.",
        "n = lengths if average else torch.ones_like(lengths); p = torch.stack([chosen_sum, "
        "rejected_sum], 1) / n; "
        "then beta * sigmoid(gamma - beta * (p[:, 0] - p[:, 1])) in a column, divided by n",
    ),
    wrong=(
        Wrong(
            "sigmoid of z",
            _push(z=lambda d, b, g: b * d - g),
            "Your weight is σ(z): it grows as the pair is learnt. The derivative of −log σ(z) is "
            "−σ(−z).",
        ),
        Wrong(
            "beta forgotten",
            _push(out=lambda w, n, b: w[:, None] / n),
            "β is missing: z contains β times the difference.",
        ),
        Wrong(
            "length forgotten",
            _push(out=lambda w, n, b: (b * w[:, None]).expand(-1, 2)),
            "The 1/n is missing: with means a token of a long answer is pushed less than one of a "
            "short answer.",
        ),
        Wrong(
            "always averaged",
            _push(counts=lambda n, average: n),
            "You take the mean in both cases: for average=False the sums themselves enter, and "
            "each token counts fully.",
        ),
        Wrong(
            "sums in the sigmoid",
            lambda c, r, n, b, g, average: (
                b * torch.sigmoid(g - b * (c - r))[:, None] / (n if average else torch.ones_like(n))
            ),
            "The sums are in the sigmoid in both cases: with average=True the means do.",
        ),
        Wrong("gamma forgotten", _push(z=lambda d, b, g: -b * d), "γ is missing in the sigmoid."),
    ),
)
