"""Lab E2, forgetting: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e2.ewc_penalty import PENALTY
from ftlib.course.lab_e2.fisher_diagonal import FISHER
from ftlib.course.lab_e2.interpolate_states import INTERPOLATE
from ftlib.course.lab_e2.pareto_front import FRONT
from ftlib.course.lab_e2.replay_count import COUNT
from ftlib.course.lab_e2.stop_step import STOP

EXERCISES = [FRONT, COUNT, FISHER, PENALTY, INTERPOLATE, STOP]
