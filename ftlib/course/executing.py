"""One lab executed in a kernel and folder of its own: progress by cell, a time limit a cell."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from rich.console import Console
from rich.status import Status
from traitlets.config import Config

SOCKET_PATH = 100  # characters of a socket's path; macOS takes 103, Linux 107
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
    run_apart(_execute(notebook, profile, cell_timeout, on_cell))
    return notebook


def kernel_settings(folder: str) -> Config:
    """Settings of a kernel that is spoken to over files in a folder that only this user can open:
    over TCP any user of the machine could listen. TCP where there are no such files, or none with
    so long a path.
    """
    connection = Path(folder) / "kernel.json"
    settings = {"connection_file": str(connection)}
    if os.name != "nt" and len(f"{connection}-ipc-1") <= SOCKET_PATH:
        settings["transport"] = "ipc"
    return Config({"KernelManager": settings})


async def _execute(notebook, profile: str | None, cell_timeout: int, on_cell) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="ftlib-lab-") as folder,
        tempfile.TemporaryDirectory(prefix="ftlib-kernel-") as connection_folder,
    ):
        client = NotebookClient(
            notebook,
            config=kernel_settings(connection_folder),
            timeout=cell_timeout,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            on_cell_start=on_cell,
            record_timing=False,
        )
        await client.async_execute(env=_environment(profile))


def run_apart(coroutine: Coroutine) -> None:
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
