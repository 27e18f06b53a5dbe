"""Lab 3.1.9, KTO: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_9.balanced_weights import WEIGHTS
from ftlib.course.lab_3_1_9.binary_loss import LOSS
from ftlib.course.lab_3_1_9.kto_value import VALUE
from ftlib.course.lab_3_1_9.loss_slope import SLOPE
from ftlib.course.lab_3_1_9.prospect_value import PROSPECT
from ftlib.course.lab_3_1_9.reference_point import POINT
from ftlib.course.lab_3_1_9.rotate_completions import ROTATE

EXERCISES = [
    PROSPECT,
    VALUE,
    ROTATE,
    POINT,
    LOSS,
    SLOPE,
    WEIGHTS,
]
