"""Words about results that several labs share."""

import numpy as np

from ftlib.course.records import shown


class Recorded:
    """Means over the seeds of a few arms: {(arm, metric): a value of each seed}."""

    def __init__(self, values):
        self.values = values

    def has(self, arm):
        return any(arm == name for name, _ in self.values)

    def means(self, arm, metric):
        return np.array(self.values[arm, metric])


SERIES = {
    "full": {0.01: "full 1", 0.02: "full 2", 0.04: "full 4"},
    "LoRA": {0.1: "lora 1", 0.2: "lora 2", 0.4: "lora 4"},
}


def test_the_best_rate_inside_the_grid_and_at_its_edge():
    """Means over two seeds: full 2.0, 1.0, 1.5, so the middle rate; LoRA 0.9, 0.8, 0.5, so the
    largest, beyond which it may be lower still.
    """
    values = {
        ("full 1", "validation_loss"): [1.0, 3.0],
        ("full 2", "validation_loss"): [0.5, 1.5],
        ("full 4", "validation_loss"): [1.0, 2.0],
        ("lora 1", "validation_loss"): [0.8, 1.0],
        ("lora 2", "validation_loss"): [0.7, 0.9],
        ("lora 4", "validation_loss"): [0.4, 0.6],
    }
    line = shown.grid_line(Recorded(values), SERIES)
    assert line == "full 1.000 at 0.02; LoRA 0.500 at 0.4, **at the grid's edge**"


def test_a_series_is_judged_by_its_own_metric():
    """By the loss LoRA's best rate is 0.1, by its KL 0.2."""
    values = {}
    for arm, loss, kl in (("lora 1", 1.0, 3.0), ("lora 2", 2.0, 1.0), ("lora 4", 3.0, 2.0)):
        values[arm, "validation_loss"] = [loss]
        values[arm, "kl"] = [kl]
    series = {"LoRA": SERIES["LoRA"]}
    assert "1.000 at 0.1" in shown.grid_line(Recorded(values), series)
    assert shown.grid_line(Recorded(values), series, {"LoRA": "kl"}) == "LoRA 1.000 at 0.2"


def test_a_series_without_runs_is_left_out():
    values = {("lora 1", "validation_loss"): [1.0]}
    assert shown.grid_line(Recorded(values), SERIES).startswith("LoRA 1.000 at 0.1")
    assert shown.grid_line(Recorded({}), SERIES) == ""
