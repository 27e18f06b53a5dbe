"""Lab 3.1.7, DPO: the six exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ftlib.batches.template import IGNORE
from ftlib.course.exercise import Exercise, Wrong


# --- 1: log π(y|x) --------------------------------------------------------------------------------
def completion_logp(logits: Tensor, labels: Tensor) -> Tensor:
    """log π(y|x) in nats, summed over the completion. logits (B, T, V), labels (B, T), -100 where
    nothing is scored -> (B,).
    """
    logps, labels = logits[:, :-1].log_softmax(-1), labels[:, 1:]
    picked = logps.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
    return (picked * (labels != IGNORE)).sum(1)


def _logp_cases(g):
    for rows, length, words in ((2, 6, 5), (3, 9, 7), (1, 4, 11), (4, 12, 3)):
        labels = torch.randint(0, words, (rows, length), generator=g)
        labels[:, :2], labels[0, -1] = IGNORE, IGNORE
        yield 2 * torch.randn(rows, length, words, generator=g), labels


def _logp(shift=True, masked=True, mean=False, normalised=True, sign=1):
    def logp(logits, labels):
        logits, labels = (logits[:, :-1], labels[:, 1:]) if shift else (logits, labels)
        scores = logits.log_softmax(-1) if normalised else logits
        mask = (labels != IGNORE) if masked else torch.ones_like(labels, dtype=torch.bool)
        picked = scores.gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1) * mask
        return sign * picked.sum(1) / (mask.sum(1) if mean else 1)

    return logp


LOGP = Exercise(
    name="completion_logp",
    title="The log-probability of an answer",
    minutes=12,
    difficulty=2,
    reference=completion_logp,
    cases=_logp_cases,
    points=3,
    hints=(
        "The logits at position t speak of token t + 1: drop the last position of the logits and "
        "the first of the labels.",
        "-100 is no index: clamp the labels to 0, gather, and multiply with the mask `labels != "
        "-100`.",
        "logps = logits[:, :-1].log_softmax(-1); picked = logps.gather(-1, labels[:, "
        "1:].clamp(min=0)[..., None]).squeeze(-1); "
        "return (picked * (labels[:, 1:] != -100)).sum(1)",
    ),
    wrong=(
        Wrong(
            "mean",
            _logp(mean=True),
            "You took the mean over the tokens: DPO's log π(y|x) is their sum, the log of a "
            "product.",
        ),
        Wrong(
            "no shift",
            _logp(shift=False),
            "Not shifted: the logits at position t predict the token at t + 1.",
        ),
        Wrong(
            "no mask",
            _logp(masked=False),
            "You scored the prompt or the padding too: positions labelled -100 must add nothing.",
        ),
        Wrong(
            "raw logits",
            _logp(normalised=False),
            "You summed logits: log-probabilities need log_softmax over the vocabulary.",
        ),
        Wrong(
            "negative",
            _logp(sign=-1),
            "That is the loss −log π: here log π itself is wanted, a number below 0.",
        ),
    ),
)


# --- 2: the implicit reward -----------------------------------------------------------------------
def implicit_reward(policy_logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """r̂ = β·(log π(y|x) − log π_ref(y|x)), all (B,)."""
    return beta * (policy_logps - ref_logps)


def _reward_cases(g):
    for beta in (0.1, 0.01, 0.5, 2.0):
        yield -20 * torch.rand(5, generator=g), -20 * torch.rand(5, generator=g), beta


REWARD = Exercise(
    name="implicit_reward",
    title="The reward that the policy implies",
    minutes=5,
    difficulty=1,
    reference=implicit_reward,
    cases=_reward_cases,
    points=1,
    hints=(
        "Solve the optimal policy for r. log Z(x) is the same for both answers of a prompt and is "
        "left out.",
        "A ratio of probabilities is a difference of logs.",
        "return beta * (policy_logps - ref_logps)",
    ),
    wrong=(
        Wrong(
            "swapped",
            lambda p, r, b: b * (r - p),
            "Policy and reference are swapped: the reward rises where the policy's probability "
            "rises.",
        ),
        Wrong(
            "no beta",
            lambda p, r, b: p - r,
            "The factor beta is missing: it turns nats into reward.",
        ),
        Wrong(
            "divided",
            lambda p, r, b: (p - r) / b,
            "You divided by beta: π ∝ π_ref·exp(r/β), so r is beta times the log-ratio.",
        ),
        Wrong(
            "ratio of logs",
            lambda p, r, b: b * p / r,
            "You divided log-probabilities: the log of a ratio is a difference of logs.",
        ),
        Wrong(
            "no reference",
            lambda p, r, b: b * p,
            "The reference is missing: the reward counts what changed, not what is probable "
            "anyway.",
        ),
    ),
)


# --- 3: the loss ----------------------------------------------------------------------------------
def preference_loss(
    chosen_rewards: Tensor, rejected_rewards: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """−(1−ε)·log σ(z) − ε·log σ(−z) with z = r̂_chosen − r̂_rejected, all (B,)."""
    z = chosen_rewards - rejected_rewards
    return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)


def _loss_cases(g):
    for smoothing in (0.0, 0.1, 0.3, 0.0):
        yield torch.randn(6, generator=g), torch.randn(6, generator=g), smoothing
    yield torch.tensor([-200.0, 300.0, 0.0]), torch.zeros(3), 0.0


LOSS = Exercise(
    name="preference_loss",
    title="The loss",
    minutes=8,
    difficulty=2,
    reference=preference_loss,
    cases=_loss_cases,
    points=2,
    hints=(
        "Bradley and Terry: the probability that chosen wins is σ(z). The loss is its negative "
        "log.",
        "`F.logsigmoid(z)` stays finite at z = −200, where `torch.log(torch.sigmoid(z))` is −inf.",
        "With label smoothing the label is swapped with probability ε: mix −log σ(z) and −log "
        "σ(−z).",
        "return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)",
    ),
    wrong=(
        Wrong(
            "log of sigmoid",
            lambda c, r, e: (
                -(1 - e) * torch.sigmoid(c - r).log() - (e * torch.sigmoid(r - c).log() if e else 0)
            ),
            "Infinite for a pair that is ranked far wrong: use logsigmoid, which does not round σ "
            "to 0 first.",
        ),
        Wrong(
            "sign of z",
            lambda c, r, e: preference_loss(r, c, e),
            "Chosen and rejected are swapped: this loss teaches the rejected answer.",
        ),
        Wrong(
            "no smoothing",
            lambda c, r, e: preference_loss(c, r, 0.0),
            "label_smoothing is not used: mix in ε times the loss of the swapped label.",
        ),
        Wrong(
            "half the smoothing",
            lambda c, r, e: preference_loss(c, r, e / 2),
            "You used half of ε: it is the share of swapped labels, not spread over two classes.",
        ),
        Wrong(
            "no minus",
            lambda c, r, e: -preference_loss(c, r, e),
            "The minus is missing: a loss is the negative log-likelihood.",
        ),
        Wrong(
            "averaged",
            lambda c, r, e: preference_loss(c, r, e).mean(),
            "You averaged over the batch: one loss a pair is wanted, (B,).",
        ),
    ),
)


# --- 4: the weight in the gradient ----------------------------------------------------------------
def gradient_weight(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """σ(−z), z = r̂_chosen − r̂_rejected: how strongly a pair pulls (label smoothing 0), all (B,)."""
    return torch.sigmoid(rejected_rewards - chosen_rewards)


def _weight_cases(g):
    for scale in (1, 3, 0.1):
        yield scale * torch.randn(5, generator=g), scale * torch.randn(5, generator=g)


WEIGHT = Exercise(
    name="gradient_weight",
    title="Which pair still pulls",
    minutes=8,
    difficulty=2,
    reference=gradient_weight,
    cases=_weight_cases,
    hints=(
        "Derive −log σ(z) by z. The derivative of log σ(z) is 1 − σ(z).",
        "1 − σ(z) = σ(−z).",
        "return torch.sigmoid(rejected_rewards - chosen_rewards)",
    ),
    wrong=(
        Wrong(
            "sigma of z",
            lambda c, r: torch.sigmoid(c - r),
            "That is σ(z), large where the pair is ranked right already: wrongly ranked pairs "
            "pull hardest.",
        ),
        Wrong(
            "signed",
            lambda c, r: -torch.sigmoid(r - c),
            "The derivative by z is negative; the weight of the pair is its size.",
        ),
        Wrong(
            "slope of sigma",
            lambda c, r: torch.sigmoid(c - r) * torch.sigmoid(r - c),
            "That is the derivative of σ, not of log σ: a badly ranked pair would hardly pull.",
        ),
        Wrong(
            "loss",
            lambda c, r: preference_loss(c, r),
            "That is the loss itself: its derivative by z is wanted.",
        ),
        Wrong(
            "half",
            lambda c, r: torch.full_like(c, 0.5),
            "One half holds at z = 0 only, that is at the first step.",
        ),
    ),
)


# --- 5: KL ----------------------------------------------------------------------------------------
def kl_estimate(policy_logps: Tensor, ref_logps: Tensor) -> float:
    """KL(π ‖ π_ref) in nats an answer, from answers that π itself drew: log-probabilities (n,) of
    whole answers -> a number.
    """
    return float((policy_logps - ref_logps).mean())


def _kl_cases(g):
    for n in (3, 8, 50):
        yield -10 * torch.rand(n, generator=g), -10 * torch.rand(n, generator=g)


KL = Exercise(
    name="kl_estimate",
    title="How far the policy went",
    minutes=5,
    difficulty=1,
    reference=kl_estimate,
    cases=_kl_cases,
    points=1,
    hints=(
        "KL(π‖π_ref) is the mean, under π, of log π(y|x) − log π_ref(y|x).",
        "The answers were drawn from π: a plain mean is the estimate.",
        "return float((policy_logps - ref_logps).mean())",
    ),
    wrong=(
        Wrong(
            "other way",
            lambda p, r: float((r - p).mean()),
            "The sign is turned: KL(π‖π_ref) has log π first.",
        ),
        Wrong(
            "weighted again",
            lambda p, r: float((p.exp() * (p - r)).sum()),
            "You weighted by π again: the answers were drawn from it, so they come with that "
            "frequency already.",
        ),
        Wrong(
            "clamped",
            lambda p, r: float((p - r).clamp(min=0).mean()),
            "You cut negative terms off: the estimate is unbiased only with them.",
        ),
        Wrong(
            "absolute",
            lambda p, r: float((p - r).abs().mean()),
            "Absolute values make the estimate too large: single terms may be negative.",
        ),
        Wrong(
            "sum",
            lambda p, r: float((p - r).sum()),
            "You summed over the answers: KL is per answer, the mean.",
        ),
    ),
)


# --- 6: win rate ----------------------------------------------------------------------------------
def swapped_win_rate(forward: Tensor, backward: Tensor) -> float:
    """Win rate of a over b. forward: verdicts with a shown first; backward: with b shown first;
    each (n,): 1 the first is better, 0 the second, 0.5 tie.
    """
    return float(((forward + 1 - backward) / 2).mean())


def _win_cases(g):
    for n in (4, 9, 30):
        yield torch.randint(0, 3, (n,), generator=g) / 2, torch.randint(0, 3, (n,), generator=g) / 2


WIN = Exercise(
    name="swapped_win_rate",
    title="A judge in both orders",
    minutes=6,
    difficulty=1,
    reference=swapped_win_rate,
    cases=_win_cases,
    points=1,
    hints=(
        "In the second order a stands second: a verdict of 1 is a win for b.",
        "a's score there is 1 − backward. Average both orders, then the pairs.",
        "return float(((forward + 1 - backward) / 2).mean())",
    ),
    wrong=(
        Wrong(
            "not turned",
            lambda f, b: float(((f + b) / 2).mean()),
            "backward speaks of b: turn it round, 1 − backward, before you average.",
        ),
        Wrong(
            "one order",
            lambda f, b: float(f.float().mean()),
            "Only one order counts here: a judge that likes the first answer would favour a.",
        ),
        Wrong(
            "ties lost",
            lambda f, b: float(((f > 0.5).float() + (b < 0.5).float()).mean() / 2),
            "A tie counts one half, not nothing.",
        ),
        Wrong("for b", lambda f, b: float(((1 - f + b) / 2).mean()), "That is the win rate of b."),
        Wrong(
            "sum",
            lambda f, b: float((f + 1 - b).mean()),
            "You added the two orders: average them, a rate lies between 0 and 1.",
        ),
    ),
)

EXERCISES = [LOGP, REWARD, LOSS, WEIGHT, KL, WIN]
