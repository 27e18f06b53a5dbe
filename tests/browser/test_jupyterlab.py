"""JupyterLab as a student meets it: started as `make lab` starts it, driven by mouse and keyboard
in a headless Chromium.

What is looked at is saved as a picture, in build/browser or the folder that FTLIB_SCREENSHOTS
names.
"""

import contextlib
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import nbformat
import psutil
import pytest
from conftest import ROOT

from ftlib import plan_memory
from ftlib.course import catalogue
from ftlib.course.exercise import load_lab
from ftlib.course.memory_planner import describe
from ftlib.course.quiz import load_quiz

playwright = pytest.importorskip(
    "playwright.sync_api", reason="playwright is not installed: make browser"
)
expect = playwright.expect

CHROMIUM = os.environ.get("FTLIB_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
NO_CHROMIUM = (
    "no Chromium on the path: sudo apt install chromium, or FTLIB_CHROMIUM=/path/to/chrome"
)
SHOTS = Path(os.environ.get("FTLIB_SCREENSHOTS") or ROOT / "build" / "browser")
WAIT, RUN_ALL = (
    180_000,
    45 * 60,
)  # milliseconds for a step on a busy machine; seconds for a whole lab
pytestmark = [
    pytest.mark.browser,
    pytest.mark.labs,
    pytest.mark.skipif(not CHROMIUM, reason=NO_CHROMIUM),
]


# --- JupyterLab and the browser -------------------------------------------------------------------
@dataclass
class Server:
    url: str
    token: str
    notebooks: Path


def copy_labs(folder: Path) -> Path:
    """The labs without their outputs, so that what a test sees was made by it."""
    folder.mkdir(parents=True)
    for path in catalogue.lab_files():
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        nbformat.write(notebook, folder / path.name)
    return folder


def make_lab_command(root: Path, port: int, token: str) -> list[str]:
    """The command of `make lab`, with another folder, port and token, and without a browser of its
    own.
    """
    shown = subprocess.run(
        ["make", "--dry-run", "lab"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    options = [
        o
        for o in shlex.split(shown.splitlines()[-1])[1:]
        if not o.startswith("--ServerApp.root_dir=")
    ]
    return [
        sys.executable,
        "-m",
        "jupyter",
        *options,
        f"--ServerApp.root_dir={root}",
        "--no-browser",
        f"--ServerApp.port={port}",
        "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}",
    ]


def environment(folder: Path) -> dict[str, str]:
    """This one's, with everything that Jupyter and ftlib write led into `folder`; no news, which
    would cover the page.
    """
    own = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
        "FTLIB_PROGRESS": "progress.json",
    }
    settings = (
        folder
        / "settings"
        / "@jupyterlab"
        / "apputils-extension"
        / "notification.jupyterlab-settings"
    )
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"fetchNews": "false"}))
    inherited = {
        k: v for k, v in os.environ.items() if k != "MPLBACKEND"
    }  # a notebook draws inline, whatever its caller does
    return {**inherited, "FTLIB_PROFILE": "tiny", **{k: str(folder / v) for k, v in own.items()}}


def wait_until_up(process: subprocess.Popen, server: Server, log: Path) -> None:
    deadline = time.monotonic() + WAIT / 1000
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/api/status?token={server.token}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")


def stop(process: subprocess.Popen) -> None:
    """End the server and all that it started: kernels lead sessions of their own."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()  # the server shuts its kernels down
    _, alive = psutil.wait_procs([process, *family], timeout=30)
    for left in alive:
        left.kill()
    psutil.wait_procs(alive, timeout=10)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jupyterlab")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    server = Server(
        f"http://localhost:{port}", secrets.token_hex(16), copy_labs(folder / "course" / "labs")
    )
    log = folder / "server.log"
    with log.open("w") as sink:
        process = subprocess.Popen(
            make_lab_command(folder / "course", port, server.token),
            cwd=ROOT,
            env=environment(folder),
            stdout=sink,
            stderr=sink,
        )
        try:
            wait_until_up(process, server, log)
            yield server
        finally:
            stop(process)


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


class Notebook:
    """A lab open in JupyterLab. `strangers`: addresses asked for that are not this machine's;
    `errors`: of scripts in the page.
    """

    def __init__(self, chromium, server: Server, lab: str):
        (path,) = server.notebooks.glob(f"lab-{lab}-*.ipynb")
        self.source, self.strangers, self.errors = nbformat.read(path, as_version=4), [], []
        self.page = chromium.new_page(viewport={"width": 1280, "height": 1000})
        self.page.set_default_timeout(WAIT)
        self.page.on("request", self._note)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.goto(f"{server.url}/lab/tree/labs/{path.name}?token={server.token}&reset")
        expect(self.page.locator(".jp-Notebook .jp-Cell")).to_have_count(
            len(self.source.cells), timeout=WAIT
        )
        self.idle()

    def _note(self, request) -> None:
        address = urlsplit(request.url)
        if address.scheme in ("http", "https", "ws", "wss") and address.hostname != "localhost":
            self.strangers.append(request.url)

    def idle(self) -> None:
        self.page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()

    def cell(self, text: str):
        """The one code cell whose source holds `text`."""
        found = self.page.locator(
            ".jp-CodeCell", has=self.page.locator(".cm-content", has_text=text)
        )
        expect(found).to_have_count(1)
        return found

    def run(self, cell) -> None:
        """Click into a cell, run it, wait for its number."""
        cell.locator(".cm-content").click()
        self.page.keyboard.press("Shift+Enter")
        self.numbered(cell)

    def numbered(self, cell) -> None:
        expect(cell.locator(".jp-InputPrompt").first).to_have_text(
            re.compile(r"\[\d+\]:"), timeout=WAIT
        )
        self.idle()

    def picture(self, name: str, at=None) -> None:
        if at is not None:
            at.evaluate("e => e.scrollIntoView({block: 'center'})")
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SHOTS / f"{name}.png")

    def close(self) -> None:
        self.page.close()


def outputs(cell):
    return cell.locator(".jp-OutputArea-output")


def rgb(locator) -> tuple[int, ...]:
    """The colour that the element's text really has."""
    return tuple(
        int(n) for n in re.findall(r"\d+", locator.evaluate("e => getComputedStyle(e).color"))[:3]
    )


# --- a lab with a fast set-up: exercise, progress, planner, quiz ----------------------------------
LAB, EXERCISE = "3.1.5", "bits_per_weight"
WRONG = ["return 4 + (8 if scale_block else 32) / block_size"]
RIGHT = [
    "weights = block_size * (scale_block or 1)",
    "blocks = weights // block_size",
    "return (4 * weights + (8 * blocks + 32 if scale_block else 32 * blocks)) / weights",
]


@pytest.fixture(scope="module")
def lab(chromium, server):
    notebook = Notebook(chromium, server, LAB)
    notebook.run(notebook.cell("open_lab("))
    yield notebook
    notebook.close()


@pytest.fixture(autouse=True)
def _page_is_sound(request):
    """No script of the page failed, and nothing was asked of another machine."""
    yield
    if "lab" in request.fixturenames:
        notebook = request.getfixturevalue("lab")
        assert (notebook.strangers, notebook.errors) == ([], [])


def answer(notebook: Notebook, lines: list[str], shown: str):
    """Type an answer over the last line of the stub, run it and then its check; the check's output
    once it holds `shown`.
    """
    stub, check = notebook.cell(f"def {EXERCISE}("), notebook.cell(f"{EXERCISE} = check(")
    stub.locator(".cm-line").last.click()
    notebook.page.keyboard.press("End")
    notebook.page.keyboard.press("Shift+Home")
    notebook.page.keyboard.type("\n".join(lines))
    expect(stub.locator(".cm-line").last).to_have_text("    " + lines[-1])
    notebook.page.keyboard.press("Shift+Enter")  # the stub; the check is selected next
    notebook.page.keyboard.press("Shift+Enter")
    expect(outputs(check)).to_contain_text(shown, timeout=WAIT)
    notebook.idle()
    return outputs(check)


@pytest.fixture(scope="module")
def solved(lab):
    """The exercise answered wrong and then right: for each the check's whole text, its sign, and
    the colour of that.
    """
    seen = {}
    for name, lines, sign in (("wrong", WRONG, "✗"), ("right", RIGHT, "✓")):
        output = answer(lab, lines, sign)
        lead = output.locator("span").first
        seen[name] = (output.inner_text().strip(), lead.inner_text(), rgb(lead))
        lab.picture(f"exercise-{name}", output)
    return seen


def test_a_wrong_answer_is_told_its_mistake_in_red(solved):
    text, lead, (red, green, blue) = solved["wrong"]
    assert text == (
        "✗ bits_per_weight: The scales of the scales are missing: 32 bits for every block_size · "
        "scale_block weights. "
        "Little, but it is stored. Going on with ftlib's."
    )
    assert lead == "✗ bits_per_weight:" and red > 2 * max(green, blue)


def test_a_right_answer_turns_green(solved):
    text, lead, (red, green, blue) = solved["right"]
    assert text == "✓ bits_per_weight: equal to the reference on 5 cases."
    assert lead == "✓ bits_per_weight:" and green > 2 * max(red, blue)


def test_progress_shows_the_exercise(lab, solved):
    """In a new cell, as STUDY_GUIDE.md says. One exercise solved, and one only."""
    lab.cell(f'quiz("{LAB}")').locator(".jp-InputPrompt").click()
    lab.page.keyboard.press("b")
    lab.page.keyboard.press("Enter")
    lab.page.keyboard.type("from ftlib.course.progress import show_progress; show_progress()")
    cell = lab.cell("import show_progress")
    lab.run(cell)
    picture = outputs(cell).locator("svg")
    exercises = load_lab(LAB).exercises
    points = next(e.points for e in exercises if e.name == EXERCISE)
    expect(picture).to_have_attribute(
        "aria-label",
        re.compile(rf"^Progress: {points} of \d+ XP, 10 labs to go.*; 3\.1\.5 [^;]*: 1 of "),
    )
    said = f"{EXERCISE}: {points} XP, solved"
    expect(picture.locator("g > title", has_text=re.compile(f"^{said}"))).to_have_count(1)
    expect(picture.locator("g > title", has_text=re.compile(" XP, solved"))).to_have_count(1)
    lab.picture("progress", picture)


def test_planner_follows_its_handles(lab):
    """A key on the slider, a choice in the list: headline and figure change to the plan of what the
    handles show.
    """
    cell = lab.cell("planner.planner(")
    lab.run(cell)
    headline, figure = cell.locator(".widget-html b"), cell.locator(".jp-RenderedImage img")
    settings = {"method": "qlora", "r": 16, "batch_size": 1, "seq_len": 1024}
    expect(headline).to_have_text(describe(plan_memory("llama-3.1-70b", **settings)))
    before = figure.get_attribute("src")
    lab.picture("planner-before", figure)
    batch = cell.locator(
        ".widget-slider", has=lab.page.locator("label", has_text=re.compile("^batch$"))
    )
    batch.get_by_role("slider").focus()
    lab.page.keyboard.press("ArrowRight")
    expect(batch.locator(".widget-readout")).to_have_text("2")
    more = describe(plan_memory("llama-3.1-70b", **settings | {"batch_size": 2}))
    expect(headline).to_have_text(more, timeout=WAIT)
    expect(figure).not_to_have_attribute("src", before, timeout=WAIT)
    cell.locator(".widget-dropdown", has_text="model").locator("select").select_option(
        "llama-3.1-8b"
    )
    less = describe(plan_memory("llama-3.1-8b", **settings | {"batch_size": 2}))
    expect(headline).to_have_text(less, timeout=WAIT)
    assert more != less
    lab.idle()
    lab.picture("planner-after", figure)


def test_quiz_answers_a_click(lab):
    cell = lab.cell(f'quiz("{LAB}")')
    lab.run(cell)
    questions = load_quiz(LAB)
    question = next(q for q in questions if q["type"] == "multiple_choice")
    expect(cell.locator(".Quiz")).to_have_count(len(questions))
    box = cell.locator(".Quiz", has_text=question["question"])
    feedback = box.locator(".Feedback")
    colours = []
    for right in (False, True):
        choice = next(a for a in question["answers"] if a["correct"] is right)
        box.locator(".MCButton", has_text=re.compile(f"^{re.escape(choice['answer'])}$")).click()
        expect(feedback).to_have_text(choice["feedback"])
        expect(feedback).to_be_visible()
        expect(feedback).to_have_class(re.compile(rf"\b{'correct' if right else 'incorrect'}\b"))
        colours.append(rgb(feedback))
        lab.picture(f"quiz-{'right' if right else 'wrong'}", box)
    assert colours == [(0xA8, 0x3A, 0x00), (0x00, 0x66, 0x4B)]  # COLOURS, as the browser has them


# --- a whole lab ----------------------------------------------------------------------------------
def test_run_all_cells_of_the_first_lab(chromium, server, capsys):
    """From the menu, to the last code cell, without an error: 5 to 10 minutes on two cores."""
    notebook = Notebook(chromium, server, "3.1.1")
    page = notebook.page
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    count = sum(c.cell_type == "code" and bool(c.source.strip()) for c in notebook.source.cells)
    errors = page.locator('[data-mime-type="application/vnd.jupyter.error"]')
    deadline, done = time.monotonic() + RUN_ALL, 0
    while done < count and not errors.count() and time.monotonic() < deadline:
        # A cell that trains may take longer: look for errors, say how far it is, and wait on.
        with contextlib.suppress(playwright.TimeoutError):
            page.wait_for_function(
                "n => document.querySelectorAll('.jp-Notebook .jp-CodeCell').length && "
                "[...document.querySelectorAll("
                "'.jp-CodeCell .jp-InputPrompt')].filter(e => /\\d/.test(e.textContent)).length > "
                "n",
                arg=done,
                timeout=30_000,
            )
        done = page.locator(".jp-CodeCell .jp-InputPrompt", has_text=re.compile(r"\d")).count()
        with capsys.disabled():
            print(f"\rlab 3.1.1: {done} of {count} cells", end="", flush=True)
    notebook.picture(
        "run-all-end" if done == count else "run-all-stopped",
        errors.first if errors.count() else None,
    )
    assert errors.all_inner_texts() == [] and done == count
    notebook.idle()
    assert (notebook.strangers, notebook.errors) == ([], [])
    notebook.close()
