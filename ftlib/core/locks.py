"""Locks between the processes of one machine and user; one that is killed leaves none behind."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout


class LockedError(OSError):
    """Another process holds the lock."""


@contextlib.contextmanager
def locked(folder: Path | None, purpose: str, wait: bool = True) -> Iterator[None]:
    """Within the block no other process has the folder for the same purpose; None needs no lock.
    LockedError where one has it now, unless the lock is to `wait` for.

    The lock lies with the temporary files, so that the folder holds what is kept and nothing else.
    """
    if folder is None:
        yield
        return
    name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    file = Path(tempfile.gettempdir()) / f"ftlib-{purpose}-{os.getuid()}-{name}.lock"
    lock = FileLock(file, timeout=-1 if wait else 0)
    try:
        lock.acquire()
    except Timeout:
        raise LockedError(f"{folder}: another process has it now") from None
    try:
        yield
    finally:
        lock.release()
