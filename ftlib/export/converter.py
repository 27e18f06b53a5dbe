"""llama.cpp's own convert_hf_to_gguf.py, for architectures that ftlib's writer does not know."""

from __future__ import annotations

import copy
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

from torch import Tensor, nn

from ftlib.core.atomic import replacing
from ftlib.export.errors import ExportError
from ftlib.export.source import HEAD, find_folder, from_model


def run_converter(model, tokenizer, path: Path, dtype: str, adapter, converter) -> Path:
    """convert_hf_to_gguf.py in a process of its own. A model in memory is merged and saved to a
    temporary folder first.
    """
    converter = Path(converter).expanduser()
    if not converter.is_file():
        raise ExportError(
            f"converter={str(converter)!r} does not exist: pass the path of llama.cpp's "
            "convert_hf_to_gguf.py"
        )
    if adapter is not None:
        raise ExportError(
            "adapter and converter exclude each other: load the model, load_adapter, and pass the "
            "model"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as temporary, replacing(path) as partial:
        if isinstance(model, nn.Module):
            folder = _saved(model, tokenizer, Path(temporary))
        else:
            folder = find_folder(model)
        command = [sys.executable, str(converter), str(folder)]
        command += ["--outfile", str(partial), "--outtype", dtype]
        run = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
        if run.returncode or not partial.is_file():
            raise ExportError(
                f"{converter.name} failed ({run.returncode}): {run.stderr.strip()[-800:]}"
            )
    return path


def _saved(model: nn.Module, tokenizer, folder: Path) -> Path:
    """The merged model as a checkpoint; it is held a second time while it is written."""
    from safetensors.torch import save_file

    source = from_model(model)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    config = copy.deepcopy(source.config)
    if HEAD in source.shapes:  # a tied head whose adapter gives it a weight of its own
        config.tie_word_embeddings = False
    config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    merged = {}
    for name in source.shapes:
        values = cast(Tensor, source.load(name).values)  # a model in memory has no StoredRows
        merged[name] = values.to("cpu", dtype).contiguous()
    save_file(merged, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
