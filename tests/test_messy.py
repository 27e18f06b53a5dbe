"""The messy files, of the embedded world and in English: every line is what its truth says."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT

from data import messy
from data.english.messy import RECIPE, note_rows
from ftlib.core.errors import DataError
from ftlib.data.formats import convert
from ftlib.data.pii import find_pii
from ftlib.data.rows import check_row


@dataclass(frozen=True)
class Messy:
    """A messy file: where it lies and how it was made."""

    folder: Path
    recipe: messy.Recipe

    def read(self, name: str) -> list[dict]:
        content = (self.folder / f"{name}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in content.splitlines()]

    @property
    def train(self) -> list[dict]:
        more = note_rows() if self.recipe is RECIPE else []
        return self.read("train") + more


FILES = {
    "embedded": Messy(ROOT / "data" / "rows", messy.EMBEDDED),
    "english": Messy(ROOT / "data" / "english" / "rows", RECIPE),
}


@pytest.fixture(scope="module", params=FILES)
def file(request) -> Messy:
    return FILES[request.param]


@pytest.fixture(scope="module")
def lines(file):
    """(the raw line, its truth) of every line."""
    raw = (file.folder / "messy.jsonl").read_bytes().split(b"\n")[:-1]
    return list(zip(raw, file.read("messy_truth"), strict=True))


def parsed(line: bytes) -> tuple[str, str]:
    """(question, answer) of a line that can be read."""
    question, answer = convert(json.loads(line.decode("utf-8")))["messages"]
    return question["content"], answer["content"]


def test_the_files_are_what_the_code_makes(file, lines):
    made = messy.messy_lines(file.train, file.read("golden"), file.recipe)
    assert made == ([line for line, _ in lines], [truth for _, truth in lines])


def test_the_truth_counts_every_line(file, lines):
    assert [t["line"] for _, t in lines] == list(range(1, len(lines) + 1))
    assert Counter(t["defect"] for _, t in lines) == {
        "none": file.recipe.clean,
        **file.recipe.counts,
    }
    assert {t["format"] for _, t in lines} == {"messages", "alpaca", "sharegpt", "none"}


def test_broken_lines_are_broken_and_the_others_are_not(lines):
    for line, truth in lines:
        if truth["defect"] == "not utf-8":
            with pytest.raises(UnicodeDecodeError):
                line.decode("utf-8")
        elif truth["defect"] == "invalid json":
            with pytest.raises(json.JSONDecodeError):
                json.loads(line.decode("utf-8"))
        elif truth["defect"] == "missing key":
            with pytest.raises(DataError):
                convert(json.loads(line))
        else:
            row = json.loads(line)
            assert (
                truth["format"] in ("messages", "alpaca", "sharegpt")
                and len(convert(row)["messages"]) == 2
            )
            if truth["defect"] != "empty answer":
                check_row(convert(row), f"line {truth['line']}")


def letters(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def assert_copy(first: tuple[str, str], second: tuple[str, str], near: bool) -> None:
    """The same answer; the same question, or where `near` one that differs by a word or signs."""
    assert first[1] == second[1] and (first[0] != second[0]) == near
    asked = letters(second[0])
    assert not near or letters(first[0]) in asked.replace("please", "") + asked


def test_each_defect_is_there_and_the_clean_lines_are_rows_of_training(file, lines):
    train = {tuple(m["content"] for m in r["messages"]) for r in file.train}
    golden = {r["key"]: r for r in file.read("golden")}
    texts = {
        t["line"]: parsed(line)
        for line, t in lines
        if t["defect"] not in ("invalid json", "missing key", "not utf-8")
    }
    clean = [texts[t["line"]] for _, t in lines if t["defect"] == "none"]
    assert set(clean) <= train and len(set(clean)) == len(clean)
    for _, t in lines:
        question, answer = texts.get(t["line"], ("", ""))
        match t["defect"]:
            case "duplicate" | "near duplicate":
                assert_copy(texts[t["of"]], texts[t["line"]], near=t["defect"] != "duplicate")
                assert t["of"] < t["line"]
            case "pii":
                assert [(p["kind"], p["text"]) for p in t["pii"]] == [
                    (f.kind, f.text) for part in (question, answer) for f in find_pii(part)
                ]
            case "contamination":
                assert (
                    letters(question) == letters(golden[t["golden"]]["messages"][0]["content"])
                    and answer == golden[t["golden"]]["answer"]
                )
            case "wrong answer":
                assert (
                    answer != t["right"]
                    and (question, t["right"]) in train
                    and (question, answer) not in train
                )
            case "empty answer":
                assert not answer.strip("\u200b \n")
            case "html":
                assert "<" in answer and ">" in answer
            case "code":
                assert "\n" in answer
            case "language":
                assert not (question + answer).isascii() or t["language"] in messy.FOREIGN


def test_personal_data_is_only_where_it_was_put(lines):
    for line, t in lines:
        if t["defect"] in ("none", "code", "language", "html", "duplicate"):
            assert not find_pii(" ".join(parsed(line))), line


def test_a_wrong_answer_in_english_has_one_wrong_value():
    for truth, row in zip(*_wrong_in_english(), strict=True):
        right = json.loads(truth["right"])
        found = json.loads(row[1])
        assert list(found) == list(right)
        assert sum(found[key] != right[key] for key in right) == 1


def _wrong_in_english() -> tuple[list[dict], list[tuple[str, str]]]:
    """The truths about lines with a wrong answer, and what they say."""
    file = FILES["english"]
    raw = (file.folder / "messy.jsonl").read_bytes().split(b"\n")
    truths = [truth for truth in file.read("messy_truth") if truth["defect"] == "wrong answer"]
    return truths, [parsed(raw[truth["line"] - 1]) for truth in truths]


def test_english_has_short_notes_too(lines, file):
    if file.recipe is RECIPE:
        questions = [parsed(line)[0] for line, truth in lines if truth["defect"] == "none"]
        assert 40 < sum(len(question) < 45 for question in questions) < len(questions) / 2
        assert len({row["key"] for row in note_rows()}) == len(note_rows())
