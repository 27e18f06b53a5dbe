"""Is this machine ready? Each finding is ok, a warning or a failure, with its mend."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ftlib.core.machine import available_memory, unified_memory
from ftlib.core.paths import ROOT

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


@dataclass(frozen=True)
class Finding:
    """One line of the report; `status` is "ok", "warning" or "failure"."""

    status: str
    what: str
    mend: str = ""


def tested_versions() -> dict[str, str]:
    """The versions in constraints.txt that the labs were run with."""
    file = ROOT / "constraints.txt"
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return dict(line.split("==", 1) for line in lines if "==" in line and not line.startswith("#"))


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
    import torch

    out = [
        Finding(
            "ok" if sys.version_info >= (3, 11) else "failure",
            f"Python {platform.python_version()} on {platform.machine()}",
            "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer",
        )
    ]
    if torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        out.append(
            Finding(
                "ok",
                f"GPU {torch.cuda.get_device_name()}, compute capability {major}.{minor}, "
                f"CUDA {torch.version.cuda}, "
                + (
                    "memory shared with the CPU"
                    if unified_memory()
                    else f"{torch.cuda.mem_get_info()[0] / 1e9:.1f} GB of its own memory free"
                ),
            )
        )
    else:
        out.append(Finding("ok", "no GPU: the labs run in the tiny profile"))
    memory, disk = available_memory(), shutil.disk_usage(ROOT).free
    if memory is not None:
        out.append(
            Finding(
                "ok" if memory > 3e9 else "warning",
                f"{memory / 1e9:.1f} GB of memory available",
                "close other programs" if memory <= 3e9 else "",
            )
        )
    out.append(
        Finding(
            "ok" if disk > 5e9 else "warning",
            f"{disk / 1e9:.0f} GB of disk free",
            "free some disk" if disk <= 5e9 else "",
        )
    )
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        out.append(
            Finding(
                "warning",
                "OMP_WAIT_POLICY is not PASSIVE: busy cores make training many times slower",
                "import ftlib before torch, or export OMP_WAIT_POLICY=PASSIVE",
            )
        )
    return out


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
    return Finding(
        "ok", f"bitsandbytes {bitsandbytes.__version__} computes on {'CUDA' if cuda else 'the CPU'}"
    )


def ollama_address() -> str:
    """Where Ollama is asked for: `OLLAMA_HOST`, or its default on this machine."""
    host = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
    return host if host.startswith("http") else f"http://{host}"


def _ollama() -> Finding:
    import json
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"{ollama_address()}/api/version", timeout=1) as reply:
            return Finding(
                "ok", f"Ollama {json.load(reply).get('version', '?')} answers at {ollama_address()}"
            )
    except (OSError, ValueError, urllib.error.URLError):
        return Finding(
            "ok",
            f"no Ollama at {ollama_address()}: only lab 3.1.10 asks for it, and goes on without",
        )


def _hub() -> list[Finding]:
    from huggingface_hub import constants, get_token

    token, cache = get_token(), Path(constants.HF_HUB_CACHE)
    held = sum(1 for _ in cache.glob("models--*")) if cache.is_dir() else 0
    return [
        Finding(
            "ok",
            "a Hub token is stored"
            if token
            else "no Hub token: needed for gated models alone (`hf auth login`)",
        ),
        Finding(
            "ok",
            f"Hub cache {_tilde(cache)}: {held} models"
            + ("; HF_HUB_OFFLINE=1" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""),
        ),
    ]


def _project() -> list[Finding]:
    from ftlib.core.paths import DATA, EMBEDDED

    model = DATA / EMBEDDED / "model.safetensors"
    found = (
        Finding("ok", f"embedded model in {DATA.name}/{EMBEDDED}")
        if model.is_file()
        else Finding(
            "failure",
            f"{model} is missing",
            "clone the repository whole, or rebuild it with `make data`",
        )
    )
    return [found, _llama()]


def _llama() -> Finding:
    """Whether llama.cpp runs on this processor: tried in a subprocess, which may die."""
    from ftlib.export.llama_probe import mend, probe_llama

    found = probe_llama()
    if found.fine:
        return Finding("ok", f"llama-cpp-python runs, with {found.features}")
    status = "ok" if found.status == "missing" else "warning"
    return Finding(status, f"{found.what}; only lab 3.1.10 needs it, and is left out", mend())


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
    there = next(p for p in (cache, *cache.parents) if p.exists())
    free, need = shutil.disk_usage(there).free / 1e9, 1.1 * size_gb
    out = [
        Finding(
            "ok" if free > need else "failure",
            f"download of {size_gb:.1f} GB to {_tilde(cache)}, {free:.0f} GB free there",
            "" if free > need else "free some disk, or set HF_HOME to a larger one",
        )
    ]
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        out.append(
            Finding(
                "failure",
                f"{model} is not in the cache and HF_HUB_OFFLINE=1",
                "unset it, or put a local folder in FTLIB_MODEL",
            )
        )
    if model.startswith("meta-llama/") and not get_token():
        out.append(
            Finding(
                "failure",
                f"{model} is gated and there is no Hub token",
                "accept its licence on the Hub, then `hf auth login`",
            )
        )
    return out


def preflight(profile=None, model: str | None = None, size_gb: float | None = None) -> str:
    """What loading the profile's model takes, checked before anything is fetched or read; the
    findings as text.

    Memory is an estimate: the weights as stored, half as much again for activations and optimizer,
    and 2 GB. Raises LoadError, with every finding, if something is missing.
    """
    from ftlib.core.errors import LoadError
    from ftlib.core.paths import EMBEDDED, stand_in
    from ftlib.core.profiles import get_profile

    chosen = get_profile(profile)
    name = stand_in(model or chosen.model, given=model is not None)
    if name == EMBEDDED or Path(name).exists():
        found, size = [Finding("ok", f"{name} is on this disk: nothing is downloaded")], 0.0
    else:
        size = chosen.download_gb if size_gb is None else size_gb
        found = _hub_findings(name, size)
    need, have = 1.5 * size + 2, (available_memory() or 0) / 1e9
    found.append(
        Finding(
            "ok" if have > need or not have else "failure",
            f"about {need:.0f} GB of memory wanted (estimate), {have:.1f} GB available",
            "" if have > need or not have else "close other programs, or take a smaller profile",
        )
    )
    text = f"profile {chosen.name}: {name}\n" + report(found)
    if any(f.status == "failure" for f in found):
        raise LoadError(f"not ready for this lab\n{text}")
    return text


def report(findings: list[Finding]) -> str:
    """The findings as text, a line each."""
    sign = {"ok": "ok     ", "warning": "warning", "failure": "FAILURE"}
    return "\n".join(
        f"{sign[f.status]}  {f.what}" + (f"  → {f.mend}" if f.mend else "") for f in findings
    )
