"""Serve a GGUF and talk to it: through Ollama where one answers, else through llama-cpp-python's
server, with one call for both.

Both get what a Modelfile says: system prompt, template, stops, context and sampling. Every reply
says which runtime gave it, and how its tokens per second were counted.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ftlib.export.errors import ServingError
from ftlib.export.llama_server import LlamaCppServer, llama_cpp_server
from ftlib.export.make_modelfile import is_gguf, make_modelfile
from ftlib.export.modelfile import Modelfile, parse_modelfile
from ftlib.export.ollama import find_ollama, ollama_url
from ftlib.export.ollama_server import OllamaServer
from ftlib.export.server import LLAMA_CPP, OLLAMA, SAMPLING, Reply, Server, chat, check_name

__all__ = [
    "LLAMA_CPP",
    "OLLAMA",
    "SAMPLING",
    "LlamaCppServer",
    "OllamaServer",
    "Reply",
    "Server",
    "ServingError",
    "chat",
    "check_name",
    "find_ollama",
    "ollama_url",
    "serve",
]
log = logging.getLogger(__name__)


@contextmanager
def serve(
    source: str | os.PathLike,
    name: str,
    runtime: str | None = None,
    host: str | None = None,
    timeout: float = 600.0,
    logprobs: bool = False,
) -> Iterator[Server]:
    """`with serve("build/Modelfile", "my-model") as server:` a `Server` for the model of a
    Modelfile, or of a GGUF as it is.

    `runtime`: "ollama", "llama-cpp-python", or None: Ollama if one answers at `host` (default
    `OLLAMA_HOST`, then localhost), else llama-cpp-python; which one it is, is said. In Ollama the
    model is created under `name`, over one of that name, and stays (`server.delete()` removes it).
    llama-cpp-python's server listens on 127.0.0.1 only and ends with the block. `timeout`: seconds
    for one answer, and for llama-cpp-python to load. `logprobs`: chats will ask for them, for which
    llama-cpp-python keeps num_ctx × vocabulary numbers. ServingError, ModelfileError name what is
    wrong.
    """
    path = Path(source)
    modelfile = _modelfile_of(path)
    check_name(name)
    if runtime not in (None, OLLAMA, LLAMA_CPP):
        raise ServingError(f"runtime={runtime!r}: use {OLLAMA!r}, {LLAMA_CPP!r} or None")
    _check_files(modelfile, path)
    version = None if runtime == LLAMA_CPP else find_ollama(host)
    if version is not None:
        server = OllamaServer(name, modelfile, host, timeout)
        with server.http, server.client:
            server.create(path.parent)
            log.info("%s is served by Ollama %s at %s", name, version, server.base_url)
            yield server
        return
    if runtime == OLLAMA:
        raise ServingError(
            f"no Ollama answers at {ollama_url(host)}: start it by `ollama serve`, or set "
            "OLLAMA_HOST"
        )
    why = "" if runtime else f", since no Ollama answers at {ollama_url(host)}"
    with llama_cpp_server(name, modelfile, path.parent, timeout, logprobs) as local:
        log.info("%s is served by llama-cpp-python at %s%s", name, local.base_url, why)
        yield local


def _modelfile_of(path: Path) -> Modelfile:
    """The Modelfile at the path, or one for the GGUF that is there."""
    if is_gguf(path):
        return make_modelfile(path, folder=path.parent)
    return parse_modelfile(path)


def _check_files(modelfile: Modelfile, path: Path) -> None:
    for file in (modelfile.base, modelfile.adapter):
        if file and not modelfile.path(file, path.parent).is_file():
            raise ServingError(f"{path} names {file}, which is not there: export the model again")
