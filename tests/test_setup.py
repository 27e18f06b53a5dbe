"""`make`: one .venv under constraints.txt, a vendor's torch left alone, and a reason where it cannot be made."""
import importlib.util
import re
import subprocess
import sys
import types

import pytest
from conftest import ROOT


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """tools/venv.py in a folder of its own, with commands recorded instead of run."""
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "tools").mkdir()
    for name in ("pyproject.toml", "constraints.txt", "tools/venv.py"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "ftlib-ready")
    monkeypatch.setattr(module, "EXPORT", tmp_path / ".venv" / "ftlib-export-ready")
    monkeypatch.setattr(module, "BROWSER", tmp_path / ".venv" / "ftlib-browser-ready")
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
    assert torch[-1] == "torch==2.13.0" and "-c" in torch and rest[-2:] == ["-e", ".[dev,grading]"]
    assert rest[rest.index("-c") + 1] == str(setup.ROOT / "constraints.txt")


def test_second_run_does_nothing_until_something_changes(setup):
    setup.main([])
    setup.commands.clear()
    setup.main([])
    assert setup.commands == []
    (setup.ROOT / "constraints.txt").write_text((setup.ROOT / "constraints.txt").read_text() + "# newer\n")
    setup.main([])
    assert [c[1:3] for c in setup.commands] == [["-m", "pip"], ["-m", "pip"]]  # .venv itself is kept


@pytest.mark.parametrize("compiler, works, said", [(True, True, "compiling"), (True, False, "left out"), (False, True, "build-essential")])
def test_what_must_be_compiled_is_no_obstacle(setup, monkeypatch, capsys, compiler, works, said):
    """The compiled part is installed once, and said to be left out where it cannot be: the rest works all the same."""
    setup.main([])
    monkeypatch.setattr(setup.shutil, "which", lambda name: f"/usr/bin/{name}" if compiler or "python" in name else None)
    monkeypatch.setattr(setup, "find_python", lambda: "python3")
    calls = []
    monkeypatch.setattr(setup.subprocess, "run", lambda command, **_: calls.append(command) or types.SimpleNamespace(returncode=not works))
    setup.main(["--export"])
    assert said in capsys.readouterr().out and setup.EXPORT.exists() == (compiler and works)
    assert [c[-1] for c in calls] == [".[export]"] * compiler
    setup.main(["--export"])
    assert len(calls) == compiler * (1 if works else 2)


def test_what_drives_a_browser_is_installed_once_and_only_when_asked_for(setup, monkeypatch):
    monkeypatch.setattr(setup, "find_python", lambda: "python3")
    setup.main([])
    assert not any(".[browser]" in c for c in setup.commands)
    setup.commands.clear()
    setup.main(["--browser"])
    setup.main(["--browser"])
    (command,) = setup.commands
    assert command[-2:] == ["-e", ".[browser]"] and "-c" in command and setup.BROWSER.exists()


def test_a_vendors_torch_is_kept(setup, monkeypatch):
    monkeypatch.setattr(setup, "vendor_torch", lambda python: "2.9.0a0+nv25.10")
    setup.main([])
    create, rest = setup.commands
    assert "--system-site-packages" in create
    held = (setup.VENV / "constraints.txt").read_text().splitlines()
    assert rest[rest.index("-c") + 1] == str(setup.VENV / "constraints.txt")
    assert [line for line in held if line.startswith("torch==")] == ["torch==2.9.0a0+nv25.10"] and len(held) > 50


def test_a_failed_step_leaves_no_stamp(setup, monkeypatch):
    def fails(command, hint):
        setup.stop(hint)

    monkeypatch.setattr(setup, "run", fails)
    with pytest.raises(SystemExit, match="setup: "):
        setup.main([])
    assert not setup.STAMP.exists()


def test_too_little_disk(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**9))
    with pytest.raises(SystemExit, match="1.0 GB of disk free, 6 GB are needed"):
        setup.main([])
    assert setup.commands == []


def test_python_too_old(setup, monkeypatch):
    monkeypatch.setattr(setup.shutil, "which", lambda name: None)
    monkeypatch.setattr(setup, "OLDEST", (99, 0))
    with pytest.raises(SystemExit, match="too old, 3.11 is needed: .*PYTHON="):
        setup.find_python()


def test_which_torch_is_a_vendors(monkeypatch):
    spec = importlib.util.spec_from_file_location("setup_venv", ROOT / "tools" / "venv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for version, code, variable, want in (("2.13.0+cpu", 0, None, None), ("2.9.0a0+abc.nv25.10", 0, None, "2.9.0a0+abc.nv25.10"),
                                          ("2.9.0", 0, "2.9.0a0", "2.9.0"), ("", 1, "2.9.0a0", None)):
        monkeypatch.setattr(module.subprocess, "run", lambda *a, **k: types.SimpleNamespace(returncode=code, stdout=version + "\n"))
        monkeypatch.delenv("NVIDIA_PYTORCH_VERSION", raising=False)
        if variable:
            monkeypatch.setenv("NVIDIA_PYTORCH_VERSION", variable)
        assert module.vendor_torch("python3") == want


def test_the_setup_script_needs_only_the_standard_library():
    code = ("import sys, importlib.util as u; s = u.spec_from_file_location('v', 'tools/venv.py'); m = u.module_from_spec(s); "
            "s.loader.exec_module(m); print(m.OLDEST)")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "(3, 11)", done.stderr


def test_constraints_hold_every_dependency_at_a_version_that_pyproject_allows():
    import tomllib

    from packaging.requirements import Requirement
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in
            re.findall(r"^([^#\s=]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), re.M)}
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *project["optional-dependencies"]["grading"],
              *project["optional-dependencies"]["export"]]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement
    assert pins["torch"] == "2.13.0"


def test_makefile_targets():
    text = (ROOT / "Makefile").read_text()
    for target, needs in {"labs": "export", "test": "export", "export": "venv", "browser": "venv", "doctor": "venv", "data": "venv"}.items():
        assert re.search(rf"^{target}: +{needs}", text, re.M)
    done = subprocess.run(["make", "--dry-run", "test", "labs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and all(part in done.stdout for part in ("tools/venv.py", "-m pytest", "ftlib.cli labs"))
