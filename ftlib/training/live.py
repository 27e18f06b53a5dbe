"""A run's progress while it trains: loss, learning rate, tokens per second."""

from __future__ import annotations

import time

from tqdm import tqdm
from transformers import TrainerCallback

from ftlib.core.notebook import in_notebook
from ftlib.training.watch import watched_entries

# Batches hold rows of like length, the longest of 50 batches first: one batch says little of the
# whole, 50 in a row are a fair sample.
WINDOW = 50


def recent_loss(history: list[dict], steps: int) -> float | None:
    """Mean training loss of the last steps: of WINDOW, but of no more than a quarter of the `steps`
    that a run takes, so that a short run's start does not count. None before the first entry.

    `history` has {"step", "loss"}, each loss the mean of the steps since the entry before.
    """
    if not history:
        return None
    window = min(WINDOW, max(1, steps // 4))
    begin = history[-1]["step"] - window
    total = 0.0
    counted = 0
    before = 0
    for entry in history:
        inside = entry["step"] - max(before, begin)
        if inside > 0:
            total += inside * entry["loss"]
            counted += inside
        before = entry["step"]
    return total / counted


def _sparkline(losses: list[float], width: int = 220, height: int = 36) -> str:
    """The losses as a small curve, SVG; nothing for fewer than two."""
    if len(losses) < 2:
        return ""
    low = min(losses)
    span = max(losses) - low or 1
    step = width / (len(losses) - 1)
    points = []
    for i, loss in enumerate(losses):
        share = (loss - low) / span
        y = height - 2 - share * (height - 4)
        points.append(f"{i * step:.0f},{y:.0f}")
    return (
        f'<svg width="{width}" height="{height}" style="vertical-align:middle">'
        f'<polyline points="{" ".join(points)}" fill="none" stroke="#0072B2" stroke-width="1.5"/>'
        "</svg>"
    )


class LiveRun(TrainerCallback):
    """Step, the mean loss of the last steps, the newest validation loss, what a watch last measured
    and real (non-padding) tokens per second while a run goes on; in a notebook with the loss curve.

    The notebook keeps one line a run, whatever its length.
    """

    def __init__(self, steps: int, show: bool = True, every: float = 1.0):
        self.steps = steps
        self.show = show
        self.every = every  # seconds between two drawings
        self.history: list[dict] = []
        self.validation: float | None = None
        self.bar = None
        self.handle = None
        self.last = 0.0

    def on_train_begin(self, args, state, control, **_):
        self.start = time.perf_counter()
        self.start_tokens = state.num_input_tokens_seen
        self.history = [entry for entry in state.log_history if "loss" in entry]  # if resumed
        if not self.show:
            return
        if in_notebook():
            from IPython.display import HTML, display

            self.handle = display(HTML("starting …"), display_id=True)
        else:
            self.bar = tqdm(
                total=self.steps, initial=state.global_step, unit="step", dynamic_ncols=True
            )

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.history.append({"step": state.global_step, "loss": float(logs["loss"])})
            self._draw(state)
        elif logs and "eval_loss" in logs:
            self.validation = float(logs["eval_loss"])
            self._draw(state)

    def on_train_end(self, args, state, control, **_):
        self._draw(state, last=True)
        if self.bar is not None:
            self.bar.close()

    def _draw(self, state, last: bool = False) -> None:
        now = time.perf_counter()
        if not last and now - self.last < self.every:
            return
        self.last = now
        seconds = now - self.start
        speed = (state.num_input_tokens_seen - self.start_tokens) / max(seconds, 1e-9)
        loss = self._losses(state)
        if self.handle is not None:
            from IPython.display import HTML

            line = f"step {state.global_step}/{self.steps} · {loss} · {speed:,.0f} tokens/s"
            curve = _sparkline([entry["loss"] for entry in self.history])
            self.handle.update(HTML(f"<code>{line} · {seconds:.0f} s</code> {curve}"))
        elif self.bar is not None:
            self.bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            self.bar.update(state.global_step - self.bar.n)

    def _losses(self, state) -> str:
        """The losses in words; nothing before the first."""
        parts = []
        recent = recent_loss(self.history, self.steps)
        if recent is not None:
            parts.append(f"loss {recent:.3f}")
        if self.validation is not None:
            parts.append(f"validation {self.validation:.3f}")
        watched = watched_entries(state.log_history)
        if watched:
            parts.append(f"forgetting {watched[-1]['forgetting']:.3f}")
        return ", ".join(parts)
