"""Lab E5: leaks that differ in the one thing, an honest judge that is honest, checks by hand, the
harness's recorded sums, and a plan of questions that holds what it promises.
"""

import math
import shlex

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import ftlib as ft
from ftlib.core.profiles import PROFILES, get_profile
from ftlib.course.lab_e5 import benchmarks, harness, judging, lines, own_judge, planner
from ftlib.course.lab_e5.choice_loglikelihood import choice_loglikelihood
from ftlib.course.lab_e5.experiments import ODDS
from ftlib.course.lab_e5.judge_trials import PAIRS, accusations, leaves_out
from ftlib.course.lab_e5.judging import Bias, Pair, chances, draw_pairs, draw_verdicts, points_of
from ftlib.course.lab_e5.leak_trials import (
    ROWS,
    TIMES,
    gap_p_value,
    harmless_rows,
    overlap_shares,
    plain_row,
    planted_questions,
    twin_questions,
)
from ftlib.course.lab_e5.names import FAIR, OTHERS, REWORDED, leak_arm
from ftlib.course.lab_e5.questions import benchmark, fresh_questions, reworded, statement
from ftlib.course.lab_e5.questions_needed import questions_needed
from ftlib.course.lab_e5.schematic import draw_scoring
from ftlib.course.lab_e5.settings import settings_of
from ftlib.course.records.kit import rows_of
from ftlib.course.records.live import open_experiments
from ftlib.evaluation.multiple_choice import ChoiceScores, QuestionScore

TINY = get_profile("tiny")


@pytest.fixture(scope="module")
def embedded():
    torch.set_num_threads(1)
    return ft.load_model("world-llama-4m", dtype=torch.float32)


def keys(questions) -> set[str]:
    return {question["key"] for question in questions}


# --- leaks ----------------------------------------------------------------------------------------
def test_nobody_is_trained_on_the_twin_and_the_control_is_no_leak():
    asked = keys(benchmark())
    twin = keys(twin_questions())
    others = planted_questions(0.4, "others", 3)
    assert len(asked) == 200 and len(others) == 80
    assert not asked & keys(others) and not twin & (asked | keys(others))


def test_a_larger_leak_holds_the_smaller_and_rewording_keeps_the_facts():
    small = planted_questions(0.1, "benchmark", 5)
    large = planted_questions(0.4, "benchmark", 5)
    assert large[: len(small)] == small and keys(large) <= keys(benchmark())
    other = planted_questions(0.4, "reworded", 5)
    assert keys(other) == keys(large)
    for one, two in zip(large, other, strict=True):
        assert one["answer"] == two["answer"] and one["context"] != two["context"]
        right = one["choices"][one["answer"]].split()[-1]
        assert two["choices"][two["answer"]].split()[-1] == right


@pytest.mark.parametrize("source", ["benchmark", "reworded", "others"])
def test_every_run_has_as_many_rows(source):
    planted = planted_questions(0.4, source, 0)
    assert len(harmless_rows(0, planted)) + TIMES * len(planted) == ROWS


def test_ngrams_find_copies_and_nothing_else():
    """Every copied statement, none that says it in other words, none about others."""
    fill = harmless_rows(0, [])
    assert overlap_shares(fill, planted_questions(0.4, "benchmark", 0)) == (1.0, 0.0)
    assert overlap_shares(fill, planted_questions(0.4, "reworded", 0)) == (0.0, 0.0)
    assert overlap_shares(fill, planted_questions(0.4, "others", 0)) == (0.0, 0.0)
    assert overlap_shares(fill, []) == (0.0, 0.0)


def test_fresh_questions_have_the_benchmarks_form():
    forms = {" ".join(question["context"].split()[:2]) for question in benchmark()}
    for question in fresh_questions():
        assert " ".join(question["context"].split()[:2]) in forms
        assert len(set(question["choices"])) == 4
    assert reworded({**benchmark()[0], "key": "pet/Ada"})["context"] == "Ada owns"


def test_the_gap_by_hand():
    """60 of 100 and 40 of 100: pooled 1/2, a variance of 1/4·(2/100) = 0.005, z = 0.2/√0.005 =
    2.828; one-sided p = 0.00234. Equal shares give 1/2, shares without any variance 1.
    """
    some = np.array([1.0] * 60 + [0.0] * 40)
    fewer = np.array([1.0] * 40 + [0.0] * 60)
    assert gap_p_value(some, fewer) == pytest.approx(0.00234, abs=1e-5)
    assert gap_p_value(some, some) == pytest.approx(0.5)
    assert gap_p_value(np.ones(5), np.ones(9)) == 1


def test_a_plain_row_has_loss_on_all_but_its_first_token(embedded):
    _, tokenizer = embedded
    row = plain_row(tokenizer, {"text": statement(benchmark()[0])})
    assert row["labels"][0] == -100 and row["labels"][1:] == row["input_ids"][1:]
    assert tokenizer.decode(row["input_ids"][1:]) == statement(benchmark()[0])


# --- the harness ----------------------------------------------------------------------------------
def test_own_sums_are_the_harnesss(embedded):
    """144 sums that lm-evaluation-harness gave, by the exercise's function and by the library's."""
    asked = harness.recorded_questions()
    own = {}
    library = {}
    for task, questions in asked.items():
        own[task] = benchmarks.sums_with(choice_loglikelihood, *embedded, questions)
        library[task] = [list(score.logps) for score in ft.score_choices(*embedded, questions)]
    theirs = harness.recorded()["sums"]
    assert harness.largest_difference(own, theirs) < harness.ALLOWED
    assert harness.largest_difference(library, theirs) < harness.ALLOWED
    assert harness.parity_line(own).startswith("144 sums, equal to those")
    own["world_facts"][3][1] += 1e-3
    assert "**not equal to**" in harness.parity_line(own)


def test_the_harness_here_gives_what_is_recorded():
    if not harness.installed():
        assert harness.INSTALL in harness.here_line()
        pytest.skip("lm-evaluation-harness (lm_eval) is not installed")
    found = harness.run_harness()
    assert harness.largest_difference(found, harness.recorded()["sums"]) < harness.ALLOWED


def test_command_lines_name_model_tasks_and_adapter():
    before, after, public = harness.commands(TINY, benchmarks.sft_adapter(TINY, train=False))
    assert "pretrained=data/world-llama-4m,dtype=float32 --tasks world_facts," in before
    assert "peft=data/sft-adapter" in after and "--include_path data/benchmark" in after
    assert "--tasks mmlu,arc_challenge,hellaswag" in public
    (line,) = harness.commands(get_profile("small"), None)
    assert "pretrained=Qwen/Qwen3-0.6B,dtype=bfloat16 --tasks mmlu," in line


def test_command_lines_name_the_folder_of_a_model_that_is_not_on_the_hub(tmp_path, monkeypatch):
    """Quoted for a shell."""
    folder = tmp_path / "my model"
    folder.mkdir()
    monkeypatch.setenv("FTLIB_MODEL", str(folder))
    (line,) = harness.commands(get_profile("pocket"), None)
    assert f"pretrained={folder},dtype=float32" in shlex.split(line)


# --- benchmarks of a profile ----------------------------------------------------------------------
def test_every_profile_has_settings(monkeypatch):
    for name in PROFILES:
        assert settings_of(get_profile(name)).count > 0
    monkeypatch.setenv("FTLIB_REHEARSE", "1")
    assert settings_of(get_profile("small")).count == 6


def test_general_questions_have_one_right_choice():
    rows = rows_of(get_profile("pocket"), "knowledge")
    found = benchmarks.knowledge_questions(rows)
    assert len(found) == len(rows) == 100
    for question, row in zip(found, rows, strict=True):
        assert question["choices"][question["answer"]] == row["answer"]
        accepted = [choice for choice in question["choices"] if choice in row["accepted"]]
        assert accepted == [row["answer"]] and len(set(question["choices"])) == 4


def test_forms_ask_for_the_same_facts():
    texts, letters, shots = benchmarks.forms_of(TINY).values()
    assert len(texts) == len(letters) == len(shots) == settings_of(TINY).formed
    for one, two, three in zip(texts, letters, shots, strict=True):
        assert two["choices"] == list("ABCD") and one["answer"] == two["answer"]
        assert three["context"].endswith(two["context"])
        assert one["context"] not in three["context"].removesuffix(two["context"])


def score(right: bool) -> QuestionScore:
    return QuestionScore((-1.0, -2.0), (1, 1), (1, 1), (1, 1), 0 if right else 1)


def test_the_paired_table_counts():
    """Right before, right after: both, before alone, after alone twice, neither."""
    before = ChoiceScores([score(right) for right in (True, True, False, False, False)])
    after = ChoiceScores([score(right) for right in (True, False, True, True, False)])
    (row,) = lines.paired_table({"x": (before, after)}, lambda a, b: 0.25)
    assert list(row.values()) == ["x", 1, 2, 1, 1, "0.25"]
    (row,) = lines.scores_table({"x": (before, after)})
    assert row["acc before"].startswith("40%") and row["acc after"].startswith("60%")


# --- judges ---------------------------------------------------------------------------------------
def pair(facts_a, facts_b, right) -> Pair:
    return Pair((facts_a, facts_b), (facts_a, facts_b), right)


def test_an_honest_judges_chances_add_up():
    """Qualities 8 and 0 nats at T = 8: odds e, so σ(1) for a in the first place and 1 - σ(1) for b
    there; a bonus of 1 for the place makes them σ(2) and σ(0).
    """
    quality = np.array([[8.0, 0.0], [0.0, 0.0]])
    gaps = np.array([10.0, -10.0])
    honest = chances(quality, gaps, Bias())
    np.testing.assert_allclose(honest.sum(1), 1)
    assert honest[0, 0] == pytest.approx(1 / (1 + math.exp(-1)))
    bent = chances(quality, gaps, Bias(first=1.0))
    assert bent[0].tolist() == pytest.approx([1 / (1 + math.exp(-2)), 0.5])
    long = chances(quality, gaps, Bias(longer=2.0))
    assert long[1, 0] == pytest.approx(1 / (1 + math.exp(2 * math.tanh(1))))
    np.testing.assert_allclose(long.sum(1), 1)  # no bias for a place


def test_a_length_bonus_and_a_place_bonus_are_found_and_nothing_else():
    """On pairs of equal quality, of which half have the longer answer as a."""
    pairs = []
    for i in range(PAIRS):
        sizes = (30, 10) if i % 2 else (10, 30)
        pairs.append(pair("x" * sizes[0], "x" * sizes[1], (True, True)))
    even = np.zeros((PAIRS, 2))
    gaps = judging.length_gaps(pairs)
    for bias, expected in ((Bias(first=3.0), (True, False)), (Bias(longer=3.0), (False, True))):
        verdicts = draw_verdicts(chances(even, gaps, bias), 1)
        place, length, _ = accusations(pairs, verdicts)
        assert (place, length) == expected


def test_points_and_truth_by_hand():
    """First in both orders: each has one point, a tie. a wins from either place: 1."""
    assert points_of(np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])).tolist() == [0.5, 1.0, 0.0]
    rights = ((True, False), (False, True), (True, True), (False, False))
    assert [pair("a", "b", right).truth for right in rights] == [1.0, 0.0, 0.5, 0.5]
    assert leaves_out(ft.share_interval(90, 100), 0.5) and not leaves_out(
        ft.share_interval(50, 100), 0.5
    )


def test_a_is_wordier_and_no_better():
    pairs = [pair for seed in range(20) for pair in draw_pairs(100, seed)]
    assert np.mean([pair.truth for pair in pairs]) == pytest.approx(0.5, abs=0.03)
    assert judging.length_gaps(pairs).mean() > 10
    assert draw_pairs(5, 7) == draw_pairs(5, 7) != draw_pairs(5, 8)
    for one in pairs[:50]:
        assert one.text[0].startswith(one.facts[0])


def test_the_base_can_judge_and_its_readings_differ(embedded):
    pairs = draw_pairs(30, 1)
    facts = judging.qualities(TINY, pairs, judging.FACTS_ALONE)
    for one, quality in zip(pairs, facts, strict=True):
        if one.truth != 0.5:
            assert (quality[0] > quality[1]) == one.right[0]
    whole = judging.qualities(TINY, pairs, judging.SUM)
    for one, alone, all_words in zip(pairs, facts, whole, strict=True):
        if one.text[0] == one.facts[0]:
            assert all_words[0] == pytest.approx(alone[0], abs=1e-3)
        else:
            assert all_words[0] < alone[0]  # every word costs


def test_a_model_that_goes_by_place_is_named(embedded):
    judged = own_judge.ask_own_model(TINY, *embedded, 6)
    assert judged.forward.shape == judged.backward.shape == (6,)
    assert judged.truth.tolist() == [1, 0, 1, 0, 1, 0]
    assert own_judge.kind_of_judge(0.9, -0.8) == "p" and own_judge.kind_of_judge(0.4, 0.1) == "u"
    assert own_judge.kind_of_judge(0.1, 0.1) == "j"
    assert "second place" in own_judge.reading(0.9, -0.8, 0.0)
    said = {own_judge.reading(0.4, 0, 0), own_judge.reading(0, 0, 0), own_judge.reading(0, 0, 0.5)}
    assert len(said) == 3


# --- how many questions ---------------------------------------------------------------------------
@pytest.mark.parametrize("difference, disagreement", [(0.02, 0.1), (0.05, 0.3), (0.1, 0.2)])
def test_the_plan_reaches_its_power_and_no_question_is_too_many(difference, disagreement):
    n = questions_needed(difference, disagreement, planner.LEVEL, planner.POWER)
    assert planner.power_paired(n, difference, disagreement) >= planner.POWER
    assert planner.power_paired(n - 1, difference, disagreement) < planner.POWER
    m = planner.unpaired_needed(difference, 0.6)
    assert planner.power_unpaired(m, difference, 0.6) >= planner.POWER
    assert planner.power_unpaired(m - 1, difference, 0.6) < planner.POWER


def test_the_plan_holds_in_simulation():
    """Two models that differ by 10 points and disagree in 20%: McNemar's test finds it in about 80%
    of 400 experiments of as many questions as planned (± 4%, two standard errors; the exact test is
    a little careful).
    """
    from ftlib.course.lab_e5.mcnemar_p import mcnemar_p

    n = questions_needed(0.1, 0.2, 0.05, 0.8)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(400):
        a_alone, b_alone, _ = rng.multinomial(n, [0.15, 0.05, 0.8])
        a = [True] * a_alone + [False] * b_alone
        b = [False] * a_alone + [True] * b_alone
        found += mcnemar_p(a, b) < 0.05
    assert 0.72 <= found / 400 <= 0.86


def test_the_planner_is_drawn_for_every_handle():
    shown = planner.QuestionPlanner()
    assert "1,960 questions" in shown.headline.value
    for points in planner.DIFFERENCES:
        for disagree in planner.DISAGREEMENTS:
            for middle in planner.SCORES:
                assert "questions if both" in shown.describe(points, disagree, middle)
    assert len(shown.draw(10, 2, 90).axes[0].get_lines()) == 5
    plt.close("all")


def test_the_schematic_marks_both_winners():
    question = {"context": "c", "choices": ["a", "bb"], "answer": 1}
    figure = draw_scoring(question, [-2.0, -3.0])
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert "-2.00 ←" in texts and "-1.50 ←" in texts and "the key" in texts
    plt.close("all")


# --- what the record says -------------------------------------------------------------------------
def test_lines_read_the_record():
    experiments = open_experiments("E5", "tiny")
    leaks = experiments.show("leaks")
    by_arm = {row["training rows"]: row for row in lines.detection_table(leaks)}
    assert by_arm[leak_arm(0.4)]["planted rows found by n-grams"] == "100%"
    assert by_arm[REWORDED]["planted rows found by n-grams"] == "0%"
    assert lines.who_sees_rewording(leaks) in ("t", "pt", "none")
    rows = lines.leak_table(leaks)
    assert {row["training rows"]: row["leaked questions"] for row in rows}[OTHERS] == "–"
    judges = experiments.show("judges")
    assert lines.least_agreement(judges) in ("honest", "first", "longer", "byte")
    assert len(lines.judge_table(judges)) == 4 and ODDS == 1.0
    alarms = experiments.show("alarms")
    assert lines.most_alarms(alarms) == "f"
    assert alarms.means(FAIR, "place").mean() == pytest.approx(0.05, abs=0.02)
