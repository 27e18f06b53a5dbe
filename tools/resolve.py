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
GLIBC = (
    17,
    24,
    26,
    27,
    28,
    31,
    34,
    35,
    39,
)  # of manylinux_2_N: what Ubuntu 24.04 and a Spark can load
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]


def pip_part(text: str) -> list[str]:
    """The lines under `- pip:` of an environment.yml, comments removed."""
    block = re.search(r"(?m)^  - pip:\n((?:      - .*\n?)+)", text)
    return (
        [
            re.sub(r"\s+#.*", "", line).removeprefix("      - ").strip()
            for line in block[1].splitlines()
        ]
        if block
        else []
    )


def requirements(lines: list[str], project: dict) -> list[str]:
    """pip's arguments: `-e .[extras]` becomes what the project and its extras require, for a
    project is not a wheel.
    """
    wanted = []
    for line in lines:
        editable = re.fullmatch(r"-e \.(?:\[(.*)\])?", line)
        if editable:
            extras = [e.strip() for e in (editable[1] or "").split(",") if e.strip()]
            wanted += [
                *project["dependencies"],
                *(r for e in extras for r in project["optional-dependencies"][e]),
            ]
        else:
            wanted += line.split()
    return wanted


def stand_in(folder: Path, name: str, version: str, requires: list[str]) -> Path:
    """A wheel with nothing but this metadata. Its local version puts it before the real one."""
    info = f"{name}-{version}+metadata.dist-info"
    path = folder / f"{name}-{version}+metadata-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        lines = [
            "Metadata-Version: 2.1",
            f"Name: {name}",
            f"Version: {version}+metadata",
            *(f"Requires-Dist: {r}" for r in requires),
        ]
        wheel.writestr(f"{info}/METADATA", "\n".join(lines) + "\n")
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: ftlib\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def target(machine: str, python: str) -> list[str]:
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
    return version in re.findall(
        r"[\d.]+",
        next((line for line in done.stdout.splitlines() if line.startswith("Available")), ""),
    )


def table(machine: str, report: dict) -> str:
    """How many packages, and which wheels are built for this machine."""
    found = [
        (i["metadata"]["name"], i["metadata"]["version"], i["download_info"]["url"])
        for i in report["install"]
    ]
    built = sorted(f"{name} {version}" for name, version, url in found if machine in url)
    return (
        f"{machine}: {len(found)} packages resolve, {len(built)} of them built for it: "
        f"{', '.join(built)}"
    )


def main() -> int:
    environment = (ROOT / "environment.yml").read_text(encoding="utf-8")
    python = re.search(r"- python=([\d.]+)", environment)[1]
    wanted = requirements(
        pip_part(environment),
        tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"],
    )
    torch = re.search(r"(?m)^torch==(\S+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"))[
        1
    ]
    well = True
    with tempfile.TemporaryDirectory(prefix="ftlib-resolve-") as folder:
        stand_in(Path(folder), "torch", torch, importlib.metadata.requires("torch") or [])
        for machine in MACHINES:
            done = (
                subprocess.run(command(machine, python, wanted, Path(folder)), cwd=ROOT).returncode
                == 0
            )
            wheel = torch_has_a_wheel(machine, python, torch)
            print(
                table(
                    machine, json.loads(Path(folder, f"{machine}.json").read_text(encoding="utf-8"))
                )
                if done
                else f"{machine}: does not resolve; pip's reason is above",
                flush=True,
            )
            print(
                f"{machine}: torch {torch} {'has a wheel' if wheel else 'has NO wheel'} for "
                f"Python {python}",
                flush=True,
            )
            well = well and done and wheel
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
