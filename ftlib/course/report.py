"""How a lab states a result, and a comparison as one of four readings."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal

from ftlib.core.runtime import configure
from ftlib.core.stats import Interval, holm

SIGNS = {"right": "✓", "open": "○", "wrong": "✗"}
# ANSI green and red: with bold, JupyterLab's dark ones, readable on white.
BOLD = {"right": "32", "wrong": "31"}
# The fewest runs for a verdict. With fewer, Student's interval is honest but finds little: a
# difference of two standard deviations in 91% of experiments with five runs, in 47% with three.
FEWEST_RUNS = 5
# A claim's number, in bold at the beginning; the profile whose runs they are may stand first.
NUMBER = re.compile(r"(?:In tiny, [^*]*: )?\*\*.+?\.\*\* ", re.S)
# The space between two sentences; "et al. (2024)" and "eq. 7" have none.
SENTENCE_END = re.compile(r"(?<=[.?!])(?<!\bal\.)\s+(?=[A-Z*“(])")

Outcome = Literal["better", "worse", "no difference shown", "too few runs"]


def say(text: str) -> None:
    """State a result under its figure: text from computed values, in a notebook as Markdown."""
    from ftlib.core.notebook import in_notebook

    if in_notebook():
        from IPython.display import Markdown, display

        display(Markdown(textwrap.dedent(text).strip()))
    else:
        print(text)


def say_folded(text: str) -> None:
    """`say` the number and the first sentence; what follows is folded away in a notebook (`folded`)
    and printed elsewhere.
    """
    from ftlib.core.notebook import in_notebook

    say(folded(text) if in_notebook() else text)


def say_under(title: str, texts: Sequence[str]) -> None:
    """`say` these texts, a paragraph each, folded away under a title in a notebook."""
    from ftlib.core.notebook import in_notebook

    body = "\n\n".join(texts)
    say(_details(title, body) if in_notebook() else f"{title}:\n\n{body}")


def folded(text: str) -> str:
    """A claim's number, which stands in bold at its beginning, and one sentence of its reading (of
    another text the first sentence), with what follows in HTML's `<details>`. Unchanged where
    nothing follows.
    """
    number = NUMBER.match(text)
    begins = number.end() if number else 0
    end = SENTENCE_END.search(text, begins)
    if end is None:
        return text
    return f"{text[: end.start()]}\n\n{_details('More', text[end.end() :])}"


def _details(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def quiet_libraries() -> None:
    """Leave out of a notebook what libraries warn of and count while a lab does what it is meant to
    do (`ftlib.core.runtime.configure`).
    """
    configure(progress_bars=False, library_warnings=False)


# --- comparisons ----------------------------------------------------------------------------------
def outcome(
    difference: Interval, lower_is_better: bool = False, p_value: float | None = None
) -> Outcome:
    """How a comparison came out, from the interval of (method minus baseline): for choosing what a
    lab says next, as in ``{"better": …, "worse": …, …}[outcome(difference)]``.

    `difference`: of `ftlib.paired_difference` or `ftlib.mean_interval`. "better" or "worse" only
    where its p value is at most 1 - level, 0.05 by default, and there are five runs; `p_value`
    replaces it, such as by Holm's. "no difference shown" does not say that there is none: what the
    interval holds remains possible. ValueError for an interval without runs and p value.
    """
    runs, single_p, level = _tested(difference)
    p = single_p if p_value is None else p_value
    if runs < FEWEST_RUNS:
        return "too few runs"
    if p > 1 - level:
        return "no difference shown"
    lower = difference.mean < 0
    return "better" if lower == lower_is_better else "worse"


def verdict(
    difference: Interval,
    method: str,
    baseline: str,
    unit: str = "",
    lower_is_better: bool = False,
    runs: str = "runs",
) -> str:
    """A comparison in a sentence, for `say`, with the difference, its interval, the test and the
    number of runs; for several at once take `verdicts`.

    `difference`: method minus baseline, as `ftlib.paired_difference(of_method, of_baseline)`
    returns it. `unit` follows the numbers; "points" multiplies shares by 100 first. `runs` names
    what the values are, such as "seeds". Errors as in `outcome`.
    """
    return _sentence(difference, (method, baseline), unit, lower_is_better, runs)


def verdicts(
    differences: Mapping[tuple[str, str], Interval],
    unit: str = "",
    lower_is_better: bool = False,
    runs: str = "runs",
) -> str:
    """Several comparisons, a line each: as `verdict`, but judged by Holm's adjusted p values
    (`ftlib.holm`), because of m comparisons one seems to differ by chance with probability
    1 - 0.95^m. The intervals are those of the single comparisons.

    `differences`: (method, baseline) -> interval of method minus baseline. Give all that were made,
    not only those that came out. Comparisons of too few runs get no verdict, and count.
    ValueError: none given, or an interval without runs and p value.
    """
    if not differences:
        raise ValueError("differences is empty: pass {(method, baseline): interval, …}")
    adjusted = holm([_tested(difference)[1] for difference in differences.values()])
    lines = []
    for (names, difference), p in zip(differences.items(), adjusted, strict=True):
        by_holm = (p, len(differences))
        line = _sentence(difference, names, unit, lower_is_better, runs, by_holm)
        lines.append(f"- {line}")
    return "\n".join(lines)


def _tested(difference: Interval) -> tuple[int, float, float]:
    """The interval's runs, p value and level, if it has them."""
    if difference.runs is None or difference.p_value is None or difference.level is None:
        raise ValueError(
            f"the interval {difference} has no runs and no p value, so there is no verdict on it: "
            "pass what ftlib.paired_difference or ftlib.mean_interval returns"
        )
    return difference.runs, difference.p_value, difference.level


def _sentence(
    difference: Interval,
    names: tuple[str, str],
    unit: str,
    lower_is_better: bool,
    runs: str,
    by_holm: tuple[float, int] | None = None,
) -> str:
    """`names`: method and baseline; `by_holm`: the adjusted p value, and of how many."""
    method, baseline = names
    adjusted, comparisons = by_holm or (None, 1)
    reading = outcome(difference, lower_is_better, adjusted)
    measured = f"{_size(difference, unit)} over {difference.runs} {runs}"
    if reading == "too few runs":
        return (
            f"{method} minus {baseline}: {measured}. {difference.runs} {runs} are too few for a "
            "verdict: five at least."
        )
    _, p_value, _ = _tested(difference)
    p = _p_text(p_value)
    if adjusted is not None and comparisons > 1:
        p += f"; by Holm for {comparisons} comparisons {_p_text(adjusted)}"
    tested = f"{measured} ({difference.test}, {p})"
    if reading == "no difference shown":
        return f"**No difference shown** between {method} and {baseline}: {tested}."
    return f"**{method} is {reading} than {baseline}**: {tested}."


def _size(difference: Interval, unit: str) -> str:
    """The difference with its sign and its interval: "-0.029 [-0.051, -0.007] nats"."""
    points = unit == "points"
    texts = []
    for value in (difference.mean, difference.low, difference.high):
        texts.append(f"{100 * value:+.1f}" if points else f"{value:+.3g}")
    mean, low, high = texts
    return f"{mean} [{low}, {high}] {unit}".rstrip()


def _p_text(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3g}"
