"""What the documents tell a reader to run, runs."""

import json
import re
import shlex
import subprocess
import sys
import zipfile

import pytest
from conftest import ROOT

import ftlib as ft
from ftlib.core.paths import POCKET, POCKET_HUB, resolve
from ftlib.course.catalogue import POINTS

DOCUMENTS = [*sorted(ROOT.glob("*.md")), ROOT / "labs" / "records" / "README.md"]
NAMES = [str(p.relative_to(ROOT)) for p in DOCUMENTS]
BLOCKS = [
    (str(p.relative_to(ROOT)), i, code)
    for p in DOCUMENTS
    for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", p.read_text(), re.S | re.M))
]


POCKET_IS_HERE = resolve(POCKET) != POCKET_HUB


def needs_pocket(code: str) -> bool:
    """Whether a block runs the model that `make pocket` installs."""
    return '"pocket"' in code


# Each block in a folder and a namespace of its own, in one interpreter, which imports the libraries
# once.
RUN_BLOCKS = """
import json, os, sys, traceback
outcomes = []
for folder, code in json.load(sys.stdin):
    os.chdir(folder)
    try:
        exec(compile(code, folder, "exec"), {"__name__": "__main__"})
        outcomes.append("")
    except BaseException:
        outcomes.append(traceback.format_exc())
with open(sys.argv[1], "w") as file:
    json.dump(outcomes, file)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> list[str]:
    """What each of the blocks raised; "" where it ran to its end, or was not run since its model is
    not here.
    """
    work = []
    for _, _, code in BLOCKS:
        runs = code if POCKET_IS_HERE or not needs_pocket(code) else ""
        work.append((str(tmp_path_factory.mktemp("block")), runs))
    found = tmp_path_factory.mktemp("blocks") / "outcomes.json"
    done = subprocess.run(
        [sys.executable, "-c", RUN_BLOCKS, str(found)],
        input=json.dumps(work),
        cwd=found.parent,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(found.read_text())


@pytest.mark.parametrize("index", range(len(BLOCKS)), ids=[f"{name}-{i}" for name, i, _ in BLOCKS])
def test_python_blocks_run_as_they_stand(index, outcomes):
    if needs_pocket(BLOCKS[index][2]) and not POCKET_IS_HERE:
        pytest.skip("the pocket model is not here: run `make pocket`")
    assert len(outcomes) == len(BLOCKS) and outcomes[index] == ""


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (path.parent / target).exists(), (
            f"{path.name} links to {target}"
        )


@pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)
def test_make_targets_and_commands_exist(path):
    from ftlib.cli import build_parser

    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = build_parser()._subparsers._group_actions[0].choices
    text = "\n".join(
        re.findall(r"^```bash\n(.*?)^```", path.read_text(), re.S | re.M)
        + re.findall(r"`([^`\n]+)`", path.read_text())
    )
    for target in re.findall(r"^make ([a-z]+)", text, re.M):
        assert target in targets, f"{path.name}: make {target}"
    for command in re.findall(r"^ftlib ([a-z]+)", text, re.M):
        assert command in commands, f"{path.name}: ftlib {command}"


# --- INSTRUCTORS.md and CONTRIBUTING.md: every command is run here or elsewhere in the tests, or sa
COMMANDS = [
    (name, line)
    for name in ("INSTRUCTORS.md", "CONTRIBUTING.md", "labs/records/README.md")
    for block in re.findall(r"^```bash\n(.*?)^```", (ROOT / name).read_text(), re.S | re.M)
    for line in block.splitlines()
]
OURS = {}  # each command once, by what is before its comment
for _, line in COMMANDS:
    if line.startswith("ftlib ") and "# needs" not in line:
        OURS.setdefault(line.partition("#")[0].strip(), line)


@pytest.mark.parametrize(
    "name, line", COMMANDS, ids=[f"{n}: {x.split('#')[0].strip()[:60]}" for n, x in COMMANDS]
)
def test_every_command_runs_or_says_what_it_needs(name, line):
    """ftlib's are run below; make's are read by make here, and run by the workflows; nbgrader's are
    run in test_grading.py.
    """
    if re.search(r"(# needs .|\(needs .)", line):
        return
    command = shlex.split(re.sub(r"^(FTLIB_\w+=\S+ )+", "", line), comments=True)
    assert command[0] in ("ftlib", "make"), line
    if command[0] == "make":
        done = subprocess.run(
            ["make", "--dry-run", *command[1:]], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0 and done.stdout, done.stderr


def test_the_table_of_scales_is_of_todays_records():
    from tools import scales

    text = scales.FILE.read_text(encoding="utf-8")
    assert scales.with_table(text) == text, "run `make scales`"


def test_the_table_of_memory_is_todays_plan():
    """GB, below 10 with one decimal."""
    text = (ROOT / "LAB_PREP.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (Qwen3|Llama-3\.1)-(\S+) \|(.*)\|$", text, re.M)
    assert [row[1] for row in rows] == ["0.6B", "8B", "70B"]
    for family, size, cells in rows:
        config = f"{family}-{size}".lower()
        planned = []
        for method in ("full", "lora", "qlora"):
            plan = ft.plan_memory(config, method, r=16, batch_size=1, seq_len=1024)
            gb = plan.total / 1e9
            planned.append(f"{gb:.1f}" if gb < 10 else f"{gb:,.0f}")
        assert [cell.strip() for cell in cells.split("|")] == planned, config


@pytest.mark.labs
def test_the_instructors_commands_in_their_order(tmp_path, monkeypatch, capsys):
    """Release the labs, let a student hand one back unsolved, in a zip of Moodle's, collect, grade:
    her row is there with 0 points, her page, and the class's report.
    """
    pytest.importorskip("nbgrader")
    from ftlib.cli import main

    monkeypatch.chdir(tmp_path)
    for line in OURS.values():
        assert main(shlex.split(line, comments=True)[1:]) == 0, capsys.readouterr().err
        if line.startswith("ftlib release"):
            handed_in = next(tmp_path.glob("handout/lab-3.1.7-*"))
            with zipfile.ZipFile(tmp_path / "submissions.zip", "w") as zipped:
                zipped.write(handed_in, f"Ada Byron_7_assignsubmission_file/{handed_in.name}")
    handing = [line.split()[1] for line in OURS.values() if not line.startswith("ftlib record")]
    assert handing == ["release", "release", "release", "collect", "grade", "grade"]
    points = sum(POINTS["3.1.7"].values())
    first_row = (tmp_path / "marks.csv").read_text().splitlines()[1]
    assert first_row.startswith(f"Ada Byron,3.1.7,0,{points},")
    feedback = (tmp_path / "feedback" / "Ada Byron.html").read_text(encoding="utf-8")
    assert feedback.count("Not attempted yet.") == len(POINTS["3.1.7"])
    assert "1 of 1 handed in" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1 + len(POINTS["3.1.7"])
