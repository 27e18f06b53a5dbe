"""`make`: one .venv under constraints.txt, a vendor's torch left alone, and a reason where it
cannot be made.
"""

import importlib.util
import re
import shlex
import subprocess
import sys
import types
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """tools/venv.py in a folder of its own, with commands recorded instead of run."""
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "tools/venv.py", "tools/llama.cmake"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "ftlib-ready")
    monkeypatch.setattr(module, "EXPORT", tmp_path / ".venv" / "ftlib-export-ready")
    monkeypatch.setattr(module, "BROWSER", tmp_path / ".venv" / "ftlib-browser-ready")
    monkeypatch.setattr(module, "SITE", tmp_path / ".venv" / "ftlib-site-ready")
    monkeypatch.setattr(module, "REASON", tmp_path / ".venv" / "ftlib-export-failed")
    module.commands = []

    def run(command, hint):
        module.commands.append(command)
        if "venv" in command:
            (tmp_path / ".venv" / "bin").mkdir(parents=True)
            (tmp_path / ".venv" / "bin" / "python").touch()

    monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr(module, "vendor_torch", lambda python: None)
    return module


def test_first_run_installs_torch_alone_and_then_the_project(setup):
    setup.main([])
    create, torch, rest = setup.commands
    assert create[1:3] == ["-m", "venv"] and "--system-site-packages" not in create
    assert torch[-1] == "torch==2.13.0" and "-c" in torch
    assert rest[-2:] == ["-e", ".[labs,dev,grading]"]
    assert rest[rest.index("-c") + 1] == str(setup.ROOT / "constraints.txt")


def test_second_run_does_nothing_until_something_changes(setup):
    setup.main([])
    setup.commands.clear()
    setup.main([])
    assert setup.commands == []
    (setup.ROOT / "constraints.txt").write_text(
        (setup.ROOT / "constraints.txt").read_text() + "# newer\n"
    )
    setup.main([])
    assert [c[1:3] for c in setup.commands] == [
        ["-m", "pip"],
        ["-m", "pip"],
    ]  # .venv itself is kept


# --- llama-cpp-python -------------------------------------------------------------------------
class Machine:
    """Stands in for pip and the trial of what it built.

    `outcomes` says how each trial ends, the last one for ever.
    """

    def __init__(self, outcomes=("",), pip_works=True):
        self.outcomes = list(outcomes)
        self.pip_works = pip_works
        self.calls = []
        self.environments = []

    def run(self, command, env=None, **_):
        if "wheel" in command:
            return self.build(command, env)
        if command[-1].endswith("llama_probe.py"):
            return self.probe()
        self.calls.append("install " + command[-1].rpartition("/")[2])
        return types.SimpleNamespace(returncode=not self.pip_works)

    def build(self, command, env):
        self.calls.append("build")
        self.environments.append(env)
        assert command[command.index("--no-binary") + 1] == "llama-cpp-python"
        assert "--no-cache-dir" in command and "--no-deps" in command
        assert command[-1] == "llama_cpp_python==0.3.36"
        folder = Path(command[command.index("--wheel-dir") + 1])
        if self.pip_works:
            (folder / "llama_cpp_python-0.3.36.whl").write_text(env["CMAKE_ARGS"])
        return types.SimpleNamespace(returncode=not self.pip_works)

    def probe(self):
        self.calls.append("probe")
        said = self.outcomes[0]
        if len(self.outcomes) > 1:
            self.outcomes.pop(0)
        return types.SimpleNamespace(returncode=bool(said), stdout=said + "\n")


@pytest.fixture
def machine(setup, tmp_path, monkeypatch):
    """Puts a `Machine` in the place of commands: an x86-64 with .venv and a compiler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    monkeypatch.setattr(setup, "find_python", lambda: "python3")
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(setup, "processor_flags", lambda: EVERYTHING)
    setup.main([])

    def install(**options):
        made = Machine(**options)
        monkeypatch.setattr(setup.subprocess, "run", made.run)
        return made

    return install


EVERYTHING = {"sse4_2", "avx", "avx2", "fma", "f16c", "bmi2", "amx_int8", "avx512f"}
BUILT = ["build", "install llama_cpp_python-0.3.36.whl", "install .[export]", "probe"]
KEPT = BUILT[1:]
DEAD = "llama-cpp-python dies at Q8_0: illegal instruction: rebuild by `make export`"
PORTABLE = [
    "-DGGML_NATIVE=OFF",
    "-DLLAVA_BUILD=OFF",
    "-DGGML_SSE42=ON",
    "-DGGML_AVX=ON",
    "-DGGML_AVX2=ON",
    "-DGGML_FMA=ON",
    "-DGGML_F16C=ON",
    "-DGGML_BMI2=ON",
]


def again(setup):
    """As in a new .venv: nothing is stamped."""
    setup.EXPORT.unlink()
    setup.main(["--export"])


def test_how_it_is_compiled(setup):
    """No AMX and no AVX-512, whatever the processor advertises; and nothing that it lacks."""
    assert setup.cmake_arguments("x86_64", EVERYTHING) == PORTABLE
    assert setup.cmake_arguments("AMD64", None) == PORTABLE
    old = setup.cmake_arguments("x86_64", {"sse4_2", "avx"})
    assert old[2:4] == ["-DGGML_SSE42=ON", "-DGGML_AVX=ON"]
    assert len(old) == 8 and all(a.endswith("=OFF") for a in old[4:])
    plain = setup.cmake_arguments("x86_64", EVERYTHING, plain=True)
    assert len(plain) == 8 and all(a.endswith("=OFF") for a in plain)
    for name in ("aarch64", "arm64"):
        assert setup.cmake_arguments(name, None) == ["-DGGML_NATIVE=OFF", "-DLLAVA_BUILD=OFF"]


def test_it_is_built_once_tried_and_kept(setup, machine, monkeypatch, capsys):
    here = machine()
    setup.main(["--export"])
    setup.main(["--export"])
    assert here.calls == BUILT and not setup.REASON.exists()
    assert "compiled in 0 s" in capsys.readouterr().out
    given = shlex.split(here.environments[0]["CMAKE_ARGS"])
    assert given == [f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={setup.ROOT}/tools/llama.cmake", *PORTABLE]
    assert int(here.environments[0]["CMAKE_BUILD_PARALLEL_LEVEL"]) >= 1
    here.calls.clear()
    again(setup)
    assert here.calls == KEPT
    here.calls.clear()
    monkeypatch.setattr(setup.platform, "machine", lambda: "aarch64")  # with the same home
    setup.main(["--export"])
    assert here.calls == BUILT and "AVX" not in here.environments[1]["CMAKE_ARGS"]


def test_the_users_own_arguments_come_last(setup, machine, monkeypatch):
    here = machine()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=ON -DGGML_AVX2=OFF")
    setup.main(["--export"])
    given = here.environments[0]["CMAKE_ARGS"]
    assert given.endswith("-DGGML_BMI2=ON -DGGML_CUDA=ON -DGGML_AVX2=OFF")
    monkeypatch.delenv("CMAKE_ARGS")
    setup.main(["--export"])  # what was built so stays
    assert here.calls == BUILT
    again(setup)  # but is not taken for one that was built without them
    assert here.calls == BUILT * 2
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_VULKAN=ON")
    setup.main(["--export"])
    assert here.calls == BUILT * 3


def test_one_that_dies_is_built_once_more_for_any_processor(setup, machine, capsys):
    here = machine(outcomes=[DEAD, ""])
    setup.main(["--export"])
    out = capsys.readouterr().out
    assert here.calls == BUILT * 2
    assert "illegal instruction" in out and "left out" not in out
    assert "AVX2=ON" in here.environments[0]["CMAKE_ARGS"]
    assert "=ON" not in here.environments[1]["CMAKE_ARGS"]
    here.calls.clear()
    again(setup)
    assert here.calls == KEPT  # the second one was kept


def test_a_kept_one_that_dies_is_built_anew_as_it_should_be(setup, machine):
    machine()
    setup.main(["--export"])
    here = machine(outcomes=[DEAD, ""])
    again(setup)
    assert here.calls == [*KEPT, *BUILT]
    assert here.environments[0]["CMAKE_ARGS"].endswith(" ".join(PORTABLE))
    here.calls.clear()
    again(setup)
    assert here.calls == KEPT


def test_after_two_deaths_it_is_left_out_and_not_compiled_at_every_turn(setup, machine, capsys):
    here = machine(outcomes=[DEAD])
    setup.main(["--export"])
    assert here.calls == BUILT * 2
    assert f"lab 3.1.10 and its tests are left out: {DEAD}" in capsys.readouterr().out
    assert setup.REASON.read_text() == DEAD + "\n"
    here.calls.clear()
    setup.main(["--export"])
    assert here.calls == []
    here.outcomes = [DEAD, ""]
    setup.main(["--export", "--probe"])  # as `make export`: none was kept, so it is compiled
    assert here.calls == ["probe", *BUILT] and not setup.REASON.exists()


@pytest.mark.parametrize(
    "compiler, said", [(True, "could not be compiled"), (False, "sudo apt install build-essential")]
)
def test_what_cannot_be_compiled_is_no_obstacle(
    setup, machine, monkeypatch, capsys, compiler, said
):
    """The reason is kept for ftlib; the next call tries again, for it may have been the network."""
    here = machine(pip_works=False)
    if not compiler:
        monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    setup.main(["--export"])
    setup.main(["--export"])
    assert here.calls == ["build"] * 2 * compiler and not setup.EXPORT.exists()
    assert said in capsys.readouterr().out and said in setup.REASON.read_text()


@pytest.mark.parametrize("cache", ["no-home", "a-file"])
def test_without_a_cache_it_is_built_all_the_same(setup, machine, monkeypatch, tmp_path, cache):
    here = machine()
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a-file"))
    if cache == "no-home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(setup.os.path, "expanduser", lambda path: path)
    setup.main(["--export"])
    again(setup)
    assert here.calls == BUILT * 2 and not (setup.ROOT / "~").exists()


def test_the_processors_instructions_are_read(setup, monkeypatch):
    def reads(text):
        monkeypatch.setattr(setup.Path, "read_text", lambda self, encoding: text)
        return setup.processor_flags()

    assert reads("processor : 0\nflags\t\t: fpu avx2 fma\nbugs : none\n") == {"fpu", "avx2", "fma"}
    assert reads("processor : 0\nFeatures : fp asimd\n") is None  # Arm

    def is_not_there(self, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(setup.Path, "read_text", is_not_there)
    assert setup.processor_flags() is None


@pytest.mark.parametrize("extra", ["browser", "site"])
def test_small_groups_are_installed_once_and_only_when_asked_for(setup, monkeypatch, extra):
    """What drives a browser, and what builds the site."""
    monkeypatch.setattr(setup, "find_python", lambda: "python3")
    setup.main([])
    assert not any(f".[{extra}]" in c for c in setup.commands)
    setup.commands.clear()
    setup.main([f"--{extra}"])
    setup.main([f"--{extra}"])
    (command,) = setup.commands
    assert command[-2:] == ["-e", f".[{extra}]"] and "-c" in command
    assert (setup.VENV / f"ftlib-{extra}-ready").exists()


def test_a_vendors_torch_is_kept(setup, monkeypatch):
    monkeypatch.setattr(setup, "vendor_torch", lambda python: "2.9.0a0+nv25.10")
    setup.main([])
    create, rest = setup.commands
    assert "--system-site-packages" in create
    held = (setup.VENV / "constraints.txt").read_text().splitlines()
    assert rest[rest.index("-c") + 1] == str(setup.VENV / "constraints.txt")
    assert [line for line in held if line.startswith("torch==")] == [
        "torch==2.9.0a0+nv25.10"
    ] and len(held) > 50


def test_a_failed_step_leaves_no_stamp(setup, monkeypatch):
    def fails(command, hint):
        setup.stop(hint)

    monkeypatch.setattr(setup, "run", fails)
    with pytest.raises(SystemExit, match="setup: "):
        setup.main([])
    assert not setup.STAMP.exists()


def test_too_little_disk(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**9))
    with pytest.raises(SystemExit, match=r"1\.0 GB of disk free, 6 GB are needed"):
        setup.main([])
    assert setup.commands == []


def test_python_too_old(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup, "OLDEST", (99, 0))
    with pytest.raises(SystemExit, match=r"too old, 3\.11 is needed: .*PYTHON="):
        setup.find_python()


def test_which_torch_is_a_vendors(monkeypatch):
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for version, code, variable, want in (
        ("2.13.0+cpu", 0, None, None),
        ("2.9.0a0+abc.nv25.10", 0, None, "2.9.0a0+abc.nv25.10"),
        ("2.9.0", 0, "2.9.0a0", "2.9.0"),
        ("", 1, "2.9.0a0", None),
    ):
        monkeypatch.setattr(
            module.subprocess,
            "run",
            lambda *a, code=code, version=version, **k: types.SimpleNamespace(
                returncode=code, stdout=version + "\n"
            ),
        )
        monkeypatch.delenv("NVIDIA_PYTORCH_VERSION", raising=False)
        if variable:
            monkeypatch.setenv("NVIDIA_PYTORCH_VERSION", variable)
        assert module.vendor_torch("python3") == want


def test_the_setup_script_needs_only_the_standard_library():
    code = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('v', 'tools/venv.py'); m "
        "= u.module_from_spec(s); "
        "s.loader.exec_module(m); print(m.OLDEST)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(3, 11)", done.stderr


def test_constraints_hold_every_dependency_at_a_version_that_pyproject_allows():
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {
        re.sub(r"[-_.]+", "-", name).lower(): version
        for name, version in re.findall(
            r"^([^#\s=]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M
        )
    }
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["dev"],
        *project["optional-dependencies"]["grading"],
        *project["optional-dependencies"]["export"],
        *project["optional-dependencies"]["site"],
    ]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
    assert pins["torch"] == "2.13.0"


def test_makefile_targets():
    text = (ROOT / "Makefile").read_text()
    for target in ("labs", "test", "export", "browser", "site", "doctor", "data"):
        assert re.search(rf"^{target}: +venv", text, re.M)
    done = subprocess.run(
        ["make", "--dry-run", "test", "labs"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and all(
        part in done.stdout for part in ("tools/venv.py", "-m pytest", "ftlib.cli labs")
    )
    done = subprocess.run(["make", "--dry-run", "labs"], cwd=ROOT, capture_output=True, text=True)
    # Nothing is compiled before the first lab.
    assert "labs --prepare" in done.stdout and "--export" not in done.stdout
