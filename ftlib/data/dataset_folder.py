"""A dataset as a folder: its files, a manifest with hashes that tells how it was made, and a data
card. Equal input, equal bytes.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.data.prepare import rule_name
from ftlib.data.read import format_of
from ftlib.data.rows import CHECKS
from ftlib.data.write import to_json, write_rows

MANIFEST = "manifest.json"
CARD = "README.md"
VERSIONS = ("ftlib", "pyarrow", "tokenizers", "transformers")
ABOUT = {  # what a card says of rows that nobody described, by their kind
    "messages": "Conversations for supervised fine-tuning.",
    "preference": "Preference pairs.",
    "binary": "Judged completions.",
}
RULE_KEYS = {"name", "settings", "in", "kept", "reasons"}


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rule_counts(
    dropped: Iterable[tuple],
    names: Iterable[str],
    total: int,
    settings: dict[str, dict] | None = None,
) -> list[dict]:
    """The rules of a pipeline's result as `write_dataset` takes them: from (row index, rule,
    reason) of each dropped row, the rules' names in order, and the number of rows that came in.
    """
    reasons_by_rule: dict[str, Counter] = {name: Counter() for name in names}
    for _, rule, reason in dropped:
        if rule not in reasons_by_rule:
            raise DataError(
                f"a row was dropped by the rule {rule!r}, "
                f"which is not among {', '.join(reasons_by_rule)}"
            )
        reasons_by_rule[rule][str(reason)] += 1
    settings = settings or {}
    rules = []
    left = total
    for name, reasons in reasons_by_rule.items():
        kept = left - reasons.total()
        rule = {
            "name": name,
            "settings": settings.get(name, {}),
            "in": left,
            "kept": kept,
            "reasons": dict(reasons),
        }
        rules.append(rule)
        left = kept
    return rules


def rule_settings(rules: Iterable[Callable]) -> dict[str, dict]:
    """The settings of a pipeline's rules by their names, as `rule_counts` takes them: a rule's
    plain attributes (numbers, texts, functions by their names, tuples of texts). Where it has none,
    its limits are in its code, and the setting is where that is.
    """
    settings: dict[str, dict] = {}
    for rule in rules:
        is_function = inspect.isfunction(rule)
        code = rule if is_function else type(rule)
        found = {}
        for name, value in vars(rule).items():
            shown = _setting(value)
            if name != "name" and shown is not None:
                found[name] = shown
        settings[rule_name(rule)] = found or {"code": f"{code.__module__}.{code.__qualname__}"}
    return settings


def _setting(value):
    """A setting as JSON holds it and a card shows it; None for state that is no setting."""
    if isinstance(value, (bool, int, float, str)):
        return value
    if inspect.isfunction(value):
        return value.__name__
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return " ".join(value)
    return None


# --- checks of what is asked for ------------------------------------------------------------------
def _check_rule(rule, number: int) -> None:
    """DataError unless a rule has its keys, is JSON, and its reasons count every dropped row."""
    if not isinstance(rule, dict) or rule.keys() != RULE_KEYS:
        raise DataError(
            f"rules[{number}] is {repr(rule)[:80]}: a dict with {', '.join(sorted(RULE_KEYS))} is "
            "needed"
        )
    to_json(rule, number)
    dropped = sum(rule["reasons"].values())
    if rule["in"] - rule["kept"] != dropped:
        raise DataError(
            f"the rule {rule['name']!r} took {rule['in']} rows and kept {rule['kept']}, "
            f"but its reasons count {dropped}: every dropped row needs one"
        )


def _check_rules(rules: list[dict]) -> None:
    """DataError unless each rule is one, and takes the rows that the one before it kept."""
    for number, rule in enumerate(rules):
        _check_rule(rule, number)
        if number == 0:
            continue
        kept_before = rules[number - 1]["kept"]
        if rule["in"] != kept_before:
            raise DataError(
                f"the rule {rule['name']!r} took {rule['in']} rows, where the one before kept "
                f"{kept_before}"
            )


def _check_names(splits: dict) -> None:
    """DataError unless there are splits, and each name can be a file's."""
    all_words = all(_is_word(name) for name in splits)
    if not splits or not all_words:
        names = ", ".join(map(repr, splits)) or "of none"
        raise DataError(f"splits has the names {names}: one word each is needed, such as 'train'")


def _is_word(name) -> bool:
    """Whether a name is text of letters, digits, _ and -, so that a file can have it."""
    return isinstance(name, str) and name.replace("-", "_").isidentifier()


def _check_kind(check: str | None) -> None:
    """DataError unless `check` is None or a kind of row."""
    if check is not None and check not in CHECKS:
        raise DataError(f"check={check!r}: use None, {', '.join(map(repr, CHECKS))}")


# --- writing --------------------------------------------------------------------------------------
def _entry(path: Path) -> dict:
    """A file as the manifest names it: the name alone, SHA-256, and size in bytes."""
    return {"file": path.name, "sha256": file_hash(path), "bytes": path.stat().st_size}


def _sources(sources) -> list[dict]:
    entries = []
    for source in sources:
        path = Path(source)
        if not path.is_file():
            raise DataError(f"the source {path} does not exist")
        entries.append(_entry(path))
    return entries


def _write_split(path: Path, name: str, rows: Iterable[dict], check: str | None) -> dict:
    """Write a split and return its entry in the manifest.

    DataError where it has no rows; then a file that the folder had by that name stays.
    """
    checked = _checked(rows, name, check)
    try:
        first = next(checked)
    except StopIteration:
        raise DataError(
            f"the split {name!r} holds no rows: leave it out, or look at what the rules dropped"
        ) from None
    count = write_rows(path, itertools.chain([first], checked))
    return {**_entry(path), "rows": count}


def write_dataset(
    folder: str | os.PathLike,
    splits: dict[str, Iterable[dict]],
    *,
    sources: Iterable[str | os.PathLike] = (),
    rules: Iterable[dict] = (),
    changed: dict[str, int] | None = None,
    seed: int | None = None,
    title: str | None = None,
    about: str = "",
    licence: str = "not stated",
    limits: Iterable[str] = (),
    check: str | None = "messages",
    format: str = "jsonl",
) -> dict:
    """Write each split as <name>.jsonl (or `format` "parquet", "csv", "json"), manifest.json and
    README.md; returns the manifest.

    `sources`: the files it was made from, recorded by name, size and SHA-256. `rules`: what was
    applied, in order, each {"name", "settings", "in", "kept", "reasons": {reason: count}}
    (`rule_counts` makes them); the counts must add up. `changed`: counts of what was altered, such
    as personal data masked by kind. `about`, `licence` and `limits` go into the data card. `check`:
    the kind of row ("messages", "preference", "binary" or None). No file holds a time: the
    same call writes the same bytes. DataError where a split is empty, a row is not of its kind, or
    counts do not add up; the manifest is written last.
    """
    folder = Path(folder)
    rules = list(rules)
    # All that can be checked is checked before anything is written.
    _check_names(splits)
    _check_kind(check)
    format_of(Path(f"rows.{format}"))
    _check_rules(rules)
    source_entries = _sources(sources)
    (folder / MANIFEST).unlink(missing_ok=True)  # it would speak of files that are about to change
    split_entries = {}
    for name, rows in splits.items():
        split_entries[name] = _write_split(folder / f"{name}.{format}", name, rows, check)
    manifest = {
        "title": title or folder.name,
        "check": check,
        "splits": split_entries,
        "sources": source_entries,
        "rules": rules,
        "changed": changed or {},
        "seed": seed,
        "licence": licence,
        "versions": {name: version(name) for name in VERSIONS},
    }
    _write_text(folder / CARD, data_card(manifest, about, limits))
    manifest["card"] = {"file": CARD, "sha256": file_hash(folder / CARD)}
    text = json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False)
    _write_text(folder / MANIFEST, text + "\n")
    return read_manifest(folder)


def _checked(rows: Iterable[dict], split: str, check: str | None) -> Iterator[dict]:
    """The rows, each checked for its kind when it is asked for."""
    if check is None:
        yield from rows
        return
    check_kind = CHECKS[check]
    for number, row in enumerate(rows, 1):
        yield check_kind(row, f"{split} row {number}")


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


# --- the data card --------------------------------------------------------------------------------
def _cell(value) -> str:
    """A value on one line, as a cell of a Markdown table may hold it."""
    return " ".join(str(value).replace("|", "\\|").split())


def _table(header: tuple, rows: Iterable[tuple]) -> list[str]:
    """The lines of a Markdown table."""
    rule = ("---",) * len(header)
    lines = []
    for row in (header, rule, *rows):
        cells = " | ".join(_cell(value) for value in row)
        lines.append(f"| {cells} |")
    return lines


def _files_section(splits: dict[str, dict]) -> list[str]:
    rows = []
    for name, entry in splits.items():
        rows.append((name, entry["file"], entry["rows"], entry["bytes"], entry["sha256"]))
    return ["## Files", "", *_table(("split", "file", "examples", "bytes", "SHA-256"), rows)]


def _sources_section(sources: list[dict]) -> list[str]:
    if not sources:
        return []
    rows = [(entry["file"], entry["bytes"], entry["sha256"]) for entry in sources]
    return ["", "## Sources", "", *_table(("file", "bytes", "SHA-256"), rows)]


def _rules_table(rules: list[dict]) -> list[str]:
    if not rules:
        return []
    rows = []
    for rule in rules:
        settings = [f"{name}={value}" for name, value in sorted(rule["settings"].items())]
        reasons = [f"{reason}: {count}" for reason, count in sorted(rule["reasons"].items())]
        rows.append(
            (
                rule["name"],
                ", ".join(settings) or "none",
                rule["in"],
                rule["kept"],
                ", ".join(reasons) or "none",
            )
        )
    header = ("rule", "settings", "rows in", "kept", "dropped, by reason")
    return ["", *_table(header, rows)]


def _making_section(manifest: dict) -> list[str]:
    """Seed, rules and what was changed."""
    seed = "none" if manifest["seed"] is None else str(manifest["seed"])
    lines = ["", "## How it was made", "", f"Seed: {seed}.", *_rules_table(manifest["rules"])]
    if manifest["changed"]:
        changed = sorted(manifest["changed"].items())
        lines += ["", *_table(("changed", "count"), changed)]
    return lines


def _limits_section(limits: Iterable[str]) -> list[str]:
    lines = [f"- {limit}" for limit in limits]
    return ["", "## Limits", "", *(lines or ["None were stated."])]


def data_card(manifest: dict, about: str = "", limits: Iterable[str] = ()) -> str:
    """The manifest as a data card in Markdown: what it is, its files, its sources, what each rule
    dropped and why, its limits.
    """
    lines = [
        f"# {manifest['title']}",
        "",
        about or ABOUT.get(manifest["check"], "Rows of text."),
        "",
        f"Licence: {manifest['licence']}.",
        "",
    ]
    lines += _files_section(manifest["splits"])
    lines += _sources_section(manifest["sources"])
    lines += _making_section(manifest)
    lines += _limits_section(limits)
    return "\n".join(lines) + "\n"


# --- reading it back ------------------------------------------------------------------------------
def _entries(manifest: dict) -> list[dict]:
    """The entries of all files that a manifest vouches for."""
    return [*manifest["splits"].values(), manifest["card"]]


def _check_entry(entry: dict, path: Path) -> None:
    """DataError unless an entry of the manifest at `path` names a file beside it, and a hash."""
    name = entry["file"]
    is_inside = Path(name).name == name
    if not is_inside or not isinstance(entry["sha256"], str):
        raise DataError(f"{path}: the file {name!r} is outside the folder")


def read_manifest(folder: str | os.PathLike) -> dict:
    """The folder's manifest; DataError where there is none or it is damaged."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        for entry in _entries(manifest):
            _check_entry(entry, path)
    except FileNotFoundError:
        raise DataError(
            f"{path} does not exist: {folder} was not written by write_dataset, or its writing "
            "was cut off"
        ) from None
    except DataError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error}): write the dataset again"
        ) from None
    return manifest


def verify_dataset(folder: str | os.PathLike) -> dict:
    """The manifest, if every file of it is there with its SHA-256; DataError names those that are
    missing or changed.
    """
    manifest = read_manifest(folder)
    wrong = []
    for entry in _entries(manifest):
        path = Path(folder) / entry["file"]
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif file_hash(path) != entry["sha256"]:
            wrong.append(f"{path} has changed")
    if wrong:
        raise DataError(
            "; ".join(wrong) + ": write the dataset again, or restore it from where it came"
        )
    return manifest
