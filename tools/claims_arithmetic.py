"""Equations of numbers in prose, such as 4 · 4096² · 2 = 134 MB: found and evaluated."""

from __future__ import annotations

import ast
import re

SCALES = {
    "%": 0.01,
    "kB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
    "MiB": 2**20,
    "GiB": 2**30,
    "million": 1e6,
    "billion": 1e9,
}
POWERS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
TERM = r"(?:√?\(?[-−]?\d(?:[\d,.]*\d)?(?:e-?\d+)?\)?(?:\^\d+|[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+)?\)?[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]*)"
SIDE = rf"\(?{TERM}(?:\s*[·×*/+−-]\s*{TERM})*\)?[⁰¹²³⁴⁵⁶⁷⁸⁹]*"
EQUATION = re.compile(
    rf"(?<![\w.^_)}}√·/])({SIDE})(?: bytes?)?((?:\s*[=≈]\s*{SIDE}(?: ?(?:[kMG]i?B|million|%))?)+)"
)


def _python_power(match: re.Match) -> str:
    return "**" + match[0].translate(POWERS)


def as_python(expression: str) -> str:
    """A written expression in Python's signs."""
    code = expression.replace(",", "").replace("^", "**").replace("−", "-")
    code = re.sub(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻]+", _python_power, code)
    code = re.sub(r"[·×]", "*", code)
    code = re.sub(r"√(\d[\d.]*|\([^()]*\))", r"(\1)**0.5", code)
    return code.strip()


def evaluate(side: str) -> float:
    """The value of a product, quotient, sum, root or power as it is written. SyntaxError where it
    is no expression.
    """
    unit = re.search(r"([kMG]i?B|million|%)\s*$", side)
    code = as_python(side[: unit.start()] if unit else side)
    if not re.fullmatch(r"[\d\s.e()*/+-]+", code):
        raise SyntaxError(side)
    compiled = compile(ast.parse(code, mode="eval"), "equation", "eval")
    value = eval(compiled, {"__builtins__": {}})  # it has digits and operators only
    if unit:
        value *= SCALES.get(unit[1], 1)
    return value


def slack(side: str) -> float:
    """Half a unit in the last written place of a plain number, in its own scale; nothing for an
    expression.
    """
    plain = re.fullmatch(r"\s*[-−]?[\d,]+(?:\.(\d+))?(?: ?([kMG]i?B|million|%))?\s*", side)
    if not plain:
        return 0.0
    places = len(plain[1] or "")
    scale = SCALES.get(plain[2], 1)
    return 0.5 * 10.0**-places * scale


def without_latex(text: str) -> str:
    """The text with LaTeX's products and fractions in plain signs."""
    for latex, plain in (("\\cdot", "·"), ("\\times", "×"), ("\\,", " "), ("$", "")):
        text = text.replace(latex, plain)
    text = re.sub(r"\\tfrac(\d)\{?(\d+)\}?", r"\1/\2", text)
    return re.sub(r"\\t?frac\{([^{}]*)\}\{([^{}]*)\}", r"(\1)/(\2)", text)


def computes(side: str) -> bool:
    """Whether a side of an equation is more than a number."""
    return bool(re.search(r"\d\S*\s*[·×*/+−^√⁰¹²³⁴⁵⁶⁷⁸⁹-]\s*√?\(?\d|√", side))


def agree(sides: list[str], values: list[float], roughly: bool) -> bool:
    """Whether every side is equal to the last, within what their rounding allows and, where it is
    said to be rough, within a hundredth.
    """
    loose = (0.01 if roughly else 1e-9) * abs(values[0])
    last_value = values[-1]
    last_slack = slack(sides[-1])
    for side, value in zip(sides, values, strict=True):
        if abs(value - last_value) > 1.02 * (slack(side) + last_slack) + loose:
            return False
    return True


def equations(text: str):
    """(the equation, whether it holds) for each chain of numbers joined by = or ≈ in which
    something is computed.
    """
    for match in EQUATION.finditer(without_latex(text)):
        sides = re.split(r"[=≈]", match[0])
        if not any(computes(side) for side in sides):
            continue
        try:
            values = [evaluate(re.sub(r" bytes?", "", side)) for side in sides]
        except (SyntaxError, ZeroDivisionError):
            continue
        yield match[0].strip(), agree(sides, values, roughly="≈" in match[0])
