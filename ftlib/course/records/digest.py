"""What an entry of a record depends on, as short digests and values: the trial's code, the settings
of the profile that this code reads, and the rows and weights.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from ftlib.core.paths import POCKET, POCKET_VERSION, pocket_folder
from ftlib.core.profiles import Profile
from ftlib.data.rows import fingerprint

COURSE = "ftlib.course."  # code of an experiment; what it calls below is the library
LENGTH = 12  # hexadecimal digits
PLAIN = (str, bytes, int, float, complex, bool, type(None))


# --- code -----------------------------------------------------------------------------------------
def code_digest(function: Callable) -> str:
    """Digest of a trial's source and of all that it names in the course's own modules: functions,
    classes and constants, in turn.

    Comments, docstrings and blank lines do not count. The library below the course does not count
    either, or every edit there would make every record stale; the tests that compute entries again
    hold it.
    """
    found = _trial_code(function)
    whole = hashlib.sha256()
    for name in sorted(found):
        whole.update(f"{name}\n{found[name]}\n".encode())
    return whole.hexdigest()[:LENGTH]


def _trial_code(function: Callable) -> dict[str, str]:
    """{name: source or value} of the function and all that it names in the course."""
    found: dict[str, str] = {}
    _collect(function, found)
    return found


def profile_values(function: Callable, profile: Profile) -> dict[str, Any]:
    """What the trial's code reads from a parameter or variable named `profile`, by its path:
    {"study.steps": 100, "rank": 16}. Of a part that is handed on as a whole, all its values.
    """
    values = {}
    for source in _trial_code(function).values():
        for path in _profile_paths(source):
            value = functools.reduce(getattr, path, profile)
            if dataclasses.is_dataclass(value):
                for name, item in dataclasses.asdict(value).items():
                    values[".".join([*path, name])] = item
            elif not callable(value):
                values[".".join(path)] = value
    return dict(sorted(values.items()))


def _profile_paths(source: str) -> set[tuple[str, ...]]:
    """The attributes that code reads of `profile`: {("study", "steps"), ("rank",)}."""
    try:
        tree = ast.parse(source)
    except SyntaxError:  # a constant's value rather than code
        return set()
    inner = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    paths = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or id(node) in inner:
            continue
        path: list[str] = []
        value: ast.expr = node
        while isinstance(value, ast.Attribute):
            path.insert(0, value.attr)
            value = value.value
        if isinstance(value, ast.Name) and value.id == "profile":
            paths.add(tuple(path))
    return paths


def _collect(thing: Any, found: dict[str, str]) -> None:
    thing = inspect.unwrap(thing)
    name = f"{thing.__module__}.{thing.__qualname__}"
    if name in found:
        return
    source = textwrap.dedent(inspect.getsource(thing))
    found[name] = _without_remarks(source)
    scope = vars(sys.modules[thing.__module__])
    for path in _names_in(source):
        value = _resolve(path, scope)
        if value is not scope:
            _collect_value(f"{thing.__module__}.{'.'.join(path)}", value, found)


def _collect_value(name: str, value: Any, found: dict[str, str]) -> None:
    """Code is followed, constants are written down, what is of another package is left out."""
    if inspect.isfunction(inspect.unwrap(value)) or inspect.isclass(value):
        if str(getattr(value, "__module__", "")).startswith(COURSE):
            _collect(value, found)
    elif isinstance(value, PLAIN):
        found[name] = repr(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _collect_value(f"{name}[{key!r}]", item, found)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _collect_value(f"{name}[{i}]", item, found)
    elif isinstance(value, (set, frozenset)):
        found[name] = repr(sorted(map(repr, value)))


def _names_in(source: str) -> set[tuple[str, ...]]:
    """The names that code reads, with one attribute where there is one: ("plots", "curves")."""
    names: set[tuple[str, ...]] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            names.add((node.id,))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            names.add((node.value.id, node.attr))
    return names


def _resolve(path: tuple[str, ...], scope: dict[str, Any]) -> Any:
    """What a name means in a module: of another module of the course its attribute; `scope` itself
    where it means nothing there (a local name, a builtin).
    """
    value = scope.get(path[0], scope)
    if len(path) == 1:
        return scope if isinstance(value, ModuleType) else value
    is_course = isinstance(value, ModuleType) and value.__name__.startswith(COURSE)
    return getattr(value, path[1], scope) if is_course else scope


def _without_remarks(source: str) -> str:
    """The source without comments, docstrings, blank lines and spaces at the end of lines."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            for i in range(docstring.lineno - 1, docstring.end_lineno or docstring.lineno):
                lines[i] = ""
    code = "\n".join(lines) + "\n"
    kept = code.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            kept[row - 1] = kept[row - 1][:column]
    return "\n".join(line.rstrip() for line in kept if line.strip())


# --- what a trial reads ---------------------------------------------------------------------------
def input_digests(inputs: Mapping[str, Any]) -> dict[str, str]:
    """A short digest of each input: of rows their fingerprint, of a file or folder its content, of
    a name on the Hub the name, of the pocket model how it is made.
    """
    return {name: _digest(value) for name, value in inputs.items()}


def _digest(value: Any) -> str:
    if isinstance(value, (str, Path)):
        path = Path(value)
        if path == pocket_folder():
            return f"{POCKET} {POCKET_VERSION}"  # made of a file whose hash is checked
        return _content(path) if path.exists() else f"hub:{value}"
    if isinstance(value, Iterable):
        return fingerprint(value)[:LENGTH]
    raise ValueError(f"an input is {value!r}: give rows, a file or a folder")


def _content(path: Path) -> str:
    whole = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file():
            whole.update(file.name.encode())
            whole.update(file.read_bytes())
    return whole.hexdigest()[:LENGTH]
