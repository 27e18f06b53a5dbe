"""Lab 3.1.2, DoRA: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_2.count_dora_parameters import COUNT_DORA
from ftlib.course.lab_3_1_2.decompose import DECOMPOSE
from ftlib.course.lab_3_1_2.direction_gradient import DIRECTION_GRADIENT
from ftlib.course.lab_3_1_2.dora_forward import DORA_FORWARD
from ftlib.course.lab_3_1_2.dora_norm import DORA_NORM
from ftlib.course.lab_3_1_2.magnitude_gradient import MAGNITUDE_GRADIENT
from ftlib.course.lab_3_1_2.merge_dora import MERGE_DORA
from ftlib.course.lab_3_1_2.weight_change import WEIGHT_CHANGE

EXERCISES = [
    DECOMPOSE,
    DORA_NORM,
    DORA_FORWARD,
    MAGNITUDE_GRADIENT,
    DIRECTION_GRADIENT,
    COUNT_DORA,
    WEIGHT_CHANGE,
    MERGE_DORA,
]
