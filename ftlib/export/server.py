"""What every served model has: `chat`, the `Reply` that it gives, and the names of what both
runtimes understand.
"""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from ftlib.export.errors import ServingError
from ftlib.export.modelfile import Modelfile

log = logging.getLogger("ftlib")
OLLAMA = "ollama"
LLAMA_CPP = "llama-cpp-python"
# What `chat` takes, by the name that Ollama and its Modelfile have for it.
SAMPLING = {
    "max_tokens": "num_predict",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "min_p": "min_p",
    "seed": "seed",
    "stop": "stop",
    "repeat_penalty": "repeat_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)*(:[\w.-]+)?", re.ASCII)
_EXAMPLE = "{'role': 'user', 'content': '…'}"


@dataclass(frozen=True)
class Reply:
    """An answer. `tokens` were generated in `seconds`; `measured` says how both were counted,
    `end` why it ended ("stop", "length"). `prompt_tokens`: of the prompt as the runtime read it,
    None where it does not say; `context`: the most that it holds, prompt and answer. `logprobs`:
    ln p of each generated token, where they were asked for.
    """

    text: str
    runtime: str
    tokens: int
    seconds: float
    measured: str
    end: str | None = None
    prompt_tokens: int | None = None
    context: int | None = None
    logprobs: tuple[float, ...] = ()

    @property
    def prompt_was_cut(self) -> bool:
        """Whether the prompt left no room for a token more: Ollama cuts a longer one to the context
        and answers what is left of it.
        """
        if self.prompt_tokens is None or self.context is None:
            return False
        return self.prompt_tokens + 1 >= self.context

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
        self.name = name
        self.base_url = f"{url}/v1"
        self.modelfile = modelfile
        self.last: Reply | None = None
        self.http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
            **self.http_options(),
        )

    def http_options(self) -> dict:
        return {}

    def chat(
        self, messages: list[dict], stream: bool = False, logprobs: bool = False, **sampling
    ) -> Reply | Iterator[str]:
        """The answer to `messages` ({"role", "content"}): a `Reply`, or with `stream` its pieces of
        text as they come.

        Sampling: max_tokens, temperature, top_p, top_k, min_p, seed, stop, repeat_penalty,
        presence_penalty, frequency_penalty; what is not given is the Modelfile's. After a stream
        `last` is its Reply. `logprobs`: ask for ln p of each generated token too, not of a stream.
        ServingError where the server refuses, is too slow or breaks off.
        """
        _check_call(messages, sampling)
        if logprobs and stream:
            raise ServingError("logprobs=True goes with stream=False")
        answer = self._pieces(messages, stream, logprobs, sampling)
        pieces = self._noted(self._named_errors(answer))
        if stream:
            return pieces
        for _ in pieces:  # at their end `last` is set
            pass
        if self.last is None:
            raise ServingError(f"{self.name} gave no answer")
        return self.last

    def _noted(self, pieces: Iterator[str]) -> Iterator[str]:
        """The pieces; at their end it is said where the prompt was cut."""
        yield from pieces
        if self.last is not None and self.last.prompt_was_cut:
            log.warning(
                "%s: the prompt filled the context of %d tokens, and was cut if it was longer: "
                "raise num_ctx in the Modelfile, or send less",
                self.name,
                self.last.context,
            )

    def _named_errors(self, pieces: Iterator[str]) -> Iterator[str]:
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
    def _pieces(
        self, messages: list[dict], stream: bool, logprobs: bool, sampling: dict
    ) -> Iterator[str]:
        """The texts of the answer; sets `last` at its end."""

    def __repr__(self) -> str:
        return f"<{self.name} served by {self.runtime} at {self.base_url}>"


def _check_call(messages: list[dict], sampling: dict) -> None:
    for name in sampling.keys() - SAMPLING.keys():
        raise ServingError(
            f"{name}={sampling[name]!r} is no sampling option: use {', '.join(SAMPLING)}"
        )
    if not messages:
        raise ServingError(f"messages is empty: pass [{_EXAMPLE}]")
    for message in messages:
        if not isinstance(message, dict) or not {"role", "content"} <= message.keys():
            raise ServingError(f"message {message!r}: pass {_EXAMPLE}")


def chat(server: Server, prompt: str, **options: Any) -> Reply | Iterator[str]:
    """The answer to one prompt; `options` as `Server.chat` takes them."""
    return server.chat([{"role": "user", "content": prompt}], **options)


def check_name(name: str) -> str:
    """The name of a model as Ollama takes it; ServingError otherwise."""
    if not _NAME.fullmatch(name or ""):
        raise ServingError(
            f"name={name!r}: name the model, such as 'my-model' or 'my-model:q4', of letters, "
            "digits, - _ ."
        )
    return name


def all_stops(modelfile: Modelfile, more: str | list[str] | None) -> list[str]:
    """The Modelfile's stops and those of a call."""
    added = [more] if isinstance(more, str) else more or []
    return [*modelfile.parameters.get("stop", []), *added]
