"""`ftlib labs`: executes copies, stops a cell that never ends, reports by lab and cell, leaves the
source alone.
"""

import base64
import io
import json
import os
from pathlib import Path

import nbformat
import pytest
from PIL import Image

from ftlib import cli
from ftlib.course import catalogue, executing, index_page, notebooks, stored_notebook
from ftlib.export.llama_probe import Probe

PASSES = [
    "import os, json\nimport matplotlib.pyplot as plt",
    "open('left-behind.txt', 'w').write('x')\nprint(os.environ['FTLIB_PROFILE'], "
    "os.environ.get('HF_HUB_OFFLINE'))",
    "%matplotlib inline\nplt.plot([1, 2]);",
]
FAILS = ["x = 1", "raise ValueError('the data is gone')", "print('never')"]
# Asleep, not to keep a core from the other tests.
LOOPS = ["import time", "while True:\n    time.sleep(0.1)"]


def notebook(path, cells, title):
    nb = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell(f"# {title}\n\ntext"),
            *map(nbformat.v4.new_code_cell, cells),
        ]
    )
    nbformat.write(nb, path)
    return path


@pytest.fixture
def course(tmp_path, monkeypatch):
    folder = tmp_path / "labs"
    folder.mkdir()
    monkeypatch.setattr(catalogue, "LABS", folder)
    monkeypatch.setitem(
        notebooks.NEEDS, "3.1.10", lambda: Probe("fine")
    )  # whatever is installed here
    return folder


def source_bytes(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_run_of_three_labs(course, tmp_path, capsys, monkeypatch):
    """One passes, one fails, one loops for ever: all are run, named, and the exit status says that
    not all is well.
    """
    monkeypatch.delitem(
        notebooks.NEEDS, "3.1.10", raising=False
    )  # this one does without llama-cpp-python
    notebook(course / "lab-3.1.10-last.ipynb", PASSES, "Lab <ten>")
    notebook(course / "lab-3.1.2-fails.ipynb", FAILS, "Lab two")
    notebook(course / "lab-3.1.9-loops.ipynb", LOOPS, "Lab nine")
    before = source_bytes(course)
    assert (
        cli.main(
            [
                "labs",
                "--output",
                str(tmp_path / "build"),
                "--profile",
                "tiny",
                "--cell-timeout",
                "8",
            ]
        )
        == 1
    )
    out = " ".join(capsys.readouterr().out.split())
    assert source_bytes(course) == before
    reported = [
        "FAILED lab-3.1.2-fails.ipynb",
        "FAILED lab-3.1.9-loops.ipynb",
        "ok lab-3.1.10-last.ipynb",
    ]
    assert [out.index(r) for r in reported] == sorted(out.index(r) for r in reported)
    assert (
        "cell 2: ValueError: the data is gone raise ValueError" in out
        and "cell 2: ran past its time limit while True" in out
    )
    assert (
        "1 of 3 labs ran to their end" in out
        and "lab-3.1.2-fails.ipynb, lab-3.1.9-loops.ipynb" in out
    )
    made = {p.name for p in (tmp_path / "build").iterdir()}
    assert made == {*before, "index.html"} and not list(tmp_path.rglob("left-behind.txt"))
    copy = nbformat.read(tmp_path / "build" / "lab-3.1.10-last.ipynb", as_version=4)
    assert copy.cells[2].outputs[0].text == "tiny 1\n" and len(index_page.figures(copy)) == 1
    page = (tmp_path / "build" / "index.html").read_text()
    assert (
        page.count("<img") == 1
        and page.count("failed</h2>") == 2
        and "Lab &lt;ten&gt;" in page
        and "the data is gone" in page
    )


def test_two_labs_at_once(course, tmp_path, capsys):
    """The first lab ends only once the second has run, so that both end only side by side; the page
    has them in order.
    """
    sign = tmp_path / "second has run"
    waits = f"import pathlib, time\nwhile not pathlib.Path({str(sign)!r}).exists(): time.sleep(0.1)"
    writes = f"import pathlib\npathlib.Path({str(sign)!r}).touch()"
    notebook(course / "lab-3.1.1-waits.ipynb", [waits], "Lab one")
    notebook(course / "lab-3.1.2-signs.ipynb", [writes], "Lab two")
    run = ["labs", "--output", str(tmp_path / "o"), "--profile", "tiny", "--cell-timeout", "60"]
    assert cli.main([*run, "--side-by-side", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "ok lab-3.1.2-signs" in said and "ok lab-3.1.1-waits" in said
    page = (tmp_path / "o" / "index.html").read_text()
    assert page.index("Lab one") < page.index("Lab two")


def test_choosing_and_listing(course, tmp_path, capsys):
    notebook(course / "lab-3.1.1-a.ipynb", ["print('one')"], "Lab one")
    notebook(course / "lab-3.1.10-b.ipynb", ["print('ten')"], "Lab ten")
    (course / "notes.ipynb").write_text("{}")
    assert [p.name for p in catalogue.lab_files()] == ["lab-3.1.1-a.ipynb", "lab-3.1.10-b.ipynb"]
    assert [p.name for p in catalogue.lab_files(["3.1.1"])] == ["lab-3.1.1-a.ipynb"]  # not 3.1.10
    assert cli.main(["labs", "--list"]) == 0
    assert [line.split()[-2:] for line in capsys.readouterr().out.splitlines()] == [
        ["Lab", "one"],
        ["Lab", "ten"],
    ]
    assert cli.main(["labs", "3.1.1", "--output", str(tmp_path / "o"), "--profile", "tiny"]) == 0
    assert (
        "1 of 1 labs" in capsys.readouterr().out
        and not (tmp_path / "o" / "lab-3.1.10-b.ipynb").exists()
    )


def test_extensions_come_after_the_ten_and_only_when_they_are_asked_for(course, tmp_path, capsys):
    (course / "extensions").mkdir()
    notebook(course / "lab-3.1.10-b.ipynb", ["print('ten')"], "Lab ten")
    for number in ("E2", "E10"):
        cells = [f"print('{number}')"]
        notebook(course / "extensions" / f"lab-{number}-x.ipynb", cells, f"Lab {number}")
    (course / "extensions" / "lab-Ex.ipynb").write_text("{}")

    def numbers(**kwargs) -> list[str]:
        return [catalogue.lab_number(path) for path in catalogue.lab_files(**kwargs)]

    assert numbers() == ["3.1.10"]
    assert numbers(extensions=True) == ["3.1.10", "E2", "E10"]
    assert numbers(which=["extensions"]) == ["E2", "E10"]
    assert numbers(which=["E2"]) == numbers(which=["lab-E2-x.ipynb"]) == ["E2"]
    with pytest.raises(ValueError, match=r"lab 'E1' is not here: there are 3\.1\.10, E2, E10"):
        catalogue.lab_files(["E1"])
    assert cli.main(["labs", "E10", "--output", str(tmp_path / "o"), "--profile", "tiny"]) == 0
    assert "1 of 1 labs" in capsys.readouterr().out
    assert (tmp_path / "o" / "lab-E10-x.ipynb").exists()


def test_unknown_lab_and_no_labs(course, tmp_path, capsys):
    assert (
        cli.main(["labs", "3.1.7", "--output", str(tmp_path / "o")]) == 2
        and "lab '3.1.7' is not here: there are no labs" in capsys.readouterr().err
    )
    assert (
        cli.main(["labs", "--output", str(tmp_path / "o")]) == 2
        and "no labs in" in capsys.readouterr().err
    )
    notebook(course / "lab-3.1.1-a.ipynb", [], "x")
    assert cli.main(["labs", "3.1.7"]) == 2 and "there are 3.1.1" in capsys.readouterr().err
    assert (
        cli.main(["labs", "--profile", "huge", "--output", str(tmp_path / "o")]) == 2
        and "'huge'" in capsys.readouterr().err
    )
    (course / "lab-of-mine.ipynb").write_text("{}")
    assert [p.name for p in catalogue.lab_files()] == [
        "lab-3.1.1-a.ipynb"
    ]  # a student's own notebook is not one of the labs


def test_write_back_stores_clean_outputs_of_labs_that_passed(course, tmp_path, capsys, monkeypatch):
    """In the profile that the tests hold them to, whatever this machine's own is."""
    monkeypatch.setenv("FTLIB_PROFILE", "small")
    good = notebook(
        course / "lab-3.1.1-a.ipynb",
        ["import sys\nprint('out')\nprint('noise', file=sys.stderr)"],
        "Lab one",
    )
    bad = notebook(course / "lab-3.1.2-b.ipynb", FAILS, "Lab two")
    before = bad.read_bytes()
    assert cli.main(["labs", "--output", str(tmp_path / "o"), "--write-back"]) == 1
    stored = json.loads(good.read_text())
    assert [o["name"] for o in stored["cells"][1]["outputs"]] == [
        "stdout"
    ] and bad.read_bytes() == before
    assert (
        stored["metadata"]["language_info"] == {"name": "python"}
        and "execution" not in stored["cells"][1]["metadata"]
    )
    ran = stored["metadata"]["ftlib"]
    assert ran["profile"] == "tiny" and set(ran["versions"]) == set(stored_notebook.VERSIONS)
    assert ran["source_sha256"] == stored_notebook.source_hash(nbformat.read(good, as_version=4))


def test_the_hash_is_of_the_code_in_its_order():
    """Two cells "a" and "b": hashing them joined would not tell "ab" from "a", "b"."""

    def of(*cells, text="words"):
        return stored_notebook.source_hash(
            nbformat.v4.new_notebook(
                cells=[nbformat.v4.new_markdown_cell(text), *map(nbformat.v4.new_code_cell, cells)]
            )
        )

    assert of("a", "b") == of("a", "b", text="other words")
    assert len({of("a", "b"), of("b", "a"), of("ab"), of("a", "b", ""), of("a", "b ")}) == 5


def test_a_stored_picture_keeps_the_colours_of_small_markers():
    """A hundred shades of grey over most of the picture, two dots of 9 pixels: each dot keeps its
    own colour, to 12 of 255 in every channel.
    """
    picture = Image.new("RGB", (200, 100), "white")
    for k in range(100):
        picture.paste((155 + k, 155 + k, 155 + k), (2 * k, 0, 2 * k + 2, 100))
    dots = {(20, 20): (0, 114, 178), (60, 60): (0, 158, 115)}
    for (x, y), colour in dots.items():
        picture.paste(colour, (x, y, x + 3, y + 3))
    file = io.BytesIO()
    picture.save(file, "PNG")
    shown = {"image/png": base64.b64encode(file.getvalue()).decode()}
    cell = nbformat.v4.new_code_cell(
        "draw()", outputs=[nbformat.v4.new_output("display_data", shown)]
    )
    (output,) = stored_notebook.clean(nbformat.v4.new_notebook(cells=[cell])).cells[0].outputs
    stored = Image.open(io.BytesIO(base64.b64decode(output.data["image/png"]))).convert("RGB")
    for (x, y), colour in dots.items():
        assert stored.getpixel((x + 1, y + 1)) == pytest.approx(colour, abs=12)


def test_a_killed_kernel_is_reported(course, tmp_path, capsys):
    notebook(
        course / "lab-3.1.1-a.ipynb",
        ["import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"],
        "Lab one",
    )
    assert cli.main(["labs", "--output", str(tmp_path / "o"), "--profile", "tiny"]) == 1
    assert "killed the kernel" in " ".join(capsys.readouterr().out.split())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")
def test_the_kernel_is_spoken_to_over_files():
    """Not over TCP, where others on the machine could listen; and none of the files are left."""
    cell = nbformat.v4.new_code_cell(
        "from ipykernel.kernelapp import IPKernelApp\n"
        "app = IPKernelApp.instance()\n"
        "print(app.transport, app.connection_file)"
    )
    made = executing.execute(nbformat.v4.new_notebook(cells=[cell]), "tiny")
    transport, file = made.cells[0].outputs[0]["text"].split()
    assert transport == "ipc"
    assert not Path(file).parent.exists()


def test_a_folder_with_a_long_path_is_left_to_tcp():
    long = executing.kernel_settings("/" + 120 * "x")
    assert "transport" not in long.KernelManager


def test_slowest_cells_are_named():
    """Cells 0, 2 and 5 began at 0, 3 and 4 s, the end came at 10 s: they took 3, 1 and 6 s."""
    assert (
        executing.slowest({0: 0.0, 2: 3.0, 5: 4.0}, 10.0, count=2)
        == "; slowest: cell 5 6 s, cell 0 3 s"
    )
    assert executing.slowest({0: 0.0}, 0.4) == ""


def test_a_lab_whose_compiled_part_is_missing_is_left_out_by_name(
    course, tmp_path, monkeypatch, capsys
):
    notebook(course / "lab-3.1.1-a.ipynb", ["1 + 1"], "Lab one")
    notebook(course / "lab-3.1.10-b.ipynb", FAILS, "Lab ten")
    monkeypatch.setitem(
        notebooks.NEEDS, "3.1.10", lambda: Probe("missing", "a module that nobody has")
    )
    assert cli.main(["labs", "--output", str(tmp_path / "o"), "--profile", "tiny"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "lab-3.1.10-b.ipynb is left out: a module that nobody has: " in said
    assert "1 of 1 labs" in said


def test_what_must_be_compiled_comes_just_before_its_lab(course, tmp_path, monkeypatch, capfd):
    """Nothing before the first lab has run; without --prepare, or outside .venv, nothing at all."""
    notebook(course / "lab-3.1.1-a.ipynb", ["1 + 1"], "Lab one")
    notebook(course / "lab-3.1.10-b.ipynb", ["1 + 1"], "Lab ten")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "venv.py").write_text("import sys\nprint('compiling', *sys.argv[1:])")
    monkeypatch.setattr(notebooks, "ROOT", tmp_path)
    run = ["labs", "--output", str(tmp_path / "o"), "--profile", "tiny"]

    def said(*more):
        assert cli.main([*run, *more]) == 0
        return " ".join(capfd.readouterr().out.split())

    assert "compiling" not in said()
    assert "nothing is compiled: this Python is not" in said("--prepare")
    (tmp_path / ".venv").symlink_to(notebooks.sys.prefix)
    text = said("--prepare")
    order = [text.index(t) for t in ("ok lab-3.1.1-a", "compiling --export", "ok lab-3.1.10-b")]
    assert order == sorted(order)
    assert "compiling" not in said("--prepare", "3.1.1")


def test_runs_side_by_side_do_not_meet_and_leave_the_tree_clean(course, tmp_path, monkeypatch):
    """Two runs at once write the same relative path and read back their own; git sees nothing new
    in the repository.
    """
    import subprocess
    from concurrent.futures import ThreadPoolExecutor

    from conftest import ROOT

    def tree():
        """Without compiled modules, which a test beside this one may leave."""
        status = subprocess.run(
            ["git", "status", "--porcelain", "--ignored"], cwd=ROOT, capture_output=True, text=True
        ).stdout
        return [line for line in status.splitlines() if "__pycache__" not in line]

    cell = (
        "import pathlib, time\np = pathlib.Path('runs/mine.txt'); "
        "p.parent.mkdir()\np.write_text('{0}'); time.sleep(1)\n"
        "assert p.read_text() == '{0}'"
    )
    paths = [notebook(course / f"lab-3.1.{i}-x.ipynb", [cell.format(i)], "x") for i in (1, 2)]
    monkeypatch.chdir(ROOT)
    before = tree()
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda path: executing.execute(nbformat.read(path, as_version=4), "tiny", 120),
                paths,
            )
        )
    assert tree() == before
