"""What ftlib changes of the process that it runs in.

Importing ftlib as a library changes nothing that other libraries see. `configure` does, and says
what: the `ftlib` command calls it, and so do `open_lab`, `load_model`, and in a notebook `import
ftlib` itself, since PyTorch reads the environment when it is imported, which is on a lab's next
line. A script that wants it whole calls it before it imports torch.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import sys
import warnings

# Set only where the user has set nothing. OMP_WAIT_POLICY: OpenMP's threads that spin while they
# wait starve shared cores (measured: 15 times slower). TOKENIZERS_PARALLELISM: tokenizers would
# warn at every fork of `over_seeds`.
ENVIRONMENT = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
# Loggers that report errors only: bitsandbytes warns on AVX512-BF16 processors that a kernel of the
# Hub is absent, which ftlib does not want.
QUIET = ("bitsandbytes.backends.cpu.ops",)

log = logging.getLogger("ftlib")


def configure(
    threads: int | None = None, progress_bars: bool = True, library_warnings: bool = True
) -> list[str]:
    """Set this process up for ftlib. Returns what it changed, a line for each change, so nothing
    where all was so already; the same lines go to the logger `ftlib` at level DEBUG.

    Always: `ENVIRONMENT`, where the user has set nothing, and the loggers `QUIET`, from which only
    errors are heard. `threads`: PyTorch's on a CPU; None leaves them, and so does a forked child,
    which would wait for ever for its parent's threads, since no fork copies them.
    `progress_bars=False`: transformers shows none. `library_warnings=False`: Python's warnings are
    ignored and transformers logs errors only, as a notebook wants it where a lab does what it is
    meant to do.
    """
    changed = [*_set_environment(), *_quiet_loggers()]
    if threads is not None:
        changed += _set_threads(threads)
    if not progress_bars:
        changed += _hide_bars()
    if not library_warnings:
        changed += _ignore_warnings()
    for line in changed:
        log.debug("configured: %s", line)
    return changed


@functools.cache
def default_threads() -> int:
    """PyTorch's threads as PyTorch, OMP_NUM_THREADS or the user chose them, before `configure` set
    another number.
    """
    import torch

    return torch.get_num_threads()


def _set_environment() -> list[str]:
    changed = []
    for name, value in ENVIRONMENT.items():
        if name in os.environ:
            continue
        os.environ[name] = value
        late = ""
        if name == "OMP_WAIT_POLICY" and "torch" in sys.modules:
            late = " (for child processes: torch was imported before)"
        changed.append(f"{name}={value} in the environment{late}")
    return changed


def _quiet_loggers() -> list[str]:
    changed = []
    for name in QUIET:
        logger = logging.getLogger(name)
        if logger.level < logging.ERROR:
            logger.setLevel(logging.ERROR)
            changed.append(f"the logger {name} reports errors only")
    return changed


def _set_threads(count: int) -> list[str]:
    import torch

    default_threads()  # remembered before it is changed
    forked = multiprocessing.parent_process() is not None
    if forked or torch.get_num_threads() == count:
        return []
    torch.set_num_threads(count)
    return [f"PyTorch computes in {count} threads"]


def _hide_bars() -> list[str]:
    from transformers.utils import logging as transformers_logging

    if not transformers_logging.is_progress_bar_enabled():
        return []
    transformers_logging.disable_progress_bar()
    return ["transformers shows no progress bars"]


def _ignore_warnings() -> list[str]:
    from transformers.utils import logging as transformers_logging

    changed = []
    everything = ("ignore", None, Warning, None, 0)
    if everything not in warnings.filters[:1]:
        warnings.filterwarnings("ignore")
        changed.append("Python's warnings are ignored")
    if transformers_logging.get_verbosity() != transformers_logging.ERROR:
        transformers_logging.set_verbosity_error()
        changed.append("transformers logs errors only")
    return changed
