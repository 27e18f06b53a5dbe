"""Lab 3.1.1, LoRA: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_1.count_lora_parameters import COUNT
from ftlib.course.lab_3_1_1.effective_rank import EFFECTIVE_RANK
from ftlib.course.lab_3_1_1.find_leaks import LEAKS
from ftlib.course.lab_3_1_1.first_adam_step import FIRST_ADAM_STEP
from ftlib.course.lab_3_1_1.lora_forward import LORA_FORWARD
from ftlib.course.lab_3_1_1.lora_gradients import LORA_GRADIENTS
from ftlib.course.lab_3_1_1.lora_init import LORA_INIT
from ftlib.course.lab_3_1_1.lora_scaling import LORA_SCALING
from ftlib.course.lab_3_1_1.merge_weights import MERGE

EXERCISES = [
    LORA_FORWARD,
    LORA_SCALING,
    LORA_INIT,
    LORA_GRADIENTS,
    FIRST_ADAM_STEP,
    COUNT,
    MERGE,
    LEAKS,
    EFFECTIVE_RANK,
]
