"""The names of `import ftlib as ft`: all there, each from its module, none paid for before it is used."""
import subprocess
import sys

import pytest

import ftlib as ft


def test_every_public_name_loads_from_the_module_that_is_named():
    for name, home in ft._HOME.items():
        value = getattr(ft, name)
        assert value is getattr(sys.modules[home], name) and name in dir(ft)


def test_a_function_with_its_modules_name_stays_the_function():
    """Importing `ftlib.neftune` sets the package's attribute to the module, unless the function was put there after it."""
    import ftlib.train  # noqa: F401  imports the module
    assert callable(ft.neftune)


def test_modules_are_there_and_other_names_are_not():
    assert ft.losses.dpo_loss is ft.dpo_loss
    with pytest.raises(AttributeError, match="no attribute 'dpo_los'"):
        ft.dpo_los
    with pytest.raises(ImportError, match="dpo_los"):
        from ftlib import dpo_los  # noqa: F401


def test_importing_the_library_and_its_export_leaves_the_trainers_libraries_alone():
    heavy = ("accelerate", "bitsandbytes", "datasets", "pandas", "peft", "scipy", "trl")
    code = f"import sys, ftlib, ftlib.export; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
