"""A dataset's folder: the same bytes each time, counts that add up, and a changed file named."""

import hashlib
import json

import pytest
from conftest import chat

from ftlib.core.errors import DataError
from ftlib.data.contamination import Contamination
from ftlib.data.dataset_folder import (
    read_manifest,
    rule_counts,
    rule_settings,
    verify_dataset,
    write_dataset,
)
from ftlib.data.prepare import standard_rules
from ftlib.data.stream import read_jsonl, stream_rows

ROWS = [chat(f"Q{i}", f"A{i}") for i in range(7)]
DROPPED = [
    (3, "length", "too short"),
    (5, "language", "de"),
    (8, "length", "too short"),
    (9, "length", "too long"),
]
RULES = rule_counts(DROPPED, ["length", "language", "pii"], 11, {"length": {"min": 3}})


def write(folder, **options):
    source = folder.parent / "raw.jsonl"
    source.write_bytes(b"{}\n")
    return write_dataset(
        folder,
        {"train": iter(ROWS[:5]), "validation": ROWS[5:]},
        **{
            "sources": [source],
            "rules": RULES,
            "changed": {"email": 2},
            "seed": 7,
            "title": "Small | talk",
            "about": "Questions.",
            "licence": "CC0-1.0",
            "limits": ["English only."],
            **options,
        },
    )


def test_rules_by_hand():
    """11 rows; length drops 3 of them, language 1 of the 8 that are left, pii none."""
    assert [(r["name"], r["in"], r["kept"]) for r in RULES] == [
        ("length", 11, 8),
        ("language", 8, 7),
        ("pii", 7, 7),
    ]
    assert (
        RULES[0]["reasons"] == {"too short": 2, "too long": 1}
        and RULES[0]["settings"] == {"min": 3}
        and RULES[2]["reasons"] == {}
    )
    with pytest.raises(DataError, match="the rule 'html', which is not among length"):
        rule_counts([(0, "html", "tags")], ["length"], 3)


def test_the_card_states_every_rules_settings(tmp_path):
    """No rule of the pipeline is said to have none: what is not set is in code that is named."""
    rules = standard_rules(["What is the price of the lamp in the shop?"])
    settings = rule_settings(rules)
    assert settings["contamination"] == {"n": Contamination([]).n, "share": 0.5}
    assert settings["near duplicates"]["threshold"] == 0.8
    assert settings["near duplicates"]["text"] == "row_text"
    assert settings["language"]["allowed"] == "en"
    assert settings["echo"] == {"code": "ftlib.data.rules.echo"}
    assert settings["clean"] == {"code": "ftlib.data.rules.Clean"}
    counted = rule_counts([], list(settings), 7, settings)
    write(tmp_path / "set", rules=counted)
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "| none | 7 | 7 |" not in card
    assert "n=8, share=0.5" in card


def test_the_folder(tmp_path):
    manifest = write(tmp_path / "set")
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
        "README.md",
        "manifest.json",
        "train.jsonl",
        "validation.jsonl",
    ]
    assert read_jsonl(tmp_path / "set" / "train.jsonl") == ROWS[:5]
    assert (
        manifest["splits"]["train"]["rows"] == 5
        and manifest["seed"] == 7
        and manifest["rules"] == RULES
        and "ftlib" in manifest["versions"]
    )
    assert (
        manifest["splits"]["train"]["sha256"]
        == hashlib.sha256((tmp_path / "set" / "train.jsonl").read_bytes()).hexdigest()
    )
    assert manifest["sources"] == [
        {"file": "raw.jsonl", "sha256": hashlib.sha256(b"{}\n").hexdigest(), "bytes": 3}
    ]
    assert verify_dataset(tmp_path / "set") == read_manifest(tmp_path / "set") == manifest
    card = (tmp_path / "set" / "README.md").read_text()
    for text in (
        "# Small | talk",
        "Questions.",
        "Licence: CC0-1.0.",
        "| train | train.jsonl | 5 |",
        "| length | min=3 | 11 | 8 | too long: 1, too short: 2 |",
        "| email | 2 |",
        "Seed: 7.",
        "- English only.",
    ):
        assert text in card


@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv", "json"])
def test_the_same_call_writes_the_same_bytes(format, tmp_path):
    folders = [tmp_path / "one" / "set", tmp_path / "two" / "set"]
    for folder in folders:
        folder.parent.mkdir()
        write(folder, format=format)
    first, second = ({p.name: p.read_bytes() for p in folder.iterdir()} for folder in folders)
    assert first == second and len(first) == 4
    assert list(stream_rows(folders[0] / f"train.{format}", "messages")) == ROWS[:5]


def test_a_changed_file_is_named(tmp_path):
    write(tmp_path / "set")
    file = tmp_path / "set" / "validation.jsonl"
    file.write_bytes(file.read_bytes().replace(b"Q5", b"Q6"))
    with pytest.raises(DataError, match=r"validation\.jsonl has changed: write") as caught:
        verify_dataset(tmp_path / "set")
    assert "train" not in str(caught.value)
    file.unlink()
    (tmp_path / "set" / "README.md").write_text("")
    with pytest.raises(DataError, match=r"validation\.jsonl is missing; .*README\.md has changed"):
        verify_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    "content, words",
    [
        (None, "does not exist"),
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
        (b"\xff", "is damaged"),
        (b'{"splits": {}}', "is damaged"),
        (
            json.dumps({"splits": {"a": {"file": "../a", "sha256": ""}}, "card": {}}).encode(),
            "outside the folder",
        ),
    ],
)
def test_damaged_manifests(content, words, tmp_path):
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match="manifest.json.*" + words):
        verify_dataset(tmp_path)


RULE = {"name": "a", "settings": {}, "in": 3, "kept": 2, "reasons": {"x": 1}}


@pytest.mark.parametrize(
    "options, words",
    [
        ({"rules": [{"name": "a"}]}, r"rules\[0\] is"),
        ({"rules": [RULE | {"kept": 1}]}, "'a' took 3 rows and kept 1, but its reasons count 1"),
        ({"rules": [RULE, RULE | {"name": "b"}]}, "'b' took 3 rows, where the one before kept 2"),
        ({"sources": ["nothing.jsonl"]}, "nothing.jsonl does not exist"),
        ({"check": "sft"}, "check='sft'"),
        ({"check": "preference"}, "train row 1: no 'prompt'"),
        ({"format": "txt"}, "unknown format"),
    ],
)
def test_bad_calls(options, words, tmp_path):
    with pytest.raises(DataError, match=words):
        write(tmp_path / "set", **options)
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.mark.parametrize(
    "splits, words",
    [
        ({}, "of none"),
        ({"../x": ROWS}, "'../x'"),
        ({"train": []}, "'train' holds no rows"),
        ({"train": [*ROWS, {}]}, "train row 8"),
    ],
)
def test_bad_splits(splits, words, tmp_path):
    write(tmp_path / "set")
    with pytest.raises(DataError, match=words):
        write_dataset(tmp_path / "set", splits)


def test_a_split_without_rows_leaves_the_file_that_was_there(tmp_path):
    write_dataset(tmp_path / "set", {"train": ROWS[:2]})
    before = (tmp_path / "set" / "train.jsonl").read_bytes()
    with pytest.raises(DataError, match="'train' holds no rows"):
        write_dataset(tmp_path / "set", {"train": []})
    assert (tmp_path / "set" / "train.jsonl").read_bytes() == before
