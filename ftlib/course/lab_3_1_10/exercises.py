"""Lab 3.1.10, export and Ollama: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_10.kl_per_token import KL
from ftlib.course.lab_3_1_10.merge_weight import MERGE
from ftlib.course.lab_3_1_10.ollama_prompt import TEMPLATE
from ftlib.course.lab_3_1_10.permute_rows import PERMUTE
from ftlib.course.lab_3_1_10.q4_k_weights import Q4_K
from ftlib.course.lab_3_1_10.q8_0_blocks import Q8
from ftlib.course.lab_3_1_10.speeds import SPEEDS
from ftlib.course.lab_3_1_10.stream_until_stop import STREAM

EXERCISES = [
    MERGE,
    PERMUTE,
    Q8,
    Q4_K,
    KL,
    SPEEDS,
    TEMPLATE,
    STREAM,
]
