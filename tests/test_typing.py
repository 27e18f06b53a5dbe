"""What a type checker knows of ftlib: the library itself passes, every public function says what it
takes and gives, and a program that uses it wrongly is told so before it runs.
"""

import inspect
import subprocess
import sys

import pytest
from conftest import ROOT

import ftlib as ft

PROGRAM = """import ftlib as ft

model, tokenizer = ft.load_model(quantization="nf4")
ft.add_lora(model, r=8, target_modules=["q_proj"])
run = ft.finetune(model, tokenizer, [{"messages": []}], steps=3, learning_rate=1e-4)
print(run.history[-1]["loss"], ft.plan_memory("llama-3.1-8b").total / 1e9)
with ft.disable_adapter(model):
    accuracy: float = ft.golden_accuracy(model, tokenizer, [])
"""
# A line of the program, what a user might write instead, and the kind of error that it is.
MISTAKES = {
    "a number that is text": ("r=8", 'r="8"', "arg-type"),
    "a name that is not there": ("steps=3", "step=3", "call-arg"),
    "a function that is not there": ("ft.add_lora", "ft.add_laura", "attr-defined"),
    "a required option left out": (", learning_rate=1e-4", "", "call-arg"),
    "a field that is not there": ("run.history", "run.histories", "attr-defined"),
}


def mypy(*files) -> list[str]:
    """What mypy says of the library and of these files, by the project's settings."""
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "ftlib"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, cwd=ROOT)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_the_library_passes_and_a_user_is_told_of_mistakes(tmp_path):
    """One run over the library, a right program and wrong ones. PyTorch and transformers are left
    out of it: what is checked is what ftlib itself says.
    """
    right = tmp_path / "right.py"
    right.write_text(PROGRAM)
    files = [right]
    for number, (text, instead, _) in enumerate(MISTAKES.values()):
        assert PROGRAM.count(text) == 1
        files.append(tmp_path / f"wrong_{number}.py")
        files[-1].write_text(PROGRAM.replace(text, instead))
    errors = [line for line in mypy(*files) if " error: " in line]
    assert not [line for line in errors if "wrong_" not in line]
    for number, (text, _, kind) in enumerate(MISTAKES.values()):
        line_number = PROGRAM[: PROGRAM.index(text)].count("\n") + 1
        told = [line for line in errors if f"wrong_{number}.py:{line_number}: error" in line]
        assert told and f"[{kind}]" in told[0], (text, errors)


def annotated_functions():
    return [name for name in ft.__all__ if inspect.isfunction(getattr(ft, name))]


@pytest.mark.parametrize("name", annotated_functions())
def test_every_public_function_says_what_it_takes_and_gives(name):
    signature = inspect.signature(getattr(ft, name))
    parameters = signature.parameters.values()
    bare = [p.name for p in parameters if p.annotation is inspect.Parameter.empty]
    assert not bare, f"{name} does not say of what type {', '.join(bare)} is"
    assert signature.return_annotation is not inspect.Signature.empty, name
