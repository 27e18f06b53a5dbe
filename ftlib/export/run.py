"""From a run folder to a served model: base and adapter, GGUF, quantised GGUF, Modelfile, Ollama.
`ftlib export` calls it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from ftlib.adapters.peft_format import AdapterError, OtherAdapterError, read_config, whole_weights
from ftlib.core.paths import resolve, stand_in
from ftlib.export.errors import ExportError, ServingError
from ftlib.export.gguf_base import GgufBase, open_base
from ftlib.export.make_modelfile import template_for, write_modelfile
from ftlib.export.modelfile import parse_modelfile
from ftlib.export.ollama import find_ollama, ollama_url
from ftlib.export.ollama_server import OllamaServer
from ftlib.export.ollama_versions import ADAPTERS_ARE_GONE, OllamaAbilities, ollama_abilities
from ftlib.export.server import check_name
from ftlib.export.trained import Trained, find_adapter, find_trained
from ftlib.models.load import holds_tokenizer, ready_tokenizer

PLAIN = {"F16": "f16", "BF16": "bf16", "F32": "f32"}  # not quantised: written as such
MOST_CONTEXT = 4096  # tokens: a longer context takes memory when it is served


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
class _Order:
    """What is asked for: the type of the weights, where the files go and how their names begin, the
    Modelfile's template and context where they are given, the Ollama that it is for, if any, and
    whether the tokens are proven.
    """

    quant: str
    folder: Path
    stem: str
    template: str | None
    num_ctx: int | None
    ollama: OllamaAbilities | None
    prove: bool

    def template_of(self, source: Any) -> str:
        """The one that is given, else the one of a tokenizer or GGUF."""
        return template_for(source, self.ollama) if self.template is None else self.template


@dataclass(frozen=True)
class _Written:
    """The model's files, the one to serve last; an adapter's, if it is apart; and what the
    Modelfile says.
    """

    files: list[Path]
    adapter: Path | None
    tokenizer: Any  # None: the file's own
    template: str
    num_ctx: int


def _merge_and_write(run, base: str | None, adapter: bool, order: _Order) -> _Written:
    """A checkpoint, the run's adapter merged into it or beside it."""
    trained = find_trained(run)
    _check_whole(run, base, trained, adapter)
    base = resolve(stand_in(str(base or trained.base), given=True))
    checkpoint = Path(trained.model or base)
    tokenizer = ready_tokenizer(trained.tokenizer_folder(base))
    template = order.template_of(tokenizer)  # before anything is written: it may be refused
    num_ctx = order.num_ctx or _context_of(checkpoint)
    order.folder.mkdir(parents=True, exist_ok=True)
    files, adapter_file = _write_ggufs(checkpoint, tokenizer, trained, order, adapter)
    return _Written(files, adapter_file, tokenizer, template, num_ctx)


def _write_ggufs(
    checkpoint: Path, tokenizer, trained: Trained, order: _Order, adapter: bool
) -> tuple[list[Path], Path | None]:
    """(the model's files, the one to serve last; the adapter's, if it is apart)."""
    from ftlib.export.gguf_adapter import export_adapter_gguf
    from ftlib.export.gguf_writer import export_gguf
    from ftlib.export.llamacpp import quantize_gguf

    dtype = PLAIN.get(order.quant, "f16")
    plain = order.folder / f"{order.stem}-{dtype}.gguf"
    files = [plain]
    merged = None if adapter else trained.adapter
    export_gguf(checkpoint, tokenizer, plain, dtype=dtype, adapter=merged, prove=order.prove)
    if order.quant not in PLAIN:
        quantised = order.folder / f"{order.stem}-{order.quant}.gguf"
        files.append(quantised)
        quantize_gguf(plain, quantised, order.quant)
    if not adapter or trained.adapter is None:
        return files, None
    adapter_file = order.folder / f"{order.stem}-adapter.gguf"
    export_adapter_gguf(trained.adapter, adapter_file, base=checkpoint)
    return files, adapter_file


def _merge_into(run: Path, into: str | Path, order: _Order) -> _Written:
    """A GGUF, the run's adapter merged into it."""
    from ftlib.export.into import check_tokens, merge_into

    adapter = run
    tokenizer = None
    if not run.is_file():
        adapter, _ = find_adapter(run)
        if holds_tokenizer(adapter):
            tokenizer = ready_tokenizer(str(adapter))
            check_tokens(tokenizer, into)
    num_ctx = order.num_ctx or _context_of(open_base(into))
    template = order.template_of(into if tokenizer is None else tokenizer)
    order.folder.mkdir(parents=True, exist_ok=True)
    file = merge_into(adapter, into, order.folder, order.stem, order.quant)
    return _Written([file], None, tokenizer, template, num_ctx)


def _checked_quant(quant: str) -> str:
    """`quant` as it is written. ExportError where it is none."""
    from ftlib.export.llamacpp import QUANTIZATIONS

    known = (*QUANTIZATIONS, *PLAIN)
    if quant.upper() not in known:
        raise ExportError(f"quant={quant!r}: use one of {', '.join(known)}")
    return quant.upper()


def _check_whole(run, base: str | None, trained: Trained, adapter: bool) -> None:
    """What can be said against a merge into the checkpoint before it begins."""
    if not (base or trained.base):
        raise AdapterError(f"{run} names no base model: pass base=, a folder or Hub id")
    if adapter and not trained.adapter:
        raise AdapterError(
            f"{run} holds a whole model: there is no adapter to ship apart; leave adapter out"
        )
    if adapter and trained.adapter:
        _check_low_rank(trained.adapter)


def _check_low_rank(adapter: Path) -> None:
    """ExportError for an adapter that a GGUF adapter cannot hold."""
    try:
        read_config(adapter)
    except OtherAdapterError as other:
        raise ExportError(
            f"{other}; a GGUF adapter cannot say it: leave adapter out, and PEFT merges it"
        ) from None
    if whole_weights(adapter):
        raise ExportError(
            f"{adapter} has an embedding of its own (tokens were added, or it was trained), which "
            "a GGUF adapter cannot say: leave adapter out, and it is merged"
        )


def _ollama_here(adapter: bool) -> OllamaAbilities:
    """What the running Ollama can do. ServingError where none answers, or where it cannot take what
    is asked for.
    """
    version = find_ollama()
    if version is None:
        raise ServingError(
            f"no Ollama answers at {ollama_url()}: start it by `ollama serve`, or set OLLAMA_HOST"
        )
    here = ollama_abilities(version)
    if adapter and not here.takes_adapters:
        raise ServingError(f"this is Ollama {version}. {ADAPTERS_ARE_GONE}")
    return here


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
    into: str | Path | None = None,
    prove: bool = True,
) -> Exported:
    """Export what `run` trained, an adapter merged into its base or a whole model, as GGUF, and
    write a Modelfile for it. PEFT merges an adapter of a kind that ftlib does not implement.

    `quant`: llama.cpp's name such as Q4_K_M, quantised from an f16 that stays beside it; or F16,
    BF16, F32. `base`: a folder or Hub id, None for the one that the run names. The tokenizer and
    its template are those that the run kept, else the base's. `num_ctx`: None takes the model's,
    4,096 at most. `output`: None for `run`/export. `adapter`: ship base and adapter as two GGUFs
    (plain LoRA only) instead of merged. `ollama`: create the model `name` there. `template`: the
    Modelfile's, in Go's language; None: the one that writes what the chat template does, and where
    there is none the GGUF's own, which Ollama serves from 0.30 on. `into`: a GGUF of the base, of
    any quantisation, into which the adapter is merged (`merge_adapter_gguf`); `run` may then be an
    adapter GGUF, and no checkpoint is needed; `quant` is what the weights become that the adapter
    changes. `prove`: hold llama.cpp's tokens against the tokenizer's, as `export_gguf` does. Raises
    AdapterError, LoadError, ServingError, ModelfileError or what the export raises, all
    ValueErrors; a wrong argument before anything is written.
    """
    check_name(name)
    here = _ollama_here(adapter) if ollama else None
    folder = Path(output or _run_folder(Path(run)) / "export")
    stem = re.sub(r"[:/]", "-", name)
    order = _Order(_checked_quant(quant), folder, stem, template, num_ctx, here, prove)
    if into is None:
        written = _merge_and_write(run, base, adapter, order)
    elif adapter or base:
        raise ExportError("into is the base, and is merged into: leave adapter and base out")
    else:
        written = _merge_into(Path(run), into, order)
    modelfile = write_modelfile(
        folder / "Modelfile",
        written.files[-1],
        template=written.template,
        tokenizer=written.tokenizer,
        system=system,
        adapter=written.adapter,
        num_ctx=written.num_ctx,
    )
    apart = [written.adapter] if written.adapter else []
    if ollama:
        _create_in_ollama(name, modelfile)
    return Exported([*written.files, *apart], modelfile, name if ollama else None)


def _run_folder(run: Path) -> Path:
    """The folder itself, or the one that an adapter GGUF lies in."""
    return run.parent if run.is_file() else run


def _context_of(source: Path | GgufBase) -> int:
    """The context of a checkpoint or GGUF in tokens, 4,096 at most: a longer one takes memory when
    it is served.
    """
    if isinstance(source, GgufBase):
        longest = source.number("context_length")
    else:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
        longest = config.max_position_embeddings
    return min(longest, MOST_CONTEXT)


def _create_in_ollama(name: str, modelfile: Path) -> None:
    server = OllamaServer(name, parse_modelfile(modelfile))
    with server.http, server.client:
        server.create(modelfile.parent)
