"""Processes that others started: ended with all that they left behind.

A process group is left by `os.setsid()`, and a parent by forking twice. On Linux the caller becomes
the one to whom orphans below it are given (PR_SET_CHILD_SUBREAPER of prctl(2)), so that all of them
are found below it in /proc. Elsewhere, on macOS, the groups alone are ended, and a process that has
left its group lives on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PROC = Path("/proc")
LINUX = sys.platform == "linux"
PATIENCE = 10.0  # seconds until what cannot be ended is left alone
PAUSE = 0.01  # seconds between two looks
# Of <linux/prctl.h>.
SET_DUMPABLE = 4
SET_CHILD_SUBREAPER = 36
GET_CHILD_SUBREAPER = 37


def _prctl(option: int, argument) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def keep_memory_private() -> None:
    """Let no other process of this account read or change this one's memory (/proc/…/mem, ptrace),
    but one that has the administrator's rights. Linux only.
    """
    if LINUX:
        _prctl(SET_DUMPABLE, 0)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Orphans below this process become its children."""
    before = ctypes.c_int()
    _prctl(GET_CHILD_SUBREAPER, ctypes.byref(before))
    _prctl(SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        _prctl(SET_CHILD_SUBREAPER, before.value)


@dataclass(frozen=True)
class Running:
    """A process; `began` tells it from a later one of the same number. `ended`: it waits for its
    parent to ask how.
    """

    pid: int
    began: str
    parent: int = field(compare=False)
    ended: bool = field(compare=False)


def _all() -> list[Running]:
    found = []
    for folder in PROC.iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            text = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has gone
            continue
        state, parent, *rest = text.rpartition(")")[2].split()  # the name before may hold anything
        found.append(Running(int(folder.name), rest[17], int(parent), state in "ZX"))
    return found


def below(ancestor: int) -> set[Running]:
    """The processes below one, at any depth. Empty where there is no /proc."""
    everything = _all() if LINUX else []
    family: set[Running] = set()
    ancestors = {ancestor}
    while True:
        more = {one for one in everything if one.parent in ancestors} - family
        if not more:
            return family
        family |= more
        ancestors |= {one.pid for one in more}


@contextlib.contextmanager
def ended_with_the_block(leaders: list) -> Iterator[None]:
    """At the end of the block, end what began below this process in it. `leaders`: processes of
    multiprocessing's that began, as they are listed then, each in a group of its own; elsewhere
    than on Linux only these groups are ended.
    """
    if not LINUX:
        try:
            yield
        finally:
            _kill_groups(leaders)
        return
    before = below(os.getpid())
    with _adopting():
        try:
            yield
        finally:
            _kill_groups(leaders)
            _end_all_but(before)


def _kill_groups(leaders: list) -> None:
    for leader in leaders:
        for kill in (os.killpg, os.kill):  # it may not have begun its group yet
            with contextlib.suppress(ProcessLookupError, PermissionError):
                kill(leader.pid, signal.SIGKILL)


def _end_all_but(before: set[Running]) -> None:
    """End what is below this process and was not there before, until nothing new is left: what is
    ended last may have started another.
    """
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        left = below(os.getpid()) - before
        for one in left:
            _end(one)
        if all(one.ended and one.parent != os.getpid() for one in left):
            return
        time.sleep(PAUSE)


def _end(one: Running) -> None:
    if not one.ended:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(one.pid, signal.SIGKILL)
    elif one.parent == os.getpid():
        with contextlib.suppress(ChildProcessError):  # somebody else here has asked
            os.waitpid(one.pid, os.WNOHANG)
