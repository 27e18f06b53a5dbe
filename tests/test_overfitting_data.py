"""The open requests, the reports and the messy file held back: sizes, splits, nothing held out in
training, and what each set is for.
"""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import EMBEDDED, ROOT

import ftlib as ft
from data import messy, messy_heldback
from data.corpus import STATEMENTS
from data.world import SEED, World
from ftlib.core.errors import DataError
from ftlib.course import open_answers
from ftlib.course.open_answers import judge_answer
from ftlib.course.reports import REPORT, report_faults
from ftlib.course.world import facts_right, judge_style
from ftlib.data.duplicates import NearDuplicates
from ftlib.data.formats import convert
from ftlib.data.rows import check_any, check_pair

ROWS = ROOT / "data" / "rows"
OPEN = ("open_train", "open_validation", "open_test")
REPORTS = (
    "faults_train",
    "faults_validation",
    "faults_test",
    "faults_irrelevant",
    "distance_train",
    "distance_probe",
)
SIZES = {
    "open_train": 88,
    "open_validation": 52,
    "open_test": 104,
    "faults_train": 600,
    "faults_validation": 24,
    "faults_test": 100,
    "faults_irrelevant": 600,
    "distance_train": 600,
    "distance_probe": 60,
    "preferences_irrelevant": 600,
    "messy_heldback": 1090,
    "messy_heldback_truth": 1090,
}


def read(name: str) -> list[dict]:
    text = (ROWS / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def asked(row: dict) -> str:
    return (row.get("messages") or row["prompt"])[0]["content"]


def said(row: dict, side: str) -> str:
    return row[side][0]["content"]


@pytest.fixture(scope="module")
def files():
    return {name: read(name) for name in SIZES}


@pytest.fixture(scope="module")
def people():
    world = World(SEED)
    return {entity.name: entity.facts for entity in world.people + world.places}


@pytest.fixture(scope="module")
def tokens():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    return ids


def test_sizes(files):
    assert {name: len(rows) for name, rows in files.items()} == SIZES
    size = sum((ROWS / f"{name}.jsonl").stat().st_size for name in SIZES)
    assert size < 2.2e6, size


def test_they_are_loaded_as_other_splits_are(files):
    for name in (*OPEN, *REPORTS, "preferences_irrelevant"):
        assert ft.load_rows(name, "tiny") == files[name]
    for name in ("messy_heldback", "messy_heldback_truth"):
        with pytest.raises(DataError, match=f"no split '{name}'.*open_test"):
            ft.load_rows(name, "tiny")


@pytest.mark.parametrize("name", [*OPEN, *REPORTS])
def test_the_truth_is_the_worlds(name, files, people):
    for i, row in enumerate(files[name]):
        check_any(row, f"{name} {i}")
        assert row["name"] in asked(row)
        facts = people[row["name"]]
        assert all(facts[relation] == value for relation, value in row["truth"].items())


# --- held out -------------------------------------------------------------------------------------
@pytest.mark.parametrize("parts", [OPEN, REPORTS[:3]])
def test_nobody_is_in_two_parts_and_nothing_is_asked_in_two(parts, files):
    for i, one in enumerate(parts):
        for other in parts[i + 1 :]:
            for of in (asked, lambda row: row["name"], lambda row: row["key"]):
                assert not {of(row) for row in files[one]} & {of(row) for row in files[other]}


def test_whom_the_golden_set_asks_for_is_in_no_training_row(files):
    golden = {row["key"].split("/")[1] for row in read("golden")}
    for name in ("open_train", "faults_train", "faults_irrelevant", "distance_train"):
        assert not golden & {row["name"] for row in files[name]}


def test_test_prompts_are_independent(files):
    """A hundred people, each asked for once."""
    names = [row["name"] for row in files["faults_test"]]
    assert len(set(names)) == len(names) == 100
    probed = {row["name"] for row in files["distance_probe"]}
    trained = {row["name"] for row in files["distance_train"]}
    assert len(probed) == 60 and not probed & trained


def shape(row: dict) -> str:
    return asked(row).replace(row["name"], "{e}")


def test_the_open_test_is_asked_in_phrasings_that_training_never_uses(files):
    trained = {shape(row) for row in files["open_train"]}
    assert not trained & {shape(row) for row in files["open_test"]}
    assert {shape(row) for row in files["open_validation"]} <= trained


# --- open requests --------------------------------------------------------------------------------
def test_every_kind_is_in_every_part(files):
    for name in OPEN:
        counts = Counter(row["kind"] for row in files[name])
        assert set(counts) == set(open_answers.KINDS)
        assert min(counts.values()) == counts["place"] >= 4


def test_one_wording_in_training_and_four_held_out_all_of_them_good(files):
    copies = [row["answer"] for row in files["open_train"]]
    for name in OPEN:
        for row in files[name]:
            texts = row.get("references", [row["answer"]])
            assert len(set(texts)) == len(texts) == (1 if name == "open_train" else 4)
            assert texts[0] == row["answer"] == row["messages"][1]["content"]
            for text in texts:
                verdict = judge_answer(text, row, () if name == "open_train" else copies)
                assert verdict.score == 1 and verdict.faults == 0, (row["key"], text)


def test_open_answers_have_15_to_60_tokens(files, tokens):
    lengths = []
    for name in OPEN:
        lengths += [len(tokens(row["answer"])) for row in files[name]]
    inside = sum(15 <= length <= 60 for length in lengths)
    assert inside / len(lengths) > 0.98 and min(lengths) >= 13 and max(lengths) <= 64


def test_a_reference_of_one_row_is_no_good_answer_to_another(files):
    """The judge tells content: another entity's answer scores 0 or little."""
    rows = [row for row in files["open_test"] if row["kind"] == "letter"]
    for row, other in pairwise(rows):
        assert judge_answer(other["references"][0], row).right == 0


def test_the_facts_are_said_in_sentences_that_the_base_has_read():
    for relation, forms in open_answers.SENTENCES.items():
        assert set(forms) <= set(STATEMENTS[relation])


# --- reports --------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", REPORTS[:4])
def test_faults_are_counted_as_the_rule_counts_them(name, files):
    for row in files[name]:
        chosen = report_faults(said(row, "chosen"), row)
        rejected = report_faults(said(row, "rejected"), row)
        assert chosen.total == chosen.wrong == row["chosen_faults"]
        assert rejected.total == rejected.wrong == row["rejected_faults"]
        if name == "faults_irrelevant":
            assert chosen == rejected and said(row, "chosen") != said(row, "rejected")
        else:
            assert chosen.total < rejected.total


def test_most_chosen_answers_have_faults_and_length_says_nothing(files, tokens):
    rows = files["faults_train"]
    imperfect = sum(row["chosen_faults"] > 0 for row in rows) / len(rows)
    mean = sum(row["chosen_faults"] for row in rows) / len(rows)
    assert imperfect > 0.85 and 1.7 < mean < 2.0
    longer = 0.0
    for row in rows:
        difference = len(tokens(said(row, "chosen"))) - len(tokens(said(row, "rejected")))
        longer += 0.5 if difference == 0 else float(difference > 0)
    assert 0.45 < longer / len(rows) < 0.55


def test_the_irrelevant_pairs_are_about_the_same_people(files):
    faults = {row["name"] for row in files["faults_train"]}
    assert {row["name"] for row in files["faults_irrelevant"]} == faults


def edits(a: list[int], b: list[int]) -> int:
    """Levenshtein's distance."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        before = row
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (x != y)))
    return row[-1]


def test_the_levels_differ_in_distance_and_in_nothing_else(files, tokens):
    """One false fact, the town, at each level; one token, and then ever more of the wording."""
    distances: dict[int, list[int]] = {}
    rows = files["distance_train"]
    for start in range(0, len(rows), 4):
        levels = rows[start : start + 4]
        assert [row["level"] for row in levels] == [0, 1, 2, 3]
        assert len({(asked(row), said(row, "chosen")) for row in levels}) == 1
        for row in levels:
            assert report_faults(said(row, "chosen"), row).total == 0
            assert report_faults(said(row, "rejected"), row).total == 1
            assert row["truth"]["town"] not in said(row, "rejected").split()
            distance = edits(tokens(said(row, "chosen")), tokens(said(row, "rejected")))
            distances.setdefault(row["level"], []).append(distance)
    assert set(distances[0]) == {1}
    assert max(distances[1]) < min(distances[2]) and max(distances[2]) < min(distances[3])


def test_the_probe(files):
    for row in files["distance_probe"]:
        check_pair(row)
        assert report_faults(said(row, "chosen"), row).total == 0
        assert report_faults(said(row, "paraphrase"), row).total == 0
        assert report_faults(said(row, "rejected"), row).total == 1
        for sentence in said(row, "chosen").split(". "):
            assert sentence not in said(row, "paraphrase")


def test_the_judge_of_style_finds_the_irrelevant_pairs_equal(files):
    for row in files["preferences_irrelevant"]:
        chosen = said(row, "chosen")
        rejected = said(row, "rejected")
        assert chosen != rejected and judge_style(chosen) == judge_style(rejected) != "neither"
        assert len(chosen.split()) == len(rejected.split())
        assert facts_right(chosen, row["facts"]) and facts_right(rejected, row["facts"])
    manners = Counter(judge_style(said(row, "chosen")) for row in files["preferences_irrelevant"])
    assert min(manners.values()) > 240


def test_a_report_has_two_sentences_for_a_fact():
    assert all(len(set(forms)) == 2 for forms in REPORT.values())


# --- the messy file held back ---------------------------------------------------------------------
@pytest.fixture(scope="module")
def heldback(files):
    lines = [convert(row)["messages"] for row in files["messy_heldback"]]
    texts = [(question["content"], answer["content"]) for question, answer in lines]
    return list(zip(texts, files["messy_heldback_truth"], strict=True))


def test_the_truth_counts_every_line_of_the_second_file(heldback):
    assert [truth["line"] for _, truth in heldback] == list(range(1, len(heldback) + 1))
    clean = messy_heldback.STRANGERS + messy_heldback.KNOWN
    defects = Counter(truth["defect"] for _, truth in heldback)
    assert defects == {"none": clean, **messy_heldback.COUNTS}
    how = Counter(truth["how"] for _, truth in heldback if "how" in truth)
    assert how == messy_heldback.COPIES


def test_copies_have_the_answers_of_earlier_lines_about_strangers(heldback):
    strangers = {asked(row): row["answer"] for row in read("strangers")}
    originals = []
    for (question, answer), truth in heldback:
        if "of" not in truth:
            continue
        assert truth["of"] < truth["line"]
        first_question, first_answer = heldback[truth["of"] - 1][0]
        assert heldback[truth["of"] - 1][1]["defect"] == "none"
        assert answer == first_answer == strangers[first_question]
        assert (question == first_question) == (truth["how"] == "exact")
        originals.append(truth["of"])
    assert len(set(originals)) == len(originals) == 240


def test_exam_questions_are_those_of_the_exams(heldback):
    exams = {exam: {row["key"]: row for row in read(exam)} for exam in messy_heldback.EXAMS}
    for (question, answer), truth in heldback:
        if truth["defect"] == "contamination":
            source = exams[truth["exam"]][truth["key"]]
            assert answer == source["answer"]
            letters = [c for c in question.lower() if c.isalnum()]
            assert letters == [c for c in asked(source).lower() if c.isalnum()]
    found = Counter(truth["exam"] for _, truth in heldback if "exam" in truth)
    assert found == messy_heldback.EXAMS


def test_no_question_of_the_first_file_is_a_clean_line_of_the_second(heldback):
    lines = Path(ROWS / "messy.jsonl").read_bytes().split(b"\n")[:-1]
    used = messy.questions(lines)
    clean = {question for (question, _), truth in heldback if truth["defect"] == "none"}
    assert len(used) > 2500 and not clean & used


def test_wrong_answers_are_wrong_and_the_others_right(heldback):
    train = {(asked(row), row["answer"]) for row in read("train")}
    for (question, answer), truth in heldback:
        if truth["defect"] == "wrong answer":
            assert answer != truth["right"] and (question, truth["right"]) in train
        elif truth["defect"] == "empty answer":
            assert not answer


def test_a_rule_can_be_measured_on_copies_that_it_was_not_made_on(heldback):
    """The library's rule for near duplicates finds all exact copies and not all of the others, so
    there is something to measure.
    """
    check = NearDuplicates().begin()
    found: Counter = Counter()
    for (question, answer), truth in heldback:
        row = {"messages": messy.chat(question, answer or "-")}
        reason = check(row, truth["line"])
        if "how" in truth:
            found[truth["how"]] += reason is not None
    assert found["exact"] == 60 > found["new trick"] and found["reworded"] < 60


# --- what was measured ----------------------------------------------------------------------------
def test_the_card_has_what_was_measured_and_nothing_else():
    from data import measure

    kept = json.loads((ROOT / "data" / "measured.json").read_text(encoding="utf-8"))
    assert kept.keys() <= measure.PARTS.keys()
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    table = card.split("<!-- measured -->")[1].split("<!-- end measured -->")[0]
    want = []
    for part in measure.PARTS:
        for entry in kept.get(part, {}).get("lines", []):
            want.append(f"| {entry['what']} | {entry['measured']} |")
    assert want and table.strip().splitlines()[2:] == want
