"""Judges: the wire format against a stand-in on localhost, strict verdicts, retries, and nothing
sent to another machine.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import ftlib as ft
from ftlib.evaluation import judges


class StandIn:
    """An endpoint that gives `replies` in turn, the last for good: a text, an HTTP status, or
    "slow" / "broken".
    """

    def __init__(self, *replies):
        self.replies, self.seen = list(replies), []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                stand_in.seen.append((self.path, body, dict(self.headers)))
                reply = (
                    stand_in.replies.pop(0) if len(stand_in.replies) > 1 else stand_in.replies[0]
                )
                if callable(reply):
                    reply = reply(body["messages"][0]["content"])
                if reply == "slow":
                    stand_in.released.wait(5)
                    return
                self.send_response(reply if isinstance(reply, int) else 200)
                if reply == 302:
                    self.send_header("Location", "http://example.invalid/")
                self.end_headers()
                content = {"choices": [{"message": {"role": "assistant", "content": reply}}]}
                self.wfile.write(b"{" if reply == "broken" else json.dumps(content).encode())

            def log_message(self, *_):
                pass

        self.released = threading.Event()
        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def judge(self, **options):
        return judges.api_judge(
            self.url, "stand-in", **{"backoff": 0.0, "retries": 2, "timeout": 5.0, **options}
        )


def test_what_is_asked():
    with StandIn("Both are fine, the first is shorter.\nA") as server:
        assert (
            server.judge(rubric="Prefer brevity.", api_key="k")("How many?", "two", "two of them")
            == 1.0
        )
    ((path, body, headers),) = server.seen
    text = body["messages"][0]["content"]
    assert (
        path == "/v1/chat/completions"
        and body["model"] == "stand-in"
        and body["temperature"] == 0
        and headers["Authorization"] == "Bearer k"
    )
    assert text.startswith("Prefer brevity.") and text.index("How many?") < text.index(
        "two\n"
    ) < text.index("two of them")


def test_in_both_orders():
    """Prefers the longer answer in either place: a wins both pairs but the equal one, (1 + ½)/2."""

    def longer(question):
        a, b = (question.split(f"[Answer {x}]\n")[1].split("\n\n")[0] for x in "AB")
        return "A" if len(a) > len(b) else "B" if len(b) > len(a) else "tie"

    with StandIn(longer) as server:
        rate = ft.win_rate(["long one", "same"], ["short", "also"], server.judge(), ["p", "q"])
    assert rate == 0.75 and rate.consistency == 1.0 and len(server.seen) == 4


@pytest.mark.parametrize(
    "reply, verdict",
    [
        ("A", 1.0),
        ("B", 0.0),
        ("tie", 0.5),
        ("reasons: B is worse\n\n**A**", 1.0),
        ("Verdict: b.", 0.0),
        ("TIE\n", 0.5),
    ],
)
def test_verdicts(reply, verdict):
    assert judges.parse_verdict(reply) == verdict


@pytest.mark.parametrize(
    "reply", ["", "   ", "A or B", "A is better", "A\nbecause it is right", "C", "AB", "neither"]
)
def test_a_reply_without_a_verdict_is_no_tie(reply):
    with pytest.raises(ValueError, match="A, B or tie is needed"):
        judges.parse_verdict(reply)


def test_busy_servers_are_asked_again():
    with StandIn(503, 429, "B") as server:
        assert server.judge()("p", "x", "y") == 0.0 and len(server.seen) == 3
    with StandIn(500) as server, pytest.raises(judges.JudgeError, match=r"in 3 tries .*HTTP 500"):
        server.judge()("p", "x", "y")
    assert len(server.seen) == 3


def test_waits_grow(monkeypatch):
    waits = []
    monkeypatch.setattr(judges.time, "sleep", waits.append)
    with StandIn(503, 503, 503, "A") as server:
        server.judge(retries=3, backoff=0.5)("p", "x", "y")
    assert waits == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    "reply, words, asked",
    [
        (404, "refused the request .*404.*check base_url and model", 1),
        (302, "refused the request .*302", 1),
        ("broken", "gave no chat completion", 1),
    ],
)
def test_what_trying_again_would_not_fix(reply, words, asked):
    with StandIn(reply) as server, pytest.raises(judges.JudgeError, match=words):
        server.judge()("p", "x", "y")
    assert len(server.seen) == asked


def test_a_server_that_hangs_or_is_gone():
    with StandIn("slow") as server, pytest.raises(judges.JudgeError, match=r"in 1 tries .*[Tt]ime"):
        server.judge(timeout=0.1, retries=0)("p", "x", "y")
    with pytest.raises(judges.JudgeError, match="is the server running"):
        server.judge(retries=1)("p", "x", "y")


@pytest.mark.parametrize(
    "host",
    [
        "example.org",
        "10.0.0.1",
        "192.168.1.5",
        "localhost.example.org",
        "0.0.0.0",
        "[2001:db8::1]",
        "127.0.0.1@example.org",
    ],
)
def test_other_machines_need_leave(host):
    with pytest.raises(judges.JudgeError, match=r"is not this machine.*allow_remote=True"):
        judges.api_judge(f"http://{host}/v1", "m")
    assert callable(judges.api_judge(f"http://{host}/v1", "m", allow_remote=True))


@pytest.mark.parametrize("host", ["localhost:11434", "127.0.0.1", "127.8.8.8:1", "[::1]:80"])
def test_this_machine(host):
    assert callable(judges.api_judge(f"http://{host}/v1", "m"))


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "localhost:80"},
        {"base_url": "file:///etc/passwd"},
        {"retries": -1},
        {"timeout": 0},
        {"backoff": -1},
    ],
    ids=str,
)
def test_bad_settings(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        judges.api_judge(**{"base_url": "http://localhost/v1", "model": "m", **options})
