"""Is this machine ready? Each finding is ok, a warning or a failure, with its mend."""
from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "jupyterlab", "matplotlib")


@dataclass(frozen=True)
class Finding:
    """One line of the report; `status` is "ok", "warning" or "failure"."""
    status: str
    what: str
    mend: str = ""


def tested_versions() -> dict[str, str]:
    """The versions in constraints.txt that the labs were run with."""
    file = ROOT / "constraints.txt"
    lines = file.read_text().splitlines() if file.is_file() else []
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


def _package(name: str, tested: dict[str, str]) -> Finding:
    try:
        here = version(name)
    except PackageNotFoundError:
        return Finding("failure", f"{name} is not installed", "run `make venv`")
    want = tested.get(name)
    if want and here.split("+")[0] != want:
        return Finding("warning", f"{name} {here}, tested with {want}", f"pip install {name}=={want} if something misbehaves")
    return Finding("ok", f"{name} {here}")


def available_memory() -> int | None:
    """Bytes that can be taken now: MemAvailable, which is also right for unified memory; None where it is unknown."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), None)


def _machine() -> list[Finding]:
    import torch
    out = [Finding("ok" if sys.version_info >= (3, 11) else "failure", f"Python {platform.python_version()} on {platform.machine()}",
                   "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer")]
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        out.append(Finding("ok", f"GPU {torch.cuda.get_device_name()}, compute capability {major}.{minor}, CUDA {torch.version.cuda}"))
    else:
        out.append(Finding("ok", "no GPU: the labs run in the tiny profile"))
    memory, disk = available_memory(), shutil.disk_usage(ROOT).free
    if memory is not None:
        out.append(Finding("ok" if memory > 3e9 else "warning", f"{memory / 1e9:.1f} GB of memory available", "close other programs" if memory <= 3e9 else ""))
    out.append(Finding("ok" if disk > 5e9 else "warning", f"{disk / 1e9:.0f} GB of disk free", "free some disk" if disk <= 5e9 else ""))
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        out.append(Finding("warning", "OMP_WAIT_POLICY is not PASSIVE: busy cores make training many times slower",
                           "import ftlib before torch, or export OMP_WAIT_POLICY=PASSIVE"))
    return out


def _project() -> list[Finding]:
    from ftlib.loading import DATA, EMBEDDED
    model = DATA / EMBEDDED / "model.safetensors"
    found = Finding("ok", f"embedded model in {DATA.name}/{EMBEDDED}") if model.is_file() else Finding(
        "failure", f"{model} is missing", "clone the repository whole, or rebuild it with `make data`")
    llama = importlib.util.find_spec("llama_cpp") is not None
    return [found, Finding("ok", "llama-cpp-python is installed") if llama else Finding(
        "ok", "llama-cpp-python is not installed: only lab 3.1.10 needs it (pip install -e '.[export]')")]


def examine() -> list[Finding]:
    """All findings for this machine."""
    tested = tested_versions()
    return _machine() + [_package(name, tested) for name in PACKAGES] + _project()


def report(findings: list[Finding]) -> str:
    """The findings as text, a line each."""
    sign = {"ok": "ok     ", "warning": "warning", "failure": "FAILURE"}
    return "\n".join(f"{sign[f.status]}  {f.what}" + (f"  → {f.mend}" if f.mend else "") for f in findings)
