"""Lab E4, distillation: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e4.bytes_per_token import BYTES
from ftlib.course.lab_e4.forward_kl import FORWARD
from ftlib.course.lab_e4.generalised_jsd import JSD
from ftlib.course.lab_e4.independent_student import INDEPENDENT
from ftlib.course.lab_e4.reverse_kl_gradient import REVERSE
from ftlib.course.lab_e4.teacher_rows import SEQUENCE

EXERCISES = [INDEPENDENT, FORWARD, REVERSE, JSD, SEQUENCE, BYTES]
