"""`ftlib doctor` and the command line: what they say and how they end."""
import json

import pytest

from ftlib import cli, doctor
from ftlib.doctor import Finding


def test_report_and_status(monkeypatch, capsys):
    """Exit 0 with warnings, 1 with a failure; each finding on a line of its own with its mend."""
    findings = [Finding("ok", "fine"), Finding("warning", "hm", "do this")]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    assert cli.main(["doctor"]) == 0
    assert capsys.readouterr().out == "ok       fine\nwarning  hm  → do this\n"
    findings.append(Finding("failure", "gone", "fetch it"))
    assert cli.main(["doctor"]) == 1 and "FAILURE  gone  → fetch it" in capsys.readouterr().out
    assert cli.main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[2] == {"status": "failure", "what": "gone", "mend": "fetch it"}


def test_this_machine():
    found = doctor.examine()
    text = doctor.report(found)
    assert len(text.splitlines()) == len(found) and {f.status for f in found} <= {"ok", "warning", "failure"}
    for word in ("Python 3.", "torch ", "peft ", "memory", "disk", "embedded model"):
        assert word in text
    assert all(f.mend for f in found if f.status != "ok")


def test_packages(monkeypatch):
    tested = doctor.tested_versions()
    assert tested["torch"] == "2.13.0" and tested["peft"]
    assert doctor._package("torch", {"torch": "2.13.0"}).status == "ok"
    other = doctor._package("torch", {"torch": "1.0.0"})
    assert other.status == "warning" and "tested with 1.0.0" in other.what and "torch==1.0.0" in other.mend
    assert doctor._package("no-such-package", {}) == Finding("failure", "no-such-package is not installed", "run `make venv`")


def test_what_is_missing_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr("ftlib.loading.DATA", tmp_path)
    missing = doctor._project()[0]
    assert missing.status == "failure" and str(tmp_path) in missing.what and "make data" in missing.mend
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setattr(doctor, "available_memory", lambda: 10**9)
    warnings = [f.what for f in doctor._machine() if f.status == "warning"]
    assert any("1.0 GB of memory" in w for w in warnings) and any("OMP_WAIT_POLICY" in w for w in warnings)
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

    monkeypatch.setattr("ftlib.labs.run_labs", interrupted)
    assert cli.main(["labs"]) == 130 and "interrupted" in capsys.readouterr().err
