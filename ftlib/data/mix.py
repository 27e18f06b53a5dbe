"""Replay: rows of what a model knows already among those that it is to learn.

Training on a small share of the earlier data, 1 to 10 percent, keeps much of it (rehearsal: Robins
1995, "Catastrophic forgetting, rehearsal and pseudorehearsal", Connection Science 7; for
pretraining: Ibrahim et al. 2024, arXiv 2403.08763).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from ftlib.core.checks import check_number
from ftlib.core.errors import DataError


def mix_rows(
    rows: Sequence[dict], replay: Sequence[dict], share: float, seed: int = 0
) -> list[dict]:
    """All `rows`, and of `replay` as many that they are `share` of the mixture, in an order drawn
    by `seed`.

    With n rows, ``k = round(n·share / (1 − share))`` are drawn without replacement, so that
    ``k / (n + k)`` is the share, to the nearest row: it is a share of rows, not of tokens. The same
    seed gives the same mixture, and what a smaller share draws a larger one draws too. Rows of
    plain text for `finetune`: `ftlib.text_rows`. DataError for a share outside [0, 1), for more
    rows than `replay` has, and for a share above 0 that is less than one row.
    """
    check_number("share", share, 0, 1, DataError)
    count = round(len(rows) * share / (1 - share))
    if share and not count:
        raise DataError(
            f"share={share!r} of {len(rows)} rows is less than one row: bring more rows, or a "
            "larger share"
        )
    if count > len(replay):
        raise DataError(
            f"share={share!r} beside {len(rows)} rows is {count} rows, replay has {len(replay)}: "
            "bring more, or ask for less"
        )
    dealt = random.Random(seed)
    order = list(range(len(replay)))
    dealt.shuffle(order)
    mixed = [*rows, *(replay[i] for i in order[:count])]
    dealt.shuffle(mixed)
    return mixed
