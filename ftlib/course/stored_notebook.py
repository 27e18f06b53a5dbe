"""A notebook as it is stored in labs/: the outputs of a clean run, made small enough to review."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from importlib.metadata import version

import nbformat

from ftlib.core.profiles import get_profile

VERSIONS = ("ftlib", "torch", "transformers")
# Quizzes and handles: dead until the cell is run again.
LIVE = {"application/javascript", "application/vnd.jupyter.widget-view+json"}


def _small_png(encoded: str) -> str:
    """The picture in 64 colours, at about a third of the size. They are those that cover all its
    colours: the default, chosen by area, merges the small markers of a plot with each other.
    """
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
    small = picture.quantize(64, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    small.save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def source_hash(notebook) -> str:
    """SHA-256 of the sources of the code cells, in order: what the outputs were computed from.

    Outputs do not depend on Markdown, so prose may be corrected without a run. They do depend on
    ftlib; but a hash over the library would go stale with every comment, so that is left to the key
    numbers, which the tests compare with a new run.
    """
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def clean(notebook, profile: str | None = None):
    """Drop what differs between two equal runs (execution times, widget state, the kernel's patch
    version) and what works only while its kernel runs, and shrink the pictures, so that the
    notebook stays small enough to review. Into the metadata, as `ftlib`, go the hash of the
    executed source, the profile and the versions that ran it.
    """
    ran = {
        "source_sha256": source_hash(notebook),
        "profile": get_profile(profile).name,
        "versions": {name: version(name) for name in VERSIONS},
    }
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "ftlib": ran,
        }
    )
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type != "code":
            continue
        cell.outputs = [output for output in cell.outputs if not _is_passing(output)]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _small_png(data["image/png"])
    return notebook


def _is_passing(output) -> bool:
    """Whether an output is a warning, or works only while its kernel runs."""
    if output.output_type == "stream" and output.name == "stderr":
        return True
    return bool(LIVE & output.get("data", {}).keys())
