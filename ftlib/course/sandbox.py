"""Run a notebook's cells in a process that may loop, die or raise, and say of each check what came
of it.

There are two processes. One runs the cells and gives answers; the other, which never runs a line of
the notebook's, holds the exercises and judges (`ftlib.course.answering` says what goes between
them). Both are forked from a server that has the libraries loaded (multiprocessing's forkserver),
so fresh ones cost a fraction of a second instead of the seconds that importing torch takes. When
they are no longer needed, all that they have started is ended too (`ftlib.course.processes`).

They run under the caller's account, and what that account may do, such as writing to its files, the
cells may do: untrusted code needs a container, or an account of its own, around the whole.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing import forkserver

from ftlib.course.processes import ended_with_the_block, keep_memory_private
from ftlib.course.submissions import OPENS

CHUNK = 65_536  # bytes a read
LONGEST = 1_000_000  # bytes of a line
GRACE = 2.0  # seconds
ENDED = "ended the process (out of memory, or os._exit?)"
LONGEST_REASON = 500  # characters
PRELOAD = (
    "ftlib.course.exercise",
    "ftlib.course.answering",
    "ftlib.course.grading",  # what a script that grades imports, each process imports again
    "ftlib.course.plots",
    "IPython.core.interactiveshell",
)
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


@dataclass
class Ran:
    """What went wrong in each step, empty where nothing did; and what the steps have changed of the
    code that checks (`ftlib.course.patches`).
    """

    wrong: list[str]
    changed: list[str] = field(default_factory=list)


def run_steps(setup: str, steps: list[Step], limit: float, start_limit: float = 300) -> Ran:
    """Run the steps. One that runs past `limit` seconds or ends the process costs only itself: the
    steps after it run in a fresh process that has repeated the definitions before. SetupError if
    `setup` fails.

    As in the notebook, an exercise whose check fails goes on with the reference, so that a later
    answer is judged on its own.
    """
    _lab_opened(setup)
    ran = Ran([])
    found = ran.wrong
    steps = list(steps)
    while len(found) < len(steps):
        done = []  # definitions to repeat, and exercises that go on with the reference
        for step, wrong in zip(steps[: len(found)], found, strict=True):
            if step.check and wrong:
                done.append(Step("", step.check))
            elif not step.check and not wrong.startswith("!"):
                done.append(step)
        more = _run_until_it_dies(setup, done, steps[len(found) :], limit, start_limit)
        found += more.wrong
        ran.changed = list(dict.fromkeys(ran.changed + more.changed))
        last = steps[len(found) - 1]
        if found[-1].startswith("!") and last.definitions:
            steps[len(found) - 1] = Step("\n\n".join(last.definitions))
            found.pop()
    ran.wrong = [wrong.lstrip("!") for wrong in found]
    return ran


def _lab_opened(setup: str) -> str:
    """The lab whose exercises are checked, which the judging process does not ask the cells for."""
    opened = OPENS.findall(setup)
    if not opened:
        raise SetupError('the lab\'s set-up cell names no lab: write `open_lab("3.1.7")` there')
    return opened[-1]


def _run_until_it_dies(setup, done, steps, limit, start_limit) -> Ran:
    """The outcomes of the first steps, at least one; that of a step that took the process with it
    begins with "!".
    """
    forkserver.ensure_running()  # before the block, which ends what begins in it
    ran = Ran([])
    processes: list = []
    with (
        tempfile.TemporaryDirectory(prefix="ftlib-grade-", ignore_cleanup_errors=True) as folder,
        ended_with_the_block(processes),
    ):
        receiver = _start(folder, setup, done, steps, processes)
        said = _Lines(receiver, processes[0].sentinel)
        try:
            _setup_went_well(said.next(start_limit))
            alive = True
            while alive and len(ran.wrong) < len(steps):
                wrong, changed = said.next(limit)
                ran.wrong.append(wrong)
                ran.changed += changed
                alive = not wrong.startswith("!")
        except TimeoutError:
            ran.wrong.append(f"!ran past its limit of {limit:g} s")
        except EOFError:
            ran.wrong.append(f"!{ENDED}")
        finally:
            receiver.close()
    for process in processes:
        process.join(5)
    return ran


def _start(folder: str, setup: str, done: list[Step], steps: list[Step], processes: list):
    """Start both processes and add them to `processes`; what the judging one says comes out of the
    connection returned.
    """
    receiver, sender = CONTEXT.Pipe(duplex=False)
    answers, asks = CONTEXT.Pipe()
    answering = CONTEXT.Process(target=_answer, args=(answers, folder, setup), daemon=True)
    judging = CONTEXT.Process(target=_judge, args=(sender, asks, setup, done, steps), daemon=True)
    for process in (answering, judging):
        process.start()
        processes.append(process)
    for ours in (sender, answers, asks):
        ours.close()
    return receiver


def _setup_went_well(said) -> None:
    wrong, _ = said
    if wrong:
        raise SetupError(f"the lab's set-up cell fails on this machine: {wrong.lstrip('!')}")


class _Lines:
    """What the judging process says, a line of JSON at a time: what went wrong, what was changed.
    `sentinel` can be read from when the process that runs the cells has ended.
    """

    def __init__(self, connection, sentinel: int):
        self.connection = connection
        self.sentinel = sentinel
        self.buffer = bytearray()

    def next(self, limit: float) -> tuple[str, list[str]]:
        """The next line. TimeoutError when `limit` seconds have passed; EOFError at the end, or
        when the process that runs the cells has ended and the other does not say so: a fork of the
        first still holds its line.
        """
        until = time.monotonic() + limit
        watched = [self.connection, self.sentinel]
        while b"\n" not in self.buffer:
            left = max(0.0, until - time.monotonic())
            readable, _, _ = select.select(watched, [], [], left)
            if self.connection in readable:
                self._read()
            elif self.sentinel in watched and readable:
                watched.remove(self.sentinel)
                until = min(until, time.monotonic() + GRACE)
            elif self.sentinel in watched:
                raise TimeoutError
            else:
                raise EOFError
        line, _, rest = bytes(self.buffer).partition(b"\n")
        self.buffer[:] = rest
        wrong, changed = json.loads(line)
        return wrong, changed

    def _read(self) -> None:
        got = os.read(self.connection.fileno(), CHUNK)
        if not got or len(self.buffer) > LONGEST:
            raise EOFError
        self.buffer += got


def _quiet() -> None:
    """In a group of its own, without the terminal."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


# --- in the process that runs the cells -----------------------------------------------------------
def _answer(connection, folder: str, setup: str) -> None:
    _quiet()
    os.chdir(folder)
    os.environ.update(
        NBGRADER_EXECUTION="autograde",
        FTLIB_PROFILE="tiny",
        HF_HUB_OFFLINE="1",
        IPYTHONDIR=folder,
        MPLBACKEND="agg",
    )
    from ftlib.course.answering import Answering

    Answering(connection, _shell(), setup).serve()


def _shell():
    import torch
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    torch.set_num_threads(1)
    return InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))


# --- in the process that judges -------------------------------------------------------------------
def _judge(sender, connection, setup: str, done: list[Step], steps: list[Step]) -> None:
    _quiet()
    keep_memory_private()
    from ftlib.course.answering import Line, LineLost

    line = Line(connection)
    try:
        _tell(sender, line.ask("setup_error"), [])
        exercises = _Exercises(line, setup)
        for step in done:
            exercises.repeat(step)
        for step in steps:
            _tell(sender, exercises.run(step), line.ask("changes"))
    except LineLost as lost:
        _tell(sender, f"!{str(lost) or ENDED}", [])


class _Exercises:
    """The lab's exercises, and the line to the process that answers them."""

    def __init__(self, line, setup: str):
        import torch

        from ftlib.course.exercise import load_lab

        torch.set_num_threads(1)
        self.lab = load_lab(_lab_opened(setup))
        self.line = line

    def repeat(self, step: Step) -> None:
        if step.check:
            self.line.ask("go_on_with_the_reference", step.check)
        else:
            self._define(step)

    def run(self, step: Step) -> str:
        """What went wrong in a step: in a cell, or with the answer that is checked. An answer that
        is right stays, as it is; else the exercise goes on with the reference.
        """
        if not step.check:
            return self._define(step)
        wrong = self._checked(step.check)[:LONGEST_REASON].lstrip("!")
        if wrong:
            self.line.ask("go_on_with_the_reference", step.check)
        return wrong

    def _define(self, step: Step) -> str:
        wrong = self.line.ask("run", step.source)
        if wrong:
            for definition in step.definitions:
                self.line.ask("run", definition)
        return wrong.lstrip("!")

    def _checked(self, name: str) -> str:
        from ftlib.course.answering import LineLost
        from ftlib.course.calls import fault_of
        from ftlib.course.exercise import judge

        try:
            verdict = judge(self.lab.find(name), self.line.answer(name))
        except LineLost:
            raise
        except BaseException as error:  # KeyboardInterrupt may be an answer's too
            fault = fault_of(error)
            return f"{fault.name}: {fault.text}"
        return "" if verdict.status == "right" else verdict.reason(name)


def _tell(sender, wrong, changed) -> None:
    left = json.dumps([wrong, changed]).encode() + b"\n"
    while left:
        written = os.write(sender.fileno(), left)
        left = left[written:]
