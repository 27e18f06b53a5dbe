"""Create .venv and install ftlib under constraints.txt; quick when nothing changed. Needs only Python's standard library.
With --export also what compiles for minutes and only lab 3.1.10 needs; with --browser what drives a Chromium (tests/browser).

A vendor's torch (NVIDIA's container, a Jetson or Spark image) is left alone: the environment then sees the system's
packages, and torch is held at the version that is there.
"""
from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV, STAMP, EXPORT = ROOT / ".venv", ROOT / ".venv" / "ftlib-ready", ROOT / ".venv" / "ftlib-export-ready"
BROWSER = ROOT / ".venv" / "ftlib-browser-ready"
NETWORK = "Is the network up? Run the command again: pip goes on from its cache."
OLDEST, DISK_GB = (3, 11), 6
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3")


def stop(message: str) -> None:
    sys.exit(f"setup: {message}")


def fingerprint() -> str:
    text = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt", "tools/venv.py"))
    return hashlib.sha256(text.encode() + os.fsencode(ROOT)).hexdigest()


def find_python() -> str:
    """This Python if it is new enough, else a newer one on the path."""
    for name in (sys.executable, *CANDIDATES):
        path = shutil.which(name)
        test = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {OLDEST})"
        if path and subprocess.run([path, "-c", test], capture_output=True).returncode == 0:
            return path
    have = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info >= OLDEST:
        stop(f"Python {have} has no venv module: sudo apt install python3-venv")
    stop(f"Python {have} is too old, 3.11 is needed: sudo apt install python3.12 python3.12-venv, or make PYTHON=/path/to/python3")


def vendor_torch(python: str) -> str | None:
    """The version of a torch that the vendor built into this machine's Python, if there is one."""
    probe = "import importlib.metadata as m; print(m.version('torch'))"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    version = found.stdout.strip()
    vendor = "NVIDIA_PYTORCH_VERSION" in os.environ or "+nv" in version or ".nv" in version
    return version if found.returncode == 0 and vendor else None


def constraints(torch: str | None) -> Path:
    """constraints.txt, with torch held at the vendor's version where there is one."""
    if not torch:
        return ROOT / "constraints.txt"
    held = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in held if not line.startswith("torch==")]
    file = VENV / "constraints.txt"
    file.write_text("\n".join([*lines, f"torch=={torch}"]) + "\n", encoding="utf-8")
    return file


def run(command: list[str], hint: str) -> None:
    if subprocess.run(command, cwd=ROOT).returncode:
        stop(f"`{' '.join(command[:6])} …` failed. {hint}")


def install(python: str) -> None:
    """Create .venv if there is none, and install the project with what its tests and grading need."""
    torch = vendor_torch(python)
    print(f"setup: creating .venv with {python}" + (f", keeping the vendor's torch {torch}" if torch else ""), flush=True)
    if not (VENV / "bin" / "python").exists():
        run([python, "-m", "venv", *(["--system-site-packages"] if torch else []), str(VENV)],
            "On Debian: sudo apt install python3-venv")
    if not torch:  # first and alone, so that nothing else chooses a build
        held = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        pinned = next(line for line in held if line.startswith("torch=="))
        run([*pip(torch), pinned], NETWORK)
    run([*pip(torch), "-e", ".[dev,grading]"], NETWORK)
    STAMP.write_text(fingerprint(), encoding="utf-8")
    print("setup: done", flush=True)


def pip(torch: str | None) -> list[str]:
    return [str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--no-user",  # a pip.conf with `user = true` would refuse to install into .venv
            "-c", str(constraints(torch))]


def install_export(python: str) -> None:
    """llama-cpp-python and what else lab 3.1.10 needs. It is compiled; without a compiler everything else works all the same."""
    missing = [name for name in ("cc", "c++") if not shutil.which(name)]
    if missing:
        print(f"setup: no compiler ({' '.join(missing)}), so lab 3.1.10 and its tests are left out: "
              "sudo apt install build-essential", flush=True)
        return
    print("setup: compiling llama-cpp-python for lab 3.1.10 (4 minutes on two cores, once; pip keeps the wheel)", flush=True)
    if subprocess.run([*pip(vendor_torch(python)), "-e", ".[export]"], cwd=ROOT).returncode:
        print("setup: that failed, so lab 3.1.10 and its tests are left out; the reason is above", flush=True)
        return
    EXPORT.write_text(fingerprint(), encoding="utf-8")


def install_browser(python: str) -> None:
    """playwright, which brings no browser of its own here: the tests look for a Chromium."""
    run([*pip(vendor_torch(python)), "-e", ".[browser]"], NETWORK)
    BROWSER.write_text(fingerprint(), encoding="utf-8")


def done(stamp: Path) -> bool:
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == fingerprint()


def main(arguments: list[str]) -> None:
    if not done(STAMP):
        free = shutil.disk_usage(ROOT).free / 1e9
        if free < DISK_GB:
            stop(f"{free:.1f} GB of disk free, {DISK_GB} GB are needed")
        install(find_python())
    if "--export" in arguments and not done(EXPORT):
        install_export(find_python())
    if "--browser" in arguments and not done(BROWSER):
        install_browser(find_python())


if __name__ == "__main__":
    main(sys.argv[1:])
