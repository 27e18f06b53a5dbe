"""Where the embedded data lies, and what a model's name stands for."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent  # of the checkout
LABS = ROOT / "labs"
DATA = Path(os.environ.get("FTLIB_DATA_ROOT", ROOT / "data"))
EMBEDDED = "world-llama-4m"


def resolve(name_or_path: str | os.PathLike) -> str:
    """The embedded model's name -> its folder; anything else unchanged."""
    return str(DATA / EMBEDDED) if str(name_or_path) == EMBEDDED else str(name_or_path)


def is_path(name: str) -> bool:
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1


def stand_in(name: str, given: bool) -> str:
    """`FTLIB_MODEL` for a Hub id or the profile's model; a folder that was asked for stays."""
    local = os.environ.get("FTLIB_MODEL")
    return name if not local or (given and (is_path(name) or name == EMBEDDED)) else local
