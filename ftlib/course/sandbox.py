"""Run a notebook's cells in a process that may loop, die or raise, and say of each check what came
of it.

The process is forked from a server that has the libraries loaded (multiprocessing's forkserver), so
a fresh one costs a fraction of a second instead of the seconds that importing torch takes. It runs
under the caller's account: untrusted code needs a container, or an account of its own, around the
whole.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import tempfile
import time
from dataclasses import dataclass

CHUNK = 65_536  # bytes a read
LONGEST = 1_000_000  # bytes of an answer from the process, which is not trusted
LONGEST_REASON = 500  # characters
PRELOAD = ("ftlib.course.exercise", "ftlib.course.plots", "IPython.core.interactiveshell")
CONTEXT = multiprocessing.get_context("forkserver")


class SetupError(ValueError):
    """The set-up cell fails on this machine, whoever's submission it is."""


@dataclass(frozen=True)
class Step:
    """A cell to run. `check` names the exercise that the cell checks; empty for a cell that only
    defines. `definitions` are the statements of a cell that are run again, each by itself, where
    the whole of it fails half-way.
    """

    source: str
    check: str = ""
    definitions: tuple[str, ...] = ()


def run_steps(setup: str, steps: list[Step], limit: float, start_limit: float = 300) -> list[str]:
    """What went wrong in each step, empty where nothing did. A step that runs past `limit` seconds
    or ends the process costs only itself: the steps after it run in a fresh process that has
    repeated the definitions before. SetupError if `setup` fails.

    As in the notebook, an exercise whose check fails goes on with the reference, so that a later
    answer is judged on its own.
    """
    found: list[str] = []
    steps = list(steps)
    while len(found) < len(steps):
        done = []  # definitions to repeat, and exercises that go on with the reference
        for step, wrong in zip(steps[: len(found)], found, strict=True):
            if step.check and wrong:
                done.append(Step("", step.check))
            elif not step.check and not wrong.startswith("!"):
                done.append(step)
        left = steps[len(found) :]
        found += _run_until_it_dies(setup, done, left, limit, start_limit)
        last = steps[len(found) - 1]
        if found[-1].startswith("!") and last.definitions:
            steps[len(found) - 1] = Step("\n\n".join(last.definitions))
            found.pop()
    return [wrong.lstrip("!") for wrong in found]


def _run_until_it_dies(setup, done, steps, limit, start_limit) -> list[str]:
    """The outcomes of the first steps, at least one; that of a step that took the process with it
    begins with "!".
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="ftlib-grade-", ignore_cleanup_errors=True) as folder:
        process = CONTEXT.Process(
            target=_child, args=(sender, folder, setup, done, steps), daemon=True
        )
        process.start()
        sender.close()
        found: list = []
        buffer = bytearray()
        try:
            _setup_went_well(_line(receiver, buffer, start_limit))
            while len(found) < len(steps):
                found.append(_line(receiver, buffer, limit))
        except TimeoutError:
            found.append(f"!ran past its limit of {limit:g} s")
        except EOFError:
            found.append("!ended the process (out of memory, or os._exit?)")
        finally:
            _kill(process)
            receiver.close()
    return found


def _setup_went_well(wrong: str) -> None:
    if wrong:
        raise SetupError(f"the lab's set-up cell fails on this machine: {wrong}")


def _line(connection, buffer: bytearray, limit: float) -> str:
    """The next line, a JSON string, from the other end. TimeoutError when `limit` seconds have
    passed, EOFError at the end.
    """
    until = time.monotonic() + limit
    while b"\n" not in buffer:
        left = max(0.0, until - time.monotonic())
        readable, _, _ = select.select([connection], [], [], left)
        if not readable:
            raise TimeoutError
        got = os.read(connection.fileno(), CHUNK)
        if not got or len(buffer) > LONGEST:
            raise EOFError
        buffer += got
    line, _, rest = bytes(buffer).partition(b"\n")
    buffer[:] = rest
    try:
        return str(json.loads(line))
    except ValueError:
        raise EOFError from None


def _kill(process) -> None:
    """End the process and what it started in its group."""
    for kill, whom in ((os.killpg, process.pid), (os.kill, process.pid)):
        try:
            kill(whom, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    process.join(5)


# --- in the forked process ------------------------------------------------------------------------
def _child(sender, folder: str, setup: str, done: list[Step], steps: list[Step]) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.update(
        NBGRADER_EXECUTION="autograde",
        FTLIB_PROFILE="tiny",
        HF_HUB_OFFLINE="1",
        IPYTHONDIR=folder,
        MPLBACKEND="agg",
    )
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    shell = _shell()
    _tell(sender, _error(shell.run_cell(setup)))
    check = shell.user_ns.get("check")
    for step in done:
        if step.check:
            shell.user_ns[step.check] = check.__self__.find(step.check).reference
        else:
            _run(shell, step, check)
    for step in steps:
        _tell(sender, _run(shell, step, check))


def _shell():
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    torch.set_num_threads(1)
    return InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))


def _run(shell, step: Step, check) -> str:
    if step.check:
        return _run_check(shell, step, check)
    wrong = _error(shell.run_cell(step.source))
    if wrong:
        for definition in step.definitions:
            shell.run_cell(definition)
    return wrong


def _run_check(shell, step: Step, check) -> str:
    """What the check says of the answer. One that is right stays, as it is; else the exercise goes
    on with the reference.
    """
    name = step.check
    names = shell.user_ns
    names["check"] = check  # whatever the cells before have made of this name
    answer = names.get(name)
    wrong = _error(shell.run_cell(step.source))
    names[name] = check.__self__.find(name).reference if wrong else answer
    return wrong


def _error(result) -> str:
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return ""
    from ftlib.course.exercise import Grade

    try:
        text = str(error).strip()
    except Exception:  # the class may be the student's
        text = ""
    if not isinstance(error, Grade):
        text = f"{type(error).__name__}: {text}"
    return text[:LONGEST_REASON].lstrip("!")


def _tell(sender, text: str) -> None:
    left = json.dumps(text).encode() + b"\n"
    while left:
        written = os.write(sender.fileno(), left)
        left = left[written:]
