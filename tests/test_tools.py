"""`make drift`, `make resolve` and the workflows: what can be told without the network."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter

import nbformat
import pytest
import yaml
from conftest import ROOT

from tools.sample_class import sample_class

TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def tool(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


drift = tool("drift")
resolve = tool("resolve")


# --- workflows ------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", WORKFLOWS, ids=[p.name for p in WORKFLOWS])
def test_every_step_of_a_workflow_is_a_make_target(path):
    workflow = yaml.safe_load(path.read_text())
    for name, job in workflow["jobs"].items():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert commands, name
        for command in commands:
            assert (
                re.fullmatch(r"make [a-z]+", command.strip()) and command.split()[1] in TARGETS
            ), f"{path.name}, {name}: {command}"
        assert all(
            re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
            for step in job["steps"]
            if "uses" in step
        )
        assert job["timeout-minutes"] <= 90
        python = next(
            step for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python")
        )
        assert python["with"]["python-version"] == "3.12"
    assert workflow["permissions"] == {"contents": "read"}


def test_tests_and_labs_run_on_both_architectures_and_drift_weekly():
    tests, weekly = (
        yaml.safe_load((ROOT / ".github" / "workflows" / f"{n}.yml").read_text())
        for n in ("tests", "weekly")
    )
    ran = {
        (step["run"], os)
        for job in tests["jobs"].values()
        for os in job["strategy"]["matrix"]["os"]
        for step in job["steps"]
        if "run" in step
    }
    assert ran == {
        (f"make {t}", os) for t in ("test", "labs") for os in ("ubuntu-24.04", "ubuntu-24.04-arm")
    }
    assert (
        weekly[True]["schedule"][0]["cron"].split()[-1] == "1"
    )  # YAML 1.1 reads the key `on` as true
    assert "make drift" in [step.get("run") for step in weekly["jobs"]["drift"]["steps"]]


# --- drift ----------------------------------------------------------------------------------------
def test_names_of_theirs_that_are_used():
    source = (
        "import torch, trl\nimport transformers.utils.logging as hf\nfrom peft import LoraConfig "
        "as L, get_peft_model\n"
        "from transformersx import no\nfrom . import peft\ndef f():\n    from trl.trainer import "
        "DPOTrainer\n"
    )
    assert drift.used_names(source) == {
        "trl:",
        "transformers.utils.logging:",
        "peft:LoraConfig",
        "peft:get_peft_model",
        "trl.trainer:DPOTrainer",
    }
    names = {name for text in drift.sources() for name in drift.used_names(text)}
    assert {"transformers:AutoModelForCausalLM", "transformers:Trainer"} < names and any(
        n.startswith("peft") for n in names
    )


def test_constraints_let_go_of_what_is_watched_and_hold_the_rest():
    text = (ROOT / "constraints.txt").read_text()
    held, all_names = (re.findall(r"(?m)^([\w.-]+)==", t) for t in (drift.relaxed(text), text))
    gone = {n.lower().replace("_", "-") for n in set(all_names) - set(held)}
    assert (
        {"trl", "peft", "transformers", "tokenizers", "huggingface-hub"}
        <= gone
        <= {n.replace("_", "-") for n in drift.WATCHED + drift.BOUND}
    )
    assert "torch" in held


def test_probe_tells_signatures_and_what_is_missing(tmp_path, monkeypatch):
    """Of a package made here: a function, a class, a submodule, a constant, and names that are not
    there.
    """
    package = tmp_path / "made_up"
    package.mkdir()
    (package / "__init__.py").write_text(
        "X = 1\ndef f(a, b=2): pass\nclass C:\n    def __init__(self, q): pass\n"
    )
    (package / "sub.py").write_text("")
    (package / "broken.py").write_text("import a_package_that_nobody_has")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(drift, "WATCHED", ("pytest",))
    names = [f"made_up:{n}" for n in ("f", "C", "sub", "X", "gone")] + [
        "made_up.sub:",
        "made_up.gone:",
        "made_up.broken:x",
    ]
    assert drift.probe(sys.executable, names)["names"] == {
        "made_up:f": "(a, b=2)",
        "made_up:C": "(q)",
        "made_up:sub": "module",
        "made_up:X": "int",
        "made_up:gone": "missing",
        "made_up.sub:": "module",
        "made_up.gone:": "missing",
        "made_up.broken:x": "cannot be imported: No module named 'a_package_that_nobody_has'",
    }


JUNIT = """<testsuites><testsuite><testcase classname="tests.test_a" name="one"/>
<testcase classname="tests.test_a" name="two">
<failure message="ImportError: cannot import name 'X'&#10;more">trace</failure></testcase>
<testcase classname="tests.test_b" name="three"><error message="boom"/></testcase>
</testsuite></testsuites>"""


def test_report_of_drift():
    """One name gone, one with a parameter less and two more, one unchanged, one missing all along;
    two tests of three fail.
    """
    before = {
        "versions": dict.fromkeys(drift.WATCHED, "1.0"),
        "names": {
            "trl:A": "(x)",
            "trl:B": "(self, a, b=1, **kwargs)",
            "peft:C": "(x)",
            "peft:D": "missing",
            "peft:E": "(x=1)",
        },
    }
    after = {
        "versions": dict.fromkeys(drift.WATCHED, "2.0"),
        "names": {
            "trl:A": "missing",
            "trl:B": "(self, a, c: int, *args, **kwargs)",
            "peft:C": "(x)",
            "peft:D": "missing",
            "peft:E": "(x=2)",
        },
    }
    assert drift.changes(before, after) == {"gone": ["trl:A"], "changed": ["trl:B", "peft:E"]}
    count, bad = drift.failures(JUNIT)
    assert (count, bad) == (
        3,
        [
            ("tests.test_a::two", "ImportError: cannot import name 'X'"),
            ("tests.test_b::three", "boom"),
        ],
    )
    announced = drift.deprecations(
        "x.py:3: FutureWarning: `foo` goes in 2.0\n  y\nz.py:1: FutureWarning: `foo` goes in "
        "2.0\nUserWarning: no"
    )
    assert announced == ["FutureWarning: `foo` goes in 2.0"]
    report = drift.write_report(before, after, count, bad, announced)
    assert (
        "| trl | 1.0 | 2.0 |" in report
        and "5 names of theirs are imported here: 1 gone, 2 changed. 3 tests: 2 failed." in report
    )
    assert "- `trl:A`: missing" in report and "- `trl:B`: without b; new *args, c" in report
    assert (
        "- `peft:E`: defaults, order or types" in report
        and "- `tests.test_b::three`: boom" in report
        and "- FutureWarning: `foo`" in report
    )
    calm = drift.write_report(before, before, 3, [], [])
    assert calm.count("None.") == 3 and "Nothing." in calm


def test_arguments_of_drift(tmp_path):
    args = drift.parse([])
    assert (
        args.venv == ROOT / ".venv.drift"
        and args.output == ROOT / "build" / "drift"
        and args.pytest == ""
    )
    args = drift.parse(["--output", str(tmp_path), "--pytest", "-m 'not labs'"])
    assert args.output == tmp_path and args.pytest == "-m 'not labs'"
    ignored = subprocess.run(
        ["git", "check-ignore", ".venv.drift/x", "build/drift/report.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert len(ignored.stdout.split()) == 2


@pytest.mark.parametrize(
    "gone, failing, status", [(False, False, 0), (True, False, 1), (False, True, 1)]
)
def test_drift_from_end_to_end_with_the_slow_parts_replaced(
    tmp_path, monkeypatch, capsys, gone, failing, status
):
    """pip, the probes and pytest are replaced; the report lies in the folder and in the summary of
    the job.
    """
    names = {"trl:A": "(x)"}
    answers = iter(
        [
            {"versions": dict.fromkeys(drift.WATCHED, "1"), "names": names},
            {
                "versions": dict.fromkeys(drift.WATCHED, "2"),
                "names": {"trl:A": "missing"} if gone else names,
            },
        ]
    )
    monkeypatch.setattr(drift, "install", lambda folder, report: "python")
    monkeypatch.setattr(drift, "probe", lambda python, names: next(answers))

    def run_tests(python, report, arguments):
        assert arguments == "-x"
        (report / "tests.xml").write_text(JUNIT if failing else "<testsuites/>")
        (report / "tests.txt").write_text("")

    monkeypatch.setattr(drift, "run_tests", run_tests)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    assert drift.main(["--output", str(tmp_path / "out"), "--pytest=-x"]) == status
    report = (tmp_path / "out" / "report.md").read_text()
    assert report == (tmp_path / "summary.md").read_text() and report in capsys.readouterr().out


# --- resolve --------------------------------------------------------------------------------------
# A stand-in for uv, which needs the network: it keeps what it was asked, and answers by machine.
UV = """#!{python}
import sys
asked = sys.stdin.read()
with open({log!r}, "a", encoding="utf-8") as file:
    file.write(repr((sys.argv[1:], asked)) + chr(10))
machine = next(word for word in sys.argv if word.startswith("--python-platform="))
if {broken!r} in machine:
    sys.exit("no wheel of torch has a matching platform tag")
print("peft==0.18.0")
print("torch==2.13.0")
print("    # via ftlib")
"""


def stand_in_uv(folder, broken: str):
    """(a folder for the path, the file in which it keeps what it was asked); it refuses the
    platforms whose name holds `broken`.
    """
    log = folder / "asked.txt"
    program = folder / "uv"
    text = UV.format(python=sys.executable, log=str(log), broken=broken)
    program.write_text(text, encoding="utf-8")
    program.chmod(0o755)
    return folder, log


def test_the_environment_as_uv_is_given_it():
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    python, lines = resolve.read_environment(text)
    assert python == "3.12"
    assert lines == ["-c constraints.txt", "-e .[labs,grading,dev]"]
    environment = yaml.safe_load(text)
    assert environment["channels"] == ["conda-forge"]
    names = [entry for entry in environment["dependencies"] if isinstance(entry, str)]
    assert any(name.startswith("jupyterlab") for name in names)


@pytest.mark.parametrize(
    "broken, status, said",
    [
        ("nothing", 0, ["x86_64: 2 packages resolve for Python 3.12", "aarch64: 2 packages"]),
        ("aarch64", 1, ["x86_64: 2 packages resolve", "aarch64: does not resolve"]),
    ],
)
def test_both_machines_are_asked_for(broken, status, said, tmp_path, monkeypatch, capfd):
    """The other machine's wheels alone, its own markers, our constraints; a machine without a wheel
    fails the whole.
    """
    folder, log = stand_in_uv(tmp_path, broken)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    assert resolve.main() == status
    printed = capfd.readouterr()
    assert all(line in printed.out for line in said)
    assert ("no wheel of torch" in printed.err) == bool(status)
    asked = [ast.literal_eval(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for machine, (words, given) in zip(resolve.MACHINES, asked, strict=True):
        assert words[:3] == ["pip", "compile", "-"]
        assert {f"--python-platform={machine}-manylinux_2_39", "--only-binary=:all:"} <= set(words)
        assert given == "-c constraints.txt\n-e .[labs,grading,dev]\n"


def test_without_uv_pip_puts_one_into_a_throwaway_folder(tmp_path, monkeypatch):
    """In the environment nothing is installed."""
    asked = []
    monkeypatch.setattr(resolve.shutil, "which", lambda name: None)
    monkeypatch.setattr(resolve.subprocess, "run", lambda command, check: asked.append(command))
    assert resolve.find_uv(tmp_path) == str(tmp_path / "bin" / "uv")
    (command,) = asked
    assert command[-3:] == ["--target", str(tmp_path), "uv"]
    assert command[: len(resolve.PIP)] == resolve.PIP


# --- an image to grade in, and a class to try with ------------------------------------------------
def test_requirements_are_the_projects(capsys):
    requirements = tool("requirements").requirements
    project = requirements([])
    assert any(line.startswith("torch") for line in project)
    assert [line for line in requirements(["grading"]) if line not in project] == [
        "nbgrader>=0.9.5",
        "traitlets>=5.14",
    ]
    with pytest.raises(KeyError):
        requirements(["none"])


def test_the_image_takes_what_its_ignore_file_lets_through():
    """.dockerignore leaves out all but what is named: every COPY has to be."""
    copied = []
    for line in (ROOT / "Containerfile").read_text().splitlines():
        if line.startswith("COPY "):
            copied += line.split()[1:-1]
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M)
    assert sorted(copied) == sorted(let_through)
    assert all((ROOT / name).exists() for name in copied)


@pytest.mark.parametrize("engine", ["podman", "docker"])
def test_grading_in_a_container_gives_a_submission_nothing(engine, tmp_path):
    """No network, no rights, a root file system and a class that are read-only; what follows the
    image is a command that ftlib takes.
    """
    from ftlib.arguments import build_parser

    contained = tool("grade_contained")
    command = contained.run_command(
        engine, tmp_path / "class", tmp_path / "marks", ["--labs", "3.1.7"]
    )
    place = command.index(contained.IMAGE)
    assert set(contained.LIMITS) < set(command[:place])
    assert {"--network=none", "--read-only", "--cap-drop=all"} < set(contained.LIMITS)
    assert f"--volume={tmp_path}/class:/class:ro" in command
    writable = [part for part in command if part.startswith("--volume") and part[-3:] != ":ro"]
    assert writable == [f"--volume={tmp_path}/marks:/marks"]
    user = next(part for part in command if part.startswith("--user="))
    assert not user.startswith("--user=0")
    args = build_parser().parse_args(command[place + 1 :])
    assert (args.submissions, args.csv, args.labs) == ("/class", "/marks/marks.csv", ["3.1.7"])


def test_an_invented_class_is_what_was_drawn(tmp_path):
    """The same for the same seed; in each notebook the answers that were drawn, and no outputs."""
    drawn = sample_class(["3.1.7"], tmp_path / "a.zip", 6, 1, 2)
    again = sample_class(["3.1.7"], tmp_path / "b.zip", 6, 1, 2)
    assert [vars(one) for one in drawn] == [vars(one) for one in again]
    answered = Counter()
    with zipfile.ZipFile(tmp_path / "a.zip") as zipped:
        for name in zipped.namelist():
            if name.endswith(".ipynb"):
                notebook = nbformat.reads(zipped.read(name).decode(), as_version=4)
                code = [cell for cell in notebook.cells if cell.cell_type == "code"]
                assert not any(cell.outputs for cell in code)
                answered[name.partition("_")[0]] = sum("**kwargs" in cell.source for cell in code)
    expected = Counter(one.student for one in drawn if one.what != "open")
    assert answered == expected and {one.exercise for one in drawn} == {
        "completion_logp",
        "implicit_reward",
    }
