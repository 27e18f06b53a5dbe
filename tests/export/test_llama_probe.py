"""A llama.cpp that dies of an illegal instruction: all say so, and nothing of ours dies with it."""

import subprocess
import sys

import pytest
from conftest import ROOT, needs_llama

from ftlib import doctor
from ftlib.course import catalogue, notebooks
from ftlib.export import llama_probe, serving
from ftlib.export.errors import ExportError
from ftlib.export.llama_probe import Probe, death, probe_llama
from ftlib.export.llamacpp import open_llama, quantize_gguf

# A package as llama-cpp-python's, that fails as {fate} says once a model is quantised.
FAKE = """
import os, signal, time, types
import numpy as np

def llama_print_system_info():
    return b"CPU : AVX2 = 1 | AMX_INT8 = 1 | "

def llama_model_quantize_default_params():
    import ctypes
    class Options(ctypes.Structure):
        _fields_ = [("ftype", ctypes.c_int), ("nthread", ctypes.c_int)]
    return Options()

quantised = False

def llama_model_quantize(source, target, options):
    global quantised
    quantised = True
    {fate}
    return 0

class Llama:
    def __init__(self, *_, **__):
        self.scores = np.full((8, 4), FILL if quantised else 1.0)
    def eval(self, tokens):
        pass
    def close(self):
        pass

FILL = {fill}
"""
KILLED = "os.kill(os.getpid(), signal.SIGILL)"


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A function that puts such a package before the real one, here and in what is started."""
    folder = tmp_path / "packages" / "llama_cpp"

    def install(fate: str = KILLED, fill: float = 1.0):
        (folder / "server").mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text(FAKE.format(fate=fate, fill=fill))
        (folder / "server" / "__init__.py").touch()
        (folder / "server" / "__main__.py").write_text(f"import os, signal\n{KILLED}")
        probe_llama.cache_clear()

    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setenv("PYTHONPATH", f"{folder.parent}:{ROOT}")
    monkeypatch.delitem(sys.modules, "llama_cpp", raising=False)
    yield install
    probe_llama.cache_clear()


@pytest.fixture
def source(tmp_path):
    (tmp_path / "Modelfile").write_text("FROM ./F16.gguf\n")
    llama_probe.write_model(tmp_path / "F16.gguf")
    return tmp_path / "F16.gguf"


def test_the_product_it_dies_at_is_named(fake):
    fake()
    found = probe_llama()
    assert found.status == "died"
    assert "dies on this processor at Q8_0: illegal instruction: rebuild by `" in found.problem
    assert found.features == "CPU : AVX2 = 1 | AMX_INT8 = 1 |"
    assert probe_llama() is found  # tried once


@pytest.mark.parametrize(
    "fate, fill, said",
    [
        ("raise OSError('libgomp.so.1 is gone')", 1.0, "exit 1: OSError: libgomp.so.1 is gone"),
        ("return 3", 1.0, "could not quantise to Q8_0"),
        ("pass", float("nan"), "logits of Q8_0 differ"),
        ("pass", 9.0, "logits of Q8_0 differ from those of F16 by 8"),
        ("os.abort()", 1.0, "at Q8_0: killed by SIGABRT"),
        ("time.sleep(60)", 1.0, "did not compute a token in 5 s"),
    ],
)
def test_other_ends_are_told_apart(fake, monkeypatch, fate, fill, said):
    monkeypatch.setattr(llama_probe, "PATIENCE", 5)
    fake(fate, str(fill).replace("nan", "float('nan')"))
    problem = probe_llama().problem
    assert not probe_llama().fine and said in problem and "rebuild by `" in problem


def test_one_that_runs_is_fine(fake):
    fake("pass")
    assert probe_llama() == Probe("fine", features="CPU : AVX2 = 1 | AMX_INT8 = 1 |")
    assert probe_llama().problem == ""


def test_what_uses_it_says_so_and_lives(fake, source, tmp_path):
    fake()
    said = "illegal instruction: rebuild by"
    with pytest.raises(ExportError, match=f"at Q8_0: {said}"), open_llama(source):
        pass
    with pytest.raises(ExportError, match=f"died quantising .*F16.gguf: {said}"):
        quantize_gguf(source, tmp_path / "q.gguf", threads=1)
    assert not (tmp_path / "q.gguf").exists()
    with (
        pytest.raises(serving.ServingError, match=f"{said} .*ollama serve"),
        serving.serve(source.with_name("Modelfile"), "m", runtime="llama-cpp-python"),
    ):
        pass


def test_a_server_that_dies_all_the_same(fake, source, monkeypatch):
    """The trial went well, the model's own instructions do not."""
    fake("pass")
    assert probe_llama().fine
    with pytest.raises(serving.ServingError, match=r"died \(illegal instruction: rebuild by"):
        modelfile = source.with_name("Modelfile")
        with serving.serve(modelfile, "m", runtime="llama-cpp-python", timeout=60):
            pass


def test_the_lab_is_left_out_by_name_and_the_doctor_says_why(fake):
    fake()
    lab = catalogue.lab_files(["3.1.10"])[0]
    assert notebooks.left_out(lab).startswith(f"{lab.name} is left out: ")
    assert "illegal instruction" in notebooks.left_out(lab)
    assert notebooks.left_out(catalogue.lab_files(["3.1.9"])[0]) == ""
    found = doctor._llama()
    assert found.status == "warning"
    assert "illegal instruction" in found.what and "lab 3.1.10" in found.what
    assert found.fix == llama_probe.fix_command()
    fake("pass")
    assert notebooks.left_out(lab) == ""
    said = "llama-cpp-python runs, with CPU : AVX2 = 1 | AMX_INT8 = 1 |"
    assert doctor._llama() == doctor.Finding("ok", said)


def test_tests_are_skipped_with_the_reason(fake):
    fake()
    with pytest.raises(pytest.skip.Exception, match="illegal instruction"):
        needs_llama()
    fake("pass")
    needs_llama()


def test_one_that_is_not_there(monkeypatch, tmp_path):
    """With the reason that the set-up left, where it left one; the fix is this environment's."""
    monkeypatch.setattr(llama_probe.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(llama_probe.sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(llama_probe, "CHECKOUT", tmp_path)
    probe_llama.cache_clear()
    assert probe_llama().problem == "llama-cpp-python is not installed: make export"
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / llama_probe.REASON).write_text("no compiler\n")
    probe_llama.cache_clear()
    assert probe_llama().problem == "llama-cpp-python is not installed (no compiler): make export"
    assert doctor._llama().status == "ok" and "no compiler" in doctor._llama().what
    monkeypatch.setattr(llama_probe.sys, "prefix", "/opt/conda")
    assert "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install --no-cache-dir" in probe_llama().problem
    probe_llama.cache_clear()


def test_deaths_by_name():
    assert death(-4) == "illegal instruction"
    assert death(-9) == "killed by SIGKILL"
    assert death(-99) == "killed by signal 99"


def test_the_trial_needs_no_torch_and_ends_with_its_outcome(fake, tmp_path):
    """As tools/venv.py runs it: by its path, where torch and ftlib itself cannot be imported."""
    for name in ("torch", "transformers", "ftlib"):
        (tmp_path / "packages" / f"{name}.py").parent.mkdir(exist_ok=True)
        (tmp_path / "packages" / f"{name}.py").write_text("raise SystemExit('imported')")
    command = [sys.executable, "-P", str(ROOT / "ftlib" / "export" / "llama_probe.py")]
    fake("pass")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "llama.cpp runs: CPU : AVX2 = 1 | AMX_INT8 = 1 |\n"
    fake()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "illegal instruction" in done.stdout


def test_the_installed_one():
    """For real: three types of weights, and the sets of instructions that it was compiled with."""
    needs_llama()
    assert " = 1" in probe_llama().features
