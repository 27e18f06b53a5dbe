"""What the documents tell a reader to run, runs."""
import re
import subprocess
import sys

import pytest
from conftest import ROOT

DOCUMENTS = sorted(p for p in ROOT.glob("*.md"))
BLOCKS = [(p.name, i, code) for p in DOCUMENTS for i, code in enumerate(re.findall(r"^```python\n(.*?)^```", p.read_text(), re.S | re.M))]


@pytest.mark.parametrize("name, index, code", BLOCKS, ids=[f"{n}-{i}" for n, i, _ in BLOCKS])
def test_python_blocks_run_as_they_stand(name, index, code, tmp_path):
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize("path", DOCUMENTS, ids=[p.name for p in DOCUMENTS])
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), f"{path.name} links to {target}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=[p.name for p in DOCUMENTS])
def test_make_targets_and_commands_exist(path):
    from ftlib.cli import build_parser
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))
    commands = build_parser()._subparsers._group_actions[0].choices
    text = "\n".join(re.findall(r"^```bash\n(.*?)^```", path.read_text(), re.S | re.M) + re.findall(r"`([^`\n]+)`", path.read_text()))
    for target in re.findall(r"^make ([a-z]+)", text, re.M):
        assert target in targets, f"{path.name}: make {target}"
    for command in re.findall(r"^ftlib ([a-z]+)", text, re.M):
        assert command in commands, f"{path.name}: ftlib {command}"
