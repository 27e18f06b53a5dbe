"""Run the same experiment on several seeds, side by side where the machine allows it."""

from __future__ import annotations

import gc
import logging
import multiprocessing.connection
import os
import sys
from collections.abc import Callable, Iterable

import torch


def _one(function: Callable, seed, queue, index: int) -> None:
    """In a child: one thread, so that children share the cores and no OpenMP pool of the parent is
    touched.
    """
    torch.set_num_threads(1)
    logging.getLogger("ftlib").setLevel(logging.WARNING)  # every run would say the same
    try:
        queue.send((index, function(seed), None))
    except BaseException as error:  # whatever it is, the parent must hear of it
        queue.send((index, None, f"{type(error).__name__}: {error}"))
    finally:
        queue.close()


def workers() -> int:
    """How many runs go side by side: one a core on a CPU under Linux, else one. `FTLIB_WORKERS`
    overrides.
    """
    if os.environ.get("FTLIB_WORKERS"):
        return max(1, int(os.environ["FTLIB_WORKERS"]))
    alone = sys.platform != "linux" or torch.cuda.is_available()
    return 1 if alone else len(os.sched_getaffinity(0))


def over_seeds(function: Callable, seeds: Iterable) -> list:
    """`[function(seed) for seed in seeds]`, each in a forked process of one thread where there is
    no GPU.

    A small model keeps one core busy but not two: side by side, n runs take about n/cores of the
    time. What `function` returns must be picklable: numbers and arrays rather than models.
    RuntimeError if a run fails.
    """
    seeds, count = list(seeds), workers()
    if count == 1 or len(seeds) == 1:
        return [function(seed) for seed in seeds]
    gc.collect()
    gc.freeze()  # a child that never walks the parent's objects copies fewer of its pages
    context, results, running, todo = (
        multiprocessing.get_context("fork"),
        [None] * len(seeds),
        {},
        list(enumerate(seeds)),
    )
    try:
        while todo or running:
            while todo and len(running) < count:
                index, seed = todo.pop(0)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(
                    target=_one, args=(function, seed, theirs, index), daemon=True
                )
                process.start()
                theirs.close()
                running[ours] = (process, seed)
            for pipe in multiprocessing.connection.wait(list(running)):
                process, seed = running.pop(pipe)
                try:
                    index, value, error = pipe.recv()
                except EOFError:
                    index, value, error = 0, None, "the process died (out of memory?)"
                process.join()
                if error:
                    raise RuntimeError(f"the run with seed {seed!r} failed: {error}")
                results[index] = value
    finally:
        gc.unfreeze()
        for process, _ in running.values():
            process.terminate()
    return results
