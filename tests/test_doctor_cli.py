"""`ftlib doctor` and the command line: what they say and how they end."""

import json
import subprocess
import sys

import httpx
import pytest

from ftlib import cli, doctor
from ftlib.core import machine
from ftlib.doctor import Finding


def test_report_and_status(monkeypatch, capsys):
    """Exit 0 with warnings, 1 with a failure; each finding on a line of its own with its fix."""
    findings = [Finding("ok", "fine"), Finding("warning", "hm", "do this")]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "ok       fine\nwarning  hm  → do this\n"
    findings.append(Finding("failure", "gone", "fetch it"))
    assert cli.main(["doctor"]) == 1 and "FAILURE  gone  → fetch it" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[2] == {
        "status": "failure",
        "what": "gone",
        "fix": "fetch it",
    }


def test_this_machine():
    found = doctor.examine()
    text = doctor.report(found)
    assert len(text.splitlines()) == len(found) and {f.status for f in found} <= {
        "ok",
        "warning",
        "failure",
    }
    for word in ("Python 3.", "torch ", "peft ", "memory", "disk", "embedded model"):
        assert word in text
    assert all(f.fix for f in found if f.status != "ok")


def test_packages(monkeypatch):
    tested = doctor.tested_versions()
    assert tested["torch"] == "2.13.0" and tested["peft"]
    assert doctor._package("torch", {"torch": "2.13.0"}).status == "ok"
    other = doctor._package("torch", {"torch": "1.0.0"})
    assert (
        other.status == "warning"
        and "tested with 1.0.0" in other.what
        and "torch==1.0.0" in other.fix
    )
    assert doctor._package("no-such-package", {}) == Finding(
        "failure", "no-such-package is not installed", "run `make venv`"
    )


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("ftlib.core.paths.DATA", tmp_path)
    missing = doctor._project()[0]
    assert (
        missing.status == "failure" and str(tmp_path) in missing.what and "make data" in missing.fix
    )
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(doctor, "available_memory", lambda: 10**9)
    warnings = [f.what for f in doctor._machine() if f.status == "warning"]
    assert any("1.0 GB of memory" in w for w in warnings) and any(
        "OMP_WAIT_POLICY" in w for w in warnings
    )
    monkeypatch.setattr(doctor, "available_memory", lambda: None)  # a system without /proc
    assert not any("memory available" in f.what for f in doctor._machine())


def test_available_memory_is_a_plausible_number():
    assert doctor.available_memory() is None or 10**7 < doctor.available_memory() < 10**13


def test_bad_arguments(capsys):
    for arguments in ([], ["nonsense"], ["labs", "--cell-timeout", "soon"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2
    assert "usage: ftlib" in capsys.readouterr().err


def test_interrupt(monkeypatch, capsys):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("ftlib.course.notebooks.run_labs", interrupted)
    assert cli.main(["labs"]) == 130 and "interrupted" in capsys.readouterr().err


def test_ollama_is_asked(monkeypatch):
    """A server that answers as Ollama does, then one that answers nonsense, then none."""
    import http.server
    import threading

    replies = [b'{"version": "0.9.9"}', b"<html>"]

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            assert self.path == "/api/version"
            self.send_response(200)
            self.end_headers()
            self.wfile.write(replies.pop(0))

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Server) as server:
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert "Ollama 0.9.9 answers" in doctor._ollama().what
        assert "no Ollama" in doctor._ollama().what
        server.shutdown()
    assert doctor._ollama().status == "ok" and "goes on without" in doctor._ollama().what


@pytest.mark.parametrize(
    "host, address",
    [
        (None, "http://127.0.0.1:11434"),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("https://127.0.0.1", "https://127.0.0.1:443"),
        ("127.0.0.1:4321", "http://127.0.0.1:4321"),
    ],
)
def test_ollama_is_asked_where_serving_asks(host, address, monkeypatch):
    asked = []

    def refuse(url, timeout):
        asked.append(url)
        raise httpx.ConnectError("refused")

    monkeypatch.setattr(httpx, "get", refuse)
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    if host:
        monkeypatch.setenv("OLLAMA_HOST", host)
    assert f"no Ollama at {address}:" in doctor._ollama().what
    assert asked == [f"{address}/api/version"]


def test_an_address_of_ollama_that_is_none_is_said(monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:many")
    found = doctor._ollama()
    assert found.status == "warning" and "127.0.0.1:many" in found.what
    assert found.fix == "unset OLLAMA_HOST"


def test_where_ollama_is_is_known_without_torch():
    code = "import sys, ftlib.export.ollama; assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_bitsandbytes_that_does_not_load_is_a_failure(monkeypatch):
    assert doctor._bitsandbytes().status == "ok" and "the CPU" in doctor._bitsandbytes().what
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.cextension", None)
    broken = doctor._bitsandbytes()
    assert broken.status == "failure" and "python -m bitsandbytes" in broken.fix


def test_the_hub_is_looked_at(monkeypatch, tmp_path):
    from huggingface_hub import constants

    (tmp_path / "models--a--b").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "secret")
    token, cache = doctor._hub()
    assert (
        token.what == "a Hub token is stored"
        and "1 models" in cache.what
        and "HF_HUB_OFFLINE=1" in cache.what
    )
    assert "secret" not in doctor.report([token, cache])


def test_unified_memory_is_told_apart(monkeypatch):
    from types import SimpleNamespace

    import torch

    assert not doctor.unified_memory()  # no GPU here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (5, 9))
    monkeypatch.setattr(machine, "available_memory", lambda: 7)
    for integrated, want in ((1, 7), (0, 5)):
        monkeypatch.setattr(
            torch.cuda,
            "get_device_properties",
            lambda _, i=integrated: SimpleNamespace(is_integrated=i),
        )
        assert doctor.unified_memory() == bool(integrated) and machine.available_bytes() == want
