"""A dataset as a folder: its files, a manifest with hashes that tells how it was made, and a data
card. Equal input, equal bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from ftlib.core.atomic import replacing
from ftlib.core.errors import DataError
from ftlib.data.read import format_of
from ftlib.data.rows import CHECKS
from ftlib.data.write import to_json, write_rows

MANIFEST, CARD = "manifest.json", "README.md"
VERSIONS = ("ftlib", "pyarrow", "tokenizers", "transformers")
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
    by_rule: dict[str, Counter] = {name: Counter() for name in names}
    for _, rule, reason in dropped:
        if rule not in by_rule:
            raise DataError(
                f"a row was dropped by the rule {rule!r}, which is not among {', '.join(by_rule)}"
            )
        by_rule[rule][str(reason)] += 1
    rules = []
    for name, reasons in by_rule.items():
        kept = total - reasons.total()
        rules.append(
            {
                "name": name,
                "settings": (settings or {}).get(name, {}),
                "in": total,
                "kept": kept,
                "reasons": dict(reasons),
            }
        )
        total = kept
    return rules


def _check_rules(rules: list[dict]) -> list[dict]:
    for i, rule in enumerate(rules):
        if not isinstance(rule, dict) or rule.keys() != RULE_KEYS:
            raise DataError(
                f"rules[{i}] is {repr(rule)[:80]}: a dict with {', '.join(sorted(RULE_KEYS))} is "
                "needed"
            )
        to_json(rule, i)  # before anything is written
        dropped = sum(rule["reasons"].values())
        if rule["in"] - rule["kept"] != dropped:
            raise DataError(
                f"the rule {rule['name']!r} took {rule['in']} rows and kept {rule['kept']}, "
                f"but its reasons count {dropped}: every dropped row needs one"
            )
        if i and rule["in"] != rules[i - 1]["kept"]:
            raise DataError(
                f"the rule {rule['name']!r} took {rule['in']} rows, where the one before kept "
                f"{rules[i - 1]['kept']}"
            )
    return rules


def _sources(sources) -> list[dict]:
    found = []
    for path in map(Path, sources):
        if not path.is_file():
            raise DataError(f"the source {path} does not exist")
        found.append({"file": path.name, "sha256": file_hash(path), "bytes": path.stat().st_size})
    return found


def write_dataset(
    folder,
    splits: dict[str, Iterable[dict]],
    *,
    sources=(),
    rules: list[dict] = (),
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
    the kind of row ("messages", "preference", "binary" or None). No time stands in any file: the
    same call writes the same bytes. DataError where a split is empty, a row is not of its kind, or
    counts do not add up; the manifest is written last.
    """
    folder, ending = Path(folder), f".{format}"
    if not splits or any(
        not isinstance(n, str) or not n.replace("-", "_").isidentifier() for n in splits
    ):
        raise DataError(
            f"splits has the names {', '.join(map(repr, splits)) or 'of none'}: "
            "one word each is needed, such as 'train'"
        )
    if check is not None and check not in CHECKS:
        raise DataError(f"check={check!r}: use None, {', '.join(map(repr, CHECKS))}")
    format_of(Path("rows" + ending))
    rules, made_from, folder_files = _check_rules(list(rules)), _sources(sources), {}
    (folder / MANIFEST).unlink(missing_ok=True)  # it would speak of files that are about to change
    for name, rows in splits.items():
        path = folder / (name + ending)
        count = write_rows(path, _checked(rows, name, check))
        if not count:
            path.unlink()
            raise DataError(
                f"the split {name!r} holds no rows: leave it out, or look at what the rules dropped"
            )
        folder_files[name] = {
            "file": path.name,
            "rows": count,
            "sha256": file_hash(path),
            "bytes": path.stat().st_size,
        }
    manifest = {
        "title": title or folder.name,
        "check": check,
        "splits": folder_files,
        "sources": made_from,
        "rules": rules,
        "changed": changed or {},
        "seed": seed,
        "licence": licence,
        "versions": {name: version(name) for name in VERSIONS},
    }
    card = data_card(manifest, about, limits)
    _write_text(folder / CARD, card)
    manifest["card"] = {"file": CARD, "sha256": file_hash(folder / CARD)}
    _write_text(
        folder / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    )
    return read_manifest(folder)


def _checked(rows: Iterable[dict], split: str, check: str | None):
    for number, row in enumerate(rows, 1):
        yield CHECKS[check](row, f"{split} row {number}") if check else row


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


# --- the data card --------------------------------------------------------------------------------
def _cell(value) -> str:
    """A value on one line, as a cell of a Markdown table may hold it."""
    return " ".join(str(value).replace("|", "\\|").split())


def _table(header: tuple, rows: Iterable[tuple]) -> list[str]:
    """The lines of a Markdown table."""
    lines = []
    for row in (header, ("---",) * len(header), *rows):
        cells = " | ".join(map(_cell, row))
        lines.append(f"| {cells} |")
    return lines


def data_card(manifest: dict, about: str = "", limits: Iterable[str] = ()) -> str:
    """The manifest as a data card in Markdown: what it is, its files, its sources, what each rule
    dropped and why, its limits.
    """
    kind = {
        "messages": "Conversations for supervised fine-tuning.",
        "preference": "Preference pairs.",
        "binary": "Judged completions.",
    }
    lines = [
        f"# {manifest['title']}",
        "",
        about or kind.get(manifest["check"], "Rows of text."),
        "",
        f"Licence: {manifest['licence']}.",
        "",
        "## Files",
        "",
    ]
    lines += _table(
        ("split", "file", "examples", "bytes", "SHA-256"),
        (
            (name, s["file"], s["rows"], s["bytes"], s["sha256"])
            for name, s in manifest["splits"].items()
        ),
    )
    if manifest["sources"]:
        lines += [
            "",
            "## Sources",
            "",
            *_table(
                ("file", "bytes", "SHA-256"),
                ((s["file"], s["bytes"], s["sha256"]) for s in manifest["sources"]),
            ),
        ]
    lines += [
        "",
        "## How it was made",
        "",
        "Seed: " + ("none" if manifest["seed"] is None else str(manifest["seed"])) + ".",
    ]
    if manifest["rules"]:
        lines += [
            "",
            *_table(
                ("rule", "settings", "rows in", "kept", "dropped, by reason"),
                (
                    (
                        r["name"],
                        ", ".join(f"{k}={v}" for k, v in sorted(r["settings"].items())) or "none",
                        r["in"],
                        r["kept"],
                        ", ".join(f"{reason}: {n}" for reason, n in sorted(r["reasons"].items()))
                        or "none",
                    )
                    for r in manifest["rules"]
                ),
            ),
        ]
    if manifest["changed"]:
        lines += ["", *_table(("changed", "count"), sorted(manifest["changed"].items()))]
    lines += ["", "## Limits", "", *([f"- {limit}" for limit in limits] or ["None were stated."])]
    return "\n".join(lines) + "\n"


# --- reading it back ------------------------------------------------------------------------------
def read_manifest(folder: str | os.PathLike) -> dict:
    """The folder's manifest; DataError where there is none or it is damaged."""
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        for entry in [*manifest["splits"].values(), manifest["card"]]:
            if Path(entry["file"]).name != entry["file"] or not isinstance(entry["sha256"], str):
                raise DataError(f"{path}: the file {entry['file']!r} is outside the folder")
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
    folder, manifest = Path(folder), read_manifest(folder)
    wrong = []
    for entry in [*manifest["splits"].values(), manifest["card"]]:
        path = folder / entry["file"]
        if not path.is_file():
            wrong.append(f"{path} is missing")
        elif file_hash(path) != entry["sha256"]:
            wrong.append(f"{path} has changed")
    if wrong:
        raise DataError(
            "; ".join(wrong) + ": write the dataset again, or restore it from where it came"
        )
    return manifest
