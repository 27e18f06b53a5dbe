"""Grade a class in a container: `ftlib grade` with feedback and report, by Podman or Docker, in the
image of Containerfile, without a network and without rights.

    python3 tools/grade_contained.py --build                     the image, once
    python3 tools/grade_contained.py class marks                 marks.csv, feedback/, report.html
    python3 tools/grade_contained.py class marks --labs 3.1.7    with options of `ftlib grade`
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGE = "ftlib-grading"
ENGINES = ("podman", "docker")
# What a submission cannot do there: reach a network, write outside /tmp and /marks, gain rights,
# take the machine's memory or its processes.
LIMITS = (
    "--network=none",
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=8g",
    "--pids-limit=512",
)


def find_engine() -> str:
    for name in ENGINES:
        if shutil.which(name):
            return name
    sys.exit(f"neither {' nor '.join(ENGINES)} is on the path: install one, or grade without")


def build_command(engine: str, more: list[str]) -> list[str]:
    return [engine, "build", "-t", IMAGE, "-f", str(ROOT / "Containerfile"), *more, str(ROOT)]


def run_command(engine: str, submissions: Path, marks: Path, more: list[str]) -> list[str]:
    """The class is mounted so that it can only be read. Without root's rights Podman maps the user
    to itself (keep-id), so that the marks are theirs.
    """
    user = f"{os.getuid()}:{os.getgid()}" if os.getuid() else "1000:1000"
    maps_itself = engine == "podman" and os.getuid() != 0
    return [
        engine,
        "run",
        "--rm",
        *LIMITS,
        *(["--userns=keep-id"] if maps_itself else []),
        f"--user={user}",
        f"--volume={submissions.resolve()}:/class:ro",
        f"--volume={marks.resolve()}:/marks",
        IMAGE,
        "grade",
        "/class",
        "--csv=/marks/marks.csv",
        "--feedback=/marks/feedback",
        "--report=/marks/report.html",
        *more,
    ]


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--build"]:
        command = build_command(find_engine(), arguments[1:])
    elif len(arguments) >= 2 and not arguments[0].startswith("-"):
        submissions = Path(arguments[0])
        marks = Path(arguments[1])
        if not submissions.is_dir():
            sys.exit(f"{submissions} is not a folder: `ftlib collect` makes one of an LMS's zip")
        command = run_command(find_engine(), submissions, marks, arguments[2:])
        marks.mkdir(parents=True, exist_ok=True)
        if os.getuid() == 0:
            os.chown(marks, 1000, 1000)
    else:
        sys.exit((__doc__ or "").strip())
    print(shlex.join(command))
    return subprocess.run(command).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
