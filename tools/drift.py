"""What the newest TRL, PEFT and transformers change for ftlib: `make drift`. Needs only Python's
standard library.

A second environment, .venv.drift, gets them without their constraints (torch stays pinned). Then
every name of theirs that the repository imports is looked up in both environments and its signature
compared, and the tests run. The report, build/drift/report.md, says which versions, which names
have gone or changed, which tests fail, and which deprecations are announced. Exit status 1 if a
name has gone or a test fails.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import re
import shlex
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WATCHED = ("trl", "peft", "transformers")
# Packages whose versions those three choose.
BOUND = ("tokenizers", "huggingface_hub", "hf-xet", "accelerate", "safetensors")
FOLDERS = ("ftlib", "tests", "benchmarks", "data", "labs")
PROBE = r"""
import importlib, importlib.metadata, inspect, json, re, sys

def signature(full):
    module, _, name = full.rpartition(":")
    try:
        found = importlib.import_module(module)
        found = getattr(found, name) if name else found
    except ModuleNotFoundError as error:
        same = error.name and error.name.split(".")[0] == module.split(".")[0]
        return "missing" if same else f"cannot be imported: {error}"
    except AttributeError:
        try:
            importlib.import_module(f"{module}.{name}")
            return "module"
        except ImportError:
            return "missing"
    except Exception as error:
        return f"cannot be imported: {type(error).__name__}: {error}"
    try:
        if callable(found):
            return re.sub(r" at 0x[0-9a-f]+", "", str(inspect.signature(found)))
        return type(found).__name__
    except (TypeError, ValueError):
        return type(found).__name__
names, packages = json.load(sys.stdin)
versions = {package: importlib.metadata.version(package) for package in packages}
signatures = {name: signature(name) for name in names}
print("\n" + json.dumps({"versions": versions, "names": signatures}))
"""


# --- what of theirs is used -----------------------------------------------------------------------
def used_names(source: str) -> set[str]:
    """Names of the watched packages that a source imports, as "module:name" ("module:" for the
    module itself).
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {f"{alias.name}:" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f"{node.module}:{alias.name}" for alias in node.names}
    return {name for name in found if package_of(name) in WATCHED}


def package_of(name: str) -> str:
    """`trl` of "trl.trainer:DPOTrainer"."""
    return re.split(r"[.:]", name)[0]


def sources(root: Path = ROOT):
    """The Python of the repository: modules, and the code cells of the notebooks."""
    modules = [path for folder in FOLDERS for path in (root / folder).rglob("*.py")]
    for path in sorted(modules):
        yield path.read_text(encoding="utf-8")
    notebooks = [*root.glob("labs/lab-*.ipynb"), *root.glob("labs/extensions/lab-*.ipynb")]
    for path in sorted(notebooks):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            if cell["cell_type"] == "code":
                source = "".join(cell["source"])
                yield re.sub(r"(?m)^[%!].*$", "", source)


def probe(python: Path, names: list[str]) -> dict:
    """The versions of the watched packages in an environment, and the signatures of the names."""
    done = subprocess.run(
        [str(python), "-c", PROBE],
        input=json.dumps([names, WATCHED]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"},
    )
    if done.returncode:
        sys.exit(f"drift: {python} cannot say what it holds:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the second environment -----------------------------------------------------------------------
def relaxed(constraints: str) -> str:
    """constraints.txt without the watched packages and what they bound."""
    free = {name.replace("_", "-") for name in (*WATCHED, *BOUND)}
    kept = []
    for line in constraints.splitlines(keepends=True):
        name = line.split("==")[0].strip().lower().replace("_", "-")
        if name not in free:
            kept.append(line)
    return "".join(kept)


def install(folder: Path, report: Path) -> Path:
    """The environment's Python, with the newest of the watched packages installed."""
    python = folder / "bin" / "python"
    held = report / "constraints.txt"
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    held.write_text(relaxed(constraints), encoding="utf-8")
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-user",
        "-c",
        str(held),
    ]
    torch = re.search(r"(?m)^torch==\S+", held.read_text(encoding="utf-8"))[0]
    for wanted in ([torch], ["-e", ".[labs,dev,grading]"], ["--upgrade", *WATCHED]):
        if subprocess.run([*pip, *wanted], cwd=ROOT).returncode:
            sys.exit(
                f"drift: pip install {' '.join(wanted)} failed; its reason is above. Is the "
                "network up?"
            )
    return python


def run_tests(python: Path, report: Path, arguments: str) -> None:
    """Run pytest there, shown as it goes; leaves tests.xml and tests.txt."""
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-W",
        "default::DeprecationWarning",
        "-W",
        "default::FutureWarning",
        f"--junitxml={report / 'tests.xml'}",
        *shlex.split(arguments),
    ]
    with (
        (report / "tests.txt").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as tests,
    ):
        for line in tests.stdout:
            print(line, end="", flush=True)
            log.write(line)


# --- the report -----------------------------------------------------------------------------------
def failures(xml: str) -> tuple[int, list[tuple[str, str]]]:
    """(tests run, [(test, first line of its failure)]) of a JUnit report."""
    cases = list(ET.fromstring(xml).iter("testcase"))
    bad = []
    for case in cases:
        test = f"{case.get('classname')}::{case.get('name')}"
        for problem in [*case.findall("failure"), *case.findall("error")]:
            message = problem.get("message", "").strip()
            first_line = message.split("\n")[0]
            bad.append((test, first_line[:200]))
    return len(cases), bad


def deprecations(log: str) -> list[str]:
    """Announcements in pytest's summary, each once."""
    announced = re.findall(r"((?:Deprecation|Future)Warning: .*)", log)
    once = list(dict.fromkeys(announced))
    return once[:40]


def changes(before: dict, after: dict) -> dict[str, list[str]]:
    """Names that have gone, and those whose signature differs, between two probes. A name missing
    in both is not drift.
    """
    gone = []
    changed = []
    for name, now in after["names"].items():
        if now == before["names"][name]:
            continue
        if now == "missing" or now.startswith("cannot"):
            gone.append(name)
        else:
            changed.append(name)
    return {"gone": gone, "changed": changed}


def _parameters(signature: str) -> set[str]:
    return set(re.findall(r"(?:^\(|, )(\*{0,2}\w+)", signature))


def _difference(was: str, now: str) -> str:
    """In words, which parameters a signature has lost and gained."""
    lost = _parameters(was) - _parameters(now)
    gained = _parameters(now) - _parameters(was)
    told = []
    if lost:
        told.append(f"without {', '.join(sorted(lost))}")
    if gained:
        told.append(f"new {', '.join(sorted(gained))}")
    return "; ".join(told) or "defaults, order or types"


def _version_row(package: str, before: dict, after: dict) -> str:
    return f"| {package} | {before['versions'][package]} | {after['versions'][package]} |"


def _section(title: str, lines: list[str], nothing: str = "None.") -> list[str]:
    """A section of the report: its lines, or a word that there is none."""
    return ["", f"## {title}", "", *(lines or [nothing])]


def write_report(
    before: dict, after: dict, count: int, bad: list[tuple[str, str]], announced: list[str]
) -> str:
    """The report's text, in Markdown."""
    moved = changes(before, after)
    gone = [f"- `{name}`: {after['names'][name]}" for name in moved["gone"]]
    changed = []
    for name in moved["changed"]:
        difference = _difference(before["names"][name], after["names"][name])
        changed.append(f"- `{name}`: {difference}")
    failed = [f"- `{test}`: {why}" for test, why in bad]
    versions = [_version_row(package, before, after) for package in WATCHED]
    lines = [
        "# Drift against the newest TRL, PEFT and transformers",
        "",
        "| package | tested set | newest |",
        "|---|---|---|",
        *versions,
        "",
        f"{len(after['names'])} names of theirs are imported here: {len(moved['gone'])} gone, "
        f"{len(moved['changed'])} changed. {count} tests: {len(bad)} failed.",
        *_section("Names that have gone", gone),
        *_section("Names whose signature changed", changed),
        *_section("Tests that fail", failed),
        *_section("Announced", [f"- {text}" for text in announced], nothing="Nothing."),
    ]
    return "\n".join(lines) + "\n"


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="drift", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tested",
        type=Path,
        default=ROOT / ".venv" / "bin" / "python",
        help="Python with the tested set",
    )
    parser.add_argument(
        "--venv", type=Path, default=ROOT / ".venv.drift", help="folder of the second environment"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "drift", help="folder for the report"
    )
    parser.add_argument(
        "--pytest",
        default="",
        metavar="ARGUMENTS",
        help="more arguments for pytest, such as \"-m 'not labs'\"",
    )
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    args = parse(arguments)
    args.output.mkdir(parents=True, exist_ok=True)
    names = sorted(set().union(*map(used_names, sources())))
    newest = install(args.venv, args.output)
    before = probe(args.tested, names)
    after = probe(newest, names)
    run_tests(newest, args.output, args.pytest)
    results = args.output / "tests.xml"
    log = args.output / "tests.txt"
    if not results.exists():
        sys.exit(f"drift: pytest did not get to its end: {log}")
    count, bad = failures(results.read_text(encoding="utf-8"))
    announced = deprecations(log.read_text(encoding="utf-8"))
    report = write_report(before, after, count, bad, announced)
    (args.output / "report.md").write_text(report, encoding="utf-8")
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with open(summary, "a", encoding="utf-8") as page:
            page.write(report)
    print(report)
    return 1 if bad or changes(before, after)["gone"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
