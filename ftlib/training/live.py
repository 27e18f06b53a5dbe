"""A run's progress while it trains: loss, learning rate, tokens a second."""

from __future__ import annotations

import time

from tqdm import tqdm
from transformers import TrainerCallback

from ftlib.core.notebook import in_notebook


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
    """Step, loss and real (non-padding) tokens per second while a run goes on; in a notebook with
    the loss curve.

    The notebook keeps one line a run, whatever its length.
    """

    def __init__(self, steps: int, show: bool = True, every: float = 1.0):
        self.steps = steps
        self.show = show
        self.every = every  # seconds between two drawings
        self.losses: list[float] = []
        self.bar = None
        self.handle = None
        self.last = 0.0

    def on_train_begin(self, args, state, control, **_):
        self.start = time.perf_counter()
        self.start_tokens = state.num_input_tokens_seen
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
            self.losses.append(float(logs["loss"]))
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
        loss = f"loss {self.losses[-1]:.3f}" if self.losses else ""
        if self.handle is not None:
            from IPython.display import HTML

            line = f"step {state.global_step}/{self.steps} · {loss} · {speed:,.0f} tokens/s"
            curve = _sparkline(self.losses)
            self.handle.update(HTML(f"<code>{line} · {seconds:.0f} s</code> {curve}"))
        elif self.bar is not None:
            self.bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            self.bar.update(state.global_step - self.bar.n)
