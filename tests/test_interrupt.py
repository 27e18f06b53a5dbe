"""Ctrl-C of a command: one or three end it alike, with what is saved and how to go on."""

import os
import signal
import subprocess
import sys

import pytest
from conftest import ROOT

from ftlib import cli
from ftlib.course import executing


@pytest.fixture(autouse=True)
def handler():
    """SIGINT is ignored after an interrupted command, which ends here only in the test's mind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_while(monkeypatch, command: str, arguments: list[str], body) -> int:
    monkeypatch.setitem(cli.COMMANDS, command, body)
    return cli.main([command, *arguments])


@pytest.mark.parametrize("times", [1, 2, 3])
def test_more_interrupts_change_nothing(monkeypatch, capsys, tmp_path, times):
    """The later ones come while the first is tidied up after."""
    tidied = []

    def body(args):
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            for _ in range(times - 1):
                signal.raise_signal(signal.SIGINT)
            tidied.append(times)

    assert interrupt_while(monkeypatch, "sft", ["--output", str(tmp_path)], body) == 130
    assert tidied == [times]
    assert "interrupted; no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ImportError, SystemError])
def test_an_import_that_makes_another_error_of_it(monkeypatch, capsys, tmp_path, error):
    """A compiled module's start may turn KeyboardInterrupt into what it likes."""

    def body(args):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error("initialization failed") from None

    assert interrupt_while(monkeypatch, "plan", ["llama-3.1-8b"], body) == 130
    assert "interrupted" in capsys.readouterr().err


def test_other_errors_are_not_taken_for_an_interrupt(monkeypatch):
    def body(args):
        raise SystemError("of its own")

    with pytest.raises(SystemError, match="of its own"):
        interrupt_while(monkeypatch, "plan", ["llama-3.1-8b"], body)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_job_in_the_background_goes_on(monkeypatch):
    """A shell starts it with SIGINT ignored, and Ctrl-C is for the job in front."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def body(args):
        signal.raise_signal(signal.SIGINT)
        return 0

    assert interrupt_while(monkeypatch, "plan", ["llama-3.1-8b"], body) == 0


def test_what_is_kept_is_said_by_one_process(monkeypatch, capsys, tmp_path):
    """The newest whole checkpoint; nothing by the other processes of a distributed run."""
    for step in (50, 100, 150):
        (tmp_path / f"checkpoint-{step}").mkdir()
    for step in (50, 100):  # the third was being written
        (tmp_path / f"checkpoint-{step}/complete").touch()

    def body(args):
        signal.raise_signal(signal.SIGINT)

    arguments = ["--output", str(tmp_path)]
    assert interrupt_while(monkeypatch, "sft", arguments, body) == 130
    said = capsys.readouterr().err
    assert f"{tmp_path}/checkpoint-100 holds the run up to step 100" in said
    assert "the same command goes on" in said
    monkeypatch.setenv("RANK", "1")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert interrupt_while(monkeypatch, "sft", arguments, body) == 130
    assert not capsys.readouterr().err


def test_the_process_ends_with_130_and_no_traceback(tmp_path):
    """A real process and three real signals, one of them into an `exec`, as imports do: Python's
    shutdown would end it by SIGINT, with -2.
    """
    code = """
import signal, sys
from ftlib import cli

def body(args):
    try:
        exec("signal.raise_signal(signal.SIGINT)", {"signal": signal})
    finally:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

cli.COMMANDS["progress"] = body
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["ftlib", "progress"]
cli.entry()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 130
    assert "interrupted" in done.stderr and "Traceback" not in done.stderr


def test_an_interrupted_notebook_leaves_no_kernel(monkeypatch):
    """The main thread is interrupted while the notebook runs in another; the coroutine is cancelled
    and may tidy up.
    """
    tidied = []

    async def run():
        import asyncio

        os.kill(os.getpid(), signal.SIGINT)  # to the main thread
        try:
            await asyncio.sleep(60)
        finally:
            tidied.append(True)
            raise RuntimeError("the kernel is gone")

    with pytest.raises(KeyboardInterrupt):
        executing.run_apart(run())
    assert tidied
