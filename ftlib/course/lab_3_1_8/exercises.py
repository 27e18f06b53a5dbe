"""Lab 3.1.8, SimPO and ORPO: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_8.log1mexp import LOG1MEXP
from ftlib.course.lab_3_1_8.log_odds_ratio import ODDS
from ftlib.course.lab_3_1_8.mean_logps import MEAN
from ftlib.course.lab_3_1_8.orpo_loss import ORPO
from ftlib.course.lab_3_1_8.simpo_loss import SIMPO
from ftlib.course.lab_3_1_8.token_push import PUSH

EXERCISES = [
    MEAN,
    SIMPO,
    PUSH,
    LOG1MEXP,
    ODDS,
    ORPO,
]
