"""DPO on five answers and no network: what it converges to, under handles for beta, the loss and
the judge.
"""

from __future__ import annotations

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.lab_3_1_7.optimal_policy import optimal_policy
from ftlib.course.plots import COLOURS, HATCHES

REFERENCE = np.array([0.40, 0.25, 0.20, 0.10, 0.05])  # π_ref of the five answers
REWARDS = np.array([0.0, 1.0, 0.5, 2.0, 1.5])
BETAS = (0.05, 0.1, 0.2, 0.35, 0.5, 1.0, 2.0, 5.0)
LOSSES = ("DPO", "cDPO, ε = 0.1", "IPO")
BRADLEY_TERRY = "σ(difference of rewards)"
ALWAYS = "always the better one"
JUDGES = (BRADLEY_TERRY, ALWAYS)
SMOOTHING = 0.1
STEPS = 600
RATE = 0.1


def closed_form(
    reference: np.ndarray,
    rewards: np.ndarray,
    beta: float,
    optimal_policy: Callable = optimal_policy,
) -> np.ndarray:
    """π* ∝ π_ref·e^{r/β}, (answers,), by a function of logarithms."""
    logps = optimal_policy(torch.tensor(reference).log(), torch.tensor(rewards), beta)
    return logps.exp().numpy()


def divergence(policy: np.ndarray, reference: np.ndarray) -> float:
    """KL(π ‖ π_ref), nats."""
    used = policy > 0
    return float(np.sum(policy[used] * np.log(policy[used] / reference[used])))


def preference(judge: str, rewards: torch.Tensor) -> torch.Tensor:
    """P(i is preferred to j), (answers, answers)."""
    gap = rewards[:, None] - rewards[None, :]
    if judge == BRADLEY_TERRY:
        return torch.sigmoid(gap)
    return (gap.sign() + 1) / 2


def pair_losses(loss: str, h: torch.Tensor, beta: float) -> torch.Tensor:
    """The loss of "i preferred to j" for a difference h of their log-ratios."""
    if loss == "IPO":
        return (h - 1 / (2 * beta)).square()
    smoothing = 0.0 if loss == "DPO" else SMOOTHING
    z = beta * h
    return -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)


def trained(
    beta: float,
    loss: str = "DPO",
    judge: str = BRADLEY_TERRY,
    reference: np.ndarray = REFERENCE,
    rewards: np.ndarray = REWARDS,
    steps: int = STEPS,
) -> np.ndarray:
    """The policy after `steps` of Adam on the expected loss over all pairs of answers, from π_ref;
    in log-ratios scaled by beta, so that every beta gets as far in as many steps.
    """
    ref = torch.tensor(reference).log()
    wins = preference(judge, torch.tensor(rewards))  # (answers, answers)
    scaled = torch.zeros(len(reference), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scaled], lr=RATE)
    off_diagonal = 1 - torch.eye(len(reference), dtype=torch.float64)
    for _ in range(steps):
        log_policy = torch.log_softmax(ref + scaled / beta, dim=0)
        ratio = log_policy - ref
        losses = pair_losses(loss, ratio[:, None] - ratio[None, :], beta)
        scale = beta**2 if loss == "IPO" else 1.0  # of IPO's gradient in these coordinates
        objective = scale * (wins * losses * off_diagonal).sum()
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
    return torch.softmax(ref + scaled.detach() / beta, dim=0).numpy()


class FiveAnswers(Explorable):
    """Handles for beta, the loss and the judge, over what `trained` arrives at and the closed form
    by `optimal_policy`.
    """

    def __init__(self, optimal_policy: Callable = optimal_policy, beta: float = 0.5):
        self.optimal_policy = optimal_policy
        super().__init__(
            self.draw,
            self.describe,
            beta=slider("beta", BETAS, beta),
            loss=choice("loss", LOSSES, LOSSES[0]),
            judge=choice("judge prefers by", JUDGES, JUDGES[0]),
        )

    def best(self, beta: float) -> np.ndarray:
        """The closed form, (answers,)."""
        return closed_form(REFERENCE, REWARDS, beta, self.optimal_policy)

    def describe(self, beta: float, loss: str, judge: str) -> str:
        """The distance between what was trained and the closed form, in a line."""
        policy = trained(beta, loss, judge)
        best = self.best(beta)
        apart = np.abs(policy - best).max()
        return (
            f"{loss}, beta {beta:g}: KL to the reference {divergence(policy, REFERENCE):.2f} nats; "
            f"π* has {divergence(best, REFERENCE):.2f}; the two differ by at most {apart:.3f}"
        )

    def draw(self, beta: float, loss: str, judge: str) -> Figure:
        """π_ref, the closed form and what was trained, side by side; closed, so that a cell shows
        it once.
        """
        bars = {
            "π_ref": REFERENCE,
            "π* ∝ π_ref·exp(r/β)": self.best(beta),
            f"trained by {loss}": trained(beta, loss, judge),
        }
        figure, ax = plt.subplots(figsize=(7.2, 3.2))
        places = np.arange(len(REFERENCE))
        for i, (name, values) in enumerate(bars.items()):
            look = {"color": COLOURS[i], "hatch": HATCHES[i], "edgecolor": "white"}
            ax.bar(places + 0.27 * (i - 1), values, width=0.25, label=name, **look)
        names = [f"answer {i + 1}\nreward {reward:g}" for i, reward in enumerate(REWARDS)]
        ax.set_xticks(places, names)
        ax.set(ylabel="probability", ylim=(0, 1), title=f"Five answers, beta = {beta:g}")
        ax.legend(fontsize="small")
        plt.close(figure)
        return figure
