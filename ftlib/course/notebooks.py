"""Execute the labs: progress by lab and cell, a time limit a cell, copies and an index page with
the figures.

Each notebook runs in a temporary folder of its own, so the tree stays clean and runs do not meet.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from rich.console import Console
from rich.status import Status

from ftlib.core.paths import ROOT
from ftlib.core.rehearsal import refuse_in_rehearsal
from ftlib.course import catalogue
from ftlib.course.catalogue import lab_files
from ftlib.export.llama_probe import probe_llama

NEEDS = {"3.1.10": probe_llama}  # compiled, and so not everywhere
VERSIONS = ("ftlib", "torch", "transformers")
# Quizzes and handles: dead until the cell is run again.
LIVE = {"application/javascript", "application/vnd.jupyter.widget-view+json"}
STORED_PROFILE = "tiny"  # of the outputs in labs/: every machine can renew them
KERNEL_SHUTDOWN = 20.0  # seconds that a kernel has to end after an interrupt
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass
class Result:
    """How one lab's execution went."""

    name: str
    title: str
    seconds: float
    cells: int
    error: str = ""


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


def title(notebook) -> str:
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            return cell.source.splitlines()[0].lstrip("# ").strip() if cell.source else ""
    return ""


def _environment(profile: str | None) -> dict[str, str]:
    from ftlib.core.profiles import get_profile

    chosen = get_profile(profile)
    env = {
        "FTLIB_PROFILE": chosen.name,
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "TRL_EXPERIMENTAL_SILENCE": "1",
    }
    if chosen.dataset == "embedded":
        env |= OFFLINE
    inherited = dict(os.environ)
    inherited.pop("MPLBACKEND", None)  # a notebook draws inline, whatever its caller does
    return inherited | env


def execute(notebook, profile: str | None = None, cell_timeout: int = 300, on_cell=None):
    """Run a notebook in place in a fresh kernel and temporary folder; raises nbclient's errors at
    the failing cell.
    """
    _run_apart(_execute(notebook, profile, cell_timeout, on_cell))
    return notebook


async def _execute(notebook, profile: str | None, cell_timeout: int, on_cell) -> None:
    with tempfile.TemporaryDirectory(prefix="ftlib-lab-") as folder:
        client = NotebookClient(
            notebook,
            timeout=cell_timeout,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            on_cell_start=on_cell,
            record_timing=False,
        )
        await client.async_execute(env=_environment(profile))


def _run_apart(coroutine: Coroutine) -> None:
    """Run a coroutine to its end on an event loop in a thread of its own; cancel it on Ctrl-C.

    In the main thread nbclient would take SIGINT for itself, and fail once its kernel is gone.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    interrupted = threading.Event()
    ended = threading.Event()

    async def until_ended() -> None:
        try:
            await coroutine
        except Exception:
            if not interrupted.is_set():  # else its failure is only that its kernel was ended
                raise
        finally:
            ended.set()

    def cancel() -> None:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if not tasks:  # interrupted before it began
            ended.set()

    try:
        thread.start()
        asyncio.run_coroutine_threadsafe(until_ended(), loop).result()
    except KeyboardInterrupt:
        interrupted.set()
        loop.call_soon_threadsafe(cancel)
        ended.wait(KERNEL_SHUTDOWN)
        raise
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(KERNEL_SHUTDOWN)


def _explain(error: Exception, notebook, index: int) -> str:
    source = "".join(notebook.cells[index].source) if 0 <= index < len(notebook.cells) else ""
    if isinstance(error, CellTimeoutError):
        reason = "ran past its time limit"
    elif isinstance(error, DeadKernelError):
        reason = "killed the kernel (out of memory?)"
    elif isinstance(error, CellExecutionError):
        reason = f"{error.ename}: {error.evalue}"
    else:
        reason = repr(error)
    return f"cell {index}: {reason}\n{source}"


def slowest(began: dict[int, float], end: float, count: int = 3) -> str:
    """The cells that took longest, from the seconds at which each began: "; slowest: cell 46 21 s,
    …".
    """
    took = {}
    until = end
    for cell in sorted(began, reverse=True):
        took[cell] = until - began[cell]
        until = began[cell]
    longest_first = sorted(sorted(took), key=took.__getitem__, reverse=True)
    top = [f"cell {cell} {took[cell]:.0f} s" for cell in longest_first[:count] if took[cell] >= 1]
    return "; slowest: " + ", ".join(top) if top else ""


class Running:
    """The labs that are being executed, in one line of the console that changes."""

    def __init__(self, status: Status):
        self.status = status
        self.texts: dict[str, str] = {}

    def say(self, name: str, text: str) -> None:
        self.texts[name] = f"{name}: {text}"
        self.status.update("; ".join(self.texts.values()))

    def ended(self, name: str) -> None:
        self.texts.pop(name, None)
        self.status.update("; ".join(self.texts.values()))


async def run_one(
    path: Path, output: Path, profile: str | None, cell_timeout: int, running: Running
) -> tuple[Result, NotebookNode]:
    """Execute one lab, write its copy into `output`, and say how it went: (result, notebook)."""
    notebook = nbformat.read(path, as_version=4)
    cells = len(notebook.cells)
    error = ""
    start = time.perf_counter()
    began: dict[int, float] = {}  # seconds at which each cell began

    def on_cell(cell, cell_index):
        now = time.perf_counter() - start
        began[cell_index] = now
        running.say(path.name, f"cell {cell_index + 1}/{cells}, {now:.0f} s")

    running.say(path.name, "starting the kernel")
    try:
        await _execute(notebook, profile, cell_timeout, on_cell)
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
        error = _explain(failure, notebook, max(began, default=-1))
    finally:
        running.ended(path.name)
    seconds = time.perf_counter() - start
    nbformat.write(notebook, output / path.name)
    result = Result(path.name, title(notebook) or path.stem, seconds, cells, error)
    _say_result(result, slowest(began, seconds), running.status.console)
    return result, notebook


def _say_result(result: Result, longest: str, console: Console) -> None:
    outcome = "FAILED" if result.error else "ok"
    console.print(
        f"{outcome:6} {result.name}  {result.cells} cells  {result.seconds:.0f} s{longest}",
        style="red" if result.error else "green",
        highlight=False,
    )
    if result.error:
        console.print(result.error, markup=False, highlight=False)


def figures(notebook) -> list[bytes]:
    """All PNG outputs of a notebook, in order."""
    pictures = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            if "image/png" in output.get("data", {}):
                pictures.append(base64.b64decode(output["data"]["image/png"]))
    return pictures


def write_index(output: Path, results: list[Result], notebooks: list) -> Path:
    """One page over all labs, with each one's outcome and figures. (nbconvert makes a page of one
    notebook, and whole.)
    """
    parts = [
        "<!doctype html><meta charset='utf-8'><title>Labs</title><style>"
        "body{font:16px sans-serif;max-width:60em;margin:2em auto}"
        "img{max-width:30em;margin:.5em}pre{background:#fee;padding:1em;overflow:auto}</style>"
        "<h1>Labs</h1>"
    ]
    for result, notebook in zip(results, notebooks, strict=True):
        name = html.escape(result.name)
        heading = html.escape(result.title)
        state = "failed" if result.error else f"{result.seconds:.0f} s"
        parts.append(f"<h2><a href='{name}'>{heading}</a> · {state}</h2>")
        if result.error:
            parts.append(f"<pre>{html.escape(result.error)}</pre>")
        for i, png in enumerate(figures(notebook), 1):
            data = base64.b64encode(png).decode()
            parts.append(f"<img alt='figure {i} of {heading}' src='data:image/png;base64,{data}'>")
    page = output / "index.html"
    page.write_text("\n".join(parts), encoding="utf-8")
    return page


def _small_png(encoded: str) -> str:
    """The picture in 64 colours, which a plot does not notice, at about a third of the size."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    small = picture.quantize(64, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def source_hash(notebook) -> str:
    """SHA-256 of the sources of the code cells, in order: what the outputs were computed from.

    Outputs do not depend on Markdown, so prose may be corrected without a run. They do depend on
    ftlib; but a hash over the library would go stale with every comment, so that is left to the key
    numbers, which the tests compare with a new run.
    """
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def clean(notebook, profile: str | None = None):
    """Drop what differs between two equal runs (execution times, widget state, the kernel's patch
    version) and what works only while its kernel runs, and shrink the pictures, so that the
    notebook stays small enough to review. Into the metadata, as `ftlib`, go the hash of the
    executed source, the profile and the versions that ran it.
    """
    ran = {
        "source_sha256": source_hash(notebook),
        "profile": _environment(profile)["FTLIB_PROFILE"],
        "versions": {name: version(name) for name in VERSIONS},
    }
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "ftlib": ran,
        }
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _small_png(data["image/png"])
    return notebook


def _is_passing(output) -> bool:
    """Whether an output is a warning, or works only while its kernel runs."""
    if output.output_type == "stream" and output.name == "stderr":
        return True
    return bool(LIVE & output.get("data", {}).keys())


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
        _run_apart(_run_all(files, plan, at_once, Running(status), ran))
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
