"""Progress as text and as a picture: the same states, readable by shape, escaped, with its text."""

import json
import xml.etree.ElementTree as ElementTree

import pytest
from test_course import DOUBLE, named, not_written

from ftlib.course import progress
from ftlib.course.catalogue import POINTS
from ftlib.course.exercise import Lab
from ftlib.course.progress_views import BLUE, alt_text, next_line, progress_html, progress_text

FIRST = list(POINTS["3.1.1"])


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("FTLIB_PROGRESS", str(tmp_path / "progress.json"))
    return tmp_path / "progress.json"


def cells(page: str) -> dict[str, ElementTree.Element]:
    """The picture's cells by what comes up under the pointer."""
    root = ElementTree.fromstring(page.replace('xmlns="http://www.w3.org/2000/svg" ', ""))
    found = {}
    for group in root.iter("g"):
        title = group.find("title")
        if title is not None:
            found[title.text] = group
    return found


# --- states ---------------------------------------------------------------------------------------
def test_how_much_help_there_was(file, monkeypatch):
    """A hint before the solution counts, and the solution more than it; help asked for afterwards
    does not, nor, after a merge, help of a later day.
    """
    days = iter(
        ["2026-01-01", "2026-01-01", "2026-01-01", "2026-01-02", "2026-01-02", "2026-01-02"]
    )
    monkeypatch.setattr(progress, "_today", lambda: next(days))
    one, two, three, four = FIRST[:4]
    progress.record_help("3.1.1", two, "hints")
    progress.record_help("3.1.1", three, "hints")
    progress.record_help("3.1.1", three, "solutions")
    for name in (one, two, three):
        progress.record_exercise("3.1.1", name)
    progress.record_help("3.1.1", one, "solutions")
    assert list(progress.load_progress()["solutions"]["3.1.1"]) == [three]
    first = progress.summary()["labs"][0]
    found = {each["name"]: each["status"] for each in first["exercises"]}
    assert found | {one: "solved", two: "with hint", three: "solution seen", four: "open"} == found
    elsewhere = {"exercises": {}, "read": {}, "hints": {"3.1.1": {one: "2026-01-03"}}}
    (file.parent / "b.json").write_text(json.dumps(elsewhere))
    progress.import_progress([file.parent / "b.json"])
    assert progress.summary()["labs"][0]["exercises"][0]["status"] == "solved"


def test_hint_and_solution_are_noted_where_a_lab_asks_for_them(file, capsys, monkeypatch):
    lab = Lab("3.1.1", [DOUBLE])
    lab.hint("double")
    lab.solution("double")
    assert set(progress.load_progress()) == {"exercises", "read", "hints", "solutions"}
    lab.check(named(lambda x: x * 2))
    file.unlink()
    monkeypatch.setenv("FTLIB_GRADING", "1")
    lab.hint("double")
    assert not file.exists()


def test_the_next_step_is_in_the_lab_that_was_worked_on_last(file, monkeypatch):
    """Then in the labs after it and those before; then a required reading; then beyond the ten."""
    assert progress.summary()["next"] == {"lab": "3.1.1", "name": FIRST[0], "xp": 2}
    for day, lab in (("2026-01-02", "3.1.8"), ("2026-01-01", "3.1.9")):
        monkeypatch.setattr(progress, "_today", lambda day=day: day)
        progress.record_exercise(lab, next(iter(POINTS[lab])))
    assert progress.summary()["next"]["lab"] == "3.1.8"
    for lab, names in POINTS.items():
        for name in names:
            if not lab.startswith("E") and (lab, name) != ("3.1.1", FIRST[3]):
                progress.record_exercise(lab, name)
    assert next_line(progress.summary()) == f"next: {FIRST[3]} in lab 3.1.1, 2 XP"
    progress.record_exercise("3.1.1", FIRST[3])
    assert progress.summary()["next"]["reading"] == "lora"
    required = [r["key"] for r in progress.summary()["readings"] if r["level"] == "required"]
    progress.mark_read(required)
    extensions = [lab for lab in POINTS if lab.startswith("E")]
    assert progress.summary()["next"]["lab"] == extensions[0] == "E1"
    for lab in extensions:
        for name in POINTS[lab]:
            progress.record_exercise(lab, name)
    assert progress.summary()["next"] is None
    assert "a project of your own" in next_line(progress.summary())


# --- text and picture -----------------------------------------------------------------------------
def test_text_and_picture_say_the_same(file):
    progress.record_help("3.1.1", FIRST[1], "hints")
    for name in FIRST[:2]:
        progress.record_exercise("3.1.1", name)
    progress.mark_read(["lora"])
    state = progress.summary()
    text = progress_text(state)
    row = next(line for line in text.splitlines() if line.startswith("3.1.1 LoRA"))
    assert "■▣" + "□" * (len(FIRST) - 2) in row and row.endswith("4 of 18 XP")
    drawn = cells(progress_html(state))
    assert len(drawn) == sum(map(len, POINTS.values())) + len(state["readings"])
    solved = drawn[f"{FIRST[0]}: 2 XP, solved"]
    hinted = drawn[f"{FIRST[1]}: 2 XP, solved with a hint"]
    following = drawn[f"{FIRST[2]}: 2 XP, open"]
    other = drawn[f"{FIRST[3]}: 2 XP, open"]
    shapes = set()
    for cell in (solved, hinted, following, other):
        parts = list(cell)[1:]
        shapes.add(b"".join(ElementTree.tostring(part) for part in parts))
    assert len(shapes) == 4  # told apart by more than their place
    assert following.find("g/text").text == "2"
    assert "54 XP" in progress_html(state) and BLUE in progress_html(state)


def test_the_picture_has_its_text_and_no_colour_but_the_pages_and_one(file):
    page = progress_html(progress.summary())
    root = ElementTree.fromstring(page)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == alt_text(
        progress.summary()
    )
    assert "3.1.10 Ollama: 0 of 8" in root.attrib["aria-label"]
    colours = set()
    for part in root.iter():
        colours |= {part.attrib.get("fill", "none"), part.attrib.get("stroke", "none")}
    assert colours <= {"currentColor", "none", BLUE, "#fff"}


def test_texts_are_escaped(file):
    state = progress.summary()
    state["labs"][0]["name"] = "<script>&\"'"
    state["labs"][0]["exercises"][0]["name"] = "<b>"
    page = progress_html(state)
    assert "<script>" not in page and "<b>" not in page
    ElementTree.fromstring(page)


def test_nothing_was_attempted(file):
    lab = Lab("3.1.1", [DOUBLE])
    lab.check(named(not_written))
    assert "■" not in progress_text(progress.summary()).splitlines()[2]
    assert not file.exists()
