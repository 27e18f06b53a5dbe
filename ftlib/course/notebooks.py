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
from rich.console import Console

from ftlib.core.paths import ROOT
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
    with tempfile.TemporaryDirectory(prefix="ftlib-lab-") as folder:
        client = NotebookClient(
            notebook,
            timeout=cell_timeout,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            on_cell_start=on_cell,
            record_timing=False,
        )
        _run_apart(client.async_execute(env=_environment(profile)))
    return notebook


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


def run_one(
    path: Path, output: Path, profile: str | None, cell_timeout: int, console: Console
) -> tuple[Result, object]:
    """Execute one lab, write its copy into `output`, and say how it went: (result, notebook)."""
    notebook = nbformat.read(path, as_version=4)
    cells = len(notebook.cells)
    error = ""
    start = time.perf_counter()
    began: dict[int, float] = {}  # seconds at which each cell began
    with console.status(f"{path.name}: starting the kernel") as status:

        def on_cell(cell, cell_index):
            now = time.perf_counter() - start
            began[cell_index] = now
            status.update(f"{path.name}: cell {cell_index + 1}/{cells}, {now:.0f} s")

        try:
            execute(notebook, profile, cell_timeout, on_cell)
        except (CellExecutionError, CellTimeoutError, DeadKernelError) as failure:
            error = _explain(failure, notebook, max(began, default=-1))
    seconds = time.perf_counter() - start
    nbformat.write(notebook, output / path.name)
    outcome = "FAILED" if error else "ok"
    console.print(
        f"{outcome:6} {path.name}  {cells} cells  {seconds:.0f} s{slowest(began, seconds)}",
        style="red" if error else "green",
        highlight=False,
    )
    if error:
        console.print(error, markup=False, highlight=False)
    name = title(notebook) or path.stem
    return Result(path.name, name, seconds, cells, error), notebook


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


def run_labs(
    which,
    output,
    profile=None,
    cell_timeout: int = 300,
    write_back: bool = False,
    build: bool = False,
) -> int:
    """Execute labs one after the other; returns 0 if all ran to their end, else 1.

    write_back: also store the outputs in labs/; `profile` is then tiny by default.
    build: when the turn comes to a lab with a compiled part, build that first.
    """
    if write_back and profile is None:
        profile = STORED_PROFILE
    console = Console()
    output = Path(output)
    files = lab_files(which)
    if not files:
        raise ValueError(f"no labs in {catalogue.LABS}")
    output.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []
    notebooks = []
    for path in files:
        if build:
            build_need(path, console)
        if reason := left_out(path):
            console.print(reason, style="yellow", highlight=False)
            continue
        result, notebook = run_one(path, output, profile, cell_timeout, console)
        results.append(result)
        notebooks.append(notebook)
        if write_back and not result.error:
            nbformat.write(clean(notebook, profile), path)
    page = write_index(output, results, notebooks)
    console.print(_summary(results, page), highlight=False)
    return 1 if any(result.error for result in results) else 0


def _summary(results: list[Result], page: Path) -> str:
    """How many labs ran to their end, in which time, and the names of those that did not."""
    failed = [result.name for result in results if result.error]
    seconds = sum(result.seconds for result in results)
    said = (
        f"{len(results) - len(failed)} of {len(results)} labs ran to their end "
        f"in {seconds:.0f} s; copies and figures: {page}"
    )
    if failed:
        said += f"; failed: {', '.join(failed)}"
    return said
