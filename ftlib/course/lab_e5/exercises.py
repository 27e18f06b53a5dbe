"""Lab E5, benchmarks and judges: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e5.choice_loglikelihood import LIKELIHOOD
from ftlib.course.lab_e5.cohen_kappa import KAPPA
from ftlib.course.lab_e5.mcnemar_p import PAIRED
from ftlib.course.lab_e5.normalised_choice import CHOICE
from ftlib.course.lab_e5.position_check import POSITION
from ftlib.course.lab_e5.questions_needed import NEEDED

EXERCISES = [
    LIKELIHOOD,
    CHOICE,
    PAIRED,
    NEEDED,
    KAPPA,
    POSITION,
]
