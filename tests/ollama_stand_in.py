"""A stand-in for Ollama's HTTP API, for tests: blobs, create, chat, version, delete as its
documentation describes them, and faults on demand. It is not Ollama: `test_a_real_ollama` runs
against one where `OLLAMA_HOST` or localhost has it.
"""

import hashlib
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status: int, content: dict | None = None) -> None:
        body = b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def lines(self, parts: list, drop: bool = False) -> None:
        """JSON lines as a chunked body; `drop` ends the connection without the body's end."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in parts:
            data = part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        if not drop:
            self.wfile.write(b"0\r\n\r\n")
        self.close_connection = drop

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"] or 0))

    def do_HEAD(self):
        self.answer(200 if self.path.rsplit("/", 1)[1] in self.server.blobs else 404)

    def do_GET(self):
        if self.server.fault == "hangs":
            time.sleep(1)
        self.answer(200, {"version": self.server.version})

    def do_DELETE(self):
        name = json.loads(self.body())["model"]
        found = self.server.models.pop(name, None)
        self.answer(
            200 if found else 404, None if found else {"error": f"model '{name}' not found"}
        )

    def do_POST(self):
        body = self.body()
        if self.path.startswith("/api/blobs/"):
            return self.blob(self.path.rsplit("/", 1)[1], body)
        self.server.asked.append(json.loads(body))
        {"/api/create": self.create, "/api/chat": self.chat}[self.path](self.server.asked[-1])

    def blob(self, digest: str, body: bytes) -> None:
        seen = (
            "sha256:"
            + hashlib.sha256(body + (b"x" if self.server.fault == "digest" else b"")).hexdigest()
        )
        if seen != digest:
            return self.answer(
                400, {"error": f"digest mismatch, expected {digest!r}, got {seen!r}"}
            )
        self.server.blobs[digest] = body
        self.server.sent.append(digest)
        self.answer(201)

    def logprobs(self, asked: dict) -> dict:
        """Of the three pieces of its answer; an old version has none."""
        if not asked.get("logprobs") or self.server.generation < (0, 30, 0):
            return {}
        pieces = zip(("An ", "answer", "."), (-0.5, -0.25, -0.125), strict=True)
        return {"logprobs": [{"token": text, "logprob": value} for text, value in pieces]}

    def create(self, asked: dict) -> None:
        if asked.get("adapters") and self.server.generation >= (0, 34, 1):
            return self.answer(400, {"error": "LoRA adapters are no longer supported"})
        missing = [
            d
            for d in {**asked["files"], **asked.get("adapters", {})}.values()
            if d not in self.server.blobs
        ]
        steps = [{"status": "parsing GGUF"}, {"status": "writing manifest"}]
        if self.server.fault == "create" or missing:
            return self.lines([steps[0], {"error": f"invalid model {missing}"}])
        if self.server.fault == "drop create":
            return self.lines(steps, drop=True)
        if self.server.fault == "half create":
            return self.lines(steps)
        self.server.models[asked["model"]] = asked
        self.lines([*steps, {"status": "success"}])

    def chat(self, asked: dict) -> None:
        fault = self.server.fault
        if asked["model"] not in self.server.models:
            return self.answer(404, {"error": f"model '{asked['model']}' not found"})
        if fault == "slow":
            time.sleep(4)
            return None
        pieces = [
            {"model": asked["model"], "message": {"role": "assistant", "content": t}, "done": False}
            for t in ("An ", "answer", ".")
        ]
        # 7 tokens in 2 seconds: 3.5 a second, however long the test takes.
        last = {
            "model": asked["model"],
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "eval_count": 7,
            "eval_duration": 2_000_000_000,
            "prompt_eval_count": self.server.prompt_tokens,
            **self.logprobs(asked),
        }
        if not asked["stream"]:
            return (
                self.answer(500, {"error": "runner died"})
                if fault
                else self.answer(
                    200, {**last, "message": {"role": "assistant", "content": "An answer."}}
                )
            )
        ends = {"error": [{"error": "runner died"}], "half": [], "damaged": [b'{"message": {"ro\n']}
        self.lines(
            pieces + ends.get(fault, [last]) if fault != "drop" else pieces[:2],
            drop=fault == "drop",
        )


class StandIn(ThreadingHTTPServer):
    """`with StandIn() as ollama:` answers at `ollama.url`; `fault` names what goes wrong next.

    version: of three generations: 0.24.0; 0.32.15; and 0.34.1, which refuses adapters.
    prompt_tokens: what it says that it read of each prompt.
    """

    daemon_threads = True

    def __init__(self, version: str = "0.32.15"):
        super().__init__(("127.0.0.1", 0), Handler)
        self.version = version
        self.generation = tuple(int(part) for part in version.split("."))
        self.prompt_tokens = 11
        self.url, self.fault = f"http://127.0.0.1:{self.server_address[1]}", None
        self.blobs, self.models, self.sent, self.asked = {}, {}, [], []

    def __enter__(self):
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
