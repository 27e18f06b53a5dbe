"""Where the embedded data lies, and what a model's name means."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent  # of the checkout
LABS = ROOT / "labs"
DATA = Path(os.environ.get("FTLIB_DATA_ROOT", ROOT / "data"))
EMBEDDED = "world-llama-4m"


def resolve(name_or_path: str | os.PathLike) -> str:
    """The embedded model's name -> its folder; anything else unchanged."""
    name = str(name_or_path)
    if name == EMBEDDED:
        return str(DATA / EMBEDDED)
    return name


def is_path(name: str) -> bool:
    """Whether a model's name is a folder, there or not, rather than an id of the Hub."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1


def stand_in(name: str, given: bool) -> str:
    """`FTLIB_MODEL` for a Hub id or the profile's model; a folder that was asked for stays."""
    local = os.environ.get("FTLIB_MODEL")
    if not local:
        return name
    is_folder = is_path(name) or name == EMBEDDED
    if given and is_folder:
        return name
    return local
