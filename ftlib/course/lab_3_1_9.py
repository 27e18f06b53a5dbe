"""Lab 3.1.9, KTO: the seven exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


# --- 1: Kahneman and Tversky's value --------------------------------------------------------------
def prospect_value(z: Tensor, alpha: float, lam: float) -> Tensor:
    """Value of a gain or loss z (n,), measured from the reference point: z^α above 0, -λ·|z|^α
    below.
    """
    size = z.abs() ** alpha
    return torch.where(z >= 0, size, -lam * size)


def _prospect_cases(g):
    yield torch.linspace(-5, 5, 11), 0.88, 2.25
    yield torch.randn(20, generator=g), 0.5, 2.0
    yield torch.randn(20, generator=g), 1.0, 3.0


PROSPECT = Exercise(
    name="prospect_value",
    title="What a loss feels like",
    minutes=6,
    difficulty=1,
    reference=prospect_value,
    cases=_prospect_cases,
    points=1,
    hints=(
        "Work with the size |z| first, raise it to α, and give it the sign afterwards: "
        "a negative number to the power 0.88 is NaN.",
        "Losses are multiplied by λ, gains are not.",
        "size = z.abs() ** alpha; return torch.where(z >= 0, size, -lam * size)",
    ),
    wrong=(
        Wrong(
            "power of a negative number",
            lambda z, a, k: torch.where(z >= 0, z**a, -k * (-z.abs()) ** a),
            "You raised a negative number to a broken power, which is NaN: raise |z|, and give "
            "the sign afterwards.",
        ),
        Wrong(
            "no loss aversion",
            lambda z, a, k: z.sign() * z.abs() ** a,
            "Losses and gains count alike: λ is missing on the side of the losses.",
        ),
        Wrong(
            "gains multiplied",
            lambda z, a, k: torch.where(z >= 0, k * z.abs() ** a, -(z.abs() ** a)),
            "λ stands on the gains: people weigh *losses* more, so it belongs below zero.",
        ),
        Wrong(
            "sign lost",
            lambda z, a, k: torch.where(z >= 0, z.abs() ** a, k * z.abs() ** a),
            "A loss has come out as a positive value: the minus is missing below zero.",
        ),
        Wrong(
            "linear",
            lambda z, a, k: torch.where(z >= 0, z, k * z),
            "α is missing: without it the second hundred feels like the first, and there is no "
            "diminishing sensitivity.",
        ),
        Wrong(
            "lambda under the power",
            lambda z, a, k: torch.where(z >= 0, z.abs() ** a, -((k * z.abs()) ** a)),
            "λ went under the power: multiply after raising to α.",
        ),
    ),
)


# --- 2: KTO's value -------------------------------------------------------------------------------
def kto_value(ratio: Tensor, z0: Tensor, desirable: Tensor, beta: float) -> Tensor:
    """σ(β·(r - z0)) where `desirable`, σ(β·(z0 - r)) elsewhere; ratio (B,) in nats, z0 a number,
    both weights 1.
    """
    gain = torch.where(desirable, ratio - z0, z0 - ratio)
    return torch.sigmoid(beta * gain)


def _labels(n: int, g) -> Tensor:
    return torch.rand(n, generator=g) < 0.5


def _value_cases(g):
    for n, beta in ((6, 0.1), (9, 0.5), (12, 1.0)):
        yield (
            5 * torch.randn(n, generator=g),
            torch.rand((), generator=g) * 3 + 0.5,
            _labels(n, g),
            beta,
        )


VALUE = Exercise(
    name="kto_value",
    title="The same idea, smooth",
    minutes=6,
    difficulty=1,
    reference=kto_value,
    cases=_value_cases,
    hints=(
        "What is a gain for a thumbs up (the ratio above z0) is a loss for a thumbs down. Only "
        "the sign turns.",
        "`torch.where(desirable, ratio - z0, z0 - ratio)` is the gain of every row. β multiplies "
        "it.",
        "return torch.sigmoid(beta * torch.where(desirable, ratio - z0, z0 - ratio))",
    ),
    wrong=(
        Wrong(
            "labels ignored",
            lambda r, z, d, b: torch.sigmoid(b * (r - z)),
            "Every row counts as a thumbs up: for a thumbs down the difference turns round, z0 − "
            "r.",
        ),
        Wrong(
            "labels turned",
            lambda r, z, d, b: torch.sigmoid(b * torch.where(d, z - r, r - z)),
            "The sign is turned: a thumbs up gains by a ratio *above* z0. (Or you returned the "
            "loss, 1 − v, "
            "which is σ of the opposite.)",
        ),
        Wrong(
            "no reference point",
            lambda r, z, d, b: torch.sigmoid(b * torch.where(d, r, -r)),
            "z0 is missing: the value is measured from 0, whatever the policy does elsewhere.",
        ),
        Wrong(
            "z0 added for thumbs down",
            lambda r, z, d, b: torch.sigmoid(b * torch.where(d, r - z, -r - z)),
            "For a thumbs down you turned the sign of r alone: it is −(r − z0) = z0 − r.",
        ),
        Wrong(
            "beta on the ratio alone",
            lambda r, z, d, b: torch.sigmoid(torch.where(d, b * r - z, z - b * r)),
            "β multiplies the ratio alone: it must multiply the difference from z0, or the two "
            "are in different units.",
        ),
    ),
)


# --- 3: mismatched pairs --------------------------------------------------------------------------
def rotate_completions(prompts: list[str], completions: list[str]) -> list[tuple[str, str]]:
    """(prompt i, completion i-1) for every row of a batch; the first prompt gets the last
    completion. ValueError below two rows.
    """
    if len(prompts) < 2:
        raise ValueError(
            f"{len(prompts)} row: a mismatched pair takes the completion of another row; use a "
            "batch of two or more"
        )
    return list(zip(prompts, completions[-1:] + completions[:-1]))


def _rotate_cases(g):
    for n in (2, 3, 5):
        yield (
            [f"prompt {i}" for i in range(n)],
            [f"answer {int(torch.randint(1000, (), generator=g))} to {i}" for i in range(n)],
        )


def _refuses_one(function) -> str | None:
    try:
        function(["a prompt"], ["an answer"])
    except ValueError:
        return None
    return "A batch of one went through: its row would be its own mismatch. Raise a ValueError for fewer than two rows."


ROTATE = Exercise(
    name="rotate_completions",
    title="Everybody gets a neighbour's answer",
    minutes=6,
    difficulty=1,
    reference=rotate_completions,
    cases=_rotate_cases,
    property=_refuses_one,
    points=1,
    hints=(
        "The prompts stay. The list of completions moves on by one, and its last item comes to "
        "the front.",
        "`completions[-1:] + completions[:-1]` is the rotated list; `zip` joins it with the "
        "prompts. "
        "A batch of one: ValueError.",
        'if len(prompts) < 2: raise ValueError("use a batch of two or more"); '
        "return list(zip(prompts, completions[-1:] + completions[:-1]))",
    ),
    wrong=(
        Wrong(
            "not rotated",
            lambda p, c: list(zip(p, c)),
            "Every prompt has its own completion: these are matched pairs, and their ratio is "
            "what is being trained.",
        ),
        Wrong(
            "last one dropped",
            lambda p, c: list(zip(p[1:], c[:-1])),
            "A row is lost: the first prompt must get the last completion, so that a batch of n "
            "gives n mismatched pairs.",
        ),
        Wrong(
            "both rotated",
            lambda p, c: list(zip(p[-1:] + p[:-1], c[-1:] + c[:-1])),
            "You rotated prompts and completions together: each prompt meets its own completion "
            "again, one place further.",
        ),
        Wrong(
            "the other way",
            lambda p, c: list(zip(p, c[1:] + c[:1])),
            "You rotated the other way: as good an estimate, but here prompt i gets the "
            "completion of row i − 1.",
        ),
        Wrong(
            "reversed",
            lambda p, c: list(zip(p, c[::-1])),
            "You reversed the completions: in a batch of odd size the middle row keeps its own. "
            "Move them on by one.",
        ),
        Wrong(
            "prompts rotated",
            lambda p, c: list(zip(p[-1:] + p[:-1], c)),
            "You moved the prompts and left the completions: the rows then stand in another order "
            "than the prompts did.",
        ),
    ),
)


# --- 4: the reference point -----------------------------------------------------------------------
def reference_point(policy_kl_logps: Tensor, ref_kl_logps: Tensor) -> Tensor:
    """z0 of a batch: the mean log-ratio over mismatched pairs, at least 0, without gradient. Both
    (B,), summed, in nats -> ().
    """
    return (policy_kl_logps - ref_kl_logps).mean().clamp(min=0).detach()


def _point_cases(g):
    for n, shift in ((8, 2.0), (8, -2.0), (5, 0.3), (3, 4.0)):
        reference = -30 - 5 * torch.rand(n, generator=g)
        yield reference + shift + 2 * torch.randn(n, generator=g), reference


def _no_gradient(function) -> str | None:
    policy = torch.tensor([-10.0, -12.0], requires_grad=True)
    if function(policy, torch.tensor([-14.0, -15.0])).requires_grad:
        return (
            "The value is right, but it carries a gradient: "
            "training would then move the reference point instead of the policy. `detach()` it."
        )
    return None


POINT = Exercise(
    name="reference_point",
    title="The reference point",
    minutes=8,
    difficulty=2,
    reference=reference_point,
    cases=_point_cases,
    property=_no_gradient,
    praise="equal to the reference, and without gradient",
    hints=(
        "The log-ratio of a row is the difference of two log-probabilities. One number for the "
        "whole batch: the mean.",
        "A KL divergence is never negative, so an estimate below 0 is put to 0 — the mean, not "
        "each row.",
        "return (policy_kl_logps - ref_kl_logps).mean().clamp(min=0).detach()",
    ),
    wrong=(
        Wrong(
            "clamped row by row",
            lambda p, r: (p - r).clamp(min=0).mean().detach(),
            "You clamped every row before the mean: the negative ones are part of the estimate, "
            "and without them z0 is too large.",
        ),
        Wrong(
            "not clamped",
            lambda p, r: (p - r).mean().detach(),
            "z0 comes out below 0: it stands for a KL divergence, which is never negative. Clamp "
            "the mean at 0.",
        ),
        Wrong(
            "turned round",
            lambda p, r: (r - p).mean().clamp(min=0).detach(),
            "The ratio is upside down: log π − log π_ref is wanted.",
        ),
        Wrong(
            "sum",
            lambda p, r: (p - r).sum().clamp(min=0).detach(),
            "You summed over the batch: z0 would grow with the batch size. Take the mean.",
        ),
        Wrong(
            "one a row",
            lambda p, r: (p - r).clamp(min=0).detach(),
            "Every row has its own reference point: it is one number for the whole batch.",
        ),
        Wrong(
            "probabilities",
            lambda p, r: (p.exp() - r.exp()).mean().clamp(min=0).detach(),
            "You left the logarithms: the ratio of probabilities is the *difference* of the "
            "log-probabilities as they are.",
        ),
    ),
)


# --- 5: the loss ----------------------------------------------------------------------------------
def binary_loss(
    policy_logps: Tensor,
    ref_logps: Tensor,
    z0: Tensor,
    desirable: Tensor,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """KTO's loss of every row, (B,): w_D·(1 - σ(β·(r - z0))) where `desirable`, w_U·(1 - σ(β·(z0 -
    r))) elsewhere.
    """
    value = kto_value(policy_logps - ref_logps, z0, desirable, beta)
    return torch.where(desirable, desirable_weight, undesirable_weight) * (1 - value)


def _loss_cases(g):
    for n, beta, up, down in ((6, 0.1, 1.0, 1.0), (8, 0.3, 2.0, 0.5), (10, 0.5, 1.0, 3.0)):
        reference = -20 - 5 * torch.rand(n, generator=g)
        yield (
            reference + 4 * torch.randn(n, generator=g),
            reference,
            torch.rand((), generator=g) * 2 + 0.5,
            _labels(n, g),
            beta,
            up,
            down,
        )


def _loss(
    value=kto_value, weight=torch.where, ratio=lambda p, r: p - r, loss=lambda w, v: w * (1 - v)
):
    def losses(p, r, z0, d, beta, up, down):
        return loss(weight(d, up, down), value(ratio(p, r), z0, d, beta))

    return losses


LOSS = Exercise(
    name="binary_loss",
    title="The loss",
    minutes=10,
    difficulty=2,
    reference=binary_loss,
    cases=_loss_cases,
    points=3,
    hints=(
        "Three lines: the log-ratio r; the value of each row (exercise 2); the weight of each row.",
        "`torch.where(desirable, desirable_weight, undesirable_weight)` has the weights. The loss "
        "is weight · (1 − value).",
        "value = kto_value(policy_logps - ref_logps, z0, desirable, beta); "
        "return torch.where(desirable, desirable_weight, undesirable_weight) * (1 - value)",
    ),
    wrong=(
        Wrong(
            "value, not loss",
            _loss(loss=lambda w, v: w * v),
            "You returned the value: minimising it would teach the opposite. The loss is w·(1 − "
            "v).",
        ),
        Wrong(
            "minus the value",
            _loss(loss=lambda w, v: -w * v),
            "You returned −w·v: the same gradient, but the loss is w·(1 − v), which is 0 for a "
            "row that is right beyond doubt.",
        ),
        Wrong(
            "logarithm",
            _loss(loss=lambda w, v: -w * v.log()),
            "You took −log σ, as DPO does. KTO's loss is 1 − σ: bounded, so that a hopeless row "
            "stops pulling.",
        ),
        Wrong(
            "weights swapped",
            _loss(weight=lambda d, up, down: torch.where(d, down, up)),
            "The two weights have changed places: desirable_weight belongs to thumbs up.",
        ),
        Wrong(
            "weights left out",
            _loss(weight=lambda d, up, down: 1.0),
            "The weights are not used: thumbs up and down then count by their numbers alone.",
        ),
        Wrong(
            "no reference",
            _loss(ratio=lambda p, r: p),
            "ref_logps are not used: the ratio is log π − log π_ref. Without it long answers are "
            "punished for their length.",
        ),
        Wrong(
            "labels ignored",
            _loss(value=lambda r, z, d, b: torch.sigmoid(b * (r - z))),
            "All rows are pushed up: for a thumbs down the value is σ(β·(z0 − r)).",
        ),
        Wrong(
            "mean",
            _loss(loss=lambda w, v: (w * (1 - v)).mean()),
            "You returned one number: one loss a row is wanted, the trainer takes the mean.",
        ),
    ),
)


# --- 6: the gradient ------------------------------------------------------------------------------
def loss_slope(ratio: Tensor, z0: Tensor, desirable: Tensor, beta: float) -> Tensor:
    """Derivative of KTO's loss (weights 1) by log π of each row, (B,): -βv(1 - v) where
    `desirable`, +βv(1 - v) elsewhere.
    """
    v = kto_value(ratio, z0, desirable, beta)
    return torch.where(desirable, -1.0, 1.0) * beta * v * (1 - v)


def _slope(sign=lambda d: torch.where(d, -1.0, 1.0), size=lambda v, b: b * v * (1 - v)):
    return lambda r, z, d, b: sign(d) * size(kto_value(r, z, d, b), b)


SLOPE = Exercise(
    name="loss_slope",
    title="Which way, and how hard",
    minutes=8,
    difficulty=2,
    reference=loss_slope,
    cases=_value_cases,
    hints=(
        "The derivative of σ(x) is σ(x)·(1 − σ(x)); the inner derivative is ±β. The loss is 1 − "
        "v, which brings a minus.",
        "Check the sign by what training must do: it goes *against* the slope, and a thumbs up "
        "must rise.",
        "v = kto_value(ratio, z0, desirable, beta); return torch.where(desirable, -1.0, 1.0) * "
        "beta * v * (1 - v)",
    ),
    wrong=(
        Wrong(
            "sign turned",
            _slope(sign=lambda d: torch.where(d, 1.0, -1.0)),
            "The signs are turned round: training goes against the slope, so it would push thumbs "
            "up *down*.",
        ),
        Wrong(
            "one sign",
            _slope(sign=lambda d: -1.0),
            "Both kinds have the same sign: then thumbs down would be pushed up as well.",
        ),
        Wrong(
            "beta forgotten",
            _slope(size=lambda v, b: v * (1 - v)),
            "The inner derivative is missing: β multiplies the ratio inside σ, so it stands in "
            "front of the slope.",
        ),
        Wrong(
            "DPO's",
            _slope(size=lambda v, b: b * (1 - v)),
            "That is the slope of −log σ, DPO's: it never lets go of a row that is far on the "
            "wrong side. KTO's has v·(1 − v).",
        ),
        Wrong(
            "squared",
            _slope(size=lambda v, b: b * v**2),
            "The derivative of σ is σ·(1 − σ), not σ².",
        ),
    ),
)


# --- 7: the weights -------------------------------------------------------------------------------
def balanced_weights(n_desirable: int, n_undesirable: int, target: float) -> tuple[float, float]:
    """(w_D, w_U) with w_D·n_D/(w_U·n_U) = target; the smaller of the two is 1."""
    quotient = target * n_undesirable / n_desirable  # w_D / w_U
    return (quotient, 1.0) if quotient >= 1 else (1.0, 1 / quotient)


def _weights_cases(g):
    yield from [
        (100, 100, 1.0),
        (50, 500, 1.0),
        (500, 50, 1.0),
        (300, 100, 4 / 3),
        (120, 130, 4 / 3),
        (10, 90, 1.2),
    ]


def _weights(quotient):
    def weights(up, down, target):
        q = quotient(up, down, target)
        return (q, 1.0) if q >= 1 else (1.0, 1 / q)

    return weights


WEIGHTS = Exercise(
    name="balanced_weights",
    title="A scarce thumb counts more",
    minutes=6,
    difficulty=1,
    reference=balanced_weights,
    cases=_weights_cases,
    points=1,
    hints=(
        "Solve w_D·n_D/(w_U·n_U) = target for the quotient w_D/w_U.",
        "w_D/w_U = target·n_U/n_D. If that is at least 1, w_U is 1 and w_D the quotient; else w_D "
        "is 1 and w_U its inverse.",
        "q = target * n_undesirable / n_desirable; return (q, 1.0) if q >= 1 else (1.0, 1 / q)",
    ),
    wrong=(
        Wrong(
            "upside down",
            _weights(lambda u, d, t: t * u / d),
            "The scarce side gets the smaller weight: that doubles the imbalance. The quotient is "
            "target·n_U/n_D.",
        ),
        Wrong(
            "target left out",
            _weights(lambda u, d, t: d / u),
            "`target` is not used: your weights always make the two sides equal.",
        ),
        Wrong(
            "target divided",
            _weights(lambda u, d, t: d / (t * u)),
            "The target stands under the line: at 4/3 your thumbs *down* weigh more.",
        ),
        Wrong(
            "a weight below 1",
            lambda u, d, t: (t * d / u, 1.0),
            "The ratio is right, but where thumbs up are many their weight falls below 1: "
            "keep the smaller weight at 1 and raise the other.",
        ),
        Wrong(
            "shares",
            lambda u, d, t: (t * d / (u + d), u / (u + d)),
            "The ratio is right, but both weights are below 1, which shrinks every step: "
            "scale them so that the smaller one is 1.",
        ),
        Wrong(
            "frequencies",
            lambda u, d, t: (u / min(u, d), d / min(u, d)),
            "You weighted each side by its own number: the frequent side then counts twice. The "
            "scarce one needs the weight.",
        ),
    ),
)


EXERCISES = [PROSPECT, VALUE, ROTATE, POINT, LOSS, SLOPE, WEIGHTS]
