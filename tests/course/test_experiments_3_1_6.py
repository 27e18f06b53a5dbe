"""Lab 3.1.6: controls that share what they claim to share, splits that leak as much as they say,
and a rule for copies that is the library's own.
"""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from ftlib.course.lab_3_1_6 import messy_files, near_copies, near_explorer
from ftlib.course.lab_3_1_6.cleaning_trials import treated
from ftlib.course.lab_3_1_6.golden_overlap import golden_overlap
from ftlib.course.lab_3_1_6.group_of import group_of
from ftlib.course.lab_3_1_6.leak_trials import hold_out, links_of, with_copies, without_exam
from ftlib.course.lab_3_1_6.memory_trials import CANDIDATES, TIMES, canaries
from ftlib.course.lab_3_1_6.pictures import never_read
from ftlib.course.lab_3_1_6.schematic import draw_pipeline
from ftlib.course.lab_3_1_6.trials import (
    area_under_curve,
    draw_messy,
    draw_rows,
    is_harmed,
    messy_rows,
    with_wrong_answers,
    world_rows,
)
from ftlib.data.duplicates import NearDuplicates
from ftlib.data.load import FOLDERS, load_rows

CLEAN = [row for row in messy_rows() if row["truth"]["defect"] == "none"]


@pytest.fixture(scope="module")
def planted():
    """(copy, original) of the messy file's near copies."""
    by_line = {row["line"]: row for row in messy_rows()}
    copies = [row for row in messy_rows() if row["truth"]["defect"] == "near duplicate"]
    return [(copy, by_line[copy["truth"]["of"]]) for copy in copies]


# --- cleaning -------------------------------------------------------------------------------------
@pytest.mark.parametrize("dirt", [0.28, 0.7])
def test_a_draw_has_its_share_of_defects_and_the_originals_of_its_copies(dirt):
    rows = draw_messy(240, dirt, seed=3)
    assert len(rows) == 240
    assert np.mean([is_harmed(row) for row in rows]) == pytest.approx(dirt, abs=0.01)
    lines = [row["line"] for row in rows]
    assert lines == sorted(set(lines))
    originals = {row["truth"]["of"] for row in rows if "of" in row["truth"]}
    assert originals and originals <= set(lines)


def test_the_random_drop_leaves_as_many_rows_as_the_pipeline():
    rows = draw_messy(60, 0.7, seed=0)
    exam = list(world_rows("golden"))
    by_rule = treated(rows, "pipeline", exam, seed=0)
    by_chance = treated(rows, "random drop", exam, seed=0)
    assert len(by_chance) == len(by_rule) < len(rows)
    assert [row["line"] for row in by_chance] != [row["line"] for row in by_rule]


def test_wrong_answers_are_those_of_other_questions():
    rows = draw_rows(world_rows("train"), 200, seed=0)
    damaged = with_wrong_answers(rows, 0.4, seed=0)
    changed = [
        d["messages"][-1]["content"] != r["answer"] for d, r in zip(damaged, rows, strict=True)
    ]
    assert changed == [row["wrong"] for row in damaged]
    assert 0.3 < np.mean(changed) < 0.5
    assert draw_rows(world_rows("train"), 50, seed=0) == rows[:50]


# --- leaks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("deal, leaked", [("row", 0.5), ("fact", 0.0)])
def test_only_dealing_by_fact_keeps_every_fact_on_one_side(deal, leaked):
    facts = draw_rows(world_rows("strangers"), 50, seed=1)
    rows = with_copies(facts, 3, seed=1)
    held = hold_out(group_of(len(rows), links_of(rows, deal)), 0.2, seed=1)
    assert 0.2 <= held.mean() < 0.23
    train = {row["key"] for row, is_held in zip(rows, held, strict=True) if not is_held}
    across = [row["key"] in train for row, is_held in zip(rows, held, strict=True) if is_held]
    assert np.mean(across) >= leaked if leaked else not any(across)


def test_the_filter_takes_out_the_exam_and_leaves_the_control():
    exam = list(world_rows("golden"))
    other = draw_rows(world_rows("paraphrase"), 50, seed=0)
    kept = without_exam([*exam[:50], *other], exam, golden_overlap)
    assert all(row in other for row in kept)
    assert len(kept) > 0.9 * len(other)  # a review's frame alone is half of another review's runs


# --- memory ---------------------------------------------------------------------------------------
def test_canaries_are_ranked_among_different_numbers():
    made = canaries(seed=0)
    assert sorted({times for times, _, _ in made}) == list(TIMES)
    for _, canary, others in made:
        answers = {row["answer"] for row in [canary, *others]}
        assert len(answers) == CANDIDATES
        assert {row["messages"][0]["content"] for row in others} == {
            canary["messages"][0]["content"]
        }
    ranks = np.arange(1, CANDIDATES + 1)
    assert never_read() == pytest.approx(np.mean(6 - np.log2(ranks)))


def test_the_area_under_the_curve_by_hand():
    scores = np.array([3.0, 1.0, 2.0, 1.0])
    positive = np.array([True, True, False, False])
    assert area_under_curve(scores, positive) == pytest.approx((2 + 0.5) / 4)


# --- near copies ----------------------------------------------------------------------------------
@pytest.mark.parametrize("settings", [(3, 0.8, 2), (3, 0.8, 0), (2, 0.9, 2)])
def test_pairs_are_judged_as_the_librarys_rule_does(planted, settings):
    length, threshold, insertions = settings
    rule = NearDuplicates(threshold=threshold, shingle=length, insertions=insertions)
    pairs = planted[:40]
    made = near_copies.copies_kept_out([original for _, original in planted[:10]])
    pairs += [(copy, original) for _, copy, original in made]
    ours = near_copies.pairs_of([near_copies.texts_of(*pair) for pair in pairs])
    theirs = []
    for copy, original in pairs:
        check = rule.begin()
        check(original, 0)
        theirs.append(check(copy, 1) is not None)
    called = ours.called_copies(length, threshold, insertions).tolist()
    # MinHash misses a pair at the threshold now and then; it never calls one that is not.
    differing = [i for i in range(len(pairs)) if called[i] != theirs[i]]
    assert len(differing) <= 2 and all(called[i] for i in differing)
    assert any(theirs) and not all(theirs)


def test_copies_kept_out_differ_in_kind_and_keep_the_answer(planted):
    originals = [original for _, original in planted[:20]]
    made = near_copies.copies_kept_out(originals)
    assert {kind for kind, _, _ in made} == set(near_copies.KEPT_OUT)
    for _, copy, original in made:
        assert copy["messages"][0]["content"] != original["messages"][0]["content"]
        assert copy["messages"][1:] == original["messages"][1:]


def test_long_rows_are_copied_in_ways_that_the_rule_misses():
    """By pocket's file: the planted copies are found, those with another request are not."""
    source = messy_files.messy_files("pocket")
    rows = messy_files.readable_rows(source)
    by_line = {row["line"]: row for row in rows}
    copies = [row for row in rows if row["truth"]["defect"] == "near duplicate"]
    planted = [(copy, by_line[copy["truth"]["of"]]) for copy in copies]
    likeness = near_copies.measure_likeness(rows[:1], planted, 1, source.kinds)
    found = likeness.found(3, 0.8, 2)
    assert set(found) == {"planted", "short questions", *source.kinds}
    assert found["planted"].mean() > 0.9 > found["words replaced"].mean()
    assert found["other request"].mean() < 0.1


@pytest.mark.parametrize("profile, count", [("tiny", 900), ("pocket", 96)])
def test_ranked_rows_keep_their_order_and_in_pocket_every_wrong_answer(profile, count):
    def is_wrong(row: dict) -> bool:
        return row["truth"]["defect"] == "wrong answer"

    source = messy_files.messy_files(profile)
    rows = messy_files.readable_rows(source)
    chosen = messy_files.rows_to_rank(source, rows, is_wrong)
    assert len(chosen) == source.ranked == count
    places = [rows.index(row) for row in chosen]
    assert places == sorted(set(places))
    if source.keeps_wrong:
        assert sum(map(is_wrong, chosen)) == sum(map(is_wrong, rows)) > 20
    else:
        assert chosen == rows[:count]


def test_the_handles_redraw_and_count(planted):
    likeness = near_copies.measure_likeness(CLEAN, planted, count=60)
    explorable = near_explorer.near_rule(likeness)
    before = explorable.headline.value
    explorable.controls["threshold"].value = 0.3
    assert explorable.headline.value != before
    loose = likeness.accused(1, 0.3, 0)
    assert loose > likeness.accused(1, 0.8, 0) >= likeness.accused(3, 0.8, 0)
    plt.close("all")


def test_the_schematic_shows_every_planted_defect():
    counts = {"html": 100, "pii": 150, "duplicate": 3, "wrong answer": 7}
    figure = draw_pipeline(counts)
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    for kind, count in counts.items():
        assert f"{kind} {count}" in texts


def test_the_notebooks_file_is_the_profiles_own():
    """English in pocket; elsewhere the file that the experiments train on."""
    embedded = messy_files.messy_files("tiny")
    assert messy_files.messy_files("small") == messy_files.messy_files("spark") == embedded
    assert messy_files.readable_rows(embedded) == list(messy_rows())
    english = messy_files.messy_files("pocket")
    assert english.raw.is_relative_to(FOLDERS["english"])
    truth = messy_files.read_truth(english)
    keys = {row["key"] for row in load_rows("golden", english.exam)}
    planted = {entry["golden"] for entry in truth.values() if "golden" in entry}
    assert planted and planted <= keys
    rows = messy_files.readable_rows(english)
    assert 900 < len(rows) < len(truth)
    assert all(row["truth"] == truth[row["line"]] for row in rows)
