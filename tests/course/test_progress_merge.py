"""Records of two machines as one: the merge is a join, and loses nothing that a machine knows."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib import cli
from ftlib.course import progress
from ftlib.course.progress_merge import merge_records

# --- the merge ------------------------------------------------------------------------------------
LABS = st.sampled_from(["3.1.1", "3.1.10", "E3", "9.9.9"])
NAMES = st.sampled_from(["lora_forward", "merge_weight", "x"])
DATES = st.sampled_from(["", "2026-01-01", "2026-01-02", "2026-01-02T10:00:00.000001+00:00"])
DATED = st.dictionaries(LABS, st.dictionaries(NAMES, DATES, max_size=3), max_size=3)
READ = st.dictionaries(st.sampled_from(["lora", "qlora", "dpo"]), DATES, max_size=3)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(0, 3), st.sampled_from(["a", "b"]))
UNKNOWN = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=6,
)
RECORDS = st.fixed_dictionaries(
    {"exercises": DATED, "read": READ},
    optional={"hints": DATED, "solutions": DATED, "unread": READ, "badges": UNKNOWN, "y": UNKNOWN},
)


def merged(*records: dict) -> str:
    """The merge of all, in this order, as text: 1, 1.0 and True are equal as numbers only."""
    whole = records[0]
    for record in records[1:]:
        whole = merge_records(whole, record)
    return json.dumps(whole, sort_keys=True)


@settings(max_examples=300, deadline=None)
@given(RECORDS, RECORDS, RECORDS)
def test_the_merge_is_a_join(one, other, third):
    """a ∪ b = b ∪ a, (a ∪ b) ∪ c = a ∪ (b ∪ c), (a ∪ b) ∪ b = a ∪ b; nothing given is changed."""
    before = json.dumps([one, other, third])
    assert merged(one, other) == merged(other, one)
    assert merged(one, other, third) == merged(one, merge_records(other, third))
    assert merged(one, other, other) == merged(one, other) == merged(one, other, one)
    assert json.dumps([one, other, third]) == before


@settings(max_examples=200, deadline=None)
@given(RECORDS, RECORDS)
def test_nothing_is_lost(one, other):
    """Every exercise, hint and solution of either is in the merge with the earlier date, and every
    tick that no later untick took away.
    """
    whole = merge_records(one, other)
    for part in ("exercises", "hints", "solutions"):
        for record in (one, other):
            for lab, names in record.get(part, {}).items():
                for name, date in names.items():
                    assert whole[part][lab][name] <= date
    unticked = [record.get("unread", {}) for record in (one, other)]
    for record in (one, other):
        for key, at in record["read"].items():
            if all(at >= taken.get(key, "") for taken in unticked):
                assert whole["read"][key] >= at


def test_by_hand():
    """Solved on the laptop on the 2nd with a hint of the 1st, on the desk on the 1st without one:
    the 1st, and a hint of the same day. Ticked on the 1st, taken away on the 2nd, ticked again on
    the 3rd elsewhere: ticked.
    """
    laptop = {
        "exercises": {"3.1.1": {"x": "2026-01-02"}},
        "hints": {"3.1.1": {"x": "2026-01-01"}},
        "read": {},
        "unread": {"lora": "2026-01-02"},
    }
    desk = {
        "exercises": {"3.1.1": {"x": "2026-01-01", "y": "2026-01-03"}},
        "read": {"lora": "2026-01-01"},
    }
    assert merge_records(laptop, desk) == {
        "exercises": {"3.1.1": {"x": "2026-01-01", "y": "2026-01-03"}},
        "hints": {"3.1.1": {"x": "2026-01-01"}},
        "read": {},
        "unread": {"lora": "2026-01-02"},
    }
    later = {"exercises": {}, "read": {"lora": "2026-01-03"}}
    assert merge_records(laptop, later)["read"] == {"lora": "2026-01-03"}


# --- from machine to machine ----------------------------------------------------------------------
@pytest.fixture
def machines(tmp_path, monkeypatch):
    """Switches to a machine: a record of its own."""

    def on(name: str):
        monkeypatch.setenv("FTLIB_PROGRESS", str(tmp_path / name / "progress.json"))
        return tmp_path / name / "progress.json"

    return on


def test_two_machines_over_a_file(machines, tmp_path, capsys):
    """What the desk and the laptop have solved is on both in the end; the file on the stick, to
    which both export, loses neither.
    """
    stick = str(tmp_path / "stick" / "progress.json")
    machines("desk")
    progress.record_exercise("3.1.1", "lora_forward")
    progress.mark_read(["lora", "qlora"])
    assert cli.main(["progress", "--export", stick]) == 0
    machines("laptop")
    progress.record_help("3.1.2", "decompose", "hints")
    progress.record_exercise("3.1.2", "decompose")
    assert cli.main(["progress", "--export", stick]) == 0
    assert f"`ftlib progress --import {stick}`" in capsys.readouterr().out
    assert cli.main(["progress", "--import", stick]) == 0
    assert "+1 exercises, +2 readings" in capsys.readouterr().err
    progress.mark_read(["qlora"], read=False)
    progress.export_progress(stick)
    laptop = progress.load_progress()
    machines("desk")
    assert progress.import_progress([stick, stick]) == {"exercises": 1, "readings": -1}
    assert progress.load_progress() == laptop
    assert set(laptop["exercises"]) == {"3.1.1", "3.1.2"} and list(laptop["read"]) == ["lora"]


def test_a_tick_that_was_taken_away_can_be_put_back(machines, tmp_path):
    machines("desk")
    progress.mark_read(["lora"])
    progress.export_progress(tmp_path / "old.json")
    progress.mark_read(["lora"], read=False)
    progress.import_progress([tmp_path / "old.json"])
    assert not progress.load_progress()["read"]
    progress.mark_read(["lora"])
    progress.import_progress([tmp_path / "old.json"])
    assert list(progress.load_progress()["read"]) == ["lora"]


BAD = {
    "cut.json": b'{"exercises": {',
    "list.json": b"[]",
    "number.json": b"3",
    "package.json": b'{"name": "x", "exercises": {}}',
    "dates.json": b'{"exercises": {"3.1.1": {"a": 1}}, "read": {}}',
    "deep.json": b"[" * 100_000,
    "binary.json": b"\xff\xfe\x00",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_named_and_nothing_is_written(machines, tmp_path, capsys, name):
    """Nor of the good file before it; nor is the bad one written over by an export."""
    record = machines("desk")
    progress.mark_read(["lora"])
    before = record.read_bytes()
    good = tmp_path / "good.json"
    good.write_text('{"exercises": {"3.1.1": {"x": "2026-01-01"}}, "read": {}}')
    bad = tmp_path / name
    bad.write_bytes(BAD[name])
    assert cli.main(["progress", "--import", str(good), str(bad)]) == 2
    said = capsys.readouterr().err
    assert f"{bad} is no record of progress (" in said and "ftlib progress --export" in said
    assert cli.main(["progress", "--export", str(bad)]) == 2
    assert bad.read_bytes() == BAD[name] and record.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["desk", "good.json", name])


def test_files_that_are_not_there_too_large_or_the_record_itself(machines, tmp_path, monkeypatch):
    record = machines("desk")
    progress.mark_read(["lora"])
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        progress.import_progress([tmp_path / "none.json"])
    with pytest.raises(ValueError, match="this machine's own record: name another file"):
        progress.export_progress(record)
    progress.export_progress(tmp_path / "out.json")
    monkeypatch.setattr(progress, "BIGGEST", 10)
    with pytest.raises(ValueError, match=r"out\.json has more than"):
        progress.import_progress([tmp_path / "out.json"])


def test_what_another_version_wrote_goes_along(machines, tmp_path):
    machines("desk")
    other = {"exercises": {"9.9.9": {"x": "2030-01-01"}}, "read": {}, "badges": [2, 1]}
    (tmp_path / "new.json").write_text(json.dumps(other))
    progress.import_progress([tmp_path / "new.json"])
    assert progress.load_progress() == other
