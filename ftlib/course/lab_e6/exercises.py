"""Lab E6, from ftlib to the libraries: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_e6.adamw_step import ADAMW
from ftlib.course.lab_e6.clip_factor import CLIP
from ftlib.course.lab_e6.first_apart import APART
from ftlib.course.lab_e6.linear_factor import LINEAR
from ftlib.course.lab_e6.peft_keys import KEYS
from ftlib.course.lab_e6.step_loss import ALL
from ftlib.course.lab_e6.to_peft import TO_PEFT

EXERCISES = [
    TO_PEFT,
    APART,
    ALL,
    LINEAR,
    CLIP,
    ADAMW,
    KEYS,
]
