"""Lab 3.1.4, fine-tuning 8B, exercise 1: what training holds in memory."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def training_bytes(total: int, trainable: int, frozen_bytes: int) -> dict[str, int]:
    """Bytes held by AdamW training: frozen weights at `frozen_bytes` each, trained ones in fp32 (4
    bytes), their gradients in fp32, and Adam's two fp32 moments. Activations are not counted.
    """
    return {
        "weights": (total - trainable) * frozen_bytes + 4 * trainable,
        "gradients": 4 * trainable,
        "optimizer": 8 * trainable,
    }


def _bytes_grad_for_all(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "gradients": 4 * total}


def _bytes_state_for_all(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "optimizer": 8 * total}


def _bytes_one_moment(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "optimizer": 4 * trainable}


def _bytes_half_gradients(total, trainable, frozen_bytes):
    return {
        "weights": total * frozen_bytes,
        "gradients": trainable * frozen_bytes,
        "optimizer": 8 * trainable,
    }


def _bytes_no_optimizer(total, trainable, frozen_bytes):
    return {**training_bytes(total, trainable, frozen_bytes), "optimizer": 0}


def _bytes_cases(g):
    yield 1000, 1000, 4
    yield 1000, 10, 2
    yield 8_030_261_248, 41_943_040, 2
    yield 500, 0, 4


TRAINING_BYTES = Exercise(
    "training_bytes",
    "What training holds in memory",
    10,
    1,
    training_bytes,
    _bytes_cases,
    (
        Wrong(
            "gradients for all",
            _bytes_grad_for_all,
            "You gave the frozen weights gradients too: a tensor that does not require grad never "
            "gets one, and "
            "that is LoRA's saving.",
        ),
        Wrong(
            "optimizer for all",
            _bytes_state_for_all,
            "You gave the frozen weights optimizer state: Adam keeps moments only for what it "
            "updates.",
        ),
        Wrong(
            "one moment",
            _bytes_one_moment,
            "You counted one moment: Adam keeps two per trained parameter, the mean of the "
            "gradient and the mean of its square.",
        ),
        Wrong(
            "trained in 16 bits",
            _bytes_half_gradients,
            "You stored the trained weights and their gradients at the frozen weights' width: "
            "ftlib trains in fp32, 4 bytes each.",
        ),
        Wrong(
            "no optimizer",
            _bytes_no_optimizer,
            "You left the optimizer out: weights and gradients alone is the famous '28 GB for "
            "7B', and the half "
            "of it that hurts is missing.",
        ),
    ),
    (
        "Split the parameters in two heaps: `total - trainable` frozen ones and `trainable` ones.",
        "A frozen weight costs its own width, `frozen_bytes`, and nothing else.",
        "A trained weight costs 4 bytes for itself, 4 for its gradient, and 4 + 4 for Adam's two "
        "moments: 16 in all.",
        'Return {"weights": (total - trainable) * frozen_bytes + 4 * trainable, '
        '"gradients": ..., "optimizer": ...}.',
    ),
)
