"""Open a GGUF file: the one place that knows what a damaged header raises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gguf import GGUFReader


def open_reader(path: Path, error: type[Exception], if_missing: str, if_damaged: str) -> GGUFReader:
    """The file's header, and its tensors if it has any. `error`, with what to do (`if_missing`,
    `if_damaged`), for a file that is not there, is damaged or truncated, or is none of GGUF's.
    """
    from gguf import GGUFReader

    if not path.is_file():
        raise error(f"{path} does not exist: {if_missing}")
    try:
        return GGUFReader(path)
    except Exception as found:  # a damaged header raises whatever its bytes happen to mean
        raise error(
            f"{path} is damaged or truncated, or no GGUF file ({type(found).__name__}: {found}): "
            f"{if_damaged}"
        ) from None
