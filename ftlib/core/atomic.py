"""Write beside and rename: a reader of the file finds the old content or the new, never half."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path, keep: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to, which takes `path`'s place when the block ends.

    A block that fails leaves `path` as it was and what it wrote is deleted, unless `keep`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    complete = keep
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        complete = True
    except OSError as error:
        if error.filename is None:  # a full disk says only that there is no space
            error.filename = str(path)
        raise
    finally:
        if complete and temporary.exists():
            os.replace(temporary, path)
        else:
            temporary.unlink(missing_ok=True)
