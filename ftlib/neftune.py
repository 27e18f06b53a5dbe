"""The former place of `ftlib.training.neftune`, for notebooks that were handed out before; it goes with version 0.3."""
import sys
import types
import warnings

from ftlib.training.neftune import neftune, neftune_noise

__all__ = ["neftune", "neftune_noise"]
warnings.warn("ftlib.neftune is ftlib.training.neftune now", DeprecationWarning, stacklevel=2)


class _Neftune(types.ModuleType):
    """Importing this module puts it where the package has the function of the same name: so it can be called as that."""

    __call__ = staticmethod(neftune)


sys.modules[__name__].__class__ = _Neftune
