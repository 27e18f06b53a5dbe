"""Where the entries of a record are computed."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def in_empty_folder() -> Iterator[None]:
    """Work in a new empty folder until the end of the block.

    Some trials begin with the adapter of lab 3.1.4, and look for the user's own run of that lab
    first. A record is of what everybody has: here they find the adapter that the course ships, or
    none.
    """
    with tempfile.TemporaryDirectory(prefix="ftlib-record-") as folder, contextlib.chdir(folder):
        yield
