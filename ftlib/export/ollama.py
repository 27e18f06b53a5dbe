"""Where Ollama is, and whether it answers. Needs neither torch nor transformers."""

from __future__ import annotations

import os
from urllib.parse import SplitResult, urlsplit

import httpx

from ftlib.export.errors import ServingError

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 11434


def ollama_url(host: str | None = None) -> str:
    """The address of Ollama: `host`, `OLLAMA_HOST`, or http://127.0.0.1:11434.

    Read as Ollama's own client does: without a scheme the port is 11434, after http:// it is 80,
    after https:// 443, where none is given. ServingError for a port that is no number.
    """
    given = host or os.environ.get("OLLAMA_HOST") or DEFAULT_HOST
    has_scheme = "://" in given
    parts = urlsplit(given if has_scheme else f"http://{given}")
    try:
        port = parts.port or _default_port(parts, has_scheme)
    except ValueError as error:
        raise ServingError(f"OLLAMA_HOST={given!r}: {error}; use host:port") from None
    # 0.0.0.0 is what a server binds to, and no address to call.
    name = (parts.hostname or DEFAULT_HOST).replace("0.0.0.0", DEFAULT_HOST)
    if ":" in name:  # IPv6
        name = f"[{name}]"
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{name}:{port}{path}"


def _default_port(parts: SplitResult, has_scheme: bool) -> int:
    if parts.scheme == "https":
        return 443
    return 80 if has_scheme else DEFAULT_PORT


def find_ollama(host: str | None = None, timeout: float = 2.0) -> str | None:
    """The version of the Ollama that answers at `host` (see `ollama_url`) within `timeout` seconds,
    or None.
    """
    url = ollama_url(host)
    try:
        answer = httpx.get(f"{url}/api/version", timeout=timeout)
        return answer.json()["version"] if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError):
        return None
