"""Give the labs out to a class: nbgrader's assignment of each, outputs stripped, stubs kept, checks
locked.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

from nbgrader.apps.api import NbGraderAPI
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearOutput,
    ComputeChecksums,
    LockCells,
    SaveCells,
)
from traitlets.config import Config

from ftlib.core.atomic import replacing
from ftlib.course import catalogue
from ftlib.course.catalogue import lab_files
from ftlib.course.submissions import GradingError


def course_config(root: Path) -> Config:
    """nbgrader's settings. Its ClearSolutions would put its own stub in the place of the labs', so
    it is left out.
    """
    config = Config()
    config.CourseDirectory.root = str(root)
    config.GenerateAssignment.preprocessors = [
        LockCells,
        ClearOutput,
        CheckCellMetadata,
        ComputeChecksums,
        SaveCells,
    ]
    return config


def _generate(root: Path, files: list[Path]) -> None:
    """Each lab as an assignment in a course folder: its source, and its released notebook."""
    config = course_config(root)
    course = NbGraderAPI(CourseDirectory(config=config), config=config, log_level="ERROR")
    # nbgrader calls alembic by its name, and its own setenv leaves the process without a PATH.
    programs = str(Path(sys.executable).parent)
    search_path = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    with patch.dict(os.environ, PATH=search_path):
        for path in files:
            folder = root / "source" / path.stem
            folder.mkdir(parents=True)
            shutil.copy(path, folder)
            result = course.generate_assignment(path.stem)
            if not result["success"]:
                raise GradingError(
                    f"nbgrader could not take {path.name}: "
                    f"{result.get('log', '').strip()}\n{result.get('error', '')}"
                )


def release(output, which: list[str] | None = None) -> list[Path]:
    """Write the labs (all, or those whose numbers are in `which`) for students: outputs stripped,
    stubs kept, checks locked. GradingError where `output` is the folder of the sources.
    """
    output = Path(output)
    files = lab_files(which)
    if output.exists() and output.samefile(catalogue.LABS):
        raise GradingError(f"{output} holds the labs' sources: release them to another folder")
    with tempfile.TemporaryDirectory(prefix="ftlib-course-") as root:
        _generate(Path(root), files)
        for path in files:
            with replacing(output / path.name) as temporary:
                shutil.copyfile(Path(root, "release", path.stem, path.name), temporary)
    return [output / path.name for path in files]
