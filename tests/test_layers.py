"""The ten layers: each imports only from those below it, and packages hold nothing of their own."""

import json
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

LINT = "from importlinter import cli; import sys; sys.exit(cli.lint_imports(no_cache=True))"


def lint(folder) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, '.'); {LINT}"],
        cwd=folder,
        capture_output=True,
        text=True,
    )


def test_the_contract_holds():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "file, line, broken",
    [
        (
            "core/atomic.py",
            "from ftlib.training.run import Run",
            "ftlib.core.atomic -> ftlib.training.run",
        ),
        (
            "losses/logps.py",
            "def late():\n    from ftlib.course import plots",
            "ftlib.losses.logps -> ftlib.course.plots",
        ),
    ],
)
def test_an_import_upward_breaks_it_even_inside_a_function(file, line, broken, tmp_path):
    shutil.copytree(
        ROOT / "ftlib", tmp_path / "ftlib", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / "ftlib" / file).open("a", encoding="utf-8") as out:
        out.write(f"\n\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and broken in done.stdout


def test_a_module_beside_the_layers_breaks_it(tmp_path):
    shutil.copytree(
        ROOT / "ftlib", tmp_path / "ftlib", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "ftlib" / "helpers.py").write_text("X = 1\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and "helpers" in done.stdout


def test_packages_are_empty():
    packages = sorted((ROOT / "ftlib").glob("*/__init__.py"))
    assert len(packages) == 10 and not [p for p in packages if p.read_text(encoding="utf-8")]


FORMER_IMPORTS = [
    "from ftlib.train import LengthGroupedSampler, RunError, finetune",
    "from ftlib import baselines, evaluate, plots; plots.use_style, evaluate.generate_answers",
    "import ftlib.baselines.prefix as prefix; prefix.add_prefix",
    "from ftlib.course import open_lab, planner, quiz, say",
    "from ftlib.export import export_gguf, read_gguf",
    "from ftlib.export.tensors import ExportError",
    "import ftlib as ft; ft.losses.dpo_loss, ft.evaluate.generate_answers",
]


def test_what_was_imported_from_version_0_1_is_found_with_a_warning():
    """All in one process, which takes seconds to import what these need."""
    code = (
        "import json, warnings\n"
        f"for line in {FORMER_IMPORTS!r}:\n"
        "    with warnings.catch_warnings(record=True) as seen:\n"
        "        warnings.simplefilter('always')\n"
        "        exec(line, {})\n"
        "    ours = [w for w in seen if str(w.message).startswith('ftlib.')]\n"
        "    print(json.dumps([(w.category.__name__, str(w.message)) for w in ours]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line, printed in zip(FORMER_IMPORTS, done.stdout.splitlines(), strict=True):
        warned = json.loads(printed)
        assert warned, f"{line} warns of nothing"
        for category, message in warned:
            assert category == "DeprecationWarning" and message.endswith(" now")


def test_every_former_module_has_a_home():
    from importlib import import_module

    from ftlib.core.former import MODULES, PACKAGES

    homes = {home for names in [*MODULES.values(), *PACKAGES.values()] for home in names.split()}
    for home in sorted(homes):
        assert import_module(f"ftlib.{home}")


def test_a_name_that_never_was_is_an_attribute_error():
    code = "import ftlib.splits; ftlib.splits.no_such_thing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "AttributeError: module 'ftlib.splits' has no attribute 'no_such_thing'" in done.stderr


# --- the map, and how the code is laid out --------------------------------------------------------
def test_the_map_in_contributing_is_of_todays_imports():
    from tools import map as map_tool

    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert map_tool.with_map(text) == text, "run `make map`"
    assert all(f"{layer}[" in text for layer in map_tool.LAYERS)


def ruff(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "ruff", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_code_keeps_the_rules():
    done = ruff("check", ".")
    assert done.returncode == 0, done.stdout


def test_the_code_is_laid_out_by_ruff():
    done = ruff("format", "--check", ".")
    assert done.returncode == 0, done.stdout
