"""`ftlib.core.atomic`: the old content or the new, never half, and nothing left beside it."""

import os

import pytest

from ftlib.core.atomic import new_folder, replacing, replacing_together


def contents(folder) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def fail_at_rename(monkeypatch, count: int, error: BaseException) -> None:
    """The rename of that number fails; those before and after it work."""
    calls = []
    replace = os.replace

    def failing(source, target):
        calls.append(target)
        if len(calls) == count:
            raise error
        replace(source, target)

    monkeypatch.setattr(os, "replace", failing)


def test_a_file_is_replaced_when_the_block_ends(tmp_path):
    path = tmp_path / "new" / "a"
    with replacing(path) as temporary:
        temporary.write_text("1")
        assert not path.exists()
    assert contents(path.parent) == {"a": "1"}


def test_a_failed_block_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("ha")
        raise OSError("disk full")
    assert contents(tmp_path) == {"a": "old"}


def test_a_failed_rename_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")
    fail_at_rename(monkeypatch, 1, OSError("full"))
    with pytest.raises(OSError, match="full"), replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert contents(tmp_path) == {"a": "old"}


@pytest.mark.parametrize("there", [("a", "b"), ("a",), ("b",), ()])
@pytest.mark.parametrize("fail_at", [1, 2])
@pytest.mark.parametrize("error", [OSError("full"), KeyboardInterrupt()])
def test_files_change_together_or_not_at_all(there, fail_at, error, tmp_path, monkeypatch):
    """Whichever of the two was there before, and whichever rename fails."""
    for name in there:
        (tmp_path / name).write_text(f"old {name}")
    before = contents(tmp_path)
    fail_at_rename(monkeypatch, fail_at, error)
    with (
        pytest.raises(type(error)),
        replacing_together(tmp_path / "a", tmp_path / "b") as temporary,
    ):
        for path in temporary:
            path.write_text("new")
    assert contents(tmp_path) == before


def test_without_hard_links_the_old_files_are_copied(tmp_path, monkeypatch):
    (tmp_path / "a").write_text("old")

    def refuse(source, target):
        raise OSError("no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    fail_at_rename(monkeypatch, 2, OSError("full"))
    with (
        pytest.raises(OSError, match="full"),
        replacing_together(tmp_path / "a", tmp_path / "b") as temporary,
    ):
        for path in temporary:
            path.write_text("new")
    assert contents(tmp_path) == {"a": "old"}


def test_files_written_together_are_all_there(tmp_path):
    (tmp_path / "b").write_text("old")
    with replacing_together(tmp_path / "a", tmp_path / "b") as (a, b):
        a.write_text("1")
        b.write_text("2")
    assert contents(tmp_path) == {"a": "1", "b": "2"}


def test_a_folder_appears_whole_or_not(tmp_path):
    with new_folder(tmp_path / "x" / "model") as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "x" / "model").exists()
    assert contents(tmp_path / "x" / "model") == {"a": "1"}
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "x" / "other") as temporary:
        (temporary / "a").write_text("1")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path / "x") == ["model"]
