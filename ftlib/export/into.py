"""A run exported into a GGUF that somebody else made: the way for a base that is too large to be
merged in memory, or of which only a quantised file is at hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ftlib.export.errors import ExportError
from ftlib.export.gguf_base import open_base
from ftlib.export.gguf_merge import merge_adapter_gguf
from ftlib.export.gguf_writer import DTYPES

PLAIN = {name.upper(): name for name in DTYPES}


def merge_into(adapter: Path, base: str | Path, folder: Path, stem: str, quant: str) -> Path:
    """Merge the adapter (a folder or a GGUF) into the file; returns the new one in `folder`.

    `quant`: F32, F16, BF16 or Q8_0 for the weights that the adapter changes, all others stay as
    they are; or a type of `quantize_gguf`, to which llama.cpp then brings the whole file.
    """
    if quant in PLAIN:
        path = folder / f"{stem}-{PLAIN[quant]}.gguf"
        return merge_adapter_gguf(base, adapter, path, dtype=PLAIN[quant])
    return merge_adapter_gguf(base, adapter, folder / f"{stem}-{quant}.gguf", quant=quant)


def check_tokens(tokenizer: Any, base: str | Path) -> None:
    """ExportError unless every id of the tokenizer is the same token in the file, which may have
    more (padding).
    """
    theirs = open_base(base).texts("tokenizer.ggml.tokens")
    ours = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    if len(ours) > len(theirs):
        raise ExportError(
            f"{base} has {len(theirs)} tokens, the run's tokenizer {len(ours)}: tokens were added, "
            "which are not in this file; merge into the checkpoint (leave `into` out)"
        )
    for i, (one, other) in enumerate(zip(ours, theirs, strict=False)):
        if one is not None and one != other:
            raise ExportError(
                f"{base} has {other!r} as its token {i}, the run's tokenizer {one!r}: is this the "
                "base model that the adapter was trained on?"
            )
