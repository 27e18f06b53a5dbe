"""Run the same experiment on several seeds, side by side where the machine allows it."""

from __future__ import annotations

import gc
import logging
import multiprocessing.connection
import os
import sys
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from typing import cast

import torch

from ftlib.core.machine import available_memory
from ftlib.core.runtime import configure


def _one(function: Callable, seed, pipe, index: int) -> None:
    """In a child: one run in one thread; sends (index, value, error) to the parent.

    One thread, so that children share the cores and no OpenMP pool of the parent is touched. No
    progress bars: a notebook's are drawn by messages, which a fork cannot send.
    """
    torch.set_num_threads(1)
    configure(progress_bars=False)
    logging.getLogger("ftlib").setLevel(logging.WARNING)  # every run would say the same
    try:
        pipe.send((index, function(seed), None))
    except BaseException as error:  # whatever it is, the parent must hear of it
        pipe.send((index, None, f"{type(error).__name__}: {error}"))
    finally:
        pipe.close()


def workers(gb_each: float = 0.0) -> int:
    """How many runs go side by side: one a core on a CPU under Linux, else one; fewer where each
    needs `gb_each` GB of memory and less is free.

    `FTLIB_WORKERS` overrides.
    """
    wanted = os.environ.get("FTLIB_WORKERS")
    if wanted:
        if not wanted.isdigit() or int(wanted) < 1:
            raise ValueError(f"FTLIB_WORKERS={wanted!r}: must be a whole number of at least 1")
        return int(wanted)
    if sys.platform != "linux" or torch.cuda.is_available():
        return 1
    cores = len(os.sched_getaffinity(0))
    free = available_memory()
    if not gb_each or free is None:
        return cores
    return max(1, min(cores, int(free / (gb_each * 1e9))))


def over_seeds(function: Callable, seeds: Iterable, gb_each: float = 0.0) -> list:
    """`[function(seed) for seed in seeds]`, each in its own process where there is no GPU.

    The processes are forked and have one thread. A small model keeps one core busy but not two:
    side by side, n runs take about n/cores of the time. What `function` returns must be picklable:
    numbers and arrays rather than models. `gb_each`: memory that a run needs. RuntimeError if a run
    fails.
    """
    seeds = list(seeds)
    count = workers(gb_each)
    if count == 1 or len(seeds) == 1:
        return [function(seed) for seed in seeds]
    gc.collect()
    gc.freeze()  # a child that never walks the parent's objects copies fewer of its pages
    running: dict = {}  # pipe -> (process, seed)
    try:
        return _side_by_side(function, seeds, count, running)
    finally:
        gc.unfreeze()
        for process, _ in running.values():
            process.terminate()


def _side_by_side(function: Callable, seeds: list, count: int, running: dict) -> list:
    """The results in the order of the seeds, `count` runs at a time; `running` holds those."""
    results: list = [None] * len(seeds)
    waiting = list(enumerate(seeds))
    while waiting or running:
        while waiting and len(running) < count:
            index, seed = waiting.pop(0)
            _start(function, seed, index, running)
        ready = cast(list[Connection], multiprocessing.connection.wait(list(running)))
        for pipe in ready:
            process, seed = running.pop(pipe)
            try:
                index, value, error = pipe.recv()
            except EOFError:
                error = "the process died (out of memory?)"
            process.join()
            if error:
                raise RuntimeError(f"the run with seed {seed!r} failed: {error}")
            results[index] = value
    return results


def _start(function: Callable, seed, index: int, running: dict) -> None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_one, args=(function, seed, theirs, index), daemon=True)
    process.start()
    theirs.close()
    running[ours] = (process, seed)
