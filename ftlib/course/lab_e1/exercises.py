"""Lab E1, RLHF: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e1.calibration_error import CALIBRATION
from ftlib.course.lab_e1.clipped_loss import CLIPPED
from ftlib.course.lab_e1.gae import GAE
from ftlib.course.lab_e1.kl_shaped_rewards import SHAPED
from ftlib.course.lab_e1.leave_one_out import LEAVE_ONE_OUT
from ftlib.course.lab_e1.reward_loss import REWARD_LOSS

EXERCISES = [REWARD_LOSS, CALIBRATION, SHAPED, GAE, CLIPPED, LEAVE_ONE_OUT]
