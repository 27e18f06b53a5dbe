"""Two students that cannot say what their teacher says, small enough for an exact search: one that
forgets its first word, and one with a single bump.

A divergence is named by β as TRL does: 0 the forward KL, 1 the reverse KL, GKD's between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SPOTS = np.linspace(-8, 8, 161)  # where a bump's probabilities lie
CENTRES = np.linspace(-6, 6, 61)  # of a student's bump
WIDTHS = np.geomspace(0.4, 6, 41)
SHARES = np.linspace(0.0, 1.0, 201)  # probabilities of A that are tried
NOTHING = 1e-12  # in the place of a probability of zero, under a logarithm


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p‖q) over the last axis, nats; 0 log 0 is 0."""
    ratio = np.log(np.maximum(p, NOTHING)) - np.log(np.maximum(q, NOTHING))
    return (p * ratio).sum(-1)


def divergence(p: np.ndarray, q: np.ndarray, beta: float) -> np.ndarray:
    """Of teachers p and students q (…, K), nats: KL(p‖q) at β = 0, KL(q‖p) at 1, between them GKD's
    ``β KL(p‖m) + (1−β) KL(q‖m)``, ``m = βp + (1−β)q`` (arXiv 2306.13649, eq. 1).
    """
    if beta == 0:
        return _kl(p, q)
    if beta == 1:
        return _kl(q, p)
    m = beta * p + (1 - beta) * q
    return beta * _kl(p, m) + (1 - beta) * _kl(q, m)


# --- two words ------------------------------------------------------------------------------------
def two_words(mixed: float) -> np.ndarray:
    """A teacher of two words (2, 2): AA and BB alike, and with probability `mixed` AB or BA."""
    return np.array([[1 - mixed, mixed], [mixed, 1 - mixed]]) / 2


def best_independent(teacher: np.ndarray, beta: float) -> tuple[np.ndarray, float]:
    """(student (2, 2), divergence): the nearest with two words that do not depend on each other, by
    a search over both probabilities of A; of equally near ones the first.
    """
    first = np.stack([SHARES, 1 - SHARES], -1)  # (S, 2)
    students = first[:, None, :, None] * first[None, :, None, :]  # (S, S, 2, 2)
    apart = divergence(teacher.ravel(), students.reshape(-1, 4), beta)
    best = int(apart.argmin())
    return students.reshape(-1, 2, 2)[best], float(apart[best])


# --- bumps ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fit:
    """The student's bump that is nearest to a teacher."""

    student: np.ndarray
    centre: float
    width: float
    apart: float  # nats


def _bump(centre, width) -> np.ndarray:
    """Probabilities on SPOTS in the form of a normal distribution."""
    height = np.exp(-0.5 * ((SPOTS - centre) / width) ** 2)
    return height / height.sum(-1, keepdims=True)


def two_bumps(distance: float, left: float) -> np.ndarray:
    """A teacher with bumps of width 0.8, `distance` apart; `left`: the share of the left one."""
    return left * _bump(-distance / 2, 0.8) + (1 - left) * _bump(distance / 2, 0.8)


def best_bump(teacher: np.ndarray, beta: float) -> Fit:
    """The single bump nearest to the teacher, by a search over centre and width."""
    students = _bump(CENTRES[:, None, None], WIDTHS[None, :, None])  # (C, W, spots)
    apart = divergence(teacher, students, beta)  # (C, W)
    i, j = np.unravel_index(int(apart.argmin()), apart.shape)
    return Fit(students[i, j], float(CENTRES[i]), float(WIDTHS[j]), float(apart[i, j]))


def covered(teacher: np.ndarray, student: np.ndarray) -> float:
    """The share of what the teacher says at spots where the student is at least a tenth as likely
    to speak.
    """
    return float(teacher[student >= 0.1 * teacher].sum())


def unheard_of(teacher: np.ndarray, student: np.ndarray) -> float:
    """The share of what the student says at spots where the teacher is less than a tenth as likely
    to speak.
    """
    return float(student[teacher < 0.1 * student].sum())
