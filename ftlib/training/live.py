"""A run's progress while it trains: loss, learning rate, tokens a second."""

from __future__ import annotations

import time

from tqdm import tqdm
from transformers import TrainerCallback

from ftlib.core.notebook import in_notebook


def _sparkline(losses: list[float], width: int = 220, height: int = 36) -> str:
    if len(losses) < 2:
        return ""
    low, high = min(losses), max(losses)
    points = " ".join(
        f"{i * width / (len(losses) - 1):.0f},{height - 2 - (v - low) / (high - low or 1) * (height - 4):.0f}"
        for i, v in enumerate(losses)
    )
    return (
        f'<svg width="{width}" height="{height}" style="vertical-align:middle">'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.5"/></svg>'
    )


class LiveRun(TrainerCallback):
    """Step, loss and real (non-padding) tokens per second while a run goes on; in a notebook with
    the loss curve.

    The notebook keeps one line a run, whatever its length.
    """

    def __init__(self, steps: int, show: bool = True, every: float = 1.0):
        self.steps, self.show, self.every = steps, show, every
        self.losses, self.bar, self.handle, self.last = [], None, None, 0.0

    def on_train_begin(self, args, state, control, **_):
        self.start, self.start_tokens = time.perf_counter(), state.num_input_tokens_seen
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
        speed = (state.num_input_tokens_seen - self.start_tokens) / max(now - self.start, 1e-9)
        loss = f"loss {self.losses[-1]:.3f}" if self.losses else ""
        if self.handle is not None:
            from IPython.display import HTML

            self.handle.update(
                HTML(
                    f"<code>step {state.global_step}/{self.steps} · {loss} · {speed:,.0f} "
                    "tokens/s · "
                    f"{now - self.start:.0f} s</code> {_sparkline(self.losses)}"
                )
            )
        elif self.bar is not None:
            self.bar.set_postfix_str(f"{loss}, {speed:,.0f} tokens/s")
            self.bar.update(state.global_step - self.bar.n)
