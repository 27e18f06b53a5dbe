"""Runs over seeds: in order, side by side or one after the other, and a failing run is heard of."""

import os

import pytest

from ftlib.core import seeds
from ftlib.core.seeds import over_seeds, workers


@pytest.mark.parametrize("count", ["1", "2", "4"])
def test_results_come_in_the_order_of_the_seeds(count, monkeypatch):
    monkeypatch.setenv("FTLIB_WORKERS", count)
    assert (
        workers() == int(count)
        and over_seeds(lambda seed: seed**2, [3, 1, 2]) == [9, 1, 4]
        and over_seeds(abs, []) == []
    )


def test_fewer_runs_go_side_by_side_where_memory_is_short(monkeypatch):
    """10 GB are free: two runs of 4 GB fit, one of 6, and one of 40 runs all the same."""
    monkeypatch.delenv("FTLIB_WORKERS", raising=False)
    monkeypatch.setattr(seeds.os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(seeds, "available_memory", lambda: 10 * 10**9)
    assert [workers(gb) for gb in (0.0, 0.5, 4.0, 6.0, 40.0)] == [8, 8, 2, 1, 1]
    monkeypatch.setattr(seeds, "available_memory", lambda: None)  # unknown
    assert workers(4.0) == 8


def test_each_run_is_a_process_of_its_own_where_there_are_several(monkeypatch):
    monkeypatch.setenv("FTLIB_WORKERS", "2")
    assert len({os.getpid(), *over_seeds(lambda seed: os.getpid(), [0, 1])}) == 3


def test_a_child_shows_no_progress_bar(monkeypatch):
    """A notebook draws a bar by messages, which a fork cannot send."""
    from transformers.utils import logging as transformers_logging

    monkeypatch.setenv("FTLIB_WORKERS", "2")
    transformers_logging.enable_progress_bar()

    def shows(seed: int) -> bool:
        return transformers_logging.is_progress_bar_enabled()

    assert over_seeds(shows, [0, 1]) == [False, False] and shows(0)


@pytest.mark.parametrize(
    "fault",
    [lambda seed: 1 // seed, lambda seed: os._exit(9) if seed == 0 else seed],
    ids=["raises", "dies"],
)
def test_a_run_that_fails_is_named(fault, monkeypatch):
    monkeypatch.setenv("FTLIB_WORKERS", "2")
    with pytest.raises(RuntimeError, match=r"seed 0 failed: (ZeroDivisionError|the process died)"):
        over_seeds(fault, [1, 0, 2])


@pytest.mark.parametrize("value", ["two", "0", "-1", "1.5"])
def test_a_number_of_workers_that_is_none_is_named(value, monkeypatch):
    monkeypatch.setenv("FTLIB_WORKERS", value)
    with pytest.raises(ValueError, match=f"FTLIB_WORKERS='{value}': must be a whole number"):
        workers()
