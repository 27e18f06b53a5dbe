"""What ftlib changes of a process: nothing by being imported, and what `configure` says."""

import json
import logging
import os
import subprocess
import sys
import warnings

import pytest
import torch
from transformers.utils import logging as transformers_logging

from ftlib import cli
from ftlib.core import runtime
from ftlib.course import exercise

STATE = """
import json, logging, os, signal, sys, warnings

def state():
    loggers = {}
    for name in ("", "bitsandbytes.backends.cpu.ops", "transformers"):
        logger = logging.getLogger(name)
        loggers[name] = [logger.level, len(logger.handlers)]
    return {
        "environment": dict(os.environ),
        "loggers": loggers,
        "filters": [str(one) for one in warnings.filters],
        "signals": [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)],
        "torch": "torch" in sys.modules,
    }

before = state()
"""


def run_python(code: str) -> str:
    """In a process that has not set up OpenMP, as a user's has not."""
    environment = dict(os.environ)
    for name in runtime.ENVIRONMENT:
        environment.pop(name, None)
    command = [sys.executable, "-c", STATE + code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_importing_changes_nothing_and_configuring_says_what():
    """In one process: the state before, after `import ftlib`, and after `configure`."""
    code = """
import ftlib
imported = state()
from ftlib.core.runtime import configure
lines = configure()
print(json.dumps([before == imported, lines, configure(), state()]))
"""
    same, lines, again, after = json.loads(run_python(code))
    assert same and again == []
    assert lines == [
        "OMP_WAIT_POLICY=PASSIVE in the environment",
        "TOKENIZERS_PARALLELISM=false in the environment",
        "the logger bitsandbytes.backends.cpu.ops reports errors only",
    ]
    assert runtime.ENVIRONMENT.items() <= after["environment"].items()
    assert after["loggers"]["bitsandbytes.backends.cpu.ops"][0] == logging.ERROR
    assert not after["torch"]  # it would have read the environment before it was set


def test_in_a_notebook_the_import_configures():
    """A kernel's IPython has a `kernel`; a lab imports torch on the line after ftlib."""
    code = """
from IPython.core.interactiveshell import InteractiveShell
InteractiveShell.instance().kernel = object()
import ftlib
print(os.environ["OMP_WAIT_POLICY"], "torch" in sys.modules)
"""
    assert run_python(code).split() == ["PASSIVE", "False"]


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    monkeypatch.setattr(logging.getLogger(runtime.QUIET[0]), "level", logging.CRITICAL)
    assert runtime.configure() == ["TOKENIZERS_PARALLELISM=false in the environment"]
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert logging.getLogger(runtime.QUIET[0]).level == logging.CRITICAL


def test_it_says_where_the_policy_comes_too_late(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY")
    assert "torch was imported before" in runtime.configure()[0]


def test_threads_are_remembered_before_they_are_set():
    before = torch.get_num_threads()
    runtime.default_threads.cache_clear()
    try:
        assert f"PyTorch computes in {before + 1} threads" in runtime.configure(threads=before + 1)
        assert torch.get_num_threads() == before + 1
        assert runtime.default_threads() == before
        assert runtime.configure(threads=before + 1) == []
    finally:
        torch.set_num_threads(before)
        runtime.default_threads.cache_clear()


@pytest.fixture
def loud():
    """transformers as it comes, and this process's own filters given back."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_warning()
    transformers_logging.enable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        yield
    transformers_logging.set_verbosity(verbosity)
    if not bars:
        transformers_logging.disable_progress_bar()


def test_a_lab_may_silence_the_libraries(loud):
    runtime.configure()
    changed = runtime.configure(progress_bars=False, library_warnings=False)
    assert changed == [
        "transformers shows no progress bars",
        "Python's warnings are ignored",
        "transformers logs errors only",
    ]
    with warnings.catch_warnings(record=True) as heard:
        warnings.warn("unheard", stacklevel=1)
    assert heard == []
    assert transformers_logging.get_verbosity() == transformers_logging.ERROR
    assert not transformers_logging.is_progress_bar_enabled()
    assert runtime.configure(progress_bars=False, library_warnings=False) == []


def test_the_command_and_the_labs_configure(monkeypatch, capsys):
    for begin in (lambda: cli.main(["labs", "--list"]), lambda: exercise.open_lab("3.1.1")):
        monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
        begin()
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
