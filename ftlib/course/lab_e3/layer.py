"""The adapters of lab E3, ftlib's with the student's functions inside: an edit whose R may be free,
the finder of positions, a bottleneck.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ftlib.adapters.bottleneck import Bottleneck
from ftlib.adapters.hooked import Baseline, parts_of
from ftlib.adapters.reft import Intervention, Prompt
from ftlib.batches.template import IGNORE
from ftlib.course.lab_e3.bottleneck_forward import bottleneck_forward
from ftlib.course.lab_e3.edited_positions import edited_positions
from ftlib.course.lab_e3.loreft_forward import loreft_forward
from ftlib.course.lab_e3.orthonormal_rows import orthonormal_rows

FACTOR = "Q factor"  # R is made of a free X in every pass: orthonormal whatever X becomes
FREE = "free R"  # R is trained as it is, from an orthonormal start
RETRACTED = "retracted"  # R is trained as it is, and set back to its Q factor after every step


class MyEdit(Intervention):
    """LoReFT's edit after one layer, with your functions. `kind_of_rows`: FACTOR, FREE or
    RETRACTED. `turn` (d, d), if set, rotates the edit: the same size, another direction. `noted`,
    if it is a list, gets how far every edit missed what was wanted (`miss`).
    """

    kind_of_rows = FACTOR
    rows = staticmethod(orthonormal_rows)  # the start needs both before they are the student's

    def __init__(self, like: Intervention, kind_of_rows: str, forward: Callable, rows: Callable):
        super().__init__(like.options, like.positions, like.weight.shape[1], like.weight)
        self.load_state_dict(like.state_dict())
        self.kind_of_rows = kind_of_rows
        self.edit = forward
        self.rows = rows
        self.turn: Tensor | None = None
        self.noted: list[float] | None = None

    @property
    def rotation(self) -> Tensor:
        """R (r, d) as it is applied."""
        return self.rows(self.directions) if self.kind_of_rows == FACTOR else self.directions

    def forward(self, h: Tensor) -> Tensor:
        wide = h.to(self.weight.dtype)
        R = self.rotation
        changed = self.edit(wide, R, self.weight, self.bias)
        if self.turn is not None:
            changed = wide + (changed - wide) @ self.turn.T
        if self.noted is not None and len(wide):
            self.noted.append(miss(wide, changed, R, self.weight, self.bias))
        return changed.to(h.dtype)

    def retract(self) -> None:
        """Set R back to orthonormal rows, if that is this edit's kind."""
        if self.kind_of_rows == RETRACTED:
            self.directions.data.copy_(self.rows(self.directions.data))


def miss(h: Tensor, changed: Tensor, R: Tensor, W: Tensor, b: Tensor) -> float:
    """How far R h' is from W h + b, as a share of the change that was wanted, W h + b − R h; the
    mean over all h (N, d).
    """
    wanted = h @ W.T + b  # (N, r)
    left = (changed @ R.T - wanted).norm(dim=1)
    asked = (wanted - h @ R.T).norm(dim=1).clamp_min(1e-12)
    return (left / asked).mean().item()


class MyPrompt(Prompt):
    """Finds the positions with your function."""

    def __init__(self, like: Prompt, positions_of: Callable, first: int, last: int):
        super().__init__(like.options, like.positions, like.decoder)
        self.positions_of = positions_of
        self.first = first
        self.last = last

    def pick(self, real: Tensor, labels: Tensor | None) -> Tensor:
        if labels is None:
            labels = torch.full(real.shape, IGNORE, device=real.device)
        return self.positions_of(real, labels, self.first, self.last)


class MyBottleneck(Bottleneck):
    """A bottleneck with your function."""

    def __init__(self, like: Bottleneck, forward: Callable):
        super().__init__(like.options, like.down.shape[1], like.down)
        self.load_state_dict(like.state_dict())
        self.adapted = forward

    def forward(self, h: Tensor) -> Tensor:
        parameters = (self.down, self.down_bias, self.up, self.up_bias)
        return self.adapted(h, *[p.to(h.dtype) for p in parameters])


def _put(model: nn.Module, path: str, part: Baseline) -> None:
    """Put the part in the place of the one at `path`, its hooks in the place of that one's."""
    for handle in model.get_submodule(path).handles:
        handle.remove()
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    owner.add_module(name, part)
    part.handles = part.register(owner)


def with_own_reft(
    model: nn.Module,
    counts: tuple[int, int],
    kind_of_rows: str = FACTOR,
    loreft_forward: Callable = loreft_forward,
    orthonormal_rows: Callable = orthonormal_rows,
    edited_positions: Callable = edited_positions,
) -> nn.Module:
    """The model, which has ftlib's ReFT, with your functions in its place; the same weights.
    `counts`: how many first and last positions.
    """
    for path, part in parts_of(model, Intervention).items():
        _put(model, path, MyEdit(part, kind_of_rows, loreft_forward, orthonormal_rows))
    for path, part in parts_of(model, Prompt).items():
        _put(model, path, MyPrompt(part, edited_positions, *counts))
    return model


def with_own_bottleneck(
    model: nn.Module, bottleneck_forward: Callable = bottleneck_forward
) -> nn.Module:
    """The model, which has ftlib's bottlenecks, with your function in them; the same weights."""
    for path, part in parts_of(model, Bottleneck).items():
        _put(model, path, MyBottleneck(part, bottleneck_forward))
    return model


def edits_of(model: nn.Module) -> list[MyEdit]:
    """The edits of a model, from the lowest layer."""
    return list(parts_of(model, MyEdit).values())


@torch.no_grad()
def apart(model: nn.Module) -> float:
    """How far R's rows are from orthonormal: the largest entry of |R Rᵀ − I|, mean over layers."""
    found = []
    for edit in edits_of(model):
        R = edit.rotation
        identity = torch.eye(len(R), dtype=R.dtype, device=R.device)
        found.append((R @ R.T - identity).abs().max().item())
    return sum(found) / len(found)


class Course:
    """While a model trains: `look(model)` before the steps whose numbers are in `places`, and a
    retraction before every step. `seen` has what the looks returned.
    """

    def __init__(self, model: nn.Module, places: list[int], look: Callable[[nn.Module], float]):
        self.places = set(places)
        self.look = look
        self.seen: list[float] = []
        self.steps = 0
        self.hook = model.register_forward_pre_hook(self._before)

    def _before(self, model: nn.Module, _) -> None:
        if not model.training:
            return
        _retract(model)
        if self.steps in self.places:
            self.seen.append(self.look(model))
        self.steps += 1

    def end(self, model: nn.Module) -> list[float]:
        """Retracts and looks a last time and lets the model go; all that was seen."""
        self.hook.remove()
        _retract(model)
        self.seen.append(self.look(model))
        return self.seen


def _retract(model: nn.Module) -> None:
    for edit in edits_of(model):
        edit.retract()
