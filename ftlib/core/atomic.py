"""Write beside and rename: a reader of the file finds the old content or the new, never half."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, of this process alone."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _name_file(error: OSError, path: Path) -> None:
    """Let an error of the system name the file: a full disk says only that there is no space."""
    if error.errno is not None and error.filename is None:
        error.filename = str(path)


@contextlib.contextmanager
def replacing(path: Path, keep: bool = False) -> Iterator[Path]:
    """A path beside `path` to write to, which takes `path`'s place when the block ends.

    A block that fails leaves `path` as it was and what it wrote is deleted, unless `keep`; so does
    a rename that fails.
    """
    temporary = _beside(path)
    complete = keep
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        complete = True
    except OSError as error:
        _name_file(error, path)
        raise
    finally:
        try:
            if complete and temporary.exists():
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_together(*paths: Path) -> Iterator[tuple[Path, ...]]:
    """A path beside each of `paths` to write to; they take their places together when the block
    ends.

    A block that fails leaves all as they were, and so does a rename that fails: those before it
    are taken back. Files of one model must not be mixed with those of another.
    """
    temporary = tuple(_beside(path) for path in paths)
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _swap_in(temporary, paths)
    except OSError as error:
        _name_file(error, paths[0])
        raise
    finally:
        for left in temporary:
            left.unlink(missing_ok=True)


def _swap_in(temporary: tuple[Path, ...], paths: tuple[Path, ...]) -> None:
    """Rename each new file over its old one; if a rename fails, undo those before it."""
    with contextlib.ExitStack() as kept, contextlib.ExitStack() as undo:
        for new, path in zip(temporary, paths, strict=True):
            old = new.with_suffix(".old.tmp")
            kept.callback(old.unlink, missing_ok=True)
            _keep_copy(path, old)
            undo.callback(_put_back, old, path)  # before, so that no interrupt falls between
            os.replace(new, path)
        undo.pop_all()  # all went well


def _keep_copy(path: Path, copy: Path) -> None:
    """A second name of the file, without a copy of its content where the file system can."""
    copy.unlink(missing_ok=True)
    if not path.is_file():
        return
    try:
        os.link(path, copy)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, copy)


def _put_back(copy: Path, path: Path) -> None:
    """The old file again, or none where there was none."""
    if copy.exists():
        os.replace(copy, path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder` to write into, which gets its name when the block ends;
    `folder` must not exist, or be empty. A block that fails leaves nothing behind.
    """
    temporary = _beside(folder)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
