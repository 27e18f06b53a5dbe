"""From a run folder to a served model: base and adapter, GGUF, quantised GGUF, Modelfile, Ollama. `ftlib export` calls it."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from ftlib.adapter_io import CONFIG, AdapterError, read_config
from ftlib.loading import _ready_tokenizer, _stand_in, resolve
from ftlib.modelfile import parse_modelfile, write_modelfile
from ftlib.serving import OllamaServer, ServingError, check_name, find_ollama, ollama_url

PLAIN = {"F16": "f16", "BF16": "bf16", "F32": "f32"}  # not quantised: written as such


@dataclass(frozen=True)
class Exported:
    """What `export_run` wrote: the GGUFs, the Modelfile that names the one to serve, and the model's name in Ollama, if made there."""
    files: list[Path]
    modelfile: Path
    ollama: str | None

    def __str__(self) -> str:
        lines = [f"{path}  {path.stat().st_size / 1e6:.1f} MB" for path in self.files] + [str(self.modelfile)]
        return "\n".join(lines + ([f"in Ollama: ollama run {self.ollama}"] if self.ollama else []))


def find_adapter(run: str | Path) -> tuple[Path, str]:
    """(adapter folder, base model) of a folder that `finetune` left, or of an adapter folder. AdapterError if it holds none."""
    run = Path(run)
    folder = next((f for f in (run / "adapter", run) if (f / CONFIG).is_file()), None)
    if folder is None:
        raise AdapterError(f"{run} holds no adapter: pass the output_dir of a finished run, or a folder that save_adapter wrote")
    base = read_config(folder)[1].get("base_model_name_or_path")
    manifest = folder.parent / "manifest.json"
    if folder != run and manifest.is_file():
        try:
            base = json.loads(manifest.read_text())["base"] or base
        except (ValueError, KeyError, TypeError) as error:
            raise AdapterError(f"{manifest} is damaged ({type(error).__name__}: {error}): pass the adapter folder {folder}") from None
    return folder, base


def export_run(run: str | Path, name: str, quant: str = "Q4_K_M", base: str | None = None, system: str | None = None,
               num_ctx: int | None = None, output: str | Path | None = None, adapter: bool = False, ollama: bool = False) -> Exported:
    """Export the adapter of `run` with its base as GGUF, and write a Modelfile for it.

    `quant`: llama.cpp's name such as Q4_K_M, quantised from an f16 that stays beside it; or F16, BF16, F32. `base`: a folder or Hub
    id, None for the one that the run names. `num_ctx`: None takes the model's, 4,096 at most. `output`: None for `run`/export.
    `adapter`: ship base and adapter as two GGUFs (plain LoRA only) instead of merged. `ollama`: create the model `name` there.
    Raises AdapterError, LoadError, ServingError, ModelfileError or what the export raises, all ValueErrors.
    """
    from ftlib.export import export_adapter_gguf, export_gguf, quantize_gguf
    check_name(name)
    folder, recorded = find_adapter(run)
    if not (base or recorded):
        raise AdapterError(f"{folder} names no base model: pass base=, a folder or Hub id")
    if ollama and find_ollama() is None:  # before the long work
        raise ServingError(f"no Ollama answers at {ollama_url()}: start it by `ollama serve`, or set OLLAMA_HOST")
    source = resolve(_stand_in(str(base or recorded), given=True))
    tokenizer = _ready_tokenizer(source)
    length = AutoConfig.from_pretrained(source, trust_remote_code=False).max_position_embeddings
    target = Path(output or Path(run) / "export")
    target.mkdir(parents=True, exist_ok=True)
    stem, plain = re.sub(r"[:/]", "-", name), PLAIN.get(quant.upper())
    first = target / f"{stem}-{plain or 'f16'}.gguf"
    export_gguf(source, tokenizer, first, dtype=plain or "f16", adapter=None if adapter else folder)
    files = [first]
    if not plain:
        files.append(target / f"{stem}-{quant}.gguf")
        quantize_gguf(first, files[-1], quant)
    served, over = files[-1], None
    if adapter:
        over = target / f"{stem}-adapter.gguf"
        export_adapter_gguf(folder, over, base=source)
        files.append(over)
    modelfile = write_modelfile(target / "Modelfile", served, tokenizer=tokenizer, system=system, adapter=over,
                                num_ctx=num_ctx or min(length, 4096))
    if ollama:
        server = OllamaServer(name, parse_modelfile(modelfile))
        with server.http, server.client:
            server.create(target)
    return Exported(files, modelfile, name if ollama else None)
