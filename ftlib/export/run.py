"""From a run folder to a served model: base and adapter, GGUF, quantised GGUF, Modelfile, Ollama.
`ftlib export` calls it.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig

from ftlib.adapters.io import CONFIG, AdapterError, read_config, whole_weights
from ftlib.core.paths import name_of, resolve, stand_in
from ftlib.export.errors import ExportError, ServingError
from ftlib.export.go_template import go_template
from ftlib.export.modelfile import parse_modelfile, write_modelfile
from ftlib.export.ollama import find_ollama, ollama_url
from ftlib.export.ollama_server import OllamaServer
from ftlib.export.server import check_name
from ftlib.models.load import holds_tokenizer, ready_tokenizer

PLAIN = {"F16": "f16", "BF16": "bf16", "F32": "f32"}  # not quantised: written as such


@dataclass(frozen=True)
class Exported:
    """What `export_run` wrote: the GGUFs, the Modelfile that names the one to serve, and the
    model's name in Ollama, if made there.
    """

    files: list[Path]
    modelfile: Path
    ollama: str | None

    def __str__(self) -> str:
        lines = [f"{path}  {path.stat().st_size / 1e6:.1f} MB" for path in self.files]
        lines.append(str(self.modelfile))
        if self.ollama:
            lines.append(f"in Ollama: ollama run {self.ollama}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Trained:
    """What a run left: an adapter folder over `base`, or the `model` folder of full fine-tuning."""

    base: str | None
    adapter: Path | None = None
    model: Path | None = None

    def tokenizer_folder(self, base: str) -> str:
        """Where the tokenizer and template that it was trained with are: beside what was trained,
        else (version 0.1.0 did not keep them, nor does `save_adapter`) with the base.
        """
        trained = self.adapter or self.model
        return str(trained) if trained and holds_tokenizer(trained) else base


def _recorded_base(run: Path) -> str | None:
    manifest = run / "manifest.json"
    if not manifest.is_file():
        return None
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))["base"]
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{manifest} is damaged ({type(error).__name__}: {error}): "
            "pass the adapter's or model's own folder"
        ) from None


def _stated_base(adapter: Path) -> str | None:
    _, fields = read_config(adapter)
    return fields.get("base_model_name_or_path")


def find_trained(run: str | Path) -> Trained:
    """What lies in a folder that `finetune` or `prefer` left, in an adapter folder or in a model
    folder. AdapterError if nothing does.
    """
    run = Path(run)
    if (run / "adapter" / CONFIG).is_file():
        adapter = run / "adapter"
        stated = _stated_base(adapter)  # first: this refuses a damaged adapter
        return Trained(_recorded_base(run) or stated, adapter=adapter)
    if (run / CONFIG).is_file():
        return Trained(_stated_base(run), adapter=run)
    if (run / "model" / "config.json").is_file():
        return Trained(_recorded_base(run), model=run / "model")
    raise AdapterError(
        f"{run} holds no adapter and no model: pass the output_dir of a finished run, "
        "or a folder that save_adapter wrote"
    )


def find_adapter(run: str | Path) -> tuple[Path, str | None]:
    """(adapter folder, base model) of a run or of an adapter folder, the base by the name that a
    profile has for it (`core.paths.name_of`). AdapterError if there is none.
    """
    found = find_trained(run)
    if not found.adapter:
        raise AdapterError(f"{run} holds a whole model, {found.model}, and no adapter")
    return found.adapter, name_of(found.base) if found.base else None


def _write_ggufs(
    source: Path, tokenizer, trained: Trained, target: Path, stem: str, quant: str, adapter: bool
) -> tuple[list[Path], Path | None]:
    """(the model's files, the one to serve last; the adapter's, if it is apart)."""
    from ftlib.export.gguf_adapter import export_adapter_gguf
    from ftlib.export.gguf_writer import export_gguf
    from ftlib.export.llamacpp import quantize_gguf

    dtype = PLAIN.get(quant, "f16")
    plain = target / f"{stem}-{dtype}.gguf"
    files = [plain]
    merged = None if adapter else trained.adapter
    export_gguf(source, tokenizer, plain, dtype=dtype, adapter=merged)
    if quant not in PLAIN:
        quantised = target / f"{stem}-{quant}.gguf"
        files.append(quantised)
        quantize_gguf(plain, quantised, quant)
    if not adapter:
        return files, None
    adapter_file = target / f"{stem}-adapter.gguf"
    export_adapter_gguf(trained.adapter, adapter_file, base=source)
    return files, adapter_file


def _checked(
    name: str, quant: str, trained: Trained, run, base: str | None, adapter: bool, ollama: bool
) -> str:
    """`quant` as it is written, after everything that can be refused before the long work."""
    from ftlib.export.llamacpp import QUANTIZATIONS

    check_name(name)
    known = (*QUANTIZATIONS, *PLAIN)
    if quant.upper() not in known:
        raise ExportError(f"quant={quant!r}: use one of {', '.join(known)}")
    if not (base or trained.base):
        raise AdapterError(f"{run} names no base model: pass base=, a folder or Hub id")
    if adapter and not trained.adapter:
        raise AdapterError(
            f"{run} holds a whole model: there is no adapter to ship apart; leave adapter out"
        )
    if adapter and trained.adapter and whole_weights(trained.adapter):
        raise ExportError(
            f"{run} has an embedding of its own (tokens were added, or it was trained), which a "
            "GGUF adapter cannot say: leave adapter out, and it is merged"
        )
    if ollama and find_ollama() is None:
        raise ServingError(
            f"no Ollama answers at {ollama_url()}: start it by `ollama serve`, or set OLLAMA_HOST"
        )
    return quant.upper()


def export_run(
    run: str | Path,
    name: str,
    quant: str = "Q4_K_M",
    base: str | None = None,
    system: str | None = None,
    num_ctx: int | None = None,
    output: str | Path | None = None,
    adapter: bool = False,
    ollama: bool = False,
    template: str | None = None,
) -> Exported:
    """Export what `run` trained, an adapter merged into its base or a whole model, as GGUF, and
    write a Modelfile for it.

    `quant`: llama.cpp's name such as Q4_K_M, quantised from an f16 that stays beside it; or F16,
    BF16, F32. `base`: a folder or Hub id, None for the one that the run names. The tokenizer and
    its template are those that the run kept, else the base's. `num_ctx`: None takes the model's,
    4,096 at most. `output`: None for `run`/export. `adapter`: ship base and adapter as two GGUFs
    (plain LoRA only) instead of merged. `ollama`: create the model `name` there. `template`: the
    Modelfile's, in Go's language; None: the one that writes what the chat template does. Raises
    AdapterError, LoadError, ServingError, ModelfileError or what the export raises, all
    ValueErrors; a wrong argument before anything is written.
    """
    trained = find_trained(run)
    quant = _checked(name, quant, trained, run, base, adapter, ollama)
    base = resolve(stand_in(str(base or trained.base), given=True))
    source = Path(trained.model or base)
    tokenizer = ready_tokenizer(trained.tokenizer_folder(base))
    if template is None:
        template = go_template(tokenizer)  # before anything is written: it may find none
    num_ctx = _context_of(source) if num_ctx is None else num_ctx
    target = Path(output or Path(run) / "export")
    target.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[:/]", "-", name)
    files, adapter_file = _write_ggufs(source, tokenizer, trained, target, stem, quant, adapter)
    modelfile = write_modelfile(
        target / "Modelfile",
        files[-1],
        template=template,
        tokenizer=tokenizer,
        system=system,
        adapter=adapter_file,
        num_ctx=num_ctx,
    )
    if adapter_file:
        files.append(adapter_file)
    if not ollama:
        return Exported(files, modelfile, None)
    _create_in_ollama(name, modelfile)
    return Exported(files, modelfile, name)


def _context_of(source: str | Path) -> int:
    """The model's context in tokens, 4,096 at most: a longer one takes memory when it is served."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return min(config.max_position_embeddings, 4096)


def _create_in_ollama(name: str, modelfile: Path) -> None:
    server = OllamaServer(name, parse_modelfile(modelfile))
    with server.http, server.client:
        server.create(modelfile.parent)
