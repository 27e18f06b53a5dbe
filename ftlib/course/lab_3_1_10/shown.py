"""What the notebook needs where a result shows the runs of another profile than its own: that
profile's files and its other results; and which layers of a deep model it looks at.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ftlib.core.profiles import Profile, get_profile
from ftlib.course.lab_3_1_10.files import export_f16
from ftlib.course.records.live import Result
from ftlib.export.gguf_file import read_gguf
from ftlib.export.llamacpp import quantize_gguf

SAMPLED = 28  # layers that a cell looks at, about
IN_A_BLOCK = 7  # adapted layers of a block: a stride of 7 would meet the same one in every block


def files_of(result: Result, files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """{type: file} of the model whose runs a result shows: `files`, the notebook's own, or tiny's,
    which are written into a folder of their own.
    """
    if not result.shown_in:
        return dict(files)
    return _files(result.profile, folder / result.profile.name)


@functools.cache
def _files(profile: Profile, folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    f16 = export_f16(profile, 0, folder)
    files = {"F16": f16}
    for kind in profile.export.quantizations:
        files[kind] = quantize_gguf(f16, folder / f"{kind}.gguf", kind).path
    return files


def some_of(layers: Mapping[str, Any]) -> dict[str, Any]:
    """All layers of a small model; of a deep one about `SAMPLED`, of every kind of matrix."""
    stride = max(1, len(layers) // SAMPLED)
    if stride % IN_A_BLOCK == 0:
        stride += 1
    return dict(list(layers.items())[::stride])


def with_super_blocks(files: Mapping[str, Path], folder: Path) -> dict[str, Path]:
    """Files of which the Q4_K_M holds super-blocks of Q4_K: the notebook's own; or tiny's, where
    every row of the model is too narrow for them.
    """
    held = read_gguf(files["Q4_K_M"]).tensors
    if any(tensor.tensor_type.name == "Q4_K" for tensor in held):
        return dict(files)
    tiny = get_profile("tiny")
    return _files(tiny, folder / tiny.name)
