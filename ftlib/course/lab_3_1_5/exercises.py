"""Lab 3.1.5, QLoRA: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_5.activation_bytes import ACTIVATIONS
from ftlib.course.lab_3_1_5.bits_per_weight import BITS
from ftlib.course.lab_3_1_5.dequantize_packed import UNPACK
from ftlib.course.lab_3_1_5.normal_levels import LEVELS
from ftlib.course.lab_3_1_5.pack_codes import PACK
from ftlib.course.lab_3_1_5.qlora_bytes import BYTES
from ftlib.course.lab_3_1_5.qlora_layer import BACKWARD, FORWARD
from ftlib.course.lab_3_1_5.quantize_blocks import BLOCKS

EXERCISES = [
    LEVELS,
    BLOCKS,
    PACK,
    UNPACK,
    BITS,
    FORWARD,
    BACKWARD,
    BYTES,
    ACTIVATIONS,
]
