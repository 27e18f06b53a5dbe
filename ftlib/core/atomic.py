"""Write beside and rename: whoever reads a file finds the old content or the new, never half of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, keep: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends, and goes if it
    fails (unless `keep`).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    done = keep
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        done = True
    finally:
        if done and temporary.exists():
            os.replace(temporary, path)
        else:
            temporary.unlink(missing_ok=True)
