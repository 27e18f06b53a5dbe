"""Show that the pip part of environment.yml resolves to wheels for x86-64 and aarch64: `make
resolve`. Installs nothing into the environment.

uv resolves for a machine that is not this one: `uv pip compile --python-platform` evaluates
environment markers for that machine and its Python, and reads the metadata of wheels without
fetching them (torch's CUDA wheels are gigabytes). The uv on the path is used; where there is none,
pip puts one into a temporary folder. An index other than PyPI is named in UV_DEFAULT_INDEX, since
uv does not read pip's settings.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")
GLIBC = "2_39"  # of Ubuntu 24.04, which a Spark runs as well
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
RESOLVED = re.compile(r"(?m)^([A-Za-z0-9][\w.-]*)==(\S+)")


def read_environment(text: str) -> tuple[str, list[str]]:
    """(Python's version, the lines that go to pip) of an environment.yml."""
    dependencies = yaml.safe_load(text)["dependencies"]
    python = ""
    pip_part: list[str] = []
    for entry in dependencies:
        if isinstance(entry, dict):
            pip_part += entry.get("pip", [])
        elif entry.startswith("python="):
            python = entry.removeprefix("python=")
    return python, pip_part


def find_uv(folder: Path) -> str:
    """The uv on the path, or one that pip puts into `folder`."""
    found = shutil.which("uv")
    if found:
        return found
    command = [*PIP, "install", "--no-user", "--quiet", "--target", str(folder), "uv"]
    subprocess.run(command, check=True)
    return str(folder / "bin" / "uv")


def compile_command(uv: str, machine: str, python: str) -> list[str]:
    """Resolve the requirements on standard input to wheels alone."""
    return [
        uv,
        "pip",
        "compile",
        "-",
        f"--python-platform={machine}-manylinux_{GLIBC}",
        f"--python-version={python}",
        "--only-binary=:all:",
        "--no-header",
        "--no-annotate",
        "--quiet",
    ]


def resolve(uv: str, machine: str, python: str, lines: list[str]) -> dict[str, str]:
    """{package: version}; empty where the lines do not resolve, for which uv then says why."""
    done = subprocess.run(
        compile_command(uv, machine, python),
        input="\n".join(lines) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        cwd=ROOT,  # to which `-e .` and `-c constraints.txt` are relative
    )
    if done.returncode:
        return {}
    return dict(RESOLVED.findall(done.stdout))


def main() -> int:
    python, lines = read_environment((ROOT / "environment.yml").read_text(encoding="utf-8"))
    well = True
    with tempfile.TemporaryDirectory(prefix="ftlib-resolve-") as folder:
        uv = find_uv(Path(folder))
        for machine in MACHINES:
            found = resolve(uv, machine, python, lines)
            if "torch" in found:
                print(
                    f"{machine}: {len(found)} packages resolve for Python {python}, "
                    f"torch {found['torch']} among them",
                    flush=True,
                )
            else:
                well = False
                print(f"{machine}: does not resolve; uv's reason is above", flush=True)
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
