"""Mutants of the exercises' references, made by code, and what `check` says of each.

`python -m tests.course.mutants` prints a table by exercise; `--all` takes every mutant, without it
an even sample; `--unnamed` lists those that no bank entry and no diagnosis names.
"""

from __future__ import annotations

import argparse
import ast
import copy
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ftlib.course.catalogue import MODULES
from ftlib.course.comparing import difference, unordered
from ftlib.course.exercise import Exercise, judge, load_lab

SAMPLE = 4  # of which one is judged where not all are
# Accepted, because nothing that is asked for is different.
EQUIVALENT = {
    ("find_leaks", "result reversed"): "the names are wanted in any order",
    ("binary_loss", "ref_logps and z0 exchanged"): "both are subtracted: ratio − z0",
    ("loss_slope", "ratio and z0 exchanged"): "β·v·(1 − v) is even in ratio − z0",
    ("qlora_bytes", "linear one more"): "one parameter of 70 billion is less than the tolerance",
    ("find_leaks", "result rotated"): "the names are wanted in any order",
}
# What the message begins with where nothing is known but the difference itself.
PLAIN = re.compile(
    r"(Your result is right on \d+ of \d+ inputs: |Your result is wrong only where [^:]*: )?"
    r"(values differ|it returns|its shape is|item \d|at '|it raises)"
)


@dataclass(frozen=True)
class Mutant:
    """A wrong answer by name."""

    exercise: Exercise
    name: str
    function: Callable


# --- changes of a result --------------------------------------------------------------------------
def is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_array(value) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() > 1 and value.dtype != torch.bool


def zero_at(x: torch.Tensor, index: int) -> torch.Tensor:
    """The first or last of dimension 0 with another number."""
    changed = x.clone()
    changed[index] = changed[index] * 3 + 1
    return changed


ARRAY_CHANGES: dict[str, Callable] = {
    "sign": lambda x: -x,
    "twice": lambda x: 2 * x,
    "half": lambda x: x / 2,
    "ln 2": lambda x: x * math.log(2),
    "a third more": lambda x: x * 4 / 3,
    "half more": lambda x: x + 0.5,
    "transposed": lambda x: x.mT if x.dim() >= 2 else None,
    "sum of 0": lambda x: x.sum(0),
    "mean of the last": lambda x: x.mean(-1),
    "rolled": lambda x: x.roll(1, 0),
    "late": lambda x: torch.cat([x[:1], x[:-1]]),
    "early": lambda x: torch.cat([x[1:], x[-1:]]),
    "without the last": lambda x: x[:-1],
    "first wrong": lambda x: zero_at(x, 0),
    "last wrong": lambda x: zero_at(x, -1),
    "exponential": torch.exp,
    "absolute": torch.abs,
    "flat": lambda x: x.flatten() if x.dim() >= 2 else None,
    "nothing": lambda x: None,
}
NUMBER_CHANGES: dict[str, Callable] = {
    "sign": lambda x: -x,
    "twice": lambda x: 2 * x,
    "half": lambda x: x / 2,
    "one more": lambda x: x + 1,
    "one less": lambda x: x - 1,
    "square": lambda x: x * x,
    "nothing": lambda x: None,
}
LIST_CHANGES: dict[str, Callable] = {
    "reversed": lambda x: x[::-1],
    "without the last": lambda x: x[:-1],
    "without the first": lambda x: x[1:],
    "empty": lambda x: [],
    "rotated": lambda x: [*x[1:], *x[:1]],
    "last twice": lambda x: [*x, *x[-1:]],
    "nothing": lambda x: None,
}
TEXT_CHANGES: dict[str, Callable] = {
    "blank after": lambda x: x + "\n",
    "without the last": lambda x: x[:-1],
    "without the first": lambda x: x[1:],
    "upper": str.upper,
    "reversed": lambda x: x[::-1],
    "empty": lambda x: "",
    "goes on": lambda x: x + "!",
}


def changes_of(value) -> dict[str, Callable]:
    for fits, changes in (
        (is_array(value), ARRAY_CHANGES),
        (
            is_number(value) or (isinstance(value, torch.Tensor) and value.dim() == 0),
            NUMBER_CHANGES,
        ),
        (isinstance(value, list), LIST_CHANGES),
        (isinstance(value, str), TEXT_CHANGES),
    ):
        if fits:
            return changes
    return {}


def parts_of(value, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """The parts of a result of several."""
    if isinstance(value, (tuple, dict)):
        steps = value.items() if isinstance(value, dict) else enumerate(value)
        for step, part in steps:
            yield from parts_of(part, (*path, step))
    else:
        yield path, value


def with_part(value, path: tuple, change: Callable):
    """The result with one part changed; None where the change does not apply."""
    if not path:
        return change(value)
    parts = dict(value) if isinstance(value, dict) else list(value)
    parts[path[0]] = with_part(parts[path[0]], path[1:], change)
    return parts if isinstance(value, dict) else tuple(parts)


def by_result(exercise: Exercise, results: list) -> Iterator[Mutant]:
    """One part of the result changed after the reference computed it."""
    for path, part in parts_of(results[0]):
        for name, change in changes_of(part).items():

            def mutant(*args, path=path, change=change):
                return with_part(exercise.reference(*args), path, change)

            yield Mutant(exercise, f"result{list(path) or ''} {name}", mutant)


def by_factor(exercise: Exercise, cases: list[tuple], results: list) -> Iterator[Mutant]:
    """The result times or divided by an argument that is a number, or plus any argument."""
    numeric = is_number(results[0]) or isinstance(results[0], torch.Tensor)
    if not numeric or getattr(results[0], "dtype", torch.float32) in (torch.int64, torch.uint8):
        return
    operations = {
        "times": lambda x, v: x * v,
        "divided by": lambda x, v: x / v,
        "times root": lambda x, v: x * math.sqrt(v),
        "plus": lambda x, v: x + v,
        "minus": lambda x, v: x - v,
    }
    for i, name in enumerate(parameters(exercise)[: len(cases[0])]):
        for words, operation in operations.items():

            def mutant(*args, i=i, operation=operation):
                argument = args[i]
                value = argument if is_number(argument) else argument.shape[0]
                return operation(exercise.reference(*args), value)

            number = all(is_number(args[i]) for args in cases)
            sized = all(isinstance(args[i], torch.Tensor) and args[i].dim() for args in cases)
            if number or (sized and words in ("times", "divided by")):
                yield Mutant(exercise, f"result {words} {name}", mutant)


# --- changes of an argument -----------------------------------------------------------------------
def parameters(exercise: Exercise) -> list[str]:
    return list(inspect.signature(exercise.reference).parameters)


def number_as(value, number):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return torch.full_like(value, number)
    return type(value)(number) if is_number(value) else None


def opposite(value):
    if isinstance(value, bool):
        return not value
    return ~value if isinstance(value, torch.Tensor) and value.dtype == torch.bool else None


ARGUMENT_CHANGES: dict[str, Callable] = {
    "is 0": lambda v: number_as(v, 0),
    "is 1": lambda v: number_as(v, 1),
    "is not": opposite,
    "is negative": lambda v: -v if is_number(v) or is_array(v) else None,
    "is transposed": lambda v: v.mT if is_array(v) and v.dim() == 2 else None,
    "without its last": lambda v: v[:-1] if isinstance(v, (list, str)) else None,
    "without its first": lambda v: v[1:] if isinstance(v, (list, str)) else None,
    "one more": lambda v: v + 1 if is_number(v) else None,
}


def by_argument(exercise: Exercise, cases: list[tuple]) -> Iterator[Mutant]:
    """The reference called with one argument changed, or two exchanged."""
    names = parameters(exercise)[: len(cases[0])]
    for i, words in itertools.product(range(len(names)), ARGUMENT_CHANGES):
        if ARGUMENT_CHANGES[words](cases[0][i]) is None:
            continue

        def mutant(*args, i=i, change=ARGUMENT_CHANGES[words]):
            value = change(args[i])
            return exercise.reference(*args[:i], value, *args[i + 1 :])

        yield Mutant(exercise, f"{names[i]} {words}", mutant)
    for i, k in itertools.combinations(range(len(names)), 2):

        def exchanged(*args, i=i, k=k):
            changed = list(args)
            changed[i], changed[k] = args[k], args[i]
            return exercise.reference(*changed)

        if type(cases[0][i]) is type(cases[0][k]):
            yield Mutant(exercise, f"{names[i]} and {names[k]} exchanged", exchanged)


# --- changes of the source ------------------------------------------------------------------------
OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}
CALLS = {"sum": "mean", "mean": "sum", "log": "log2", "exp": "expm1", "max": "min"}


class _Change(ast.NodeTransformer):
    """The `which`-th place where an operator, a dimension or a reduction can be another."""

    def __init__(self, which: int):
        self.which = which
        self.seen = 0
        self.name = ""

    def _here(self, name: str) -> bool:
        self.seen += 1
        found = self.seen - 1 == self.which
        if found:
            self.name = name
        return found

    def visit_BinOp(self, node):
        self.generic_visit(node)
        other = OPERATORS.get(type(node.op))
        if other and self._here(ast.unparse(node)):
            node.op = other()
        return node

    def visit_Attribute(self, node):
        self.generic_visit(node)
        other = CALLS.get(node.attr)
        if other and self._here(f".{node.attr}"):
            node.attr = other
        return node

    def visit_keyword(self, node):
        self.generic_visit(node)
        if node.arg == "dim" and self._here(ast.unparse(node)):
            node.value = ast.BinOp(ast.UnaryOp(ast.USub(), node.value), ast.Sub(), ast.Constant(1))
        return node


def by_source(exercise: Exercise) -> Iterator[Mutant]:
    """The reference's source with one operator, dimension or reduction changed."""
    source = textwrap.dedent(inspect.getsource(exercise.reference))
    for which in itertools.count():
        tree = ast.parse(source)
        change = _Change(which)
        function = change.visit(tree).body[0]
        if not change.name:
            return
        # Annotations and defaults are not what is changed.
        space = dict(vars(inspect.getmodule(exercise.reference)))
        function.decorator_list = []
        ast.fix_missing_locations(tree)
        exec(compile(tree, f"<mutant of {exercise.name}>", "exec"), space)
        yield Mutant(exercise, f"source {which}: {change.name}", space[function.name])


# --- all of them ----------------------------------------------------------------------------------
def exercises() -> list[Exercise]:
    return [e for number in MODULES for e in load_lab(number).exercises]


def cases_of(exercise: Exercise) -> list[tuple]:
    return list(exercise.cases(torch.Generator().manual_seed(0)))


def outputs(function: Callable, cases: list[tuple]) -> list | None:
    """What comes on every case; None where it raises."""
    try:
        return [function(*copy.deepcopy(args)) for args in cases]
    except Exception:
        return None


def mutants(exercise: Exercise, sample: int = 1) -> Iterator[tuple[Mutant, list]]:
    """Every `sample`-th mutant of an exercise, with its results. What raises on a case is left out:
    its error is its message.
    """
    cases = cases_of(exercise)
    results = [exercise.reference(*copy.deepcopy(args)) for args in cases]
    made = itertools.chain(
        by_result(exercise, results),
        by_factor(exercise, cases, results),
        by_argument(exercise, cases),
        by_source(exercise),
    )
    if exercise.gradient_of:
        detached = Mutant(exercise, "detached", lambda *a: exercise.reference(*a).detach())
        made = itertools.chain(made, [detached])
    for mutant in itertools.islice(made, 0, None, sample):
        came = outputs(mutant.function, cases)
        same = came is not None and mutant.name != "detached" and identical(came, results)
        if came is not None and not same:
            yield mutant, came


def identical(came: list, results: list) -> bool:
    """Bit for bit the reference's on every case: the change changed nothing (−0, a sum of one)."""
    return all(
        difference(one, other, 0.0) is None for one, other in zip(came, results, strict=True)
    )


# --- whether what is said is so -------------------------------------------------------------------
def _array(value) -> np.ndarray:
    if isinstance(value, torch.Tensor):
        value = value.detach().double().numpy()
    return np.asarray(value, dtype=np.float64)


def near(one, other) -> bool:
    """Equal to one part in a thousand, in half precision to its rounding."""
    dtype = getattr(one, "dtype", None)
    allowed = 0.01 if dtype in (torch.bfloat16, torch.float16) else 1e-3
    one, other = _array(one), _array(other)
    scale = np.abs(other).max() if other.size else 1.0
    return one.shape == other.shape and np.allclose(
        one, other, rtol=allowed, atol=allowed * scale, equal_nan=True
    )


def argument(text: str, given: dict) -> np.ndarray:
    """`r`, `x.shape[0]`, `len(rows)` or `mask.sum()` of the arguments."""
    return _array(eval(text, {"len": len}, dict(given)))


def _end_alone(got, want, last: bool, axis: int) -> bool:
    places = slice(0, -1) if last else slice(1, None)
    rest = (slice(None),) * axis + (places,)
    return near(_array(got)[rest], _array(want)[rest]) and not near(got, want)


def _late(got, want, axis: int) -> bool:
    got = np.moveaxis(_array(got), axis, 0)
    want = np.moveaxis(_array(want), axis, 0)
    return near(got[1:], want[:-1])


SUMS = {"sum": np.sum, "mean": np.mean, "maximum": np.max, "norm": np.linalg.norm}


def _is_other_axis(match, got, want, given: dict) -> bool:
    came, name, one, wanted, other = match.groups()
    x = _array(given[name])
    first = near(np.squeeze(_array(got)), SUMS[came](x, axis=int(one)))
    return first and near(np.squeeze(_array(want)), SUMS[wanted](x, axis=int(other)))


def _same_along(offset: np.ndarray, axis: int) -> bool:
    return np.ptp(offset, axis=axis).max() < 1e-3 * np.abs(offset).max()


# pattern -> (match, got, want, arguments) -> whether it is so
CHECKS: dict[str, Callable] = {
    r"it is −1 times": lambda m, g, w, a: near(g, -_array(w)),
    r"is 2 times": lambda m, g, w, a: near(g, 2 * _array(w)),
    r"is half": lambda m, g, w, a: near(g, _array(w) / 2),
    r"is ln 2": lambda m, g, w, a: near(g, np.log(2) * _array(w)),
    r"is 1/ln 2": lambda m, g, w, a: near(g, _array(w) / np.log(2)),
    r"(?:is|that is,) `([^`]+)` times": lambda m, g, w, a: near(g, argument(m[1], a) * _array(w)),
    r"wanted divided by `([^`]+)`": lambda m, g, w, a: near(g, _array(w) / argument(m[1], a)),
    r"√`([^`]+)` times": lambda m, g, w, a: near(g, np.sqrt(argument(m[1], a)) * _array(w)),
    r"divided by √`([^`]+)`": lambda m, g, w, a: near(g, _array(w) / np.sqrt(argument(m[1], a))),
    r"is (-?[\d.]+(?:e[+-]\d+)?) times": lambda m, g, w, a: near(g, float(m[1]) * _array(w)),
    r"too much by `([^`]+)`": lambda m, g, w, a: near(g, _array(w) + argument(m[1], a)),
    r"too little by `([^`]+)`": lambda m, g, w, a: near(g, _array(w) - argument(m[1], a)),
    r"too large by ([\d.]+(?:e[+-]\d+)?)": lambda m, g, w, a: near(g, _array(w) + float(m[1])),
    r"too small by ([\d.]+(?:e[+-]\d+)?)": lambda m, g, w, a: near(g, _array(w) - float(m[1])),
    r"is transposed": lambda m, g, w, a: near(g, np.swapaxes(_array(w), -1, -2)),
    r"reverse order along dimension (\d)": lambda m, g, w, a: near(
        g, np.flip(_array(w), int(m[1]))
    ),
    r"position forwards along dimension (\d)": lambda m, g, w, a: near(
        g, np.roll(_array(w), 1, int(m[1]))
    ),
    r"position backwards along dimension (\d)": lambda m, g, w, a: near(
        g, np.roll(_array(w), -1, int(m[1]))
    ),
    r"along dimension (\d): each number is one place too late": lambda m, g, w, a: _late(
        g, w, int(m[1])
    ),
    r"along dimension (\d): each number is one place too early": lambda m, g, w, a: _late(
        w, g, int(m[1])
    ),
    r"is the (\w+) over dimension (\d) of what is wanted": lambda m, g, w, a: near(
        g, SUMS[m[1]](_array(w), axis=int(m[2]))
    ),
    r"(\w+) of `([^`]+)` over dimension (\d): the (\w+) over dimension (\d)": _is_other_axis,
    r"the same in every row": lambda m, g, w, a: _same_along(_array(g) - _array(w), -2),
    r"the same in every column": lambda m, g, w, a: _same_along(_array(g) - _array(w), -1),
    r"Only the (first|last) along dimension (\d)": lambda m, g, w, a: _end_alone(
        g, w, m[1] == "last", int(m[2])
    ),
    r"is the exponential of": lambda m, g, w, a: near(g, np.exp(_array(w))),
    r"is the absolute value": lambda m, g, w, a: near(g, np.abs(_array(w))),
    r"is the square of": lambda m, g, w, a: near(g, np.square(_array(w))),
    r"is 1 minus": lambda m, g, w, a: near(g, 1 - _array(w)),
}


def at_path(value, steps: str):
    for step in re.findall(r"\[([^\]]+)\]", steps):
        value = value[ast.literal_eval(step)]
    return value


def untrue(mutant: Mutant, message: str, came: list) -> list[str]:
    """The sentences of a message that are not so, computed with NumPy from what came."""
    exercise = mutant.exercise
    cases = cases_of(exercise)
    wanted = [exercise.reference(*copy.deepcopy(args)) for args in cases]
    for wrong in exercise.wrong:
        if message == wrong.message:
            theirs = outputs(wrong.function, cases) or []
            equal = len(theirs) == len(came) and all(
                difference(in_order(x, exercise), in_order(y, exercise), exercise.tolerance) is None
                for x, y in zip(came, theirs, strict=True)
            )
            return [] if equal else [f"the bank's {wrong.name!r}"]
    found = []
    first_line = message.partition("\n")[0] + " "
    pieces = re.split(r"In your result's ((?:\[[^\]]+\])+(?: and (?:\[[^\]]+\])+)*): ", first_line)
    for paths, text in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        for args, got, want in zip(cases, came, wanted, strict=True):
            if difference(in_order(got, exercise), in_order(want, exercise), exercise.tolerance):
                given = dict(zip(parameters(exercise), args, strict=False))
                found += untrue_here(paths, text, got, want, given, exercise.tolerance)
    return found


def in_order(value, exercise: Exercise):
    return unordered(value) if exercise.any_order else value


def untrue_here(paths: str, text: str, got, want, given: dict, tolerance: float) -> list[str]:
    found = []
    for path in paths.split(" and "):
        one, other = at_path(got, path), at_path(want, path)
        if difference(one, other, tolerance) is None:
            continue
        for pattern, holds in CHECKS.items():
            for match in re.finditer(pattern, text):
                if not holds(match, one, other, given):
                    found.append(f"{path} {match[0]}")
    return found


def is_named(message: str) -> bool:
    return not PLAIN.match(message)


def judged(sample: int = 1) -> Iterator[tuple[Mutant, list, Any]]:
    """Every `sample`-th mutant of every exercise, with its results and the verdict."""
    for exercise in exercises():
        for mutant, came in mutants(exercise, sample):
            yield mutant, came, judge(exercise, mutant.function)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--unnamed", action="store_true")
    options = parser.parse_args()
    rows: dict[str, list[int]] = {}
    for mutant, came, verdict in judged(1 if options.all else SAMPLE):
        row = rows.setdefault(mutant.exercise.name, [0, 0, 0, 0])
        named = is_named(verdict.message)
        false = untrue(mutant, verdict.message, came)
        for i, count in enumerate((True, verdict.status == "right", named, bool(false))):
            row[i] += count
        if verdict.status == "right" or false:
            print(f"{mutant.exercise.name} / {mutant.name}: {verdict.status} {false}", flush=True)
        elif options.unnamed and not named:
            line = verdict.message.partition("\n")[0]
            print(f"{mutant.exercise.name} / {mutant.name}: {line}", flush=True)
    print(f"{'exercise':24}{'mutants':>9}{'accepted':>10}{'named':>7}{'misnamed':>10}")
    for name, row in [*rows.items(), ("all", [sum(c) for c in zip(*rows.values(), strict=True)])]:
        print(f"{name:24}{row[0]:9}{row[1]:10}{row[2]:7}{row[3]:10}")


if __name__ == "__main__":
    main()
