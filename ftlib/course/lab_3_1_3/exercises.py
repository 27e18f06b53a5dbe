"""Lab 3.1.3, NEFTune: its exercises, in the lab's order.

Random numbers are arguments, so that every answer has one right value. ftlib's own noise
(`ftlib.neftune`) draws its numbers itself; the lab shows that both are the same from the same
generator.
"""

from __future__ import annotations

from ftlib.course.lab_3_1_3.effective_alpha import EFFECTIVE
from ftlib.course.lab_3_1_3.gaussian_noise import GAUSSIAN
from ftlib.course.lab_3_1_3.masked_noise import MASKED
from ftlib.course.lab_3_1_3.noise_bound import BOUND
from ftlib.course.lab_3_1_3.noise_hook import HOOK
from ftlib.course.lab_3_1_3.noise_sizes import SIZES
from ftlib.course.lab_3_1_3.run_with_hook import RUN
from ftlib.course.lab_3_1_3.stock_noise import STOCK

EXERCISES = [
    BOUND,
    STOCK,
    SIZES,
    MASKED,
    HOOK,
    RUN,
    GAUSSIAN,
    EFFECTIVE,
]
