"""The Modelfile of an exported model: its template, stops and context; and which stops one lacks.

TEMPLATE, every stop token, num_ctx and repeat_penalty are always written: Ollama would otherwise
guess the template from the GGUF's by similarity, run past an unknown end token, take a context of
256k tokens on machines with much memory (16 GiB of KV cache for an 8B model at 131k), and before
0.32.10 make the tokens of the prompt less likely in the answer. Where no Go template says what the
GGUF's Jinja says, TEMPLATE is left out for a version that serves the Jinja itself.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftlib.core.atomic import replacing
from ftlib.core.checks import check_positive_integer
from ftlib.export.chat_format import chat_format
from ftlib.export.errors import TemplateError
from ftlib.export.go_render import template_stops
from ftlib.export.go_template import go_template
from ftlib.export.modelfile import Modelfile, ModelfileError, parse_modelfile
from ftlib.export.ollama_versions import JINJA_SINCE, OllamaAbilities

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger("ftlib")


def template_for(source: Any, ollama: OllamaAbilities | None = None) -> str:
    """The Go template that gives the prompts of `source`, a tokenizer or a GGUF's path
    (`go_template`); empty where there is none, which is said: an Ollama from 0.30 on then serves
    the GGUF's own Jinja. TemplateError where `ollama` is older, and where `source` has no chat
    template at all.
    """
    try:
        return go_template(source)
    except TemplateError as error:
        if not chat_format(source).jinja:
            raise
        if ollama is not None and not ollama.serves_jinja:
            raise TemplateError(
                f"{error}; Ollama {ollama.version} does not serve the GGUF's own chat template, "
                f"{_version(JINJA_SINCE)} or newer does"
            ) from None
        log.warning(
            "TEMPLATE is left out, and Ollama %s or newer is required, which serves the GGUF's own "
            "chat template: %s",
            _version(JINJA_SINCE),
            error,
        )
        return ""


def _version(number: tuple[int, ...]) -> str:
    return ".".join(map(str, number))


def make_modelfile(
    gguf: str | os.PathLike,
    template: str | None = None,
    tokenizer=None,
    system: str | None = None,
    num_ctx: int = 4096,
    stop=(),
    adapter: str | os.PathLike | None = None,
    parameters: dict | None = None,
    folder: str | os.PathLike | None = None,
) -> Modelfile:
    """A Modelfile for the file `gguf`, and `adapter` (a GGUF of a plain LoRA) over it.

    `template`: Go text; None takes the one that equals the Jinja of `tokenizer`, or of the GGUF
    (`template_for`); empty, it is left out, and an Ollama required that serves the GGUF's Jinja.
    Stops: what ends a turn in the template, the end tokens of the tokenizer or
    GGUF, and `stop`. `num_ctx`: context in tokens. `parameters`: Ollama's (`PARAMETERS`), such as
    {"temperature": 0}. Files in `folder` are named relative to it. ModelfileError or TemplateError
    name what is missing or unknown.
    """
    parameters = dict(parameters or {})
    for name in {"num_ctx", "stop"} & parameters.keys():
        raise ModelfileError(f"parameters has {name!r}: pass {name}= instead")
    num_ctx = check_positive_integer(
        "num_ctx", num_ctx, ModelfileError, "pass the context length in tokens, such as 4096"
    )
    base = _reference(Path(gguf), folder)
    over = _reference(Path(adapter), folder) if adapter else None
    source = gguf if tokenizer is None else tokenizer
    others = []
    if template is None:
        template = template_for(source)
    if not template:
        others.append(("REQUIRES", _version(JINJA_SINCE)))
    stops = [
        *(template_stops(template)),
        *chat_format(source).ends,
        *([stop] if isinstance(stop, str) else stop),
    ]
    if not stops:
        raise ModelfileError("no stop token is known, so answers would not end: pass stop=[…]")
    always = {"num_ctx": num_ctx, "repeat_penalty": 1.0, "stop": list(dict.fromkeys(stops))}
    return Modelfile(base, over, template or None, system, always | parameters, others)


def write_modelfile(
    path: str | os.PathLike,
    gguf: str | os.PathLike,
    template: str | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    system: str | None = None,
    num_ctx: int = 4096,
    stop: Iterable[str] = (),
    adapter: str | os.PathLike | None = None,
    parameters: dict | None = None,
) -> Path:
    """Write `make_modelfile(…)` to `path`, beside and renamed; returns the path. ModelfileError
    also where a text cannot be represented: a line in it that ends in three double quotes, or
    characters that Ollama's parser drops.
    """
    path = Path(path)
    modelfile = make_modelfile(
        gguf, template, tokenizer, system, num_ctx, stop, adapter, parameters, path.parent
    )
    text = str(modelfile).encode()
    with replacing(path) as temporary:
        temporary.write_bytes(text)
    return path


def is_gguf(file: str | os.PathLike) -> bool:
    """Whether the file begins as GGUF does. ModelfileError if it cannot be read."""
    try:
        with open(file, "rb") as stream:
            return stream.read(4) == b"GGUF"
    except OSError as error:
        raise ModelfileError(
            f"{file} cannot be read ({error.strerror}): export_gguf writes it"
        ) from None


def _reference(file: Path, folder: str | os.PathLike | None) -> str:
    """How a Modelfile in `folder` names a GGUF: ./name in that folder, else the absolute path."""
    if not is_gguf(file):
        raise ModelfileError(
            f"{file} is not GGUF: export_gguf writes models, export_adapter_gguf adapters"
        )
    file = file.resolve()
    if folder is not None and file.parent == Path(folder).resolve():
        return f"./{file.name}"
    return str(file)


@dataclass(frozen=True)
class Stop:
    """A token that ends an answer but has no PARAMETER stop, why it does,
    and whether the runtime stops there by itself (`by_gguf`)."""

    token: str
    why: str
    by_gguf: bool

    def __str__(self) -> str:
        fate = (
            "the GGUF's eos or eot alone stops there"
            if self.by_gguf
            else "nothing stops there, generation runs on"
        )
        return f'{self.token} ({self.why}): {fate}; add PARAMETER stop "{self.token}"'


def diagnose_stops(source: Any, modelfile: Modelfile | str | os.PathLike) -> list[Stop]:
    """The end tokens at which a model may run on: those that lack a PARAMETER stop. [] if every one
    has it.

    `source`: a GGUF's path or a tokenizer; `modelfile`: parsed, or as `parse_modelfile` takes it. A
    token that neither the GGUF's eos and eot nor the Modelfile knows is the usual cause of endless
    generation (ollama#8363).
    """
    if not isinstance(modelfile, Modelfile):
        modelfile = parse_modelfile(modelfile)
    form = chat_format(source)
    reasons = dict.fromkeys(form.ends, "end token of the vocabulary")
    reasons |= dict.fromkeys(form.eos, "eos or eot")
    if form.turn_end:
        reasons[form.turn_end] = "ends a turn in the chat template"
    reasons |= dict.fromkeys(template_stops(modelfile.template or ""), "ends a turn in TEMPLATE")
    known = modelfile.parameters.get("stop", [])
    return [
        Stop(token, why, by_gguf=token in form.eos)
        for token, why in reasons.items()
        if token not in known
    ]
