"""Show that the pip part of environment.yml resolves to wheels for x86-64 and aarch64: `make
resolve`. Installs nothing.

pip downloads what it resolves, even on a dry run, and torch's CUDA wheels are gigabytes. So a
stand-in with the name, version and requirements of the installed torch takes its place, and `pip
index` says whether torch itself has a wheel for the machine; the nvidia packages of a CUDA build
are not looked at. About 300 MB a machine are fetched once (an estimate), then come from pip's
cache. pip evaluates environment markers for the machine and the Python that it runs on, not for
those asked for.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MACHINES = ("x86_64", "aarch64")
# N of manylinux_2_N: what Ubuntu 24.04 and a Spark can load.
GLIBC = (17, 24, 26, 27, 28, 31, 34, 35, 39)
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def pip_part(text: str) -> list[str]:
    """The lines under `- pip:` of an environment.yml, comments removed."""
    block = re.search(r"(?m)^  - pip:\n((?:      - .*\n?)+)", text)
    if not block:
        return []
    lines = []
    for line in block[1].splitlines():
        without_comment = re.sub(r"\s+#.*", "", line)
        lines.append(without_comment.removeprefix("      - ").strip())
    return lines


def requirements(lines: list[str], project: dict) -> list[str]:
    """pip's arguments: `-e .[extras]` becomes what the project and its extras require, for a
    project is not a wheel.
    """
    wanted = []
    for line in lines:
        editable = re.fullmatch(r"-e \.(?:\[(.*)\])?", line)
        if editable:
            wanted += project["dependencies"]
            extras = [extra.strip() for extra in (editable[1] or "").split(",")]
            for extra in filter(None, extras):
                wanted += project["optional-dependencies"][extra]
        else:
            wanted += line.split()
    return wanted


def stand_in(folder: Path, name: str, version: str, requires: list[str]) -> Path:
    """A wheel with nothing but this metadata. Its local version puts it before the real one."""
    info = f"{name}-{version}+metadata.dist-info"
    path = folder / f"{name}-{version}+metadata-py3-none-any.whl"
    metadata = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}+metadata",
        *(f"Requires-Dist: {requirement}" for requirement in requires),
    ]
    about = [
        "Wheel-Version: 1.0",
        "Generator: ftlib",
        "Root-Is-Purelib: true",
        "Tag: py3-none-any",
    ]
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{info}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{info}/WHEEL", "\n".join(about) + "\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


def target(machine: str, python: str) -> list[str]:
    """pip's options for the wheels of a machine and a Python that are not these."""
    platforms = [
        *(f"manylinux_2_{n}_{machine}" for n in GLIBC),
        f"manylinux2014_{machine}",
        f"linux_{machine}",
    ]
    return [
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
        *(f"--platform={p}" for p in platforms),
    ]


def command(machine: str, python: str, wanted: list[str], folder: Path) -> list[str]:
    """The command that resolves for a machine, and reports in this folder."""
    return [
        *PIP,
        "install",
        "--no-user",
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--target",
        str(folder / "nowhere"),
        "--find-links",
        str(folder),
        *target(machine, python),
        "--report",
        str(folder / f"{machine}.json"),
        *wanted,
    ]


def torch_has_a_wheel(machine: str, python: str, version: str) -> bool:
    done = subprocess.run(
        [*PIP, "index", "versions", "torch", *target(machine, python)],
        capture_output=True,
        text=True,
    )
    for line in done.stdout.splitlines():
        if line.startswith("Available"):
            return version in re.findall(r"[\d.]+", line)
    return False


def table(machine: str, report: dict) -> str:
    """How many packages, and which wheels are built for this machine."""
    packages = report["install"]
    built = []
    for package in packages:
        if machine in package["download_info"]["url"]:
            built.append(f"{package['metadata']['name']} {package['metadata']['version']}")
    return (
        f"{machine}: {len(packages)} packages resolve, {len(built)} of them built for it: "
        f"{', '.join(sorted(built))}"
    )


def resolves(machine: str, python: str, wanted: list[str], folder: Path) -> bool:
    """Whether pip finds a set of wheels for this machine; prints which, or that there is none."""
    done = subprocess.run(command(machine, python, wanted, folder), cwd=ROOT)
    if done.returncode:
        print(f"{machine}: does not resolve; pip's reason is above", flush=True)
        return False
    report = json.loads((folder / f"{machine}.json").read_text(encoding="utf-8"))
    print(table(machine, report), flush=True)
    return True


def has_torch(machine: str, python: str, torch: str) -> bool:
    """Whether torch has a wheel for this machine; prints it."""
    wheel = torch_has_a_wheel(machine, python, torch)
    said = "has a wheel" if wheel else "has NO wheel"
    print(f"{machine}: torch {torch} {said} for Python {python}", flush=True)
    return wheel


def main() -> int:
    environment = (ROOT / "environment.yml").read_text(encoding="utf-8")
    python = re.search(r"- python=([\d.]+)", environment)[1]
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = requirements(pip_part(environment), pyproject["project"])
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    torch = re.search(r"(?m)^torch==(\S+)", constraints)[1]
    torch_requires = importlib.metadata.requires("torch") or []
    well = True
    with tempfile.TemporaryDirectory(prefix="ftlib-resolve-") as temporary:
        folder = Path(temporary)
        stand_in(folder, "torch", torch, torch_requires)
        for machine in MACHINES:
            resolved = resolves(machine, python, wanted, folder)
            wheel = has_torch(machine, python, torch)
            well = well and resolved and wheel
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
