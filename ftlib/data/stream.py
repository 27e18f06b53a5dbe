"""Rows out of files, a few at a time, what cannot be read counted and kept aside.

A million rows pass in bounded memory. A bad row is never dropped in silence: it is counted, kept
aside with its file, place and reason, and too many of them stop the run; a file that is damaged as
a whole raises at the place of the damage.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm import tqdm

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.data.read import LINED, format_of, read_items, read_lines
from ftlib.data.rows import CHECKS, check_row
from ftlib.data.write import log

JUDGE_AFTER = 100  # rows after which the share of rejects is judged for the first time
RAW_KEPT = 10_000  # characters of a bad row that the rejects file keeps


# --- reading --------------------------------------------------------------------------------------
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
        self.paths, self.check, self.rejects = paths, check, rejects
        self.max_reject_share, self.progress = max_reject_share, progress
        self.read, self.rejected, self.reasons = 0, 0, []

    def __iter__(self) -> Iterator[dict]:
        self.read, self.rejected, self.reasons = 0, 0, []
        with contextlib.ExitStack() as stack:
            aside = self.rejects and stack.enter_context(
                stack.enter_context(replacing(self.rejects, keep=True)).open("w", encoding="utf-8")
            )
            for path, number, raw, row in self._items():
                where = f"{path}{':' if format_of(path) in LINED else ' row '}{number}"
                row = self._checked(row, where)
                if isinstance(row, DataError):
                    self._reject(str(row), path, number, where, raw, aside)
                else:
                    self.read += 1
                    yield row
            self._judge()
        if self.rejected:
            log.warning(
                "left out %s of %s rows, the first %s",
                self.rejected,
                self.read + self.rejected,
                self.reasons[0],
            )

    def _items(self) -> Iterator[tuple]:
        """(path, *item) of every file, under a bar of the bytes read."""
        sizes, before = [p.stat().st_size for p in self.paths], 0
        with tqdm(
            total=sum(sizes), unit="B", unit_scale=True, delay=2, disable=not self.progress
        ) as bar:
            for path, size in zip(self.paths, sizes, strict=True):
                with path.open("rb") as file:
                    for i, item in enumerate(read_items(path, file)):
                        if i % 1_000 == 0:
                            bar.set_postfix_str(
                                f"{self.read:,} rows, {self.rejected:,} rejected", refresh=False
                            )
                            bar.update(before + file.tell() - bar.n)
                        yield path, *item
                before += size
                bar.update(before - bar.n)

    def _checked(self, row, where: str) -> dict | DataError:
        if isinstance(row, DataError):
            return DataError(f"{where}: {row}")
        try:
            if not isinstance(row, dict):
                raise DataError(f"{where}: a row is an object {{…}}, not {type(row).__name__}")
            row = self.check(row, where) if self.check else row
        except ValueError as error:
            return error if isinstance(error, DataError) else DataError(f"{where}: {error}")
        except (
            Exception
        ) as error:  # the check is the caller's: whatever it raises, the row is named
            raise DataError(
                f"{where}: the check itself failed ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(row, dict):
            raise DataError(
                f"{where}: the check returned {type(row).__name__}: it must return the row, or "
                "raise ValueError"
            )
        return row

    def _reject(self, error: str, path: Path, number: int, where: str, raw, aside) -> None:
        self.rejected += 1
        self.reasons += [error] if len(self.reasons) < 10 else []
        if aside:
            text = raw.decode("utf-8", "backslashreplace") if isinstance(raw, bytes) else raw
            aside.write(
                json.dumps(
                    {
                        "file": str(path),
                        "line": number,
                        "reason": error.removeprefix(f"{where}: "),
                        "raw": text and text[:RAW_KEPT],
                    }
                )
                + "\n"
            )
        if self.read + self.rejected >= JUDGE_AFTER:
            self._judge()

    def _judge(self) -> None:
        seen = self.read + self.rejected
        if self.rejected > self.max_reject_share * seen:
            raise DataError(
                f"{self.rejected} of {seen} rows are unusable, more than "
                f"max_reject_share={self.max_reject_share}: "
                "mend the file or raise it. The first:\n" + "\n".join(self.reasons)
            )


def stream_rows(
    paths,
    check: str | Callable | None = None,
    rejects=None,
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
    paths = [Path(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]
    if check is not None and not callable(check) and check not in CHECKS:
        raise DataError(
            f"check={check!r}: use None, {', '.join(map(repr, CHECKS))} or a function (row, where)"
        )
    if not 0 <= max_reject_share <= 1:
        raise DataError(f"max_reject_share={max_reject_share!r}: a share between 0 and 1 is needed")
    if not paths:
        raise DataError("no file to read: paths is empty")
    for path in paths:
        format_of(path)
        if not path.is_file():
            raise DataError(f"{path} does not exist")
    return RowStream(
        paths,
        CHECKS.get(check) if isinstance(check, str) else check,
        rejects and Path(rejects),
        max_reject_share,
        progress,
    )


def read_jsonl(path: str | os.PathLike, on_error: str = "raise", check=check_row) -> list[dict]:
    """The rows of a JSONL file. A bad line raises DataError with file, line and reason.

    `check(row, where)` raises for a row that is not of its schema: by default one with `messages`;
    `check_any` takes preference pairs and binary feedback too. With on_error="skip" bad lines are
    kept out, and one line says how many and which came first.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error={on_error!r}: use 'raise' or 'skip'")
    path, rows, bad = Path(path), [], []
    if not path.is_file():
        raise DataError(f"{path} does not exist")
    with path.open("rb") as file:
        for number, _, row in read_lines(file):
            where = f"{path}:{number}"
            try:
                if isinstance(row, DataError):
                    raise DataError(f"{where}: {row}")
                rows.append(check(row, where))
            except DataError as error:
                if on_error == "raise":
                    raise
                bad.append(str(error))
    if bad:
        print(f"{path}: left out {len(bad)} of {len(bad) + len(rows)} lines, the first {bad[0]}")
    return rows
