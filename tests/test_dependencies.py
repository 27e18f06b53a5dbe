"""Nothing that the library imports is undeclared, and what only the notebooks need is not asked of
who uses the library alone.
"""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
# In which folder of ftlib what an extra brings may be imported.
MAY_USE = {
    "course": ("labs", "grading"),
    "core": ("labs",),  # the notebook's output, if it is one
    "training": ("labs",),  # the live line of a notebook
    "export": ("export", "labs"),  # PEFT merges the adapters that ftlib does not implement
}
# What a lab uses where it is installed, and says so where it is not.
WHERE_INSTALLED = {"course": {"llama_cpp", "unsloth", "trackio"}, "export": {"llama_cpp"}}


def names(requirements: list[str]) -> set[str]:
    """The distributions that are named, as `packages_distributions` writes them."""
    return {re.split(r"[<>=\[; ]", line)[0].lower().replace("_", "-") for line in requirements}


def imported(folder) -> set[str]:
    """Top-level modules that a folder's files import, the standard library's left out."""
    found = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found.update(name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"ftlib"}


FOLDERS = sorted(p for p in (ROOT / "ftlib").iterdir() if p.is_dir() and p.name != "__pycache__")


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda p: p.name)
def test_what_a_layer_imports_is_declared(folder):
    allowed = names(PROJECT["dependencies"])
    for extra in MAY_USE.get(folder.name, ()):
        allowed |= names(EXTRAS[extra])
    distributions = packages_distributions()
    for module in imported(folder):
        if module in WHERE_INSTALLED.get(folder.name, ()):
            continue
        providers = {name.lower().replace("_", "-") for name in distributions[module]}
        assert providers & allowed, f"{folder.name} imports {module}, which nothing declares"
