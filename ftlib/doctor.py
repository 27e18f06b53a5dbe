"""Is this machine ready? Each finding is ok, a warning or a failure, and says how to fix it."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ftlib.core.machine import available_memory, unified_memory
from ftlib.core.paths import ROOT

if TYPE_CHECKING:
    from ftlib.core.profiles import Profile


PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "bitsandbytes",
    "datasets",
    "accelerate",
    "jupyterlab",
    "matplotlib",
)


POCKET_GB = 0.6  # of its weights in fp32


@dataclass(frozen=True)
class Finding:
    """One line of the report; `status` is "ok", "warning" or "failure", `fix` what to do."""

    status: str
    what: str
    fix: str = ""


def tested_versions() -> dict[str, str]:
    """The versions in constraints.txt that the labs were run with."""
    file = ROOT / "constraints.txt"
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if "==" in line and not line.startswith("#")]
    return dict(line.split("==", 1) for line in pinned)


def _package(name: str, tested: dict[str, str]) -> Finding:
    try:
        here = version(name)
    except PackageNotFoundError:
        return Finding("failure", f"{name} is not installed", "run `make venv`")
    want = tested.get(name)
    if want and here.split("+")[0] != want:
        return Finding(
            "warning",
            f"{name} {here}, tested with {want}",
            f"pip install {name}=={want} if something misbehaves",
        )
    return Finding("ok", f"{name} {here}")


def _machine() -> list[Finding]:
    findings = [_python(), _gpu()]
    memory = available_memory()
    if memory is not None:
        said = f"{memory / 1e9:.1f} GB of memory available"
        enough = memory > 3e9
        findings.append(_ok_or("warning", enough, said, "close other programs"))
    disk = shutil.disk_usage(ROOT).free
    said = f"{disk / 1e9:.0f} GB of disk free"
    enough = disk > 5e9
    findings.append(_ok_or("warning", enough, said, "free some disk"))
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        findings.append(
            Finding(
                "warning",
                "OMP_WAIT_POLICY is not PASSIVE: busy cores make training many times slower",
                "call ftlib.core.runtime.configure() before importing torch, "
                "or export OMP_WAIT_POLICY=PASSIVE",
            )
        )
    return findings


def _ok_or(otherwise: str, good: bool, what: str, fix: str) -> Finding:
    """An ok, or where it is not good the other status with its fix."""
    return Finding("ok", what) if good else Finding(otherwise, what, fix)


def _python() -> Finding:
    said = f"Python {platform.python_version()} on {platform.machine()}"
    return _ok_or("failure", sys.version_info >= (3, 11), said, "install Python 3.11 or newer")


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding("ok", "no GPU: the labs run in the tiny profile")
    major, minor = torch.cuda.get_device_capability()
    if unified_memory():
        memory = "memory shared with the CPU"
    else:
        free, _ = torch.cuda.mem_get_info()
        memory = f"{free / 1e9:.1f} GB of its own memory free"
    return Finding(
        "ok",
        f"GPU {torch.cuda.get_device_name()}, compute capability {major}.{minor}, "
        f"CUDA {torch.version.cuda}, {memory}",
    )


def _bitsandbytes() -> Finding:
    """On what bitsandbytes computes: its native library loads lazily, so ask for it."""
    try:
        import bitsandbytes
        from bitsandbytes.cextension import lib
    except Exception as error:  # a native library can fail in any way
        return Finding(
            "failure",
            f"bitsandbytes does not load ({type(error).__name__}: {str(error).splitlines()[0]})",
            "python -m bitsandbytes tells more",
        )
    import torch

    cuda = bool(getattr(lib, "compiled_with_cuda", False))
    if torch.cuda.is_available() and not cuda:
        return Finding(
            "warning",
            "bitsandbytes found no CUDA library: 4-bit layers will be slow",
            "python -m bitsandbytes tells more",
        )
    device = "CUDA" if cuda else "the CPU"
    return Finding("ok", f"bitsandbytes {bitsandbytes.__version__} computes on {device}")


def _ollama() -> Finding:
    from ftlib.export.errors import ServingError
    from ftlib.export.ollama import find_ollama, ollama_url

    try:
        url = ollama_url()
    except ServingError as error:
        return Finding("warning", f"Ollama cannot be asked for: {error}", "unset OLLAMA_HOST")
    found = find_ollama(timeout=1)
    if found is None:
        return Finding(
            "ok", f"no Ollama at {url}: only lab 3.1.10 asks for it, and goes on without"
        )
    return Finding("ok", f"Ollama {found} answers at {url}")


def _hub() -> list[Finding]:
    from huggingface_hub import constants, get_token

    if get_token():
        token = "a Hub token is stored"
    else:
        token = "no Hub token: needed for gated models alone (`hf auth login`)"
    folder = Path(constants.HF_HUB_CACHE)
    held = len(list(folder.glob("models--*"))) if folder.is_dir() else 0
    cache = f"Hub cache {_tilde(folder)}: {held} models"
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        cache += "; HF_HUB_OFFLINE=1"
    return [Finding("ok", token), Finding("ok", cache)]


def _project() -> list[Finding]:
    from ftlib.core.paths import DATA, EMBEDDED

    model = DATA / EMBEDDED / "model.safetensors"
    if model.is_file():
        found = Finding("ok", f"embedded model in {DATA.name}/{EMBEDDED}")
    else:
        found = Finding(
            "failure",
            f"{model} is missing",
            "clone the repository whole, or rebuild it with `make data`",
        )
    return [found, _llama()]


def _llama() -> Finding:
    """Whether llama.cpp runs on this processor: tried in a subprocess, which may die."""
    from ftlib.export.llama_probe import fix_command, probe_llama

    found = probe_llama()
    if found.fine:
        return Finding("ok", f"llama-cpp-python runs, with {found.features}")
    status = "ok" if found.status == "missing" else "warning"
    return Finding(
        status, f"{found.what}; only lab 3.1.10 needs it, and is left out", fix_command()
    )


def examine() -> list[Finding]:
    """All findings for this machine."""
    tested = tested_versions()
    return [
        *_machine(),
        *(_package(name, tested) for name in PACKAGES),
        _bitsandbytes(),
        *_project(),
        _ollama(),
        *_hub(),
    ]


def _tilde(path: Path) -> str:
    """The path with the home folder as ~, fit for a notebook that is shared."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):  # not below it, or no home is known
        return str(path)


def _cached(model: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, "config.json"), str)


def _hub_findings(model: str, size_gb: float) -> list[Finding]:
    """Can this Hub model be fetched: disk, network setting, access?"""
    from huggingface_hub import constants, get_token

    if _cached(model):
        return [Finding("ok", f"{model} is in the cache ({_tilde(Path(constants.HF_HUB_CACHE))})")]
    cache = Path(constants.HF_HUB_CACHE)
    existing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(existing).free / 1e9
    said = f"download of {size_gb:.1f} GB to {_tilde(cache)}, {free:.0f} GB free there"
    enough = free > 1.1 * size_gb
    fix = "free some disk, or set HF_HOME to a larger one"
    findings = [_ok_or("failure", enough, said, fix)]
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        findings.append(
            Finding(
                "failure",
                f"{model} is not in the cache and HF_HUB_OFFLINE=1",
                "unset it, or put a local folder in FTLIB_MODEL",
            )
        )
    if model.startswith("meta-llama/") and not get_token():
        findings.append(
            Finding(
                "failure",
                f"{model} is gated and there is no Hub token",
                "accept its licence on the Hub, then `hf auth login`",
            )
        )
    return findings


def _pocket_findings() -> list[Finding]:
    """Whether the pocket model's weights are here, and from where they come."""
    from ftlib.core.paths import POCKET, POCKET_HUB, pocket_folder
    from ftlib.models.pocket import pocket_file

    folder = pocket_folder()
    if folder.is_dir():
        return [Finding("ok", f"{POCKET} is in the cache ({_tilde(folder)})")]
    if pocket_file() is not None:
        return [
            Finding("ok", f"{POCKET} comes with a package; made once, in seconds: {_tilde(folder)}")
        ]
    if _cached(POCKET_HUB):
        return [Finding("ok", f"{POCKET_HUB} is in the Hub's cache")]
    return [
        Finding(
            "failure",
            f"the weights of {POCKET} are not on this machine",
            "run `make pocket`, once",
        )
    ]


def preflight(
    profile: str | Profile | None = None, model: str | None = None, size_gb: float | None = None
) -> str:
    """What loading the profile's model takes, checked before anything is fetched or read; the
    findings as text.

    Memory is an estimate: the weights as stored, half as much again for activations and optimizer,
    and 2 GB. Raises LoadError, with every finding, if something is missing.
    """
    from ftlib.core.errors import LoadError
    from ftlib.core.paths import EMBEDDED, POCKET, mirrored, stand_in
    from ftlib.core.profiles import get_profile

    chosen = get_profile(profile)
    name = stand_in(model or chosen.model, given=model is not None)
    copy = mirrored(name)
    if name == POCKET:
        findings = _pocket_findings()
        size = POCKET_GB
    elif name == EMBEDDED or Path(name).exists():
        findings = [Finding("ok", f"{name} is on this disk: nothing is downloaded")]
        size = 0.0
    elif copy:
        findings = [Finding("ok", f"{_tilde(copy)} is there: nothing is downloaded")]
        size = sum(file.stat().st_size for file in copy.glob("*.safetensors")) / 1e9
    else:
        size = chosen.download_gb if size_gb is None else size_gb
        findings = _hub_findings(name, size)
    findings.append(_memory_for(size))
    text = f"profile {chosen.name}: {name}\n" + report(findings)
    if any(f.status == "failure" for f in findings):
        raise LoadError(f"not ready for this lab\n{text}")
    return text


def _memory_for(size_gb: float) -> Finding:
    """Whether a model of this size can be trained in the memory that is free, if that is known."""
    need = 1.5 * size_gb + 2
    have = (available_memory() or 0) / 1e9
    enough = have > need or not have
    said = f"about {need:.0f} GB of memory wanted (estimate), {have:.1f} GB available"
    return _ok_or("failure", enough, said, "close other programs, or take a smaller profile")


def report(findings: list[Finding]) -> str:
    """The findings as text, a line each."""
    sign = {"ok": "ok     ", "warning": "warning", "failure": "FAILURE"}
    lines = []
    for finding in findings:
        line = f"{sign[finding.status]}  {finding.what}"
        if finding.fix:
            line += f"  → {finding.fix}"
        lines.append(line)
    return "\n".join(lines)
