"""From raw rows to rows fit to train on, every one accounted for: kept, or dropped by a named rule
for a stated reason.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from rich.table import Table
from tqdm import tqdm

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.data.contamination import Contamination
from ftlib.data.duplicates import ExactDuplicates, NearDuplicates
from ftlib.data.rows import check_object
from ftlib.data.rules import QUALITY, Clean, Html, Language, Length, MaskPii
from ftlib.data.stream import read_jsonl
from ftlib.data.write import write_lines


class PrepareError(DataError):
    """A rule that failed, or that gave what no rule gives: names the row and the rule."""


class Dropped(NamedTuple):
    """A row that went: its number in the input, the rule's name, and why."""

    row: int
    rule: str
    reason: str


class Prepared:
    """What `prepare` made: `rows` kept in their order, `dropped`, and `changed`:
    rule -> how many rows it changed, and its own counts (those alone where it gave the row back).

    With `path` the kept rows lie in that JSONL file, and `rows` reads them when asked.
    """

    def __init__(self, rules: list[str], path: Path | None = None):
        self.rules = rules
        self.path = path
        self.count = 0
        self.kept = 0
        self.dropped: list[Dropped] = []
        self.changed: dict[str, Counter] = {}
        self.held: list[dict] = []

    @property
    def rows(self) -> list[dict]:
        """The kept rows, in their order."""
        if self.path is None:
            return self.held
        return read_jsonl(self.path, check=check_object)

    def steps(self) -> list[tuple[str, int, int, Counter]]:
        """(rule, rows dropped, rows left after it, counts of its changes), in the order of the
        rules.
        """
        gone = Counter(dropped.rule for dropped in self.dropped)
        left = self.count
        steps = []
        for rule in self.rules:
            left -= gone[rule]
            steps.append((rule, gone[rule], left, self.changed.get(rule, Counter())))
        return steps

    def _lines(self) -> list[tuple[str, str, str, str, str]]:
        """The report's lines, a cell for each of `_HEAD`."""
        first_reasons: dict[str, str] = {}
        for dropped in self.dropped:
            first_reasons.setdefault(dropped.rule, f"row {dropped.row}: {dropped.reason}")
        lines = []
        for rule, gone, left, changes in self.steps():
            changed = ", ".join(f"{name} {count:,}" for name, count in changes.items())
            lines.append((rule, f"{gone:,}", f"{left:,}", changed, first_reasons.get(rule, "")))
        return lines

    _HEAD = ("rule", "dropped", "left", "changed", "first reason")

    def report(self) -> Table:
        """A rich table: each rule with what it dropped, what was left, what it changed, and its
        first reason.
        """
        table = Table(
            title=f"{self.count:,} rows in, {self.kept:,} kept, {len(self.dropped):,} dropped"
        )
        for name in self._HEAD:
            is_number = name in ("dropped", "left")
            table.add_column(name, justify="right" if is_number else "left")
        for line in self._lines():
            cells = [cell.replace("[", r"\[") for cell in line]  # rich reads [word] as a style
            table.add_row(*cells)
        return table

    def _repr_html_(self) -> str:
        caption = f"<caption style='text-align:left'>{self!r}</caption>"
        rows = [_table_row(self._HEAD, "th")]
        for line in self._lines():
            rows.append(_table_row(line, "td"))
        return f"<table>{caption}{''.join(rows)}</table>"

    def __repr__(self) -> str:
        dropping = {dropped.rule for dropped in self.dropped}
        return (
            f"{self.count:,} rows in, {self.kept:,} kept, "
            f"{len(self.dropped):,} dropped by {len(dropping)} rules"
        )


def standard_rules(
    golden: Iterable[dict | str] | None = None, languages: tuple[str, ...] = ("en",)
) -> list:
    """Changes first, so that filters judge what will be trained on; then filters; duplicates last,
    so that what a filter drops takes no duplicate with it. In this order preparing twice is
    preparing once.

    None of them knows a tokenizer. Where it is known, add ``ftlib.ControlTokens(tokenizer)`` behind
    the changes: ``rules = standard_rules(); rules.insert(3, ftlib.ControlTokens(tokenizer))``.
    """
    contamination = [] if golden is None else [Contamination(golden)]
    return [
        Clean(),
        Html(),
        MaskPii(),
        *QUALITY,
        Length(),
        Language(languages),
        *contamination,
        ExactDuplicates(),
        NearDuplicates(),
    ]


def rule_name(rule: Callable) -> str:
    """A rule's `name`, or that of the function."""
    own_name = getattr(rule, "name", None)
    if own_name:
        return own_name
    return getattr(rule, "__name__", type(rule).__name__)


Check = Callable[[dict, int], str | tuple[dict, Counter] | None]


def _begin(rule: Callable) -> Check:
    """A rule as a function of a row and its number, for one run.

    A rule that remembers rows has begin(), so that each run starts with nothing remembered.
    """
    if hasattr(rule, "begin"):
        return rule.begin()

    def check(row: dict, number: int):
        """What the rule says of the row; it does not ask for the number."""
        return rule(row)

    return check


def _outcome(name: str, check: Check, row: dict, number: int) -> str | tuple[dict, Counter] | None:
    """What a rule says of a row; PrepareError where it fails, or gives what no rule gives."""
    try:
        outcome = check(row, number)
    except Exception as error:  # a rule may be anyone's function
        raise PrepareError(
            f"row {number}: rule {name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if outcome is None or isinstance(outcome, str):
        return outcome
    is_pair = isinstance(outcome, tuple) and len(outcome) == 2
    if not is_pair or not isinstance(outcome[0], dict):
        raise PrepareError(
            f"row {number}: rule {name!r} gave {str(outcome)[:60]!r}: "
            "a reason (text), (row, counts) or None is needed"
        )
    return outcome


def _apply(
    checks: list[tuple[str, Check]], row: dict, number: int, prepared: Prepared
) -> dict | None:
    """The row after all rules, or None after it is noted as dropped. What the rules changed in it
    is counted either way.
    """
    kept = row
    for name, check in checks:
        outcome = _outcome(name, check, kept, number)
        if outcome is None:
            continue
        if isinstance(outcome, str):
            prepared.dropped.append(Dropped(number, name, outcome))
            return None
        new, counts = outcome
        changed = prepared.changed.setdefault(name, Counter())
        changed.update(counts if new is kept else {"rows": 1, **counts})
        kept = new
    return kept


def _table_row(cells, tag: str) -> str:
    """A row of an HTML table, its cells aligned to the left."""
    shown = [f"<{tag} style='text-align:left'>{html.escape(cell)}</{tag}>" for cell in cells]
    return f"<tr>{''.join(shown)}</tr>"


def _kept(rows: Iterable[dict], rules: list, prepared: Prepared) -> Iterator[dict]:
    """The rows that no rule drops; `prepared` counts meanwhile."""
    checks = []
    for name, rule in zip(prepared.rules, rules, strict=True):
        checks.append((name, _begin(rule)))
    for number, row in enumerate(tqdm(rows, desc="preparing", unit=" rows", delay=2)):
        if not isinstance(row, dict):
            raise PrepareError(f"row {number} is {type(row).__name__}: a dict is needed")
        prepared.count += 1
        kept = _apply(checks, row, number, prepared)
        if kept is not None:
            prepared.kept += 1
            yield kept
    if prepared.kept + len(prepared.dropped) != prepared.count:
        raise PrepareError(
            f"{prepared.count} rows in, but {prepared.kept} kept and {len(prepared.dropped)} "
            "dropped"
        )


def prepare(
    rows: Iterable[dict],
    rules: Iterable[Callable] | None = None,
    out: str | os.PathLike | None = None,
) -> Prepared:
    """Pass every row through the rules in turn, up to the first that drops it; rows keep their
    order, the input is not altered.

    A rule is a callable `rule(row)` that returns None (leave it), text (the reason to drop it), or
    (new row, counts); its `name` is what the report calls it. Without `rules`, `standard_rules()`.
    Rows are read one at a time: a generator and `out`, a JSONL file for what is kept, written
    beside and renamed, need memory only for the list of dropped rows and for what rules remember
    (for each kept row some 0.15 kB for exact duplicates and 0.4 for near ones, whose texts lie in a
    temporary file from 64 MB on). PrepareError names the row and the rule where a rule fails,
    DataError a kept row that JSON cannot hold; then no file is written.
    """
    rules = standard_rules() if rules is None else list(rules)
    names = [rule_name(rule) for rule in rules]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"two rules are named {twice[0]!r}: give one another name")
    prepared = Prepared(names, None if out is None else Path(out))
    if prepared.path is None:
        prepared.held = list(_kept(rows, rules, prepared))
        return prepared
    with replacing(prepared.path) as temporary, temporary.open("wb") as file:
        write_lines(file, _kept(rows, rules, prepared))
    return prepared
