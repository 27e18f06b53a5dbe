"""Judges of two answers for `ftlib.win_rate`: by exact match, or a language model behind an
OpenAI-compatible endpoint.

A judge is blind: it sees the prompt and a first and a second answer, never which model gave them.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

RUBRIC = (
    "Which of the two answers serves the request better? Judge correctness first, then "
    "completeness, then brevity; their order means nothing."
)
FORM = "End with one line that holds nothing but your verdict: A, B or tie."
QUESTION = """{rubric}

[Request]
{prompt}

[Answer A]
{first}

[Answer B]
{second}

{form}"""
VERDICTS = {"a": 1.0, "b": 0.0, "tie": 0.5}
_VERDICT_LINE = re.compile(r"[*\s]*(?:verdict:)?[*\s]*(a|b|tie)[*.\s]*", re.IGNORECASE)


class JudgeError(ValueError):
    """A judge that cannot be asked, or whose reply is no verdict: where, what it said, and the
    fix. `scores`: of the pairs that `win_rate` had judged before, each from 0 to 1.
    """

    def __init__(self, message: str, scores: Sequence[float] = ()):
        super().__init__(message)
        self.scores = list(scores)


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
        reference = normalise(references[prompt])
        first_right = normalise(first) == reference
        second_right = normalise(second) == reference
        return 0.5 + 0.5 * (first_right - second_right)

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
    last_line = lines[-1] if lines else ""
    found = _VERDICT_LINE.fullmatch(last_line)
    if not found:
        raise JudgeError(
            f"the judge's reply ends with {last_line[-80:]!r}: a last line of A, B or tie is "
            "needed; take a stronger model or a plainer rubric"
        )
    return VERDICTS[found[1].lower()]


@dataclass(frozen=True)
class _Endpoint:
    """A chat completion's address, and how patiently it is asked (seconds)."""

    url: str
    timeout: float
    retries: int
    backoff: float
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, body: dict) -> str:
        """The reply's text. Lost connections, timeouts, 429 and 5xx are tried again, after
        `backoff`, twice that, and so on.
        """
        for attempt in range(self.retries + 1):
            try:
                answer = self._post(body)
            except httpx.HTTPError as error:  # timeouts among them
                problem = f"{type(error).__name__}: {error}"
            else:
                if answer.is_success:
                    return self._text(answer)
                problem = self._refusal(answer)
            if attempt < self.retries:
                time.sleep(self.backoff * 2**attempt)
        raise JudgeError(
            f"{self.url} did not answer in {self.retries + 1} tries ({problem}): is the server "
            "running?"
        )

    def _post(self, body: dict) -> httpx.Response:
        # No proxies from the environment, and no redirects: the answers go to the host that was
        # named. Certificates are checked against those that this machine trusts.
        return httpx.post(
            self.url,
            json=body,
            headers=self.headers,
            timeout=self.timeout,
            trust_env=False,
            follow_redirects=False,
            verify=ssl.create_default_context(),
        )

    def _text(self, answer: httpx.Response) -> str:
        try:
            return answer.json()["choices"][0]["message"]["content"] or ""
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise JudgeError(
                f"{self.url} gave no chat completion ({type(error).__name__}: {error}): "
                "an OpenAI-compatible endpoint is needed"
            ) from None

    def _refusal(self, answer: httpx.Response) -> str:
        """What was said of a failure that may pass; JudgeError for one that stays."""
        start = answer.content[:200].decode(errors="replace")
        problem = f"HTTP {answer.status_code}: {start}"
        if answer.status_code != 429 and answer.status_code < 500:
            raise JudgeError(
                f"{self.url} refused the request ({problem}): check base_url and model"
            )
        return problem


def _check_address(base_url: str, allow_remote: bool) -> None:
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
    try:
        httpx.URL(base_url)
    except httpx.InvalidURL as error:
        raise JudgeError(
            f"base_url={base_url!r}: {error}; an address such as http://localhost:11434/v1 is "
            "needed"
        ) from None


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
    _check_address(base_url, allow_remote)
    if retries < 0 or not timeout > 0 or not backoff >= 0:
        raise JudgeError(
            f"retries={retries}, timeout={timeout}, backoff={backoff}: timeout must be above 0, "
            "the others at least 0"
        )
    url = base_url.rstrip("/") + "/chat/completions"
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    endpoint = _Endpoint(url, timeout, retries, backoff, headers)

    def judge(prompt: str, first: str, second: str) -> float:
        question = QUESTION.format(
            rubric=rubric, prompt=prompt, first=first, second=second, form=FORM
        )
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
        }
        return parse_verdict(endpoint.ask(body))

    return judge
