"""Lab E7, more than one GPU: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e7.combine_gradients import COMBINE
from ftlib.course.lab_e7.cut_flat import CUT
from ftlib.course.lab_e7.join_flat import JOIN
from ftlib.course.lab_e7.nf4_shard_bytes import NF4
from ftlib.course.lab_e7.rows_of_rank import ROWS
from ftlib.course.lab_e7.step_traffic import TRAFFIC
from ftlib.course.lab_e7.zero_bytes import ZERO

EXERCISES = [
    ZERO,
    TRAFFIC,
    ROWS,
    COMBINE,
    CUT,
    JOIN,
    NF4,
]
