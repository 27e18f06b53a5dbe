"""llama-cpp-python's own server: a subprocess that is started, waited for, asked and ended."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from ftlib.export import llama_probe
from ftlib.export.errors import ServingError, TemplateError
from ftlib.export.go_render import render_go
from ftlib.export.modelfile import Modelfile
from ftlib.export.server import LLAMA_CPP, SAMPLING, Reply, Server, all_stops

log = logging.getLogger(__name__)
HOST = "127.0.0.1"
# Parameters of a Modelfile that the server takes when it starts.
ONE_LOGPROB = {"logprobs": 1}  # a token, on the route for raw prompts
AT_START = {"num_ctx", "num_gpu", "num_thread"}


class LlamaCppServer(Server):
    """The server of llama-cpp-python, a subprocess on 127.0.0.1. It knows no Modelfile: what that
    says goes with each call.

    TEMPLATE too: `chat` renders the conversation by Go's rules (`render_go`), as Ollama would, and
    sends the text to the route for raw prompts, where the server adds the start token. Only a
    Modelfile without TEMPLATE, or with one that `render_go` cannot read, gets the GGUF's Jinja; and
    so does whoever calls `base_url`'s chat route past this class.
    """

    runtime = LLAMA_CPP

    def __init__(self, name: str, url: str, modelfile: Modelfile, timeout: float, output):
        super().__init__(name, url, modelfile, timeout)
        self.output = output
        self.template = _renderable(modelfile.template)

    def http_options(self) -> dict:
        """No proxy before our own subprocess; and it drops a connection after an error in a stream,
        so none is used twice.
        """
        return {"trust_env": False, "limits": httpx.Limits(max_keepalive_connections=0)}

    def log_tail(self, size: int = 2000) -> str:
        """The last bytes of the server's log. Read by position: the process writes at the offset
        that the file shares with it.
        """
        end = os.fstat(self.output.fileno()).st_size
        return os.pread(self.output.fileno(), size, max(0, end - size)).decode(errors="replace")

    def _pieces(
        self, messages: list[dict], stream: bool, logprobs: bool, sampling: dict
    ) -> Iterator[str]:
        body = self._body(messages, stream, sampling)
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": 1} if self.template is None else ONE_LOGPROB
        start = time.perf_counter()
        if stream:
            yield from self._stream(body, start)
            return
        answer = self.http.post(self._route, json=body)
        content = _checked(answer.status_code, answer.content)
        choice = content["choices"][0]
        text = choice["message"]["content"] if self.template is None else choice["text"]
        self.last = Reply(
            text=text or "",
            runtime=LLAMA_CPP,
            tokens=content["usage"]["completion_tokens"],
            seconds=time.perf_counter() - start,
            measured="answer tokens by the whole waiting time, reading the prompt included",
            end=choice["finish_reason"],
            prompt_tokens=content["usage"]["prompt_tokens"],
            context=self.modelfile.parameters.get("num_ctx"),
            logprobs=_logprobs_of(choice) if logprobs else (),
        )
        yield self.last.text

    @property
    def _route(self) -> str:
        return "/v1/chat/completions" if self.template is None else "/v1/completions"

    def _body(self, messages: list[dict], stream: bool, sampling: dict) -> dict:
        """A request: what the Modelfile says, and over it what the caller does."""
        system = self.modelfile.system
        if system and messages and messages[0]["role"] != "system":
            messages = [{"role": "system", "content": system}, *messages]
        body = {
            ours: self.modelfile.parameters[theirs]
            for ours, theirs in SAMPLING.items()
            if theirs in self.modelfile.parameters
        }
        body |= sampling
        body["stop"] = all_stops(self.modelfile, sampling.get("stop"))
        body["model"] = self.name
        body["stream"] = stream
        if self.template is None:
            body["messages"] = messages
        else:
            body["prompt"] = render_go(self.template, messages)
            body.setdefault("max_tokens", 0)  # up to num_ctx, where this route's default is 16
        return body

    def _stream(self, body: dict, start: float) -> Iterator[str]:
        texts: list[str] = []
        end = None
        with self.http.stream("POST", self._route, json=body) as answer:
            if answer.status_code != 200:
                _checked(answer.status_code, answer.read())
            for line in answer.iter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                choice = _checked(200, line.removeprefix("data: "))["choices"][0]
                end = choice["finish_reason"] or end
                piece = choice["delta"].get("content") if self.template is None else choice["text"]
                if piece:
                    texts.append(piece)
                    yield piece
        text = "".join(texts)
        if end is None:
            num_ctx = self.modelfile.parameters.get("num_ctx")
            raise ServingError(
                f"llama-cpp-python broke off after {len(text)} characters: is the prompt longer "
                f"than num_ctx={num_ctx}? Its log ends:\n{self.log_tail(300)}"
            )
        self.last = Reply(
            text=text,
            runtime=LLAMA_CPP,
            tokens=len(texts),
            seconds=time.perf_counter() - start,
            measured="streamed pieces, about one per token, by the whole waiting time, reading the "
            "prompt included",
            end=end,
        )


def _logprobs_of(choice: dict) -> tuple[float, ...]:
    """ln p of each generated token of an answer, on either route."""
    found = choice["logprobs"]
    if "content" in found:
        return tuple(token["logprob"] for token in found["content"])
    return tuple(found["token_logprobs"])


def _renderable(template: str | None) -> str | None:
    """The TEMPLATE of a Modelfile if `render_go` can read it; what it cannot read is said."""
    if template is None:
        return None
    try:
        render_go(template, [{"role": "user", "content": "x"}])
    except TemplateError as error:
        log.warning("TEMPLATE is left out, the GGUF's own template is served: %s", error)
        return None
    return template


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
        if isinstance(error, dict):
            error = error.get("message", error)
        raise ServingError(f"llama-cpp-python: {error}")
    return body


@contextmanager
def llama_cpp_server(
    name: str, modelfile: Modelfile, folder: Path, timeout: float, logprobs: bool = False
) -> Iterator[LlamaCppServer]:
    """The server, once it answers; its process is ended with the block. `logprobs`: it keeps all
    logits, num_ctx × vocabulary numbers, so that a chat can be asked for them. ServingError if
    llama.cpp does not run here, or the server does not start.
    """
    found = llama_probe.probe_llama()
    if not found.fine:
        raise ServingError(f"{found.problem}; or serve by Ollama: `ollama serve`")
    port = _free_port()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            _command(name, modelfile, folder, port, logprobs),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(port),
        )
        server = LlamaCppServer(name, f"http://{HOST}:{port}", modelfile, timeout, output)
        try:
            with server.http:
                _wait(server, process, timeout)
                yield server
        finally:
            _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _command(name: str, modelfile: Modelfile, folder: Path, port: int, logprobs: bool) -> list[str]:
    parameters = modelfile.parameters
    options = {
        "model": modelfile.path(modelfile.base, folder),
        "model_alias": name,
        "host": HOST,
        "port": port,
        "n_ctx": parameters.get("num_ctx", 4096),
        "n_gpu_layers": parameters.get("num_gpu", -1),
        # All logits would take num_ctx × vocabulary × 4 bytes: 2.1 GB at 4,096 for Llama-3.
        "logits_all": str(logprobs).lower(),
        "chat_template_kwargs": '{"enable_thinking": false}',
    }
    if modelfile.adapter:
        options["lora_path"] = modelfile.path(modelfile.adapter, folder)
    if "num_thread" in parameters:
        options["n_threads"] = parameters["num_thread"]
        options["n_threads_batch"] = parameters["num_thread"]
    ignored = parameters.keys() - SAMPLING.values() - AT_START
    if ignored:
        log.info("llama-cpp-python's server has no %s: left out", ", ".join(sorted(ignored)))
    command = [sys.executable, "-m", "llama_cpp.server"]
    for option, value in options.items():
        command += [f"--{option}", str(value)]
    return command


def _environment(port: int) -> dict[str, str]:
    """The server lets HOST, PORT and CONFIG_FILE override its arguments, and must listen on
    127.0.0.1 whatever they say.
    """
    environment = {**os.environ, "HOST": HOST, "PORT": str(port)}
    environment.pop("CONFIG_FILE", None)
    return environment


def _wait(server: LlamaCppServer, process: subprocess.Popen, timeout: float) -> None:
    """Return when the server answers. ServingError with the tail of its log if it ends or takes
    longer than `timeout` seconds.
    """
    end = time.monotonic() + timeout
    while not _answers(server):
        problem = None
        if process.poll() is not None:
            problem = _ended(process.returncode)
        elif time.monotonic() > end:
            problem = f"did not answer within {timeout:g} s"
        if problem:
            raise ServingError(
                f"llama-cpp-python's server {problem} on {server.modelfile.base}; "
                f"the end of its log:\n{server.log_tail()}"
            )
        time.sleep(0.1)


def _answers(server: LlamaCppServer) -> bool:
    try:
        return server.http.get("/v1/models", timeout=1.0).status_code == 200
    except httpx.HTTPError:
        return False


def _ended(code: int) -> str:
    if code < 0:
        cause = llama_probe.death(code)
        return f"died ({cause}: rebuild by `{llama_probe.fix_command()}`)"
    return f"ended with {code}"
