"""Lab E3, ReFT and its relatives: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e3.bottleneck_forward import BOTTLENECK
from ftlib.course.lab_e3.count_adapter_parameters import COUNT
from ftlib.course.lab_e3.edited_positions import POSITIONS
from ftlib.course.lab_e3.loreft_forward import LOREFT
from ftlib.course.lab_e3.merge_ia3 import MERGE_IA3
from ftlib.course.lab_e3.orthonormal_rows import ORTHONORMAL
from ftlib.course.lab_e3.prefix_attention import PREFIX

EXERCISES = [LOREFT, ORTHONORMAL, POSITIONS, MERGE_IA3, PREFIX, BOTTLENECK, COUNT]
