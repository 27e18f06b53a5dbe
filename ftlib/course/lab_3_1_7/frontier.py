"""What any policy can reach at a given KL to the start: best-of-n, and the optimum itself.

A judge that counts faults sorts a prompt's answers into levels. Choosing by level leaves the start
as it is within a level, so that both policies are known exactly from the start's levels, without
training: KL(π‖π_ref) = Σ p_π(level)·ln(p_π(level)/p_ref(level)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Levels:
    """The start's answers to one prompt: p (levels,), the share of each level, the best one
    first.
    """

    p: np.ndarray

    @classmethod
    def of(cls, faults: Sequence[float] | np.ndarray) -> Levels:
        """From the faults of answers that the start has drawn."""
        _, counts = np.unique(np.asarray(faults), return_counts=True)
        return cls(counts / counts.sum())

    @property
    def win(self) -> np.ndarray:
        """Win rate of an answer of each level over one that the start draws, ties one half,
        (levels,).
        """
        worse = 1 - np.cumsum(self.p)
        return worse + self.p / 2

    def measured(self, q: np.ndarray) -> tuple[float, float]:
        """(KL to the start in nats, win rate over it) of a policy with these shares of levels."""
        used = q > 0
        kl = float(np.sum(q[used] * np.log(q[used] / self.p[used])))
        return kl, float(q @ self.win)

    def best_of(self, n: int) -> np.ndarray:
        """Shares of levels of the best of n draws, ties by chance: the best level is missed where
        all n draws are worse.
        """
        worse = 1 - np.cumsum(self.p)  # a draw is worse than this level
        missed = worse.clip(0) ** n
        return -np.diff(missed, prepend=1.0)

    def tilted(self, beta: float) -> np.ndarray:
        """Shares of levels of π* ∝ π_ref·e^{r/β}, r the win rate: no policy wins more often at its
        KL.
        """
        weights = self.p * np.exp((self.win - self.win.max()) / beta)
        return weights / weights.sum()


def bound(n: int) -> float:
    """ln n − (n−1)/n, nats: the KL of best-of-n where no two answers tie, and above it where some
    do (Beirami et al. 2024, arXiv 2401.01879).
    """
    return float(np.log(n) - (n - 1) / n)


def best_of_course(levels: Sequence[Levels], counts: Sequence[int]) -> np.ndarray:
    """(KL, win rate) of best-of-n for each n, the mean over prompts, (counts, 2)."""
    course = []
    for n in counts:
        course.append(np.mean([one.measured(one.best_of(n)) for one in levels], axis=0))
    return np.array(course)


def optimum_course(levels: Sequence[Levels], betas: Sequence[float]) -> np.ndarray:
    """(KL, win rate) of the optimum for each beta, the mean over prompts, (betas, 2)."""
    course = []
    for beta in betas:
        course.append(np.mean([one.measured(one.tilted(beta)) for one in levels], axis=0))
    return np.array(course)


def win_at(course: np.ndarray, kl: float) -> float | None:
    """The win rate where a course, by KL, has this KL; None where it does not reach so far."""
    ordered = course[np.argsort(course[:, 0])]
    if not ordered[0, 0] <= kl <= ordered[-1, 0]:
        return None
    return float(np.interp(kl, ordered[:, 0], ordered[:, 1]))
