"""A group of processes answers by rank, fails as a whole, and leaves nobody behind."""

import os
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from sharded_runs import interface, one_dies, one_fails, one_waits, processes, ranks

from ftlib.training.processes import LOOPBACK, Processes, run_processes

SOON = 60.0  # seconds: far below a timeout of 120 s, far above what a failure takes


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_many_times_and_ends():
    """One group, since each start imports the libraries again."""
    with Processes(2) as group:
        assert group.run(ranks, "a", 2) == [(0, ("a", 2), 2), (1, ("a", 2), 2)]
        pids = group.run(processes)
        assert len(set(pids)) == 2 and os.getpid() not in pids
        assert group.run(processes) == pids
        if sys.platform in LOOPBACK and "GLOO_SOCKET_IFNAME" not in os.environ:
            assert group.run(interface) == [LOOPBACK[sys.platform]] * 2
    assert group.closed and not any(map(runs, pids))
    group.close()
    with pytest.raises(ValueError, match="these processes have ended"):
        group.run(ranks)


def test_the_error_of_the_one_that_failed_is_raised():
    """Not that of the other, which waits at a barrier and finds it alone, at once."""
    start = time.monotonic()
    with pytest.raises(KeyError, match="the second one"):
        run_processes(one_fails)
    assert time.monotonic() - start < SOON


def test_one_that_dies_keeps_nobody_waiting():
    group = Processes(2)
    pids = group.run(processes)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="process 1 died"):
        group.run(one_dies)
    assert time.monotonic() - start < SOON
    assert group.closed and not any(map(runs, pids))


def test_one_that_does_not_come_is_waited_for_until_the_timeout():
    with pytest.raises(RuntimeError, match=r"(?i)timed out|timeout"):
        run_processes(one_waits, timeout=2)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_they_end_with_the_process_that_started_them(tmp_path):
    note = tmp_path / "pids"
    code = (
        "import os, signal\n"
        "from sharded_runs import processes\n"
        "from ftlib.training.processes import Processes\n"
        "if __name__ == '__main__':\n"
        "    pids = Processes(2).run(processes)\n"
        f"    open({str(note)!r}, 'w').write(' '.join(map(str, pids)))\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = tmp_path / "started.py"
    script.write_text(code)
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": path}, timeout=200)
    pids = [int(pid) for pid in note.read_text().split()]
    assert len(pids) == 2
    until = time.monotonic() + SOON
    while any(map(runs, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(runs, pids))


def test_a_function_that_no_other_process_can_import():
    with pytest.raises(ValueError, match="top level of a module"):
        run_processes(lambda rank: rank)
    with pytest.raises(ValueError, match="processes=0"):
        run_processes(ranks, processes=0)
