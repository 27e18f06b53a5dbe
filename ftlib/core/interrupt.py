"""Ctrl-C of a command: the first one ends it, the next ones change nothing."""

from __future__ import annotations

import signal
import threading


class FirstInterrupt:
    """While it is entered, the first SIGINT raises KeyboardInterrupt, and all further ones are
    ignored: an impatient second Ctrl-C would otherwise break the tidying up that the first began,
    and end in a traceback. They stay ignored until the process ends.

    `asked` says whether there was one, which an exception may not: a compiled module that is
    interrupted while it is imported makes an ImportError or SystemError of it.
    """

    def __init__(self):
        self.asked = False
        self._before = None

    def __enter__(self) -> FirstInterrupt:
        is_main = threading.current_thread() is threading.main_thread()  # others set no handlers
        is_ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # a job in the background
        if is_main and not is_ignored:
            self._before = signal.signal(signal.SIGINT, self._first)
        return self

    def __exit__(self, *_) -> None:
        if self._before is not None and not self.asked:
            signal.signal(signal.SIGINT, self._before)

    def _first(self, number, frame) -> None:
        self.asked = True
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt
