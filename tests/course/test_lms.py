"""Zips of learning management systems: each layout, and whatever a zip that is not trusted may
hold. Nothing is written outside the folder of a student.
"""

import datetime
import os
import stat
import zipfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib import cli
from ftlib.course import lms
from ftlib.course.lms import collect
from ftlib.course.submissions import GradingError, find_submissions, plain_name

LAB = "lab-3.1.7-dpo-training.ipynb"


def make(path, files: dict):
    """A zip of these files; a key is a name or a ZipInfo."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in files.items():
            zipped.writestr(name, content)
    return path


def tree(folder) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            found[path.relative_to(folder).as_posix()] = path.read_text()
    return found


# --- layouts --------------------------------------------------------------------------------------
MOODLE_FOLDERS = {
    f"Ada Byron_101_assignsubmission_file/{LAB}": "ada",
    f"Zoë O'Brien-Groß_102_assignsubmission_file_/mine/{LAB}": "zoe",
    "Noah Smith_103_assignsubmission_file/sorry.pdf": "pdf",
    "Li Na_104_assignsubmission_onlinetext/onlinetext.html": "text",
}
MOODLE_FILES = {
    f"Ada Byron_101_assignsubmission_file_{LAB}": "ada",
    "Ada Byron_101_assignsubmission_file_second.ipynb": "again",
}
CANVAS = {
    f"byronada_55_901_{LAB}": "ada",
    f"obrienzoe_LATE_56_902_{LAB[:-6]}-1.ipynb": "zoe",
    "anon_x7Qf2_903_9_lab.ipynb": "first",
    "LATE_anon_k2_904_lab.ipynb": "second",
}
FOLDERS = {f"ada/{LAB}": "ada", "ben/lab_3_1_7.ipynb": "ben", "ben/part/lab_3_1_7.ipynb": "two"}


def test_moodle_with_folders(tmp_path):
    path = make(tmp_path / "Course-DPO-7.zip", MOODLE_FOLDERS)
    (found,) = collect([path], tmp_path / "class")
    assert found.layout == "Moodle"
    assert tree(tmp_path / "class") == {
        f"Ada Byron/Course-DPO-7/{LAB}": "ada",
        f"Zoë O'Brien-Groß/Course-DPO-7/mine_{LAB}": "zoe",
    }
    assert set(find_submissions(tmp_path / "class")) == {
        "Ada Byron",
        "Zoë O'Brien-Groß",
        "Noah Smith",
        "Li Na",
    }  # who handed in no notebook is graded as that
    assert found.left_out == [
        "Noah Smith_103_assignsubmission_file/sorry.pdf: it is no notebook",
        "Li Na_104_assignsubmission_onlinetext/onlinetext.html: it is no notebook",
    ]


def test_moodle_without_folders(tmp_path):
    (found,) = collect([make(tmp_path / "a.zip", MOODLE_FILES)], tmp_path / "class")
    assert found.layout == "Moodle"
    assert tree(tmp_path / "class") == {
        f"Ada Byron/a/{LAB}": "ada",
        "Ada Byron/a/second.ipynb": "again",
    }


def test_canvas(tmp_path):
    """Late, resubmitted and anonymous; two that are anonymous are two students."""
    (found,) = collect([make(tmp_path / "c.zip", CANVAS)], tmp_path / "class")
    assert found.layout == "Canvas"
    assert tree(tmp_path / "class") == {
        f"byronada/c/{LAB}": "ada",
        "obrienzoe/c/lab-3.1.7-dpo-training-1.ipynb": "zoe",
        "anonymous anon_x7Qf2/c/9_lab.ipynb": "first",
        "anonymous anon_k2/c/lab.ipynb": "second",
    }


@pytest.mark.parametrize("around", ["", "submissions/"])
def test_a_folder_a_student(tmp_path, around):
    files = {f"{around}{name}": content for name, content in FOLDERS.items()}
    files = {name: content for name, content in files.items() if around == "" or "part" not in name}
    (found,) = collect([make(tmp_path / "f.zip", files)], tmp_path / "class")
    assert found.layout == "folders" and found.left_out == []
    assert (
        tree(tmp_path / "class").items()
        >= {
            f"ada/f/{LAB}": "ada",
            "ben/f/lab_3_1_7.ipynb": "ben",
        }.items()
    )


def test_two_students_of_one_name_are_two(tmp_path):
    """With their numbers; and a name that a student chose cannot pass for another's."""
    files = {
        "Li Na_1_assignsubmission_file/a.ipynb": "one",
        "Li Na_2_assignsubmission_file/a.ipynb": "two",
        "=Ada_3_assignsubmission_file/a.ipynb": "three",
        "Ada_4_assignsubmission_file/a.ipynb": "four",
    }
    collect([make(tmp_path / "z.zip", files)], tmp_path / "class")
    assert tree(tmp_path / "class") == {
        "Li Na 1/z/a.ipynb": "one",
        "Li Na 2/z/a.ipynb": "two",
        "Ada 3/z/a.ipynb": "three",
        "Ada 4/z/a.ipynb": "four",
    }


def test_two_assignments_are_beside_each_other_and_a_zip_again_replaces(tmp_path):
    """Files of the same name in two zips are both there; a zip that was loaded down again brings
    what has changed; what is there beside it stays.
    """
    name = "Ada_1_assignsubmission_file/work.ipynb"
    first = make(tmp_path / "dpo.zip", {name: "old"})
    second = make(tmp_path / "kto.zip", {name: "kto"})
    collect([first, second], tmp_path / "class")
    (tmp_path / "class" / "Ada" / "remarks.txt").write_text("mine")
    collect([make(first, {name: "new"})], tmp_path / "class")
    assert tree(tmp_path / "class") == {
        "Ada/dpo/work.ipynb": "new",
        "Ada/kto/work.ipynb": "kto",
        "Ada/remarks.txt": "mine",
    }
    (tmp_path / "other").mkdir()
    with pytest.raises(GradingError, match="two zips are called 'dpo': rename one"):
        collect([first, make(tmp_path / "other" / "dpo.zip", {name: "x"})], tmp_path / "class")


def test_files_of_one_name_in_one_zip_are_all_kept(tmp_path):
    files = {"ada/a/b.ipynb": "1", "ada/a_b.ipynb": "2", "ada/A/b.ipynb": "3", "ben/x.ipynb": "4"}
    collect([make(tmp_path / "z.zip", files)], tmp_path / "class")
    assert sorted(tree(tmp_path / "class").values()) == ["1", "2", "3", "4"]


def test_a_notebook_keeps_its_time(tmp_path):
    """The latest of several is tried first while grading."""
    entry = zipfile.ZipInfo("ada/a.ipynb", (2026, 3, 2, 12, 30, 10))
    collect([make(tmp_path / "z.zip", {entry: "x"})], tmp_path / "class")
    at = datetime.datetime.fromtimestamp((tmp_path / "class/ada/z/a.ipynb").stat().st_mtime)
    assert at == datetime.datetime(2026, 3, 2, 12, 30, 10)


# --- zips that are not trusted --------------------------------------------------------------------
def linked(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3  # Unix
    entry.external_attr = (kind | 0o777) << 16
    return entry


def test_paths_that_lead_out_links_and_devices_are_left_out_and_said(tmp_path):
    files = {
        "ada/good.ipynb": "good",
        "ada/../../evil.ipynb": "out",
        "../evil.ipynb": "out",
        "ada\\..\\..\\evil.ipynb": "out",
        "/etc/evil.ipynb": "absolute",
        "C:/evil.ipynb": "drive",
        linked("ada/link.ipynb"): "/etc/passwd",
        linked("ada/pipe.ipynb", stat.S_IFIFO): "",
        "loose.ipynb": "nobody's",
        "ada/.hidden/x.ipynb": "hidden",
        "__MACOSX/ada/._good.ipynb": "mac",
    }
    (found,) = collect([make(tmp_path / "z.zip", files)], tmp_path / "in" / "class")
    assert tree(tmp_path / "in") == {
        "class/ada/z/good.ipynb": "good",
        "class/etc/z/evil.ipynb": "absolute",
        "class/C_/z/evil.ipynb": "drive",
    }
    assert {p.name for p in tmp_path.iterdir()} == {"z.zip", "in"}
    reasons = [line.rpartition(": ")[2] for line in found.left_out]
    assert sorted(reasons) == [
        "it is a link",
        "it is no regular file",
        "it names no student",
        "its path leads out of the zip",
        "its path leads out of the zip",
        "its path leads out of the zip",
    ]


def test_a_students_folder_that_is_a_link_is_refused(tmp_path):
    """What a graded submission left there, for instance."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "ada").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GradingError, match="ada is a link: remove it"):
        collect([make(tmp_path / "z.zip", {"ada/a.ipynb": "x"})], tmp_path / "class")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_in_the_place_of_the_notebook_that_is_a_link_is_replaced(tmp_path):
    (tmp_path / "class/ada/z").mkdir(parents=True)
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "class/ada/z/a.ipynb").symlink_to(tmp_path / "precious")
    collect([make(tmp_path / "z.zip", {"ada/a.ipynb": "x"})], tmp_path / "class")
    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "class/ada/z/a.ipynb").is_symlink()


def test_what_is_too_large_is_left_out_whatever_the_zip_says(tmp_path, monkeypatch):
    """1,000 bytes are allowed: one entry says that it has more; one says 10 and has more, which
    zipfile itself cuts and finds broken.
    """
    monkeypatch.setattr(lms, "BIGGEST_FILE", 1000)
    path = make(tmp_path / "z.zip", {"ada/a.ipynb": "a" * 5000, "ada/b.ipynb": "b", "c/d": "e"})
    (found,) = collect([path], tmp_path / "class")
    assert list(tree(tmp_path / "class")) == ["ada/z/b.ipynb"]
    assert found.left_out[0] == f"ada/a.ipynb: {lms.TOO_LARGE}"
    lie = path.read_bytes().replace((5000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(lie)
    (found,) = collect([path], tmp_path / "again")
    assert list(tree(tmp_path / "again")) == ["ada/z/b.ipynb"]
    assert found.left_out[0].startswith("ada/a.ipynb: ")


def test_bytes_are_counted_while_reading(tmp_path, monkeypatch):
    """An entry whose sizes say 5 where there are 5,000: the count stops it, were zipfile to read
    on.
    """
    path = make(tmp_path / "z.zip", {"ada/a.ipynb": "a" * 5000})
    monkeypatch.setattr(lms, "BIGGEST_FILE", 1000)
    monkeypatch.setattr(lms, "CHUNK", 100)
    with zipfile.ZipFile(path) as archive, pytest.raises(EOFError):
        lms._extract(archive, archive.infolist()[0], tmp_path / "a.ipynb")
    assert [p.name for p in tmp_path.iterdir()] == ["z.zip"]


def test_a_whole_that_is_too_large_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(lms, "BIGGEST_ALL", 1000)
    files = {f"ada/{i}.ipynb": "a" * 400 for i in range(10)}
    with pytest.raises(GradingError, match=r"more than 0 GB: stopped at 'ada/2\.ipynb'"):
        collect([make(tmp_path / "z.zip", files)], tmp_path / "class")
    monkeypatch.setattr(lms, "MOST_ENTRIES", 5)
    with pytest.raises(GradingError, match="more than 5 entries"):
        collect([tmp_path / "z.zip"], tmp_path / "class")


def test_broken_and_encrypted_entries_are_left_out(tmp_path):
    path = make(tmp_path / "z.zip", {"ada/a.ipynb": "a" * 100, "ben/b.ipynb": "fine"})
    content = bytearray(path.read_bytes())
    place = content.index(b"ada/a.ipynb") + len(b"ada/a.ipynb")
    content[place : place + 3] = b"\xff\xff\xff"
    path.write_bytes(content)
    (found,) = collect([path], tmp_path / "class")
    assert list(tree(tmp_path / "class")) == ["ben/z/b.ipynb"]
    assert found.left_out[0].startswith("ada/a.ipynb: it cannot be read (")
    locked = make(tmp_path / "y.zip", {"ada/a.ipynb": "x", "ben/b.ipynb": "fine"})
    content = bytearray(locked.read_bytes())
    flags = content.index(b"PK\x01\x02") + 8  # of the first entry in the central directory
    content[flags] |= 1
    locked.write_bytes(content)
    (found,) = collect([locked], tmp_path / "class2")
    assert found.left_out == ["ada/a.ipynb: it is encrypted"]


def test_names_that_a_terminal_would_obey_are_shown_as_code(tmp_path, capsys):
    make(tmp_path / "z.zip", {"ada/\x1b[31m\u202egood.pdf": "x", "ada/a.ipynb": "x"})
    assert cli.main(["collect", str(tmp_path / "z.zip"), "--output", str(tmp_path / "class")]) == 0
    out = capsys.readouterr().out
    assert "(folders): 1 notebooks of 1 students in" in out
    assert "left out: ada/\\x1b[31m\\u202egood.pdf: it is no notebook" in out


def test_what_is_no_zip_or_holds_no_student_is_named(tmp_path, capsys):
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 not a zip")
    for name, said in (
        ("no.zip", "is no zip that can be read"),
        ("none.zip", "No such file"),
        ("flat.zip", "holds nothing of a student: name a zip of Moodle's or Canvas's"),
    ):
        if name == "flat.zip":
            make(tmp_path / name, {"a.ipynb": "x"})
        assert cli.main(["collect", str(tmp_path / name), "--output", str(tmp_path / "c")]) == 2
        err = capsys.readouterr().err
        assert said in err and name in err
    assert not (tmp_path / "c").exists()


# --- names ----------------------------------------------------------------------------------------
@settings(max_examples=300, deadline=None)
@given(st.text(max_size=120))
def test_a_plain_name_is_one_folder_everywhere(name):
    plain = plain_name(name)
    assert plain == os.path.basename(plain) and plain not in ("", ".", "..")
    assert not set(plain) & set('/\\:*?"<>|\0') and plain.isprintable()
    assert plain[0] not in ".-+=@~ " and plain[-1] not in " ."
    assert len(plain) <= 101 and plain.encode() is not None


def test_plain_names():
    assert plain_name("Zoë O'Brien-Groß") == "Zoë O'Brien-Groß"
    assert plain_name('=HYPERLINK("x")') == "HYPERLINK(_x_)"
    assert plain_name("../../etc/passwd") == "_.._etc_passwd"
    assert plain_name("con.ipynb") == "_con.ipynb"
    assert plain_name("...") == "unnamed"
    assert plain_name("Zoe\u0308") == "Zo\u00eb"
