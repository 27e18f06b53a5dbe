"""The names of `import ftlib as ft`: all there, each from its module, none paid for before it is
used.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ftlib as ft


def test_every_public_name_loads_from_the_module_that_is_named():
    stub = ast.parse(Path(ft.__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module]
    for node in imports:
        for alias in node.names:
            value = getattr(ft, alias.name)
            assert value is getattr(sys.modules[f"ftlib.{node.module}"], alias.name)
            assert alias.name in dir(ft)


@pytest.mark.parametrize(
    "first", ["import ftlib.neftune", "import ftlib.train", "import ftlib; ftlib.neftune"]
)
def test_neftune_is_the_function_even_where_its_former_module_is_imported(first):
    """Importing module `ftlib.neftune` puts it where the package has the function so named."""
    code = f"""{first}
import ftlib as ft, torch, transformers
sizes = dict(vocab_size=9, hidden_size=8, intermediate_size=8)
config = transformers.LlamaConfig(**sizes, num_hidden_layers=1, num_attention_heads=1)
model = transformers.LlamaForCausalLM(config).train()
ids = torch.tensor([[1, 2]])
with ft.neftune(model, 5.0):
    print(torch.equal(model(ids).logits, model(ids).logits))
"""
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "False\n"
    )


def test_the_former_module_says_where_it_went():
    code = (
        "import warnings; warnings.simplefilter('error', DeprecationWarning); "
        "import ftlib.neftune; ftlib.neftune.neftune_noise"
    )
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        failed.returncode == 1
        and "ftlib.neftune.neftune_noise is ftlib.training.neftune.neftune_noise now"
        in failed.stderr
    )


def test_modules_are_there_and_other_names_are_not():
    assert ft.losses.preference.dpo_loss is ft.dpo_loss
    with pytest.raises(AttributeError, match="no attribute 'dpo_los'"):
        _ = ft.dpo_los
    with pytest.raises(ImportError, match="dpo_los"):
        from ftlib import dpo_los  # noqa: F401


@pytest.mark.parametrize(
    "command", ["--help", "labs --list", "progress", "plan llama-3.1-8b --fits 100 --json"]
)
def test_a_command_that_computes_nothing_imports_nothing_that_does(command, tmp_path):
    """Each answered in 2 to 4 seconds more when torch, or Jupyter's validation, was imported for
    it.
    """
    heavy = ("torch", "transformers", "pandas", "pyarrow", "nbformat", "matplotlib")
    code = (
        "import sys; from ftlib.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: "
        "pass\n"
        f"print([m for m in {heavy} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "FTLIB_PROGRESS": str(tmp_path / "progress.json")},
    )
    assert done.stdout and done.stderr.strip() == "[]"


def test_importing_the_library_and_its_export_leaves_the_trainers_libraries_alone():
    heavy = ("accelerate", "bitsandbytes", "datasets", "pandas", "peft", "scipy", "trl")
    code = f"import sys, ftlib, ftlib.export; print([m for m in {heavy} if m in sys.modules])"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.strip()
        == "[]"
    )
