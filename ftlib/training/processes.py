"""Several processes on one machine that are a process group of gloo's, as `accelerate launch` makes
one of GPUs: started once, asked many times, ended together.

They listen on this machine alone, end with the process that started them, and do not wait for one
that has died.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from ftlib.core.checks import check_positive_integer
from ftlib.core.runtime import configure

TIMEOUT = 120.0  # seconds
LOOPBACK = {"linux": "lo", "darwin": "lo0"}  # the interface that no other machine can reach
INTERFACE = "GLOO_SOCKET_IFNAME"

log = logging.getLogger("ftlib")


class Processes:
    """`count` new processes, which are a process group of gloo's until `close`, or the end of a
    `with` block.

    timeout: seconds that a process waits for the others in a collective operation. ValueError for a
    count that is no positive integer.
    """

    def __init__(self, count: int = 2, timeout: float = TIMEOUT):
        check_positive_integer("processes", count)
        self.count = count
        self.closed = False
        self._pids: list[int] = []
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        # A pool of one each, since a pool of several does not say which of its processes does what.
        self._pools = [ProcessPoolExecutor(1, mp_context=context) for _ in range(count)]
        store = Path(self._folder.name) / "store"
        self._pids = self._ask(_join, store, count, timeout, log.getEffectiveLevel())

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """``function(rank, *args)`` in each of them; what each returned, by rank.

        function: one of a module's own, such as a lab's `trials.py`: another process imports it,
        which it cannot do with a function of a notebook's cell (ValueError). args and results are
        pickled: hand over numbers, texts, tensors. What one of them raises is raised here, and
        RuntimeError where one has died; then all of them end, because those that are left may wait
        for a collective operation that will not come.
        """
        _check_importable(function)
        if self.closed:
            raise ValueError("these processes have ended: start new ones, Processes(2)")
        return self._ask(_answer, function, args)

    def _ask(self, function: Callable, *args: Any) -> list[Any]:
        """``function(rank, *args)`` in each of them."""
        asked: list[Future] = []
        try:
            for rank, pool in enumerate(self._pools):
                asked.append(pool.submit(function, rank, *args))
            failed = [_failure(rank, future) for rank, future in enumerate(asked)]
        except BaseException:
            self.close()
            raise
        # The one that failed first, rather than those that waited for it in vain.
        for error in sorted(filter(None, failed), key=_is_of_the_group):
            self.close()
            raise error
        return [future.result() for future in asked]

    def close(self) -> None:
        """End the processes. Does nothing where they have ended."""
        if self.closed:
            return
        self.closed = True
        for child in multiprocessing.active_children():
            if child.pid in self._pids:  # none, where they could not even begin
                child.terminate()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def run_processes(
    function: Callable[..., Any], *args: Any, processes: int = 2, timeout: float = TIMEOUT
) -> list[Any]:
    """``function(rank, *args)`` in each of `processes` new ones, which end afterwards: `Processes`
    for one call, with its errors.
    """
    check_positive_integer("processes", processes)
    _check_importable(function)  # before anything is started
    with Processes(processes, timeout) as group:
        return group.run(function, *args)


def _check_importable(function: Callable) -> None:
    if getattr(function, "__module__", None) == "__main__" or "<" in function.__qualname__:
        raise ValueError(
            f"function={function.__qualname__!r} of {function.__module__}: a new process cannot "
            "import it; write it at the top level of a module"
        )


def _failure(rank: int, future: Future) -> BaseException | None:
    """What went wrong in one of the processes."""
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        return RuntimeError(f"process {rank} died before it had answered (out of memory?)")
    return error


def _is_of_the_group(error: BaseException) -> bool:
    """Whether a process failed because another was not there."""
    return isinstance(error, RuntimeError) and "gloo" in str(error).lower()


# --- in a process ---------------------------------------------------------------------------------
def _join(rank: int, store: Path, count: int, timeout: float, level: int) -> int:
    """Become process `rank` of the group, which logs as the one that started it does; returns the
    process's number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a notebook's interrupt is for its kernel
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure(progress_bars=False)  # those of several processes would run into each other
    torch.set_num_threads(1)  # several processes share the cores
    log.setLevel(max(level, logging.WARNING) if rank else level)  # what all say, one says
    if sys.platform in LOOPBACK:
        os.environ.setdefault(INTERFACE, LOOPBACK[sys.platform])
    torch.distributed.init_process_group(
        "gloo",
        init_method=store.as_uri(),
        rank=rank,
        world_size=count,
        timeout=timedelta(seconds=timeout),
    )
    # Nobody goes on before all have come: the last to connect would find the group closed.
    torch.distributed.barrier()
    return os.getpid()


def _end_with_parent() -> None:
    """One whose parent was killed would wait for its next task for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def _answer(rank: int, function: Callable, args: tuple) -> Any:
    """The function's result. Where it fails the process leaves the group, so that the others fail
    at once instead of waiting for it.
    """
    try:
        return function(rank, *args)
    except BaseException:
        torch.distributed.destroy_process_group()
        raise
