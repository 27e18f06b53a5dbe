"""A quantity that a run watches while it trains, and stops by: what the model is to keep.

Measured before the first step and every so many steps, in evaluation mode; kept in the trainer's
state, so that a run that goes on from a checkpoint measures against the same start and has the same
record. A run that has stopped is at its end: called again it takes up what it has.
"""

from __future__ import annotations

import math
from typing import Protocol

from torch import nn
from transformers import TrainerCallback

from ftlib.core.modes import evaluation_mode
from ftlib.training.errors import RunError
from ftlib.training.folder import log


class Watch(Protocol):
    """What `finetune` asks of its `watch`; `ftlib.ForgettingWatch` is one."""

    every: int
    threshold: float | None

    @property
    def settings(self) -> dict:
        """What a run records of it, as JSON: it goes on with the same only."""

    def measure(self, model: nn.Module, tokenizer) -> float:
        """A number that rises as the model forgets, such as a loss; it must draw no random
        numbers.
        """


def watched_entries(log_history: list[dict]) -> list[dict]:
    """Of a trainer's record what a watch has measured: {"step", "watched", "forgetting"}, the first
    of them the start; the last has "stopped" where the run was stopped by it.
    """
    return [entry for entry in log_history if "watched" in entry]


def was_stopped(log_history: list[dict]) -> bool:
    """Whether a watch has stopped the run of this record."""
    return any(entry.get("stopped") for entry in watched_entries(log_history))


class WatchCallback(TrainerCallback):
    """Measures, records, and stops the run where the rise since the start is above the
    threshold.
    """

    def __init__(self, watch: Watch, tokenizer):
        self.watch = watch
        self.tokenizer = tokenizer

    def on_train_begin(self, args, state, control, model=None, **_):
        if not watched_entries(state.log_history):
            self._record(model, state)

    def on_step_end(self, args, state, control, model=None, **_):
        is_last = state.global_step >= state.max_steps
        if state.global_step % self.watch.every and not is_last:
            return
        entry = self._record(model, state)
        threshold = self.watch.threshold
        if threshold is None or entry["forgetting"] <= threshold or is_last:
            return
        entry["stopped"] = True
        log.info(
            "stopped at step %d of %d: forgetting %.3f is above the threshold %g",
            state.global_step,
            state.max_steps,
            entry["forgetting"],
            threshold,
        )
        control.should_training_stop = True
        control.should_log = True
        control.should_save = args.save_strategy != "no"

    def _record(self, model, state) -> dict:
        with evaluation_mode(model):
            value = float(self.watch.measure(model, self.tokenizer))
        if not math.isfinite(value):
            raise RunError(
                f"watch measured {value} at step {state.global_step}: the run has diverged; lower "
                "the learning rate"
            )
        before = watched_entries(state.log_history)
        start = before[0]["watched"] if before else value
        entry = {"step": state.global_step, "watched": value, "forgetting": value - start}
        state.log_history.append(entry)
        return entry
