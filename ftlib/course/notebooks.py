"""Execute the labs: progress by lab and cell, a time limit a cell, copies and an index page with
the figures.

Each notebook runs in a temporary folder of its own, so the tree stays clean and runs do not meet.
"""

from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from rich.console import Console

from ftlib.core.paths import ROOT
from ftlib.core.rehearsal import refuse_in_rehearsal
from ftlib.course import catalogue
from ftlib.course.catalogue import lab_files
from ftlib.course.executing import Result, Running, run_apart, run_one
from ftlib.course.index_page import write_index
from ftlib.course.stored_notebook import clean
from ftlib.export.llama_probe import probe_llama

NEEDS = {"3.1.10": probe_llama}  # compiled, and so not everywhere
STORED_PROFILE = "tiny"  # of the outputs in labs/: every machine can renew them


def need(path: Path):
    """What tries whether the lab's compiled part runs here, or None where it has none."""
    for number, probe in NEEDS.items():
        if path.name.startswith(f"lab-{number}-"):
            return probe
    return None


def left_out(path: Path) -> str:
    """Why this lab cannot run here; empty where it can."""
    probe = need(path)
    if probe is None:
        return ""
    found = probe()
    return "" if found.fine else f"{path.name} is left out: {found.problem}"


def build_need(path: Path, console: Console) -> None:
    """Compile what this lab needs, if it is not there: only now, so that no lab before it waits."""
    if need(path) is None:
        return
    environment = ROOT / ".venv"
    if Path(sys.prefix).resolve() != environment.resolve():
        console.print(
            f"nothing is compiled: this Python is not that of {environment}",
            style="yellow",
            highlight=False,
        )
        return
    command = [sys.executable, str(ROOT / "tools" / "venv.py"), "--export"]
    subprocess.run(command, cwd=ROOT)  # says itself what it does and what failed
    importlib.invalidate_caches()
    probe_llama.cache_clear()


@dataclass(frozen=True)
class Plan:
    """How labs are executed: `write_back` stores the outputs in labs/ as well; `build` builds the
    compiled part of a lab when its turn comes.
    """

    output: Path
    profile: str | None
    cell_timeout: int
    write_back: bool
    build: bool


def run_labs(
    which,
    output,
    profile=None,
    cell_timeout: int | None = None,
    write_back: bool = False,
    build: bool = False,
    side_by_side: int = 1,
) -> int:
    """Execute labs, in order, `side_by_side` at once; returns 0 if all ran to their end, else 1.

    write_back: also store the outputs in labs/; `profile` is then tiny by default, and labs run one
    at a time, since what they print holds seconds.
    cell_timeout: seconds; default the profile's `cell_seconds`.
    build: when the turn comes to a lab with a compiled part, build that first.
    """
    from ftlib.core.profiles import get_profile

    if write_back:
        refuse_in_rehearsal("--write-back")
        profile = profile or STORED_PROFILE
    if side_by_side < 1:
        raise ValueError(f"side_by_side={side_by_side}: use 1 or more")
    files = lab_files(which)
    if not files:
        raise ValueError(f"no labs in {catalogue.LABS}")
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    chosen = get_profile(profile)  # an unknown one is refused before anything runs
    plan = Plan(output, profile, cell_timeout or chosen.cell_seconds, write_back, build)
    console = Console()
    start = time.perf_counter()
    ran: dict[Path, tuple[Result, NotebookNode]] = {}
    with console.status("starting") as status:
        at_once = 1 if write_back else side_by_side
        run_apart(_run_all(files, plan, at_once, Running(status), ran))
    in_order = [ran[path] for path in files if path in ran]
    results = [result for result, _ in in_order]
    page = write_index(output, results, [notebook for _, notebook in in_order])
    console.print(_summary(results, time.perf_counter() - start, page), highlight=False)
    return 1 if any(result.error for result in results) else 0


async def _run_all(
    files: list[Path], plan: Plan, side_by_side: int, running: Running, ran: dict
) -> None:
    """Execute the labs, no more at once than that, and fill `ran`."""
    gate = asyncio.Semaphore(side_by_side)

    async def take_turn(path: Path) -> None:
        async with gate:
            found = await _run_planned(path, plan, running)
        if found is not None:
            ran[path] = found

    await asyncio.gather(*(take_turn(path) for path in files))


async def _run_planned(
    path: Path, plan: Plan, running: Running
) -> tuple[Result, NotebookNode] | None:
    """Build what the lab needs, if that is planned, and execute it; None where it is left out."""
    console = running.status.console
    if plan.build:
        await asyncio.to_thread(build_need, path, console)
    if reason := left_out(path):
        console.print(reason, style="yellow", highlight=False)
        return None
    result, notebook = await run_one(path, plan.output, plan.profile, plan.cell_timeout, running)
    if plan.write_back and not result.error:
        nbformat.write(clean(notebook, plan.profile), path)
    return result, notebook


def _summary(results: list[Result], seconds: float, page: Path) -> str:
    """How many labs ran to their end, in which time, and the names of those that did not."""
    failed = [result.name for result in results if result.error]
    said = (
        f"{len(results) - len(failed)} of {len(results)} labs ran to their end "
        f"in {seconds:.0f} s; copies and figures: {page}"
    )
    if failed:
        said += f"; failed: {', '.join(failed)}"
    return said
