"""Judges of two answers for `ftlib.win_rate`: by exact match, or a language model behind an
OpenAI-compatible endpoint.

A judge is blind: it sees the prompt and a first and a second answer, never which model gave them.
"""

from __future__ import annotations

import http.client
import ipaddress
import json
import re
import time
import urllib.request
from collections.abc import Callable
from urllib.parse import urlsplit

RUBRIC = (
    "Which of the two answers serves the request better? Judge correctness first, then "
    "completeness, then brevity; "
    "the order in which they stand means nothing."
)
FORM = "End with one line that holds nothing but your verdict: A, B or tie."
VERDICTS = {"a": 1.0, "b": 0.0, "tie": 0.5}


class JudgeError(ValueError):
    """A judge that cannot be asked, or whose reply is no verdict: where, what it said, and the
    mend.
    """


def normalise(text: str) -> str:
    """Whitespace runs to one space, ends stripped, a final full stop dropped: what exact match
    forgives.
    """
    return " ".join(text.split()).rstrip(".").rstrip()


def exact_judge(references: dict[str, str]) -> Callable[[str, str, str], float]:
    """A judge for `win_rate` that checks answers against the reference by prompt: right beats
    wrong, else a tie.
    """

    def judge(prompt: str, first: str, second: str) -> float:
        right = [normalise(x) == normalise(references[prompt]) for x in (first, second)]
        return 0.5 + 0.5 * (right[0] - right[1])

    return judge


def is_local(host: str) -> bool:
    """Whether a host's name or address means this machine. Names are not looked up: a resolver
    could point anywhere.
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_verdict(reply: str) -> float:
    """1.0 for A, 0.0 for B, 0.5 for a tie, from a reply's last line alone: no guess from its prose.
    JudgeError if it holds anything else."""
    lines = reply.strip().splitlines()
    word = re.fullmatch(
        r"[*\s]*(?:verdict:)?[*\s]*(a|b|tie)[*.\s]*", lines[-1] if lines else "", re.IGNORECASE
    )
    if not word:
        raise JudgeError(
            f"the judge's reply ends with {(lines or [''])[-1][-80:]!r}: a last line of A, B or "
            "tie is needed; "
            "take a stronger model or a plainer rubric"
        )
    return VERDICTS[word[1].lower()]


def _post(url: str, body: dict, headers: dict, timeout: float) -> dict:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    # No proxies from the environment, and no redirects: the answers go to the host that was named.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    with opener.open(request, timeout=timeout) as response:
        return json.loads(response.read())


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def _ask(url: str, body: dict, headers: dict, timeout: float, retries: int, backoff: float) -> str:
    """The reply's text. Lost connections, timeouts, 429 and 5xx are tried again, after `backoff`,
    twice that, and so on (seconds).
    """
    for attempt in range(retries + 1):
        try:
            return _post(url, body, headers, timeout)["choices"][0]["message"]["content"] or ""
        except urllib.error.HTTPError as error:
            said = f"HTTP {error.code}: {error.read(200).decode(errors='replace')}"
            if error.code != 429 and error.code < 500:
                raise JudgeError(
                    f"{url} refused the request ({said}): check base_url and model"
                ) from None
        except (OSError, http.client.HTTPException) as error:  # URLError and timeouts among them
            said = f"{type(error).__name__}: {error}"
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise JudgeError(
                f"{url} gave no chat completion ({type(error).__name__}: {error}): "
                "an OpenAI-compatible endpoint is needed"
            ) from None
        if attempt < retries:
            time.sleep(backoff * 2**attempt)
    raise JudgeError(
        f"{url} did not answer in {retries + 1} tries ({said}): is the server running?"
    )


def api_judge(
    base_url: str,
    model: str,
    rubric: str = RUBRIC,
    *,
    api_key: str | None = None,
    timeout: float = 60.0,
    retries: int = 3,
    backoff: float = 1.0,
    allow_remote: bool = False,
) -> Callable[[str, str, str], float]:
    """A judge for ``win_rate(a, b, judge, prompts)`` behind an OpenAI-compatible endpoint,
    such as http://localhost:11434/v1 of Ollama.

    `model` reads the `rubric`, the prompt and the two answers, greedily, and must end with a line
    A, B or tie (`parse_verdict`). timeout and backoff in seconds. `win_rate` asks in both orders
    (Zheng et al. 2023, arXiv 2306.05685, section 3.4). JudgeError (a ValueError) for a host that is
    not this machine unless `allow_remote`, a server that does not answer after `retries` more
    tries, and a reply without a verdict.
    """
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise JudgeError(
            f"base_url={base_url!r}: an address such as http://localhost:11434/v1 is needed"
        )
    if not allow_remote and not is_local(parts.hostname):
        raise JudgeError(
            f"base_url={base_url!r} is not this machine: prompts and answers would leave it; "
            "pass allow_remote=True if they may"
        )
    if retries < 0 or not timeout > 0 or not backoff >= 0:
        raise JudgeError(
            f"retries={retries}, timeout={timeout}, backoff={backoff}: timeout must be above 0, "
            "the others at least 0"
        )
    url, headers = (
        base_url.rstrip("/") + "/chat/completions",
        {"Authorization": f"Bearer {api_key}"} if api_key else {},
    )

    def judge(prompt: str, first: str, second: str) -> float:
        question = f"{rubric}\n\n[Request]\n{prompt}\n\n[Answer A]\n{first}\n\n[Answer B]\n{second}\n\n{FORM}"
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
        }
        return parse_verdict(_ask(url, body, headers, timeout, retries, backoff))

    return judge
