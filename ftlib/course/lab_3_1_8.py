"""Lab 3.1.8, SimPO and ORPO: the six exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.losses import preference as losses


# --- 1: the mean a token --------------------------------------------------------------------------
def mean_logps(token_logps: Tensor, mask: Tensor) -> Tensor:
    """Mean log-probability of the answer's tokens: (B, T), (B, T) with true on the answer -> (B,)."""
    return (token_logps * mask).sum(1) / mask.sum(1)


def _mean_cases(g):
    for rows, width in ((2, 5), (4, 7), (3, 9)):
        mask = torch.zeros(rows, width, dtype=torch.bool)
        for i in range(rows):
            start = 1 + i % 2
            mask[i, start : start + 1 + (2 * i + 1) % (width - 2)] = True
        yield -3 * torch.rand(rows, width, generator=g), mask


MEAN = Exercise(
    name="mean_logps",
    title="The mean a token",
    minutes=5,
    difficulty=1,
    reference=mean_logps,
    cases=_mean_cases,
    points=1,
    hints=(
        "Only the tokens of the answer count: prompt and padding have log-probabilities too.",
        "`token_logps * mask` empties the others. Then a sum for each row, over its own number of "
        "tokens.",
        "return (token_logps * mask).sum(1) / mask.sum(1)",
    ),
    wrong=(
        Wrong(
            "the sum",
            lambda t, m: (t * m).sum(1),
            "You return the sum: that is DPO's log π, in which every further token costs. "
            "Divide by the number of the answer's tokens.",
        ),
        Wrong(
            "padded length",
            lambda t, m: (t * m).sum(1) / t.shape[1],
            "You divided by the padded length: an answer's score then depends on the longest row "
            "of its batch.",
        ),
        Wrong(
            "everything scored",
            lambda t, m: t.mean(1),
            "Prompt and padding are scored too: multiply by the mask first.",
        ),
        Wrong(
            "mean over the batch",
            lambda t, m: (t * m).sum(1) / m.sum() * len(t),
            "You divided by the mean number of tokens in the batch: long answers still cost more "
            "than short ones. "
            "Each row by its own number.",
        ),
        Wrong(
            "mean of probabilities",
            lambda t, m: ((t.exp() * m).sum(1) / m.sum(1)).log(),
            "You averaged the probabilities and took the logarithm after: the mean is of the "
            "logarithms.",
        ),
    ),
)


# --- 2: SimPO -------------------------------------------------------------------------------------
def simpo_loss(chosen: Tensor, rejected: Tensor, beta: float, gamma: float) -> Tensor:
    """-log σ(β·(p̄_c - p̄_r) - γ) of mean log-probabilities, (B,) both -> (B,)."""
    return losses.simpo_loss(chosen, rejected, beta=beta, gamma_beta_ratio=gamma / beta)[0]


def _simpo_cases(g):
    for beta, gamma in ((2.0, 1.0), (2.5, 0.5), (10.0, 3.0), (2.0, 0.0)):
        yield -2 * torch.rand(5, generator=g), -2 * torch.rand(5, generator=g), beta, gamma
    yield torch.tensor([-0.1, -90.0]), torch.tensor([-90.0, -0.1]), 2.0, 1.0


def _simpo(z=lambda d, b, g: b * d - g, log=F.logsigmoid):
    return lambda chosen, rejected, beta, gamma: -log(z(chosen - rejected, beta, gamma))


SIMPO = Exercise(
    name="simpo_loss",
    title="SimPO's loss",
    minutes=8,
    difficulty=1,
    reference=simpo_loss,
    cases=_simpo_cases,
    hints=(
        "The chosen answer shall lead by a margin: β times the difference of the two means, less "
        "γ.",
        "`-F.logsigmoid(z)`, which stays finite where `torch.sigmoid(z)` has run to 0.",
        "return -F.logsigmoid(beta * (chosen - rejected) - gamma)",
    ),
    wrong=(
        Wrong(
            "the paper's repository",
            _simpo(z=lambda d, b, g: b * (d - g)),
            "You put γ inside the bracket: then it is multiplied by β. That is the ratio γ/β of "
            "the authors' settings files; "
            "γ itself stands outside.",
        ),
        Wrong(
            "sign of gamma",
            _simpo(z=lambda d, b, g: b * d + g),
            "You added γ: the loss then is content although the chosen answer is behind. It is "
            "taken away.",
        ),
        Wrong(
            "no margin",
            _simpo(z=lambda d, b, g: b * d),
            "γ is missing: without it the loss asks for a lead, not for a margin.",
        ),
        Wrong(
            "swapped",
            _simpo(z=lambda d, b, g: -b * d - g),
            "You train towards the rejected answer: chosen minus rejected.",
        ),
        Wrong(
            "log of sigmoid",
            _simpo(log=lambda z: torch.sigmoid(z).log()),
            "Right on paper, but torch.sigmoid is 0 for a very negative argument and its "
            "logarithm −inf: use F.logsigmoid.",
        ),
        Wrong(
            "beta on the chosen only",
            lambda c, r, b, g: -F.logsigmoid(b * c - r - g),
            "β multiplies the chosen answer only: bracket the difference.",
        ),
    ),
)


# --- 3: log(1 - e^x) ------------------------------------------------------------------------------
def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x < 0, elementwise, exact at both ends, and finite gradients everywhere."""
    return losses.log1mexp(x)


def _log1mexp_cases(g):
    yield (-torch.rand(6, generator=g) * 3,)
    yield (torch.tensor([-1e-8, -1e-6, -1e-3, -0.5]),)
    yield (torch.tensor([-20.0, -40.0, -math.log(2), -1.0]),)


def _edges(function) -> str | None:
    """What the tolerance of the cases does not show: digits far below 0, and the gradient."""
    far = torch.tensor([-30.0])
    if abs(float(function(far)) / -math.exp(-30) - 1) > 1e-4:
        return (
            "Right near 0, but far below it the digits are lost: at −30 the result should be "
            "−9.4e-14. "
            "There log1p(−e^x) keeps them."
        )
    x = torch.tensor([-1e-8, -0.5, -1.0, -100.0], requires_grad=True)
    function(x).sum().backward()
    if torch.isfinite(x.grad).all():
        return None
    return (
        "The values are right, but a gradient is NaN or infinite: torch.where computes both "
        "branches, and the backward pass "
        "multiplies the infinite slope of the one not taken by 0. Give each branch only its own "
        "numbers."
    )


LOG1MEXP = Exercise(
    name="log1mexp",
    title="log(1 − eˣ) at its two edges",
    minutes=15,
    difficulty=3,
    reference=log1mexp,
    cases=_log1mexp_cases,
    tolerance=1e-6,
    property=_edges,
    hints=(
        "In fp32 e^(−1e-8) is exactly 1. `torch.expm1(x)` is e^x − 1 without that loss. So near 0: "
        "`torch.log(-torch.expm1(x))`.",
        "Far below 0 the argument of the logarithm is nearly 1, and there "
        "`torch.log1p(-torch.exp(x))` keeps the digits. "
        "Change over at −ln 2.",
        "`torch.where(near, a, b)` computes both. "
        "Put a harmless number (−1) in place of x in the branch that is not wanted, before the "
        "logarithm.",
        "near = x > -math.log(2); a = torch.log(-torch.expm1(torch.where(near, x, -1.0))); "
        "b = torch.log1p(-torch.exp(torch.where(near, -1.0, x)))",
    ),
    wrong=(
        Wrong(
            "log1p everywhere",
            lambda x: torch.log1p(-torch.exp(x)),
            "At x = −1e-8 in fp32 e^x is exactly 1, and you get −inf, with log(1 − e^x) as with "
            "log1p(−e^x). Near 0 use expm1.",
        ),
        Wrong(
            "clamped",
            lambda x: torch.log((1 - torch.exp(x)).clamp(min=1e-6)),
            "A clamp hides the −inf: every answer surer than 1 − 1e-6 gets the same odds, and no "
            "gradient.",
        ),
        Wrong(
            "log of e^x - 1",
            lambda x: torch.log(torch.expm1(-x)),
            "That is log(e^(−x) − 1), which is minus the log odds: here log(1 − e^x) is wanted.",
        ),
        Wrong(
            "no logarithm",
            lambda x: -torch.expm1(x),
            "That is 1 − p, and exact; its logarithm is wanted.",
        ),
        Wrong(
            "plus",
            lambda x: torch.log1p(torch.exp(x)),
            "You computed log(1 + e^x): the sign inside is a minus.",
        ),
    ),
)


# --- 4: log odds ----------------------------------------------------------------------------------
def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """log of odds(chosen)/odds(rejected), of mean log-probabilities, (B,) both -> (B,)."""
    return (chosen - losses.log1mexp(chosen)) - (rejected - losses.log1mexp(rejected))


def _pair_cases(g):
    for _ in range(3):
        yield -0.05 - 3 * torch.rand(5, generator=g), -0.05 - 3 * torch.rand(5, generator=g)
    yield torch.tensor([-0.01, -2.0]), torch.tensor([-2.0, -0.01])


ODDS = Exercise(
    name="log_odds_ratio",
    title="The odds ratio",
    minutes=8,
    difficulty=2,
    reference=log_odds_ratio,
    cases=_pair_cases,
    tolerance=1e-4,
    hints=(
        "odds(p) = p/(1 − p). With x = log p its logarithm is x − log(1 − e^x): your log1mexp.",
        "The logarithm of a ratio is a difference: log odds of the chosen less log odds of the "
        "rejected.",
        "return (chosen - log1mexp(chosen)) - (rejected - log1mexp(rejected))",
    ),
    wrong=(
        Wrong(
            "probability ratio",
            lambda c, r: c - r,
            "That is the ratio of probabilities: the odds also have 1 − p below the line.",
        ),
        Wrong(
            "sign",
            lambda c, r: (c - r) + (losses.log1mexp(c) - losses.log1mexp(r)),
            "You added log(1 − p): it stands below the line, so it is taken away.",
        ),
        Wrong(
            "odds, not logs",
            lambda c, r: (c.exp() / (1 - c.exp())) / (r.exp() / (1 - r.exp())),
            "That is the odds ratio itself: its logarithm is wanted.",
        ),
        Wrong(
            "difference of odds",
            lambda c, r: c.exp() / (1 - c.exp()) - r.exp() / (1 - r.exp()),
            "You took the difference of the odds: the logarithm of a *ratio* is the difference of "
            "the log odds.",
        ),
        Wrong(
            "swapped",
            lambda c, r: (r - losses.log1mexp(r)) - (c - losses.log1mexp(c)),
            "Rejected over chosen: the ratio is upside down.",
        ),
    ),
)


# --- 5: ORPO --------------------------------------------------------------------------------------
def orpo_loss(chosen: Tensor, rejected: Tensor, lam: float) -> Tensor:
    """NLL of the chosen answer plus λ times -log σ(log odds ratio), of mean log-probabilities, (B,)
    both -> (B,).
    """
    return losses.orpo_loss(chosen, rejected, -chosen, beta=lam)[0]


def _orpo_cases(g):
    for lam, case in zip((0.1, 0.5, 1.0, 0.0), _pair_cases(g)):
        yield *case, lam


def _orpo(
    nll=lambda c, r: -c,
    penalty=lambda c, r: -F.logsigmoid(log_odds_ratio(c, r)),
    join=lambda n, o, lam: n + lam * o,
):
    return lambda chosen, rejected, lam: join(nll(chosen, rejected), penalty(chosen, rejected), lam)


ORPO = Exercise(
    name="orpo_loss",
    title="ORPO's loss",
    minutes=8,
    difficulty=2,
    reference=orpo_loss,
    cases=_orpo_cases,
    hints=(
        "Two terms: plain fine-tuning on the chosen answer, whose loss is minus its mean "
        "log-probability, "
        "and λ times the odds-ratio term.",
        "The second is `-F.logsigmoid(log_odds_ratio(chosen, rejected))`.",
        "return -chosen - lam * F.logsigmoid(log_odds_ratio(chosen, rejected))",
    ),
    wrong=(
        Wrong(
            "no NLL",
            _orpo(nll=lambda c, r: 0 * c),
            "The NLL of the chosen answer is missing: without it nothing teaches the base model "
            "to answer at all.",
        ),
        Wrong(
            "NLL of both",
            _orpo(nll=lambda c, r: -(c + r) / 2),
            "You also fine-tune on the rejected answer: the NLL is of the chosen one alone.",
        ),
        Wrong(
            "lambda inside",
            lambda c, r, lam: -c - F.logsigmoid(lam * log_odds_ratio(c, r)),
            "λ is inside the sigmoid, where DPO has its β: in ORPO it weighs the whole term.",
        ),
        Wrong(
            "lambda on the NLL",
            _orpo(join=lambda n, o, lam: lam * n + o),
            "λ weighs the NLL in yours: it weighs the odds-ratio term.",
        ),
        Wrong(
            "probability ratio",
            _orpo(penalty=lambda c, r: -F.logsigmoid(c - r)),
            "You used the ratio of probabilities: take the log odds ratio of exercise 4.",
        ),
        Wrong(
            "sign",
            _orpo(join=lambda n, o, lam: n - lam * o),
            "The odds-ratio term has the wrong sign: it would be rewarded for preferring the "
            "rejected answer.",
        ),
    ),
)


# --- 6: how hard a token is pushed ----------------------------------------------------------------
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
            "The sums stand in the sigmoid in both cases: with average=True the means do.",
        ),
        Wrong("gamma forgotten", _push(z=lambda d, b, g: -b * d), "γ is missing in the sigmoid."),
    ),
)

EXERCISES = (MEAN, SIMPO, LOG1MEXP, ODDS, ORPO, PUSH)
