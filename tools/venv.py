"""Create .venv and install ftlib under constraints.txt; quick when nothing changed. Needs only
Python's standard library. With --export also what compiles for minutes and only lab 3.1.10 needs
(with --probe too: again, if what is installed does not run); with --browser what drives a Chromium
(tests/browser), with --site what builds the site (tools/web).

A vendor's torch (NVIDIA's container, a Jetson or Spark image) is left alone: the environment then
sees the system's packages, and torch is held at the version that is there.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / "ftlib-ready"
EXPORT = VENV / "ftlib-export-ready"
BROWSER = VENV / "ftlib-browser-ready"
SITE = VENV / "ftlib-site-ready"
REASON = VENV / "ftlib-export-failed"  # why; ftlib/export/llama_probe.py reads it
NETWORK = "Is the network up? Run the command again: pip goes on from its cache."
MINUTES = "about 7 minutes of processor time, shared by the cores"
OLDEST = (3, 11)
DISK_GB = 6
LLAMA = "llama_cpp_python"
CANDIDATES = ("python3.13", "python3.12", "python3.11", "python3")
# llama.cpp's name for a set of instructions, and Linux's. What came later (AVX-512, AMX) stays off:
# llama.cpp died of AMX on a virtual machine that advertises it.
INSTRUCTIONS = {
    "SSE42": "sse4_2",
    "AVX": "avx",
    "AVX2": "avx2",
    "FMA": "fma",
    "F16C": "f16c",
    "BMI2": "bmi2",
}


class LeftOutError(Exception):
    """Lab 3.1.10 cannot be had here, and why."""


def stop(message: str) -> None:
    sys.exit(f"setup: {message}")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def pinned(package: str) -> str:
    """The line of constraints.txt that holds a package at one version."""
    lines = read("constraints.txt").splitlines()
    return next(line for line in lines if line.startswith(f"{package}=="))


def fingerprint() -> str:
    """Of what decides how .venv is made, and of where it is."""
    text = read("pyproject.toml") + read("constraints.txt") + read("tools/venv.py")
    return hashlib.sha256(text.encode() + os.fsencode(ROOT)).hexdigest()


def find_python() -> str:
    """This Python if it is new enough, else a newer one on the path."""
    test = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {OLDEST})"
    for name in (sys.executable, *CANDIDATES):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", test], capture_output=True).returncode == 0:
            return path
    have = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info >= OLDEST:
        stop(f"Python {have} has no venv module: sudo apt install python3-venv")
    stop(
        f"Python {have} is too old, 3.11 is needed: sudo apt install python3.12 python3.12-venv, "
        "or make PYTHON=/path/to/python3"
    )


def vendor_torch(python: str) -> str | None:
    """The version of a torch that the vendor built into this machine's Python, if there is one."""
    probe = "import importlib.metadata as m; print(m.version('torch'))"
    found = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    if found.returncode:
        return None
    version = found.stdout.strip()
    vendor = "NVIDIA_PYTORCH_VERSION" in os.environ or "+nv" in version or ".nv" in version
    return version if vendor else None


def constraints(torch: str | None) -> Path:
    """constraints.txt, with torch held at the vendor's version where there is one."""
    if not torch:
        return ROOT / "constraints.txt"
    held = read("constraints.txt").splitlines()
    lines = [line for line in held if not line.startswith("torch==")]
    lines.append(f"torch=={torch}")
    file = VENV / "constraints.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def run(command: list[str], hint: str) -> None:
    """Run a command in the project; where it fails, stop with a hint."""
    if subprocess.run(command, cwd=ROOT).returncode:
        stop(f"`{' '.join(command[:6])} …` failed. {hint}")


def install(python: str) -> None:
    """Create .venv if there is none; install the project with what tests and grading need."""
    torch = vendor_torch(python)
    kept = f", keeping the vendor's torch {torch}" if torch else ""
    print(f"setup: creating .venv with {python}{kept}", flush=True)
    if not (VENV / "bin" / "python").exists():
        options = ["--system-site-packages"] if torch else []
        create = [python, "-m", "venv", *options, str(VENV)]
        run(create, "On Debian: sudo apt install python3-venv")
    if not torch:  # first and alone, so that nothing else chooses a build
        run([*pip(torch), pinned("torch")], NETWORK)
    run([*pip(torch), "-e", ".[labs,dev,grading]"], NETWORK)
    STAMP.write_text(fingerprint(), encoding="utf-8")
    print("setup: done", flush=True)


def pip(torch: str | None) -> list[str]:
    """The beginning of a command that installs into .venv under the constraints."""
    return [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-user",  # a pip.conf with `user = true` would refuse to install into .venv
        "-c",
        str(constraints(torch)),
    ]


# --- llama-cpp-python -------------------------------------------------------------------------
def processor_flags() -> set[str] | None:
    """This processor's sets of instructions, by Linux's names; None where Linux does not tell."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^flags\s*:(.*)$", text, re.M)
    return set(found[1].split()) if found else None


def cmake_arguments(machine: str, flags: set[str] | None, plain: bool = False) -> list[str]:
    """How llama.cpp is compiled: for all processors of this kind, and without its multimodal part.

    On x86-64 with AVX2 and what came before it, but for what `flags` lacks; with `plain` without
    any such set. On other machines for the plain target.
    """
    arguments = ["-DGGML_NATIVE=OFF", "-DLLAVA_BUILD=OFF"]
    if machine.lower() not in ("x86_64", "amd64"):
        return arguments
    for option, name in INSTRUCTIONS.items():  # each said: a build may have another default
        there = flags is None or name in flags
        state = "ON" if there and not plain else "OFF"
        arguments.append(f"-DGGML_{option}={state}")
    return arguments


def export_fingerprint() -> str:
    """Of what decides how llama-cpp-python is built here."""
    machine = platform.machine()
    arguments = cmake_arguments(machine, processor_flags())
    text = "\n".join([fingerprint(), read("tools/llama.cmake"), machine, *arguments])
    return hashlib.sha256(text.encode()).hexdigest()


def export_done() -> bool:
    """Was it built as it would be now? Who sets no CMAKE_ARGS keeps what was built with some."""
    if not EXPORT.is_file():
        return False
    built, _, given = EXPORT.read_text(encoding="utf-8").partition("\n")
    same_arguments = os.environ.get("CMAKE_ARGS", given) == given
    return built == export_fingerprint() and same_arguments


def export_wanted(arguments: list[str]) -> bool:
    """Whether llama-cpp-python is asked for and not there, or there and asked to be tried and does
    not run.
    """
    if "--export" not in arguments:
        return False
    if not export_done():
        return True
    return "--probe" in arguments and bool(probe())


def kept_wheels(arguments: list[str]) -> Path | None:
    """The folder for a wheel that was built so, or None where none can be kept.

    pip's own cache does not know how a wheel was built, and is not used.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    parts = [
        pinned(LLAMA),
        read("tools/llama.cmake"),
        platform.machine(),
        *platform.libc_ver(),
        sys.implementation.cache_tag,
        *arguments,
        os.environ.get("CMAKE_ARGS", ""),
    ]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    folder = Path(cache) / "ftlib" / "wheels" / key[:16]
    if not folder.is_absolute():  # no home
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def kept_wheel(arguments: list[str]) -> Path | None:
    """A wheel that was built so and kept, if there is one."""
    folder = kept_wheels(arguments)
    return next(folder.glob("*.whl"), None) if folder else None


def keep(wheel: Path, arguments: list[str]) -> None:
    """Copy the wheel to the project's cache; a full disk there is no failure."""
    folder = kept_wheels(arguments)
    if folder is None:
        return
    try:
        with tempfile.TemporaryDirectory(dir=folder) as partial:
            copy = shutil.copy(wheel, partial)
            os.replace(copy, folder / wheel.name)
    except OSError as error:
        print(f"setup: the wheel is not kept: {error}", flush=True)


def build_environment(arguments: list[str]) -> dict[str, str]:
    """The environment for compiling; CMAKE_ARGS that is set comes after ours, and so wins."""
    include = f"-DCMAKE_PROJECT_llama_cpp_INCLUDE={ROOT / 'tools' / 'llama.cmake'}"
    ours = shlex.join([include, *arguments])
    given = os.environ.get("CMAKE_ARGS", "")
    environment = {"CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1), **os.environ}
    environment["CMAKE_ARGS"] = f"{ours} {given}".strip()
    return environment


def build_wheel(arguments: list[str], folder: str) -> Path:
    """Compile llama-cpp-python."""
    command = [
        str(VENV / "bin" / "python"),
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-cache-dir",
        "--no-binary",
        "llama-cpp-python",
        "--wheel-dir",
        folder,
        pinned(LLAMA),
    ]
    print(
        f"setup: compiling llama-cpp-python for lab 3.1.10 ({MINUTES}; once, the wheel is kept)",
        flush=True,
    )
    start = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env=build_environment(arguments)).returncode
    wheel = next(Path(folder).glob("*.whl"), None)
    if code or wheel is None:
        raise LeftOutError("llama-cpp-python could not be compiled, pip said why")
    print(f"setup: compiled in {time.monotonic() - start:.0f} s", flush=True)
    return wheel


def install_wheel(python: str, wheel: Path) -> str:
    """Install the wheel and what it needs; returns why it does not run, empty if it does."""
    install = pip(vendor_torch(python))
    for what in (["--force-reinstall", "--no-deps", str(wheel)], ["-e", ".[export]"]):
        if subprocess.run([*install, *what], cwd=ROOT).returncode:
            raise LeftOutError("pip could not install what llama-cpp-python needs, it said why")
    return probe()


def probe() -> str:
    """Why the installed llama.cpp does not run, tried in a process of its own; empty if it does."""
    command = [
        str(VENV / "bin" / "python"),
        "-P",
        str(ROOT / "ftlib" / "export" / "llama_probe.py"),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        return ""
    return done.stdout.strip() or "the trial ended without a word"


def build_export(python: str) -> str:
    """Build, install, try; once more if it dies. Returns why it does not run, empty if it does."""
    arguments = cmake_arguments(platform.machine(), processor_flags())
    kept = kept_wheel(arguments)
    with tempfile.TemporaryDirectory() as first, tempfile.TemporaryDirectory() as second:
        wheel = kept or build_wheel(arguments, first)
        problem = install_wheel(python, wheel)
        if problem:
            print(f"setup: {problem}", flush=True)
            if kept:  # it may be of another machine
                kept.unlink(missing_ok=True)
                wheel = build_wheel(arguments, second)
            else:  # the same again would come out the same
                plain = cmake_arguments(platform.machine(), processor_flags(), plain=True)
                wheel = build_wheel(plain, second)
            problem = install_wheel(python, wheel)
        if not problem and wheel != kept:
            keep(wheel, arguments)
    return problem


def install_export(python: str) -> None:
    """llama-cpp-python and what else lab 3.1.10 needs; without it all else works the same."""
    missing = [name for name in ("cc", "c++") if not shutil.which(name)]
    try:
        if missing:
            raise LeftOutError(
                f"no compiler, {' '.join(missing)}: sudo apt install build-essential"
            )
        problem = build_export(python)
    except LeftOutError as reason:
        leave_out(str(reason))
        return
    if problem:
        leave_out(problem)
    else:
        REASON.unlink(missing_ok=True)
    # Also where it died: the next call would take minutes to the same end.
    given = os.environ.get("CMAKE_ARGS", "")
    EXPORT.write_text(f"{export_fingerprint()}\n{given}", encoding="utf-8")


def leave_out(reason: str) -> None:
    """Keep and say why lab 3.1.10 cannot be had here."""
    REASON.write_text(reason + "\n", encoding="utf-8")
    print(f"setup: lab 3.1.10 and its tests are left out: {reason}", flush=True)


def install_extra(python: str, extra: str, stamp: Path) -> None:
    """One of pyproject.toml's groups, small and quick: `browser`, which is playwright without a
    browser (the tests look for a Chromium), or `site`.
    """
    run([*pip(vendor_torch(python)), "-e", f".[{extra}]"], NETWORK)
    stamp.write_text(fingerprint(), encoding="utf-8")


def done(stamp: Path) -> bool:
    """Whether a stamp was left by a setup that would do the same today."""
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == fingerprint()


def main(arguments: list[str]) -> None:
    if not done(STAMP):
        free = shutil.disk_usage(ROOT).free / 1e9
        if free < DISK_GB:
            stop(f"{free:.1f} GB of disk free, {DISK_GB} GB are needed")
        install(find_python())
    if export_wanted(arguments):
        install_export(find_python())
    for extra, stamp in (("browser", BROWSER), ("site", SITE)):
        if f"--{extra}" in arguments and not done(stamp):
            install_extra(find_python(), extra, stamp)


if __name__ == "__main__":
    main(sys.argv[1:])
