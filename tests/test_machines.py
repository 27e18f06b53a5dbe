"""What a machine may be like: locale, time zone, umask, home, /proc, path, cores, user, network,
hash seed, pip's settings.
"""

import ast
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from conftest import EMBEDDED, ROOT

import ftlib as ft
from ftlib import doctor
from ftlib.course import progress
from ftlib.export import llamacpp

ODD = "Büro mit Leerzeichen"
ASCII = {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}  # for all text that names no encoding
OURS = sorted(
    p for folder in ("ftlib", "tools", "data", "benchmarks") for p in (ROOT / folder).rglob("*.py")
)

# Rows with umlauts through the pipeline, near duplicates, a split and a written data set: the
# digest of every file.
PIPELINE = """
import hashlib
from pathlib import Path
import ftlib as ft
words = ["Grüße", "naïve", "Straße", "über", "ein", "das", "Haus", "und"]
rows = []
for i in range(40):
    text = " ".join(words[(i // 2 * k) % 8] for k in range(1, 30)) + f" Nummer {i // 2 * 7}"
    answer = dict(role="assistant", content=f"Antwort {i} für €")
    rows.append(dict(messages=[dict(role="user", content=text), answer]))
done = ft.prepare(rows, ft.standard_rules(languages=("de", "en")))
groups = ft.near_duplicates(rows)
splits = ft.split_by_group(rows, {"train": 0.7, "test": 0.3}, groups)
folder = Path("daten")
ft.write_dataset(folder, splits.rows, rules=[], about="Über Zeilen", title="Übung")
ft.verify_dataset(folder)
assert [row for name in ("train", "test") for row in ft.stream_rows(folder / f"{name}.jsonl")]
print(len(done.rows), len(groups), f"{1.5:.1f}", ascii(done.dropped[:5]))
for path in sorted(folder.iterdir()):
    print(path.name, oct(path.stat().st_mode), hashlib.sha256(path.read_bytes()).hexdigest())
"""


def start(code, folder, umask=0o022, without=(), **changes):
    """Run Python code in a process whose environment is this one's with `changes`, in `folder`;
    what it printed.
    """
    env = {name: value for name, value in os.environ.items() if name not in without}
    env |= {"PYTHONPATH": str(ROOT), **changes}
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, env=env, capture_output=True, umask=umask
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode()


def refuse(*args, **kwargs):
    raise AssertionError("called on a machine where it must not be")


# --- locale, time zone, hash seed, umask, home, path ----------------------------------------------
def test_the_same_bytes_whatever_locale_time_zone_hash_seed_home_and_path(tmp_path):
    """ASCII for every text that names no encoding, five and three quarter hours east, another seed
    for sets, no HOME, an odd path. Files keep the rights that the umask gives: 644 under 022, 600
    under 077.
    """
    plain = tmp_path / "plain"
    odd = tmp_path / ODD
    plain.mkdir()
    odd.mkdir()
    usual = start(PIPELINE, plain, LC_ALL="C.UTF-8", TZ="UTC", PYTHONHASHSEED="0")
    other = start(
        PIPELINE,
        odd,
        umask=0o077,
        without=("HOME", "XDG_DATA_HOME"),
        **ASCII,
        TZ="Asia/Kathmandu",
        PYTHONHASHSEED="1",
    )
    assert "0o100644" in usual
    assert usual.replace("0o100644", "0o100600") == other


def test_text_is_read_and_written_in_utf8_by_name():
    """A locale's own encoding is Latin-1 or ASCII on some machines. /proc is ASCII everywhere."""
    found = []
    for path in OURS:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", "")
            named = any(
                word.arg == "encoding" for word in node.keywords
            ) or "/proc/" in ast.unparse(node)
            mode = (
                node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else ""
            )
            opens_text = name == "open" and mode in ("r", "w", "a")
            if (name in ("read_text", "write_text") or opens_text) and not named:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_the_stamp_of_make_venv_does_not_hang_on_the_locale(tmp_path):
    """Else `make` under another locale would install everything again."""
    code = "import os, runpy; print(runpy.run_path(os.environ['SCRIPT'])['fingerprint']())"
    script = str(ROOT / "tools" / "venv.py")
    usual = start(code, tmp_path, SCRIPT=script, LC_ALL="C.UTF-8")
    assert usual == start(code, tmp_path, SCRIPT=script, **ASCII)


def test_the_makefile_works_under_a_path_with_spaces_and_umlauts(tmp_path):
    folder = tmp_path / ODD
    folder.mkdir()
    shutil.copy(ROOT / "Makefile", folder)
    done = subprocess.run(
        ["make", "--dry-run", "lab", "test", "labs"], cwd=folder, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    words = [shlex.split(line) for line in os.fsdecode(done.stdout).splitlines()]
    assert any(f"--ServerApp.root_dir={folder}" in line for line in words)


# --- home -----------------------------------------------------------------------------------------
def test_without_a_known_home(tmp_path, monkeypatch):
    """A container under a user id that it does not list: no HOME, and nothing in the list of users.
    The folder of temporary files takes the home's place, unless XDG names one.
    """
    import pwd

    def unknown(user):
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "FTLIB_PROGRESS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path = progress.progress_path()
    assert path.is_relative_to(tmp_path) and path.name == "progress.json"
    assert doctor._tilde(Path("/data/hub")) == "/data/hub"
    monkeypatch.setenv("XDG_DATA_HOME", "/data/share")
    assert progress.progress_path() == Path("/data/share/ftlib/progress.json")


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    """A file in the place of the home folder: root, whom a read-only folder does not stop, cannot
    write below it either.
    """
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("FTLIB_PROGRESS")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(progress, "_reported", False)
    progress.note_exercise("3.1.1", "lora_forward")
    assert "progress is not kept" in caplog.text


# --- /proc, cores, network, pip -------------------------------------------------------------------
def test_without_proc(monkeypatch):
    """macOS has none: memory and processor are then unknown, which is no error."""
    from benchmarks import harness

    read = Path.read_text

    def without(self, *args, **kwargs):
        if self.parts[:2] == ("/", "proc"):
            raise FileNotFoundError(self)
        return read(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", without)
    assert doctor.available_memory() is None
    assert harness._processor()
    assert doctor.report(doctor._machine())


def test_one_core_of_many(monkeypatch):
    """What counts are the cores that the process may use, not those that are there."""
    from ftlib.core.seeds import workers

    monkeypatch.delenv("FTLIB_WORKERS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    monkeypatch.setattr(os, "cpu_count", refuse)
    assert workers() == 1
    assert llamacpp._cores() == 1


def test_the_embedded_model_needs_no_network(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    model, tokenizer = ft.load_model(EMBEDDED)
    assert model(**tokenizer("Who is Ada?", return_tensors="pt")).logits.isfinite().all()


def test_a_pip_configured_for_users_installs_into_the_environment_all_the_same():
    """`user = true` in pip.conf is refused within a virtual environment, and beside --target."""
    for name in ("venv", "drift", "resolve"):
        text = (ROOT / "tools" / f"{name}.py").read_text(encoding="utf-8")
        commands = re.findall(r'"install",[^]]*', text)
        assert commands and all('"--no-user"' in command for command in commands), name
