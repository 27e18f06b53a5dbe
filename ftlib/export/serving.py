"""Serve a GGUF and talk to it: through Ollama where one answers, else through llama-cpp-python's
server, with one call for both.

Both get what a Modelfile says: system prompt, stops, context and sampling. Every reply says which
runtime gave it, and how its tokens per second were counted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ftlib.export.llama_probe import death, mend, probe_llama
from ftlib.export.modelfile import Modelfile, is_gguf, make_modelfile, parse_modelfile

log = logging.getLogger(__name__)
OLLAMA, LLAMA_CPP = "ollama", "llama-cpp-python"
# What `chat` takes, by the name that each runtime has for it.
SAMPLING = {
    "max_tokens": "num_predict",
    **{
        name: name
        for name in (
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "seed",
            "stop",
            "repeat_penalty",
            "presence_penalty",
            "frequency_penalty",
        )
    },
}
CHUNK = 1 << 20  # bytes hashed or sent at a time


class ServingError(ValueError):
    """A server that cannot be reached, started or used, or broke off, with the reason and the mend."""


@dataclass(frozen=True)
class Reply:
    """An answer. `tokens` were generated in `seconds`; `measured` says how both were counted,
    `end` why it ended ("stop", "length")."""

    text: str
    runtime: str
    tokens: int
    seconds: float
    measured: str
    end: str | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds if self.seconds else float("nan")

    def __str__(self) -> str:
        return self.text


class Server(ABC):
    """A model that answers. `base_url` is OpenAI-compatible; `last` the `Reply` that the last chat
    came to.
    """

    runtime: str

    def __init__(self, name: str, url: str, modelfile: Modelfile, timeout: float):
        import httpx

        self.name, self.base_url, self.modelfile, self.last = name, f"{url}/v1", modelfile, None
        self.http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            **self.http_options(),
        )

    def http_options(self) -> dict:
        return {}

    def chat(self, messages: list[dict], stream: bool = False, **sampling) -> Reply | Iterator[str]:
        """The answer to `messages` ({"role", "content"}): a `Reply`, or with `stream` its pieces of
        text as they come.

        Sampling: max_tokens, temperature, top_p, top_k, min_p, seed, stop, repeat_penalty,
        presence_penalty, frequency_penalty; what is not given is the Modelfile's. After a stream
        `last` is its Reply. ServingError where the server refuses, is too slow or breaks off.
        """
        for name in sampling.keys() - SAMPLING.keys():
            raise ServingError(
                f"{name}={sampling[name]!r} is no sampling option: use {', '.join(SAMPLING)}"
            )
        if not messages:
            raise ServingError("messages is empty: pass [{'role': 'user', 'content': '…'}]")
        for message in messages:
            if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
                raise ServingError(f"message {message!r}: pass {{'role': 'user', 'content': '…'}}")
        pieces = self._named_errors(self._pieces(messages, stream, sampling))
        if stream:
            return pieces
        for _ in pieces:
            pass
        return self.last

    def _named_errors(self, pieces: Iterator[str]) -> Iterator[str]:
        import httpx

        try:
            yield from pieces
        except httpx.TimeoutException:
            raise ServingError(
                f"{self.runtime} at {self.base_url} did not answer in time: pass a longer timeout, "
                "or fewer max_tokens"
            ) from None
        except (httpx.HTTPError, ConnectionError) as error:
            raise ServingError(
                f"{self.runtime} at {self.base_url} broke off ({type(error).__name__}: {error}): "
                "is it still running?"
            ) from None

    @abstractmethod
    def _pieces(self, messages: list[dict], stream: bool, sampling: dict) -> Iterator[str]:
        """The texts of the answer; sets `last` at its end."""

    def __repr__(self) -> str:
        return f"<{self.name} served by {self.runtime} at {self.base_url}>"


def chat(server: Server, prompt: str, **options) -> Reply | Iterator[str]:
    """The answer to one prompt; `options` as `Server.chat` takes them."""
    return server.chat([{"role": "user", "content": prompt}], **options)


def check_name(name: str) -> str:
    """The name of a model as Ollama takes it; ServingError otherwise."""
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*(:[\w.-]+)?", name or "", re.ASCII):
        raise ServingError(
            f"name={name!r}: name the model, such as 'my-model' or 'my-model:q4', of letters, "
            "digits, - _ ."
        )
    return name


def ollama_url(host: str | None = None) -> str:
    """The address of Ollama: `host`, `OLLAMA_HOST`, or http://127.0.0.1:11434."""
    given = host or os.environ.get("OLLAMA_HOST") or "127.0.0.1"
    parts = urlsplit(given if "://" in given else f"http://{given}")
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80 if "://" in given else 11434)
    except ValueError as error:
        raise ServingError(f"OLLAMA_HOST={given!r}: {error}; use host:port") from None
    name = (parts.hostname or "127.0.0.1").replace("0.0.0.0", "127.0.0.1")
    return f"{parts.scheme}://{f'[{name}]' if ':' in name else name}:{port}{parts.path.rstrip('/')}"


def find_ollama(host: str | None = None, timeout: float = 2.0) -> str | None:
    """The version of the Ollama that answers at `host` (see `ollama_url`) within `timeout` seconds,
    or None.
    """
    import httpx

    url = ollama_url(host)
    try:
        answer = httpx.get(f"{url}/api/version", timeout=timeout)
        return answer.json()["version"] if answer.status_code == 200 else None
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return None


class OllamaServer(Server):
    """A model in a running Ollama, through its official client."""

    runtime = OLLAMA

    def __init__(
        self, name: str, modelfile: Modelfile, host: str | None = None, timeout: float = 600.0
    ):
        from ollama import Client

        url = ollama_url(host)
        super().__init__(name, url, modelfile, timeout)
        self.client = Client(host=url, timeout=timeout)

    def _named_errors(self, pieces):
        from ollama import ResponseError

        try:
            yield from super()._named_errors(pieces)
        except ResponseError as error:
            raise ServingError(f"Ollama, model {self.name!r}: {error}") from None
        except json.JSONDecodeError as error:
            raise ServingError(
                f"Ollama at {self.base_url} sent a damaged line ({error}): did the connection drop?"
            ) from None

    def create(self, folder: str | os.PathLike) -> None:
        """Send the Modelfile's GGUFs as blobs, unless Ollama has them, and create the model, over
        one of the same name.
        """
        for _ in self._named_errors(self._create(Path(folder))):
            pass

    def _create(self, folder: Path) -> Iterator[str]:
        m = self.modelfile
        blobs = [
            {path.name: self._send(path)}
            for path in (m.path(f, folder) for f in (m.base, m.adapter) if f)
        ]
        status = None
        for progress in self.client.create(
            self.name,
            files=blobs[0],
            adapters=blobs[1] if m.adapter else None,
            template=m.template,
            system=m.system,
            parameters=m.parameters,
            stream=True,
        ):
            status = progress.status
            yield status or ""
        if status != "success":
            raise ServingError(
                f"Ollama broke off creating {self.name!r} after {status!r}: look at its log, and "
                "create it again"
            )

    def _send(self, path: Path) -> str:
        digest = f"sha256:{_sha256(path)}"
        if self.http.head(f"/api/blobs/{digest}").status_code == 200:
            return digest
        answer = self.http.post(
            f"/api/blobs/{digest}",
            content=_chunks(path, f"sending {path.name}"),
            headers={"Content-Length": str(path.stat().st_size)},
        )
        if answer.status_code not in (200, 201):
            raise ServingError(
                f"Ollama refused {path.name} as {digest} ({answer.status_code}: "
                f"{answer.text.strip()}): "
                "did the file change while it was sent?"
            )
        return digest

    def _pieces(self, messages, stream, sampling):
        options = {SAMPLING[name]: value for name, value in sampling.items()}
        if "stop" in options:
            options["stop"] = _stops(self.modelfile, options["stop"])
        answer = self.client.chat(self.name, messages, stream=stream, options=options)
        text, part = "", None
        for part in answer if stream else [answer]:
            text += part.message.content or ""
            yield part.message.content or ""
        if part is None or not part.done:
            raise ServingError(
                f"Ollama broke off after {len(text)} characters: look at its log, and ask again"
            )
        self.last = Reply(
            text,
            OLLAMA,
            part.eval_count or 0,
            (part.eval_duration or 0) / 1e9,
            "Ollama's eval_count / eval_duration",
            part.done_reason,
        )

    def delete(self) -> None:
        """Remove the model from Ollama. Nothing else here ever does."""
        from ollama import ResponseError

        try:
            self.client.delete(self.name)
        except ResponseError as error:
            raise ServingError(f"Ollama, deleting {self.name!r}: {error}") from None


class LlamaCppServer(Server):
    """The server of llama-cpp-python, a subprocess on 127.0.0.1. It knows no Modelfile: what that
    says goes with each call, but for TEMPLATE, in whose place it takes the GGUF's Jinja.
    """

    runtime = LLAMA_CPP

    def __init__(self, name: str, url: str, modelfile: Modelfile, timeout: float, output):
        super().__init__(name, url, modelfile, timeout)
        self.output = output

    def http_options(self) -> dict:
        """No proxy before our own subprocess; and it drops a connection after an error in a stream,
        so none is used twice.
        """
        import httpx

        return {"trust_env": False, "limits": httpx.Limits(max_keepalive_connections=0)}

    def log_tail(self, size: int = 2000) -> str:
        """The last bytes of the server's log. Read by position: the process writes at the offset
        that the file shares with it.
        """
        end = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, max(0, end - size)).decode(errors="replace")

    def _pieces(self, messages, stream, sampling):
        of_file = {
            ours: self.modelfile.parameters[theirs]
            for ours, theirs in SAMPLING.items()
            if theirs in self.modelfile.parameters
        }
        body = {**of_file, **sampling, "stop": _stops(self.modelfile, sampling.get("stop"))}
        if self.modelfile.system and messages[:1] and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": self.modelfile.system}, *messages]
        body |= {"model": self.name, "messages": messages, "stream": stream}
        start = time.perf_counter()
        if stream:
            yield from self._stream(body, start)
            return
        answer = self.http.post("/v1/chat/completions", json=body)
        content = _checked(answer.status_code, answer.content)
        choice = content["choices"][0]
        self.last = Reply(
            choice["message"]["content"] or "",
            LLAMA_CPP,
            content["usage"]["completion_tokens"],
            time.perf_counter() - start,
            "usage tokens over wall-clock seconds, the prompt's included",
            choice["finish_reason"],
        )
        yield self.last.text

    def _stream(self, body: dict, start: float) -> Iterator[str]:
        texts: list[str] = []
        end = None
        with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                _checked(answer.status_code, answer.read())
            for line in answer.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                choice = _checked(200, line.removeprefix("data: "))["choices"][0]
                end = choice["finish_reason"] or end
                if piece := choice["delta"].get("content"):
                    texts.append(piece)
                    yield piece
        if end is None:
            raise ServingError(
                f"llama-cpp-python broke off after {len(''.join(texts))} characters: is the "
                "prompt longer than "
                f"num_ctx={self.modelfile.parameters.get('num_ctx')}? Its log "
                f"ends:\n{self.log_tail(300)}"
            )
        self.last = Reply(
            "".join(texts),
            LLAMA_CPP,
            len(texts),
            time.perf_counter() - start,
            "streamed pieces, about one a token, over wall-clock seconds, the prompt's included",
            end,
        )


def _stops(modelfile: Modelfile, more) -> list[str]:
    return [
        *modelfile.parameters.get("stop", []),
        *([more] if isinstance(more, str) else more or []),
    ]


def _checked(status: int, content: bytes | str) -> dict:
    """The JSON of an answer of llama-cpp-python. ServingError with its message if it tells of an
    error.
    """
    try:
        body = json.loads(content)
    except ValueError:
        raise ServingError(
            f"llama-cpp-python answered {status} with {content[:200]!r}, which is not JSON"
        ) from None
    if status != 200 or "error" in body:
        error = body.get("error", body.get("detail", body))
        raise ServingError(
            f"llama-cpp-python: {error.get('message', error) if isinstance(error, dict) else error}"
        )
    return body


def _chunks(path: Path, what: str) -> Iterator[bytes]:
    from tqdm.auto import tqdm

    with (
        open(path, "rb") as stream,
        tqdm(
            total=path.stat().st_size,
            unit="B",
            unit_scale=True,
            desc=what,
            leave=False,
            disable=path.stat().st_size < 100 * CHUNK,
        ) as bar,
    ):
        while chunk := stream.read(CHUNK):
            yield chunk
            bar.update(len(chunk))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path, f"hashing {path.name}"):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def serve(
    source: str | os.PathLike,
    name: str,
    runtime: str | None = None,
    host: str | None = None,
    timeout: float = 600.0,
) -> Iterator[Server]:
    """`with serve("build/Modelfile", "my-model") as server:` a `Server` for the model of a
    Modelfile, or of a GGUF as it is.

    `runtime`: "ollama", "llama-cpp-python", or None: Ollama if one answers at `host` (default
    `OLLAMA_HOST`, then localhost), else llama-cpp-python; which one it is, is said. In Ollama the
    model is created under `name`, over one of that name, and stays (`server.delete()` removes it).
    llama-cpp-python's server listens on 127.0.0.1 only and ends with the block. `timeout`: seconds
    for one answer, and for llama-cpp-python to load. ServingError, ModelfileError name what is
    wrong.
    """
    path = Path(source)
    content = make_modelfile(path, folder=path.parent) if is_gguf(path) else parse_modelfile(path)
    check_name(name)
    if runtime not in (None, OLLAMA, LLAMA_CPP):
        raise ServingError(f"runtime={runtime!r}: use {OLLAMA!r}, {LLAMA_CPP!r} or None")
    for file in filter(None, (content.base, content.adapter)):
        if not content.path(file, path.parent).is_file():
            raise ServingError(f"{path} names {file}, which is not there: export the model again")
    version = None if runtime == LLAMA_CPP else find_ollama(host)
    if runtime == OLLAMA and version is None:
        raise ServingError(
            f"no Ollama answers at {ollama_url(host)}: start it by `ollama serve`, or set "
            "OLLAMA_HOST"
        )
    if version is not None:
        server = OllamaServer(name, content, host, timeout)
        with server.http, server.client:
            server.create(path.parent)
            log.info("%s is served by Ollama %s at %s", name, version, server.base_url)
            yield server
        return
    why = "" if runtime else f", since no Ollama answers at {ollama_url(host)}"
    with _llama_cpp(name, content, path.parent, timeout) as server:
        log.info("%s is served by llama-cpp-python at %s%s", name, server.base_url, why)
        yield server


@contextmanager
def _llama_cpp(
    name: str, modelfile: Modelfile, folder: Path, timeout: float
) -> Iterator[LlamaCppServer]:
    found = probe_llama()
    if not found.fine:
        raise ServingError(f"{found.problem}; or serve by Ollama: `ollama serve`")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            _command(name, modelfile, folder, port),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(port),
        )
        server = LlamaCppServer(name, f"http://127.0.0.1:{port}", modelfile, timeout, output)
        try:
            with server.http:
                _wait(server, process, timeout)
                yield server
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _command(name: str, modelfile: Modelfile, folder: Path, port: int) -> list[str]:
    options = {
        "model": modelfile.path(modelfile.base, folder),
        "model_alias": name,
        "host": "127.0.0.1",
        "port": port,
        "n_ctx": modelfile.parameters.get("num_ctx", 4096),
        "n_gpu_layers": modelfile.parameters.get("num_gpu", -1),
        # All logits would take num_ctx × vocabulary × 4 bytes: 2.1 GB at 4,096 for Llama-3.
        "logits_all": "false",
        "chat_template_kwargs": '{"enable_thinking": false}',
    }
    if modelfile.adapter:
        options["lora_path"] = modelfile.path(modelfile.adapter, folder)
    if (
        ignored := modelfile.parameters.keys()
        - SAMPLING.values()
        - {"num_ctx", "num_gpu", "num_thread"}
    ):
        log.info("llama-cpp-python's server has no %s: left out", ", ".join(sorted(ignored)))
    if "num_thread" in modelfile.parameters:
        options["n_threads"] = options["n_threads_batch"] = modelfile.parameters["num_thread"]
    return [
        sys.executable,
        "-m",
        "llama_cpp.server",
        *(part for key, value in options.items() for part in (f"--{key}", str(value))),
    ]


def _environment(port: int) -> dict[str, str]:
    """The server lets HOST, PORT and CONFIG_FILE override its arguments, and must listen on
    127.0.0.1 whatever they say.
    """
    return {
        **{k: v for k, v in os.environ.items() if k != "CONFIG_FILE"},
        "HOST": "127.0.0.1",
        "PORT": str(port),
    }


def _wait(server: LlamaCppServer, process: subprocess.Popen, timeout: float) -> None:
    """Return when the server answers. ServingError with the tail of its log if it ends or takes
    longer than `timeout` seconds.
    """
    import httpx

    end = time.monotonic() + timeout
    while True:
        try:
            if server.http.get("/v1/models", timeout=1.0).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if process.poll() is not None:
            problem = f"ended with {process.returncode}"
            if process.returncode < 0:
                problem = f"died ({death(process.returncode)}: rebuild by `{mend()}`)"
        elif time.monotonic() > end:
            problem = f"did not answer within {timeout:g} s"
        else:
            time.sleep(0.1)
            continue
        raise ServingError(
            f"llama-cpp-python's server {problem} on {server.modelfile.base}; "
            f"the end of its log:\n{server.log_tail()}"
        )
