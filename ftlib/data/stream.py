"""Rows out of files, a few at a time, what cannot be read counted and kept aside.

A million rows pass in bounded memory. A bad row is never dropped in silence: it is counted, kept
aside with its file, place and reason, and too many of them stop the run; a file that is damaged as
a whole raises at the place of the damage.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.core.paths import ROOT
from ftlib.data.read import LINED, format_of, read_items, read_lines
from ftlib.data.rows import CHECKS, check_object, check_row
from ftlib.data.write import log

JUDGE_AFTER = 100  # rows after which the share of rejects is judged for the first time
RAW_KEPT = 10_000  # characters of a bad row that the rejects file keeps
REASONS_KEPT = 10  # the first of them, for the error and the warning


def _place(path: Path, number: int) -> str:
    """Where a row is, as messages name it: file and line, or file and row where rows have no lines
    of their own.
    """
    # The course's own files by their place in it: where the course lies is this machine's.
    shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    if format_of(path) in LINED:
        return f"{shown}:{number}"
    return f"{shown} row {number}"


class RowStream:
    """What `stream_rows` returns: iterate over it once; `read`, `rejected` and `reasons` (the first
    ten) count meanwhile.
    """

    def __init__(
        self,
        paths: list[Path],
        check,
        rejects: Path | None,
        max_reject_share: float,
        progress: bool,
    ):
        self.paths = paths
        self.check = check
        self.rejects = rejects
        self.max_reject_share = max_reject_share
        self.progress = progress
        self._start()

    def _start(self) -> None:
        self.read = 0
        self.rejected = 0
        self.reasons: list[str] = []

    def __iter__(self) -> Iterator[dict]:
        self._start()
        with self._open_rejects() as aside:
            for path, number, raw, item in self._items():
                where = _place(path, number)
                row = self._checked(item, where)
                if isinstance(row, DataError):
                    self._reject(str(row), path, number, where, raw, aside)
                else:
                    self.read += 1
                    yield row
            self._judge()
        if self.rejected:
            seen = self.read + self.rejected
            log.warning(
                "left out %s of %s rows, the first %s", self.rejected, seen, self.reasons[0]
            )

    @contextlib.contextmanager
    def _open_rejects(self) -> Iterator[TextIO | None]:
        """The file for what is rejected, which is kept whatever happens; None if none is wanted."""
        if self.rejects is None:
            yield None
            return
        with (
            replacing(self.rejects, keep=True) as temporary,
            temporary.open("w", encoding="utf-8") as file,
        ):
            yield file

    def _items(self) -> Iterator[tuple]:
        """(path, *item) of every file, under a bar of the bytes read."""
        sizes = [path.stat().st_size for path in self.paths]
        before = 0  # bytes of the files that are done
        with tqdm(
            total=sum(sizes), unit="B", unit_scale=True, delay=2, disable=not self.progress
        ) as bar:
            for path, size in zip(self.paths, sizes, strict=True):
                with path.open("rb") as file:
                    for i, item in enumerate(read_items(path, file)):
                        if i % 1_000 == 0:
                            self._show(bar, before + file.tell())
                        yield path, *item
                before += size
                bar.update(before - bar.n)

    def _show(self, bar: tqdm, done: int) -> None:
        """Move the bar to `done` bytes."""
        bar.set_postfix_str(f"{self.read:,} rows, {self.rejected:,} rejected", refresh=False)
        bar.update(done - bar.n)

    def _checked(self, item, where: str) -> dict | DataError:
        """The row that an item holds, checked; or why it cannot be used."""
        if isinstance(item, DataError):
            return DataError(f"{where}: {item}")
        try:
            row = check_object(item, where)
            if self.check is not None:
                row = self.check(row, where)
        except DataError as error:
            return error
        except ValueError as error:
            return DataError(f"{where}: {error}")
        # The check is the caller's: whatever it raises, the row is named.
        except Exception as error:
            raise DataError(
                f"{where}: the check itself failed ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: the check returned {type(row).__name__}: it must return the row, or "
                "raise ValueError"
            )
        return row

    def _reject(
        self, error: str, path: Path, number: int, where: str, raw, aside: TextIO | None
    ) -> None:
        """Count an item that cannot be used, and keep it aside."""
        self.rejected += 1
        if len(self.reasons) < REASONS_KEPT:
            self.reasons.append(error)
        if aside is not None:
            text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
            rejected = {
                "file": str(path),
                "line": number,
                "reason": error.removeprefix(f"{where}: "),
                "raw": None if text is None else text[:RAW_KEPT],
            }
            aside.write(json.dumps(rejected) + "\n")
        if self.read + self.rejected >= JUDGE_AFTER:
            self._judge()

    def _judge(self) -> None:
        """DataError if the share of rejects so far is more than is allowed."""
        seen = self.read + self.rejected
        if self.rejected > self.max_reject_share * seen:
            raise DataError(
                f"{self.rejected} of {seen} rows are unusable, more than "
                f"max_reject_share={self.max_reject_share}: fix the file or raise it. "
                "The first:\n" + "\n".join(self.reasons)
            )


def stream_rows(
    paths: str | os.PathLike | Iterable[str | os.PathLike],
    check: str | Callable | None = None,
    rejects: str | os.PathLike | None = None,
    max_reject_share: float = 0.05,
    progress: bool = True,
) -> RowStream:
    """The rows of one file or several, one at a time: .jsonl, .json (one array), .csv (with a
    header), .parquet; .gz on the text formats.

    `check`: None (any object), "messages", "preference", "binary", or a function (row, where) that
    returns the row or raises ValueError. A row that fails, or cannot be parsed, is left out and
    counted: rows read and rejected together are the lines that hold something. `rejects` names a
    JSONL file for them (file, line, reason, raw). More than `max_reject_share` of rejects, judged
    from the hundredth row on and at the end, raise DataError with the first ten; so does a file
    that is damaged as a whole (cut off, no JSON array, no Parquet), at the place of the damage. A
    bar shows after two seconds unless `progress` is off.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    files = [Path(path) for path in paths]
    if check is not None and not callable(check) and check not in CHECKS:
        raise DataError(
            f"check={check!r}: use None, {', '.join(map(repr, CHECKS))} or a function (row, where)"
        )
    if not 0 <= max_reject_share <= 1:
        raise DataError(f"max_reject_share={max_reject_share!r}: a share between 0 and 1 is needed")
    if not files:
        raise DataError("no file to read: paths is empty")
    for path in files:
        format_of(path)
        if not path.is_file():
            raise DataError(f"{path} does not exist")
    check_function = CHECKS[check] if isinstance(check, str) else check
    rejects_path = Path(rejects) if rejects else None
    return RowStream(files, check_function, rejects_path, max_reject_share, progress)


def _refuse_other_format(path: Path, beginning: bytes) -> None:
    """DataError for what is no JSONL from its first bytes on, and who reads it."""
    if beginning.startswith(b"\x1f\x8b"):  # as every gzip file does
        raise DataError(f"{path} is gzipped: stream_rows({str(path)!r}) reads it")
    if beginning.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[") and path.suffix == ".json":
        raise DataError(
            f"{path} holds one JSON array, not a row a line: stream_rows({str(path)!r}) reads it"
        )


def read_jsonl(
    path: str | os.PathLike, on_error: str = "raise", check: Callable = check_row
) -> list[dict]:
    """The rows of a JSONL file. A bad line raises DataError with file, line and reason.

    `check(row, where)` raises for a row that is not of its schema: by default one with `messages`;
    `check_any` takes preference pairs and binary feedback too. With on_error="skip" bad lines are
    kept out, and one line says how many and which came first.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: use 'raise' or 'skip'")
    path = Path(path)
    rows = []
    bad = []
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    with path.open("rb") as file:
        _refuse_other_format(path, file.peek(64))
        for number, _, item in read_lines(file):
            where = f"{path}:{number}"
            try:
                if isinstance(item, DataError):
                    raise DataError(f"{where}: {item}")
                rows.append(check(item, where))
            except DataError as error:
                if on_error == "raise":
                    raise
                bad.append(str(error))
    if bad:
        print(f"{path}: left out {len(bad)} of {len(bad) + len(rows)} lines, the first {bad[0]}")
    return rows
