"""What this process holds of resident memory, in bytes. Imports next to nothing: a measured process
waits for what is imported here, and holds it.
"""

from __future__ import annotations

import atexit
import os
import sys

STATUS = "/proc/self/status"
MEBIBYTE = 2**20  # bytes: the MiB of the tables of resident peaks


def _status(field: str) -> int:
    """A size in Linux's account of this process, bytes; the file has it in KiB."""
    with open(STATUS, encoding="utf-8") as lines:
        for line in lines:
            name, _, value = line.partition(":")
            if name == field:
                return 1024 * int(value.split()[0])
    raise RuntimeError(f"{STATUS} has no {field}: run this benchmark on Linux")


def resident_bytes() -> int:
    """Resident now: VmRSS, mapped pages of files included. Linux only."""
    return _status("VmRSS")


def peak_resident_bytes() -> int:
    """The most that was resident at one moment since the process began, or since `forget_peak`.

    Linux's VmHWM; the maximum of getrusage where there is no /proc. Not that one on Linux, since
    it survives exec: a small process would report what the one that started it held.
    """
    if os.path.exists(STATUS):
        return _status("VmHWM")
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """The peak begins again at what is resident now. Linux only."""
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")


def print_peak_at_exit() -> None:
    """Print the peak, a line of its own, as the last thing that this process does."""
    atexit.register(_print_peak)


def _print_peak() -> None:
    print(f"\n{peak_resident_bytes()}")
