"""A model in a running Ollama: its files sent, the model created, asked and deleted."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from ftlib.export.errors import ServingError
from ftlib.export.modelfile import Modelfile
from ftlib.export.ollama import find_ollama, ollama_url
from ftlib.export.ollama_versions import ADAPTERS_ARE_GONE, ollama_abilities
from ftlib.export.server import OLLAMA, SAMPLING, Reply, Server, all_stops

CHUNK = 1 << 20  # bytes hashed or sent at a time
NO_ADAPTERS = "adapters are no longer supported"  # in the server's own refusal


class OllamaServer(Server):
    """A model in a running Ollama, through its official client."""

    runtime = OLLAMA

    def __init__(
        self, name: str, modelfile: Modelfile, host: str | None = None, timeout: float = 600.0
    ):
        from ollama import Client

        url = ollama_url(host)
        super().__init__(name, url, modelfile, timeout)
        self.url = url
        self.client = Client(host=url, timeout=timeout)

    def _named_errors(self, pieces):
        from ollama import ResponseError

        try:
            yield from super()._named_errors(pieces)
        except ResponseError as error:
            why = f". {ADAPTERS_ARE_GONE}" if NO_ADAPTERS in str(error) else ""
            raise ServingError(f"Ollama, model {self.name!r}: {error}{why}") from None
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
        modelfile = self.modelfile
        if modelfile.adapter:
            self._check_takes_adapters()
        base = self._send(modelfile.path(modelfile.base, folder))
        adapter = None
        if modelfile.adapter:
            adapter = self._send(modelfile.path(modelfile.adapter, folder))
        status = None
        for progress in self.client.create(
            self.name,
            files=base,
            adapters=adapter,
            template=modelfile.template,
            system=modelfile.system,
            parameters=modelfile.parameters,
            stream=True,
        ):
            status = progress.status
            yield status or ""
        if status != "success":
            raise ServingError(
                f"Ollama broke off creating {self.name!r} after {status!r}: look at its log, and "
                "create it again"
            )

    def _check_takes_adapters(self) -> None:
        """ServingError where this Ollama takes no adapter, before gigabytes are sent. One that
        does not say its version is tried.
        """
        version = find_ollama(self.url)
        if version is not None and not ollama_abilities(version).takes_adapters:
            raise ServingError(f"this is Ollama {version}. {ADAPTERS_ARE_GONE}")

    def _send(self, path: Path) -> dict[str, str]:
        """{the file's name: its digest}, once Ollama has the file.

        `ollama.Client.create_blob` would hash and send it as well, but says nothing meanwhile, and
        sends gigabytes again that Ollama has already.
        """
        digest = f"sha256:{_sha256(path)}"
        blob = f"/api/blobs/{digest}"
        if self.http.head(blob).status_code == 200:
            return {path.name: digest}
        answer = self.http.post(
            blob,
            content=_chunks(path, f"sending {path.name}"),
            headers={"Content-Length": str(path.stat().st_size)},
        )
        if answer.status_code not in (200, 201):
            raise ServingError(
                f"Ollama refused {path.name} as {digest} ({answer.status_code}: "
                f"{answer.text.strip()}): did the file change while it was sent?"
            )
        return {path.name: digest}

    def _pieces(
        self, messages: list[dict], stream: bool, logprobs: bool, sampling: dict
    ) -> Iterator[str]:
        options = {SAMPLING[name]: value for name, value in sampling.items()}
        if "stop" in options:
            options["stop"] = all_stops(self.modelfile, options["stop"])
        asked = {"logprobs": True} if logprobs else {}
        answer = self.client.chat(self.name, messages, stream=stream, options=options, **asked)
        text = ""
        part = None
        for part in answer if stream else [answer]:
            piece = part.message.content or ""
            text += piece
            yield piece
        if part is None or not part.done:
            raise ServingError(
                f"Ollama broke off after {len(text)} characters: look at its log, and ask again"
            )
        found = getattr(part, "logprobs", None) or ()
        if logprobs and not found:
            raise ServingError(
                f"Ollama at {self.base_url} gave no log-probabilities: it is older than they are, "
                "or its client is"
            )
        self.last = Reply(
            text=text,
            runtime=OLLAMA,
            tokens=part.eval_count or 0,
            prompt_tokens=part.prompt_eval_count,
            context=self.modelfile.parameters.get("num_ctx"),
            seconds=(part.eval_duration or 0) / 1e9,
            measured="Ollama's eval_count / eval_duration",
            end=part.done_reason,
            logprobs=tuple(token.logprob for token in found),
        )

    def delete(self) -> None:
        """Remove the model from Ollama. Nothing else here ever does."""
        from ollama import ResponseError

        try:
            self.client.delete(self.name)
        except ResponseError as error:
            raise ServingError(f"Ollama, deleting {self.name!r}: {error}") from None


def _chunks(path: Path, what: str) -> Iterator[bytes]:
    """The file in parts; a bar shows how far a large one is."""
    from tqdm.auto import tqdm

    size = path.stat().st_size
    bar = tqdm(
        total=size,
        unit="B",
        unit_scale=True,
        desc=what,
        leave=False,
        disable=size < 100 * CHUNK,
    )
    with open(path, "rb") as stream, bar:
        while chunk := stream.read(CHUNK):
            yield chunk
            bar.update(len(chunk))


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(path, f"hashing {path.name}"):
        digest.update(chunk)
    return digest.hexdigest()
