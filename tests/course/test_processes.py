"""What a block has started is gone after it, wherever it went: another session, another parent."""

import ctypes
import os
import subprocess
import sys
import time

import pytest

from ftlib.course import processes, sandbox
from ftlib.course.processes import LINUX, below, ended_with_the_block
from ftlib.course.sandbox import Step, run_steps

pytestmark = pytest.mark.skipif(not LINUX, reason="elsewhere the process groups alone are ended")

LOOPS = "import os, time\nopen({note!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
# Ways out of a process group, by code that runs `loops()` in a process of its own.
ESCAPES = {
    "a session of its own": "if os.fork() == 0:\n    os.setsid()\n    loops()",
    "forked twice": "if os.fork() == 0:\n    if os.fork() == 0:\n        os.setsid()\n"
    "        loops()\n    os._exit(0)",
    "a program in a new session": "subprocess.Popen([sys.executable, '-c', {loops!r}], "
    "start_new_session=True)",
}


def escape(how: str, note) -> str:
    """Code that starts a process which writes its number to `note` and goes on; then waits for
    the number.
    """
    loops = LOOPS.format(note=str(note))
    return (
        "import os, subprocess, sys, time\n"
        f"def loops():\n    exec({loops!r})\n"
        f"{ESCAPES[how].format(loops=loops)}\n"
        f"while not os.path.exists({str(note)!r}) or not open({str(note)!r}).read():\n"
        "    time.sleep(0.01)\n"
    )


def number_in(note) -> int:
    until = time.monotonic() + 30
    while not note.exists() or not note.read_text():
        assert time.monotonic() < until
        time.sleep(0.01)
    return int(note.read_text())


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ESCAPES)
def test_what_began_in_the_block_ends_with_it(how, tmp_path):
    """Its parent has ended before the block does, so it has been given to this process."""
    note = tmp_path / "pid"
    with ended_with_the_block([]):
        subprocess.run([sys.executable, "-c", escape(how, note)], check=True)
        pid = number_in(note)
        assert pid in {one.pid for one in below(os.getpid())}
    assert not runs(pid)


def test_what_was_there_before_stays_and_orphans_go_where_they_went_before():
    sleeps = [sys.executable, "-c", "import time\ntime.sleep(600)"]
    with subprocess.Popen(sleeps) as before:
        with ended_with_the_block([]), subprocess.Popen(sleeps) as inside:
            assert {before.pid, inside.pid} <= {one.pid for one in below(os.getpid())}
            inside.kill()
        assert before.poll() is None
        before.kill()
    adopts = ctypes.c_int(-1)
    processes._prctl(processes.GET_CHILD_SUBREAPER, ctypes.byref(adopts))
    assert adopts.value == 0


@pytest.mark.parametrize(
    "how, then, reason",
    [
        ("a session of its own", "", ""),
        ("forked twice", "os._exit(1)", sandbox.ENDED),
        pytest.param(
            "a program in a new session",
            "os.kill(os.getppid(), 9)\nos._exit(1)",
            sandbox.ENDED,
            marks=pytest.mark.labs,  # the server loads its libraries anew: seconds
        ),
    ],
)
def test_a_submission_leaves_no_process_behind(how, then, reason, tmp_path):
    """Whether its process goes on, ends before its child does, or ends the server that forks. The
    child holds the line to the judge open, which keeps nobody waiting.
    """
    sandbox.CONTEXT.set_forkserver_preload(list(sandbox.PRELOAD))
    note = tmp_path / "pid"
    steps = [Step(f"{escape(how, note)}{then}"), Step("1 / 0")]
    ran = run_steps("open_lab = print\nopen_lab('3.1.7')", steps, limit=120)
    assert not runs(number_in(note))
    assert ran.wrong == [reason, "ZeroDivisionError: division by zero"]
