"""The English data: the files are what the code makes, parts share nothing, and every answer is
right by the rule that judges it.
"""

import json
import re
from collections import Counter

import pytest

from data.english.build import ROWS, english_rows
from data.english.messages import KINDS
from data.english.people import deal
from data.english.scenarios import KNOWN, UNKNOWN
from data.english.wordings import HELD_OUT_KINDS, TRAINED_KINDS
from ftlib.course.open_answers import judge_answer
from ftlib.course.reports import report_faults
from ftlib.data.load import load_base_text, load_rows
from ftlib.evaluation.constraints import KINDS as KINDS_OF_CONSTRAINTS
from ftlib.evaluation.constraints import constraint_met, constraints_met
from ftlib.evaluation.sentences import sentences
from ftlib.evaluation.sql import sql_match


@pytest.fixture(scope="module")
def parts() -> dict[str, list[dict]]:
    return english_rows()


def said(row: dict, field: str) -> str:
    return row[field][0]["content"]


def asked(row: dict) -> str:
    return (row.get("messages") or row["prompt"])[0]["content"]


def test_the_files_are_what_the_code_makes(parts):
    names = {path.stem for path in ROWS.glob("*.jsonl")}
    assert names == {*parts, "messy", "messy_truth"}  # tests/test_messy.py holds those two
    for name, rows in parts.items():
        lines = (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == rows, f"{name}: python -m data.english.build"


def test_the_profile_reads_them(parts):
    for name, rows in parts.items():
        if name != "base_text":
            assert len(load_rows(name, "pocket")) == len(rows)
    assert load_base_text("pocket", 3) == [row["text"] for row in parts["base_text"][:3]]


def test_held_out_rows_speak_of_others_in_other_words(parts):
    known, held_out = deal()
    for one, other in zip(vars(known).values(), vars(held_out).values(), strict=True):
        assert not set(one) & set(other)
    questions = {}
    for name in ("train", "validation", "golden", "paraphrase"):
        questions[name] = {asked(row) for row in parts[name]}
        assert len(questions[name]) == len(parts[name])
    assert not questions["train"] & (questions["validation"] | questions["golden"])
    for kind in KINDS:
        assert not set(kind.known) & set(kind.unknown)
    tables = {}
    for name in ("sql_train", "sql_golden"):
        tables[name] = {row["schema"] for row in parts[name]}
    assert not tables["sql_train"] & tables["sql_golden"]
    for trained, tested in (("faults_train", "faults_test"), ("open_train", "open_test")):
        assert not {r["key"] for r in parts[trained]} & {r["key"] for r in parts[tested]}


def test_an_answer_in_json_holds_what_the_message_says(parts):
    for row in parts["train"] + parts["golden"]:
        values = json.loads(row["answer"])
        assert len(values) == 4
        for value in values.values():
            assert str(value).lower() in asked(row).lower()


def test_every_reference_query_runs_and_no_other_of_its_form_passes_for_it(parts):
    rows = parts["sql_golden"]
    for row in rows:
        assert sql_match(row["answer"], row["answer"], row["schema"])
    for row, other in zip(rows, rows[len(rows) // 2 :], strict=False):
        if row["schema"] == other["schema"] and row["answer"] != other["answer"]:
            assert not sql_match(other["answer"], row["answer"], row["schema"])


def test_replies_to_learn_from_are_right_and_have_many_wordings(parts):
    answers = Counter(row["answer"] for row in parts["open_train"])
    assert max(answers.values()) == 1
    for row in parts["open_train"] + parts["open_test"]:
        for text in row.get("references", [row["answer"]]):
            verdict = judge_answer(text, row)
            assert verdict.right == 4
            assert verdict.faults == 0


def test_chosen_replies_have_fewer_faults_and_most_have_some(parts):
    rows = parts["faults_train"]
    for row in rows:
        chosen = report_faults(said(row, "chosen"), row).total
        rejected = report_faults(said(row, "rejected"), row).total
        assert (chosen, rejected) == (row["chosen_faults"], row["rejected_faults"])
        assert chosen < rejected
    imperfect = [row for row in rows if row["chosen_faults"]]
    assert len(imperfect) > len(rows) / 2


def test_the_irrelevant_preference_is_about_no_fault(parts):
    for row in parts["faults_irrelevant"]:
        assert said(row, "chosen") != said(row, "rejected")
        assert row["chosen_faults"] == row["rejected_faults"]


def test_pairs_by_distance_hold_everything_else_still(parts):
    for row in parts["distance_train"] + parts["distance_probe"]:
        assert (row["chosen_faults"], row["rejected_faults"]) == (0, 1)
    levels = Counter(row["level"] for row in parts["distance_train"])
    assert len(set(levels.values())) == 1 and set(levels) == {0, 1, 2, 3}
    nearest = next(row for row in parts["distance_train"] if row["level"] == 0)
    differing = [
        (a, b)
        for a, b in zip(
            said(nearest, "chosen").split(), said(nearest, "rejected").split(), strict=True
        )
        if a != b
    ]
    assert len(differing) == 1


def test_thumbs_follow_the_faults(parts):
    liked = [row for row in parts["feedback"] if row["label"]]
    assert 0.4 < len(liked) / len(parts["feedback"]) < 0.6
    for row in parts["feedback"]:
        assert row["label"] == (report_faults(said(row, "completion"), row).total <= 1)


def test_the_probe_of_knowledge_asks_a_hundred_different_questions(parts):
    rows = parts["knowledge"]
    assert len({asked(row) for row in rows}) == len(rows) == 100
    taught = " ".join(asked(row) for row in parts["train"])
    for row in rows:
        assert row["answer"] in row["accepted"]
        assert asked(row) not in taught


REQUESTS = ("requests_train", "requests_validation", "requests_test")


@pytest.mark.parametrize("name", REQUESTS)
def test_every_answer_to_a_request_keeps_its_constraints(parts, name):
    rows = parts[name]
    assert all(constraints_met([row["answer"] for row in rows], rows).rows)
    for row in rows:
        assert row["messages"][1]["content"] == row["answer"]
        assert 1 <= len(row["constraints"]) <= 2
        for constraint in row["constraints"]:
            for text in constraint.get("words", []) + constraint.get("keys", []):
                assert text in asked(row)
            assert constraint.get("phrase", "") in asked(row)


def spoilt(answer: str, constraint: dict) -> str:
    """The answer changed so that it does not keep the constraint any more."""
    longer = " and so on" * 40
    changes = {
        "sentences": f"{answer} One more.",
        "most_words": answer + longer,
        "least_words": " ".join(answer.split()[: constraint.get("count", 1) - 1]),
        "bullets": f"{answer}\n- One more",
        "paragraphs": f"{answer}\n\nOne more.",
        "lower_case": f"{answer[:-1]}Q{answer[-1]}",
        "upper_case": f"{answer[:-1]}q{answer[-1]}",
        "begin_with": f"Well. {answer}",
        "end_with": f"{answer} Well.",
        "json_keys": answer.replace('"', "'"),
        "no_commas": f"{answer[:-1]}, {answer[-1]}",
        "quoted": answer[1:],
    }
    if constraint["kind"] == "use_words":
        return re.sub(constraint["words"][-1], "something", answer, flags=re.IGNORECASE)
    if constraint["kind"] == "avoid_words":
        return f"{answer} {constraint['words'][-1].upper()}!"
    return changes[constraint["kind"]]


def test_a_changed_answer_does_not_keep_its_constraint(parts):
    for name in REQUESTS:
        for row in parts[name]:
            for constraint in row["constraints"]:
                changed = spoilt(row["answer"], constraint)
                assert not constraint_met(changed, constraint), (changed, constraint)


def test_requests_held_out_are_of_other_scenarios_and_kinds(parts):
    kinds = {}
    scenarios = {}
    for name in REQUESTS:
        rows = parts[name]
        assert len({asked(row) for row in rows}) == len(rows)
        kinds[name] = {each["kind"] for row in rows for each in row["constraints"]}
        scenarios[name] = {row["family"] for row in rows}
    assert kinds["requests_train"] == set(TRAINED_KINDS) == kinds["requests_validation"]
    assert kinds["requests_test"] == set(KINDS_OF_CONSTRAINTS)
    assert not scenarios["requests_train"] & scenarios["requests_test"]
    new = 0
    for row in parts["requests_test"]:
        new += any(each["kind"] in HELD_OUT_KINDS for each in row["constraints"])
    assert new == len(parts["requests_test"]) / 2
    known, held_out = deal()
    for row in parts["requests_train"]:
        assert not set(re.findall(r"\w+", asked(row))) & set(held_out.first_names)
    for row in parts["requests_validation"] + parts["requests_test"]:
        assert not set(re.findall(r"\w+", asked(row))) & set(known.first_names)


def test_what_requests_are_made_of_goes_together():
    """The first sentence has no comma, sentences end once, and no words to avoid are in them."""
    for scenario in (*KNOWN, *UNKNOWN):
        assert "," not in scenario.sentences[0]
        for text in (*scenario.sentences, *scenario.openers, *scenario.closers):
            assert len(sentences(text)) == 1 and text[-1] in ".!?"
            constraint = {"kind": "avoid_words", "words": list(scenario.avoid)}
            assert constraint_met(text, constraint)
        assert not any("," in point for point in scenario.points)
