"""ftlib: fine-tuning methods, small and exact, for the ten labs. `import ftlib as ft`."""

import logging as _logging
from importlib import import_module as _import_module
from importlib.util import find_spec as _find_spec

import lazy_loader as _lazy_loader

from ftlib.core import former as _former
from ftlib.core.notebook import in_notebook as _in_notebook
from ftlib.core.runtime import configure as _configure

if _in_notebook():
    _configure()  # a script calls it itself (`ftlib.core.runtime`)

_former.install()
__version__ = "0.1.0"

# The public names are in __init__.pyi, each loaded on first use: a command or an export does
# without what training imports (seconds, and memory).
_public_name, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str):
    """A public name, or a module of the library that is not among them: `ft.doctor`."""
    if name in __all__:
        return _public_name(name)
    if not name.startswith("_") and _find_spec(f"ftlib.{name}"):
        return _import_module(f"ftlib.{name}")
    raise AttributeError(f"module 'ftlib' has no attribute {name!r}")


class _Say(_logging.Handler):
    """Prints what ftlib reports, such as how many parameters train, where no one has set up
    logging; a line twice in a row once.

    `logging.getLogger("ftlib").setLevel("WARNING")` keeps it quiet.
    """

    last = None

    def emit(self, record) -> None:
        text = self.format(record)
        if text != self.last and not _logging.getLogger().handlers:
            print(text, flush=True)
        self.last = text


_logging.getLogger("ftlib").addHandler(_Say())
_logging.getLogger("ftlib").setLevel(_logging.INFO)
