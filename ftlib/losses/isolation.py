"""Whether a model scores a conversation the same wherever it is: alone, beside padding, or packed
into a row with others.

No list of architectures says so. Linear attention and state-space layers carry a state from one
conversation into the next; some attention never asks for positions, or makes its mask without them.
The checks here run the model itself, in its own dtype, on a few rows of a few tokens, and cost what
some hundred tokens of evaluation cost.

Rounding is told from faults by experiment. What a conversation must not see is replaced by
something else, in a batch whose other row stays as it was: all shapes are the same, so the other
row shows what arithmetic alone changes (mostly nothing: a masked key has the weight exp(-∞) = 0).
Only where two rows of different shapes are compared is rounding estimated from the dtype.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from ftlib.batches.collate import PackedCollator, SFTCollator
from ftlib.batches.packing import join_rows
from ftlib.core.modes import evaluation_mode
from ftlib.losses.logps import completion_logps

# Tokens of the conversation that is watched, and of its neighbours: odd, so that they do not lie
# on the borders of the blocks that some layers work in.
WATCHED = 11
NEIGHBOUR = 13
PROBE_SEED = 0
# A change is a fault where it is more than so many times what rounding changes…
ROOM = 4
# … and more than this, in nats per token.
FLOOR = 1e-4
FLOOR_16_BIT = 0.02
# What a control may show as rounding: beyond it the control itself is moved by a fault.
MOST_ROUNDING = 1e-3
MOST_ROUNDING_16_BIT = 0.25


class Shift(NamedTuple):
    """How far log-probabilities moved that must not move, how far rounding alone moves them, and
    from where on a shift is too small to matter: root mean squares, in nats per token.
    """

    nats: float
    rounding: float
    floor: float

    @property
    def is_fault(self) -> bool:
        """Whether it is more than rounding; NaN is."""
        return not self.nats <= max(self.floor, ROOM * self.rounding)


def shift_between(before: Tensor, after: Tensor, control: tuple[Tensor, Tensor], model) -> Shift:
    """The `Shift` from `before` to `after`, of batches of one shape, beside the two values of a
    `control`, which nothing but rounding moves.
    """
    floor = FLOOR
    most = MOST_ROUNDING
    if _working_dtype(model).itemsize < 4:
        floor = FLOOR_16_BIT
        most = MOST_ROUNDING_16_BIT
    rounding = min(_distance(*control), most)
    return Shift(_distance(before, after), rounding, floor)


def shift_of_shapes(before: Tensor, after: Tensor, control: tuple[Tensor, Tensor], model) -> Shift:
    """As `shift_between`, of batches of different shapes, whose sums are taken in another order:
    rounding is at least one unit in the last place of the log-probabilities.
    """
    shift = shift_between(before, after, control, model)
    size = float(before.double().square().mean().sqrt())
    unit = torch.finfo(_working_dtype(model)).eps * size
    return shift._replace(rounding=max(shift.rounding, unit))


def found_once(trial: Callable) -> Callable:
    """`trial(model, …)` run once for a model as it is: what it finds goes by the attention, the
    dtypes and how many parameters are attached, not by what the weights hold.
    """
    known: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    @functools.wraps(trial)
    def found(model, *arguments):
        attention = getattr(model.config, "_attn_implementation", None)
        parameters = len(list(model.parameters()))
        form = (attention, model.dtype, _working_dtype(model), parameters)
        known_form, result = known.get(model, (None, None))
        if known_form != form:
            result = trial(model, *arguments)
            known[model] = (form, result)
        return result

    return found


def _working_dtype(model) -> torch.dtype:
    """What the model's products are taken in: the autocast's dtype, or that of its weights."""
    kind = model.device.type
    if torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return model.dtype


def worst(shifts: Iterable[Shift]) -> Shift:
    """The first that is a fault, else the last."""
    for shift in shifts:
        if shift.is_fault:
            break
    return shift


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).double().square().mean().sqrt())


def probe_rows(rows: Iterable[list[int]], lengths: tuple[int, ...]) -> list[list[int]]:
    """Token sequences of these lengths, drawn by a fixed seed from the tokens that occur in `rows`:
    what the model is going to read, so no special token that it would take amiss.
    """
    occurring = sorted({token for row in rows for token in row})
    generator = torch.Generator().manual_seed(PROBE_SEED)
    probes = []
    for length in lengths:
        drawn = torch.randint(len(occurring), (length,), generator=generator).tolist()
        probes.append([occurring[index] for index in drawn])
    return probes


def _labelled(tokens: list[int]) -> dict[str, list[int]]:
    return {"input_ids": tokens, "labels": tokens}


def _logps(model, batch: dict) -> Tensor:
    """(B, T) log-probabilities of a collated batch's next tokens."""
    on_device = {}
    for name, value in batch.items():
        on_device[name] = value.to(model.device) if torch.is_tensor(value) else value
    with evaluation_mode(model), torch.no_grad():
        return completion_logps(model, **{"attention_mask": None, **on_device})


def packing_shift(model, rows: Iterable[list[int]], pad_token_id: int) -> Shift:
    """By how much a conversation's log-probabilities change in a packed row: with what its
    neighbours say, and against the conversation alone. `rows`: token ids that are to be packed.
    """
    watched, neighbour, other, longest = probe_rows(
        rows, (WATCHED, NEIGHBOUR, NEIGHBOUR, WATCHED + NEIGHBOUR)
    )
    return worst(_packing_shifts(model, watched, neighbour, other, longest, pad_token_id))


def _packing_shifts(
    model,
    watched: list[int],
    neighbour: list[int],
    other: list[int],
    longest: list[int],
    pad_token_id: int,
) -> Iterator[Shift]:
    collate = PackedCollator(pad_token_id)
    usual = join_rows([_labelled(neighbour), _labelled(watched), _labelled(neighbour)])
    changed = join_rows([_labelled(other), _labelled(watched), _labelled(other)])
    inside = slice(NEIGHBOUR, NEIGHBOUR + WATCHED - 1)  # the positions that score `watched`
    before = _logps(model, collate([usual, usual]))[:, inside]
    after = _logps(model, collate([usual, changed]))[:, inside]
    yield shift_between(before[1], after[1], (before[0], after[0]), model)

    alone, control = _alone_and_padded(model, watched, longest, pad_token_id)
    yield shift_of_shapes(alone[0, : WATCHED - 1], before[0], control, model)


def _alone_and_padded(
    model, watched: list[int], longest: list[int], pad_token_id: int
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """(log-probabilities of `watched` alone, and as a control those of `longest` alone and beside
    it): `longest` fills its row, so that between those two there is only the batch.
    """
    pad = SFTCollator(pad_token_id)
    alone = _logps(model, pad([_labelled(watched)]))
    filled = _logps(model, pad([_labelled(longest)]))
    both = _logps(model, pad([_labelled(watched), _labelled(longest)]))
    return alone, (filled[0], both[1])


def later_shift(model, rows: Iterable[list[int]], pad_token_id: int) -> Shift:
    """By how much a token's log-probability changes with what comes after it in its row: another
    text, or padding. `rows`: token ids that are to be trained on or scored.
    """
    watched, one, other, longest = probe_rows(
        rows, (WATCHED, NEIGHBOUR, NEIGHBOUR, WATCHED + NEIGHBOUR)
    )
    return worst(_later_shifts(model, watched, one, other, longest, pad_token_id))


def _later_shifts(
    model,
    watched: list[int],
    one: list[int],
    other: list[int],
    longest: list[int],
    pad_token_id: int,
) -> Iterator[Shift]:
    pad = SFTCollator(pad_token_id)
    inside = slice(0, WATCHED - 1)  # the positions that score `watched`
    beside = _labelled(longest)
    before = _logps(model, pad([_labelled(watched + one), beside]))
    for row in (_labelled(watched + other), _labelled(watched)):
        after = _logps(model, pad([row, beside]))
        yield shift_between(before[0, inside], after[0, inside], (before[1], after[1]), model)
