"""What the arms of lab E5's experiments are called."""

from __future__ import annotations

SHARES = (0.1, 0.2, 0.4)  # of the benchmark, that leak
NOTHING = "nothing leaked"
REWORDED = "40% in other words"
OTHERS = "as many others"
FAIR = "no bias"
FIRST = "for the first"
SLIGHTLY_FIRST = "a little for the first"
LONGER = "for the longer"
BYTES_JUDGE = "all words, a byte"


def leak_arm(share: float) -> str:
    return f"{share:.0%} leaked"
