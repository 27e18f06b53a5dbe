"""Lab 3.1.4, fine-tuning 8B: its exercises, in the lab's order."""

from __future__ import annotations

from ftlib.course.lab_3_1_4.accumulation_weights import ACCUMULATION
from ftlib.course.lab_3_1_4.build_labels import BUILD_LABELS
from ftlib.course.lab_3_1_4.early_stop import EARLY_STOP
from ftlib.course.lab_3_1_4.golden_score import GOLDEN_SCORE
from ftlib.course.lab_3_1_4.greedy_decode import GREEDY_DECODE
from ftlib.course.lab_3_1_4.learning_rate import LEARNING_RATE
from ftlib.course.lab_3_1_4.pad_batch import PAD_BATCH
from ftlib.course.lab_3_1_4.perplexity import PERPLEXITY
from ftlib.course.lab_3_1_4.sft_loss import SFT_LOSS
from ftlib.course.lab_3_1_4.train_loop import TRAIN_LOOP
from ftlib.course.lab_3_1_4.training_bytes import TRAINING_BYTES
from ftlib.course.lab_3_1_4.win_rate import WIN_RATE

EXERCISES = [
    TRAINING_BYTES,
    BUILD_LABELS,
    PAD_BATCH,
    SFT_LOSS,
    ACCUMULATION,
    GREEDY_DECODE,
    GOLDEN_SCORE,
    LEARNING_RATE,
    TRAIN_LOOP,
    PERPLEXITY,
    EARLY_STOP,
    WIN_RATE,
]
