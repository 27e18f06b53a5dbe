"""Lab 3.1.7, DPO: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_7.completion_logp import LOGP
from ftlib.course.lab_3_1_7.gradient_weight import WEIGHT
from ftlib.course.lab_3_1_7.implicit_reward import REWARD
from ftlib.course.lab_3_1_7.kl_estimate import KL
from ftlib.course.lab_3_1_7.optimal_policy import POLICY
from ftlib.course.lab_3_1_7.preference_loss import LOSS
from ftlib.course.lab_3_1_7.swapped_win_rate import WIN

EXERCISES = [
    LOGP,
    REWARD,
    LOSS,
    WEIGHT,
    POLICY,
    KL,
    WIN,
]
