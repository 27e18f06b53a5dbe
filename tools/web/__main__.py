"""python -m tools.web [--labs FOLDER] [--output build/site]: the site, from executed notebooks.

Links that lead nowhere are named, and are a failure.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tools.web.links import broken_links
from tools.web.stage import executed_labs, stage

ROOT = Path(__file__).resolve().parents[2]


def build(source: Path, output: Path, strict: bool = True) -> int:
    """Run Sphinx over staged sources; its exit code. `strict`: a warning is a failure."""
    from sphinx.cmd.build import build_main

    options = ["-q", "-b", "html", "-c", str(ROOT / "docs")]
    if strict:
        options += ["-W", "--keep-going"]
    return build_main([*options, "-d", str(source) + "-doctrees", str(source), str(output)])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make site", description=__doc__)
    parser.add_argument("--labs", type=Path, help="a folder of executed notebooks, such as build")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site")
    chosen = parser.parse_args(arguments)
    begin = time.monotonic()
    source = chosen.output.with_name(chosen.output.name + "-source")
    stage(source, executed_labs(chosen.labs))
    if code := build(source, chosen.output):
        return code
    faults = broken_links(chosen.output)
    took = time.monotonic() - begin
    print("\n".join([*faults, f"site: {chosen.output / 'index.html'} ({took:.0f} s)"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
