"""The two processes of lab E7: started at the first call, kept for all others."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ftlib.training.processes import Processes

COUNT = 2
TIMEOUT = 300.0  # seconds: on a busy machine one may load a model while the other waits


@functools.cache
def _pair() -> Processes:
    return Processes(COUNT, TIMEOUT)


def both(function: Callable[..., Any], *args: Any) -> list[Any]:
    """``function(rank, *args)`` in each of the two, [of rank 0, of rank 1]; starts them again where
    they have ended.
    """
    if _pair().closed:
        _pair.cache_clear()
    return _pair().run(function, *args)


def close() -> None:
    """End the two, and give their memory back."""
    _pair().close()
    _pair.cache_clear()
