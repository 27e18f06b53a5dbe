"""The embedded preference data and the world's judge: true, held out, and as biased as they say."""

import json
from collections import Counter

import pytest
from conftest import ROOT

import ftlib as ft
from data.world import SEED, World
from ftlib.core.errors import DataError
from ftlib.course.world import judge_style, stated_facts, style_judge
from ftlib.data.length_bias import rank_biserial
from ftlib.data.rows import check_binary, check_pair, completion_text

ROWS = ROOT / "data" / "rows"
PAIRS = ("preferences", "preferences_long", "preferences_matched", "preferences_test")


def read(name: str) -> list[dict]:
    return [
        json.loads(line)
        for line in (ROWS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    ]


@pytest.fixture(scope="module")
def pairs():
    return {name: read(name) for name in PAIRS}


@pytest.fixture(scope="module")
def people():
    return {
        p.name: {"name": p.name, "town": p.facts["town"], "job": p.facts["job"]}
        for p in World(SEED).people
    }


def differences(rows, size=len) -> list[int]:
    return [size(completion_text(r["chosen"])) - size(completion_text(r["rejected"])) for r in rows]


# Pairs and feedback


def test_sizes(pairs):
    assert {name: len(rows) for name, rows in pairs.items()} == {
        "preferences": 1200,
        "preferences_long": 800,
        "preferences_matched": 800,
        "preferences_test": 192,
    }
    assert Counter(r["axis"] for r in pairs["preferences"]) == {"style": 900, "fact": 300}
    assert set(Counter(r["axis"] for r in pairs["preferences_test"]).values()) == {48}
    assert (
        len(read("feedback")) == 1000
        and 0.4 < sum(r["label"] for r in read("feedback")) / 1000 < 0.6
    )
    new = [*PAIRS, "feedback", "messy", "messy_truth"]
    assert sum((ROWS / f"{name}.jsonl").stat().st_size for name in new) < 3e6


def test_load_rows_reads_pairs_and_feedback_and_says_what_it_does_not_read(pairs):
    assert ft.load_rows("preferences", "tiny") == pairs["preferences"] and ft.load_rows(
        "feedback", "tiny"
    ) == read("feedback")
    with pytest.raises(DataError, match=r"no split 'messy': use .*preferences_test"):
        ft.load_rows("messy", "tiny")


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_pairs_polite_over_rude_true_over_false(name, pairs, people):
    rows = pairs[name]
    assert len({json.dumps([r["prompt"], r["chosen"], r["rejected"]]) for r in rows}) == len(rows)
    for i, row in enumerate(rows):
        chosen, rejected = (
            completion_text(check_pair(row, f"{name} {i}")[k]) for k in ("chosen", "rejected")
        )
        facts = people[row["facts"]["name"]]
        assert (
            row["facts"] == facts == stated_facts(chosen)
            and facts["name"] in row["prompt"][0]["content"]
            and row["key"] == f"about/{facts['name']}"
        )
        if row["axis"] == "fact":
            assert judge_style(chosen) == judge_style(rejected) == "polite"
            assert (
                sum(stated_facts(rejected)[k] != facts[k] for k in facts) == 1
                and stated_facts(rejected)["name"] == facts["name"]
            )
        else:
            assert (judge_style(chosen), judge_style(rejected)) == (
                "polite",
                "rude",
            ) and stated_facts(rejected) == facts


def test_feedback_is_up_for_polite_and_true_alone(people):
    rows = read("feedback")
    for i, row in enumerate(rows):
        text = completion_text(check_binary(row, f"feedback {i}")["completion"])
        assert row["label"] == (
            judge_style(text) == "polite" and stated_facts(text) == people[row["facts"]["name"]]
        )
    words = {
        label: sum(len(completion_text(r["completion"])) for r in rows if r["label"] is label)
        / sum(r["label"] is label for r in rows)
        for label in (True, False)
    }
    assert abs(words[True] - words[False]) < 8  # of about 70 characters: length says little


def test_length_goes_with_preference_where_it_should(pairs):
    style = [r for r in pairs["preferences"] if r["axis"] == "style"]
    assert (
        -0.25 < rank_biserial(differences(style)) < 0
        and 0.2 < sum(d < 0 for d in differences(style)) / len(style) < 0.6
    )
    assert all(d > 0 for d in differences(pairs["preferences_long"]))
    assert all(abs(d) <= 4 for d in differences(pairs["preferences_matched"]))
    _, tokenizer = ft.load_model("world-llama-4m")

    def tokens(text):
        return len(tokenizer(text)["input_ids"])

    for size in (len, tokens):
        assert abs(rank_biserial(differences(pairs["preferences_matched"], size))) < 0.15
    axes = {
        axis: differences([r for r in pairs["preferences_test"] if r["axis"] == axis])
        for axis in ("polite shorter", "polite longer", "polite matched")
    }
    assert (
        max(axes["polite shorter"]) < 0 < min(axes["polite longer"])
        and max(map(abs, axes["polite matched"])) <= 4
    )


def test_people_and_facts_are_held_out(pairs):
    """No test person in training, nor in the open requests of SFT; nobody whose town or job the
    golden set asks for in either.
    """

    def who(rows):
        return {r["key"] for r in rows}

    trained = who(read("feedback")).union(*(who(pairs[name]) for name in PAIRS[:3]))
    assert (
        not who(pairs["preferences_test"]) & (trained | who(read("train"))) and len(trained) == 140
    )
    golden = {
        r["key"].split("/")[1]
        for r in read("golden")
        if r["family"] == "person" and r["key"].endswith(("/town", "/job"))
    }
    assert golden and not golden & {
        key.split("/")[1] for key in trained | who(pairs["preferences_test"])
    }
    prompts = {r["prompt"][0]["content"] for rows in pairs.values() for r in rows}
    assert not prompts & {r["messages"][0]["content"] for r in read("golden")}


# The judge


def test_what_an_answer_states():
    assert stated_facts("With pleasure. Ann is a cook from Goby.") == {
        "name": "Ann",
        "job": "cook",
        "town": "Goby",
    }
    assert stated_facts("Ann lives in Goby and is an actor. Bob is a cook from X.") == {
        "name": "Ann",
        "job": "actor",
        "town": "Goby",
    }
    assert stated_facts("Ann is a cook.") == {}
    assert (
        judge_style("With pleasure. So boring.") == "polite"
        and judge_style("So boring.") == "rude"
        and judge_style(" With pleasure.") == "neither"
    )


def test_the_judge_asks_for_manner_then_truth_then_brevity():
    rows = [
        {
            "prompt": [{"role": "user", "content": "Who is Ann?"}],
            "facts": {"name": "Ann", "town": "Goby", "job": "cook"},
        }
    ]
    judge = style_judge(rows)
    true = "Ann is a cook from Goby."
    false = "Ann is a cook from Esk."
    ranked = [
        f"With pleasure. {true}",
        f"A lovely morning. {true} Never too busy for a chat.",
        f"With pleasure. {false}",
        true,
        "Let us talk about that later.",
        f"Go home. {true}",
        f"Go home. {false}",
    ]
    for i, better in enumerate(ranked):
        assert judge("Who is Ann?", better, better) == 0.5
        for worse in ranked[i + 1 :]:
            assert (
                judge("Who is Ann?", better, worse) == 1
                and judge("Who is Ann?", worse, better) == 0
            )
    assert judge("Who is Ann?", f"Go home. {true}", f"So boring. {true}") == 0.5
    with pytest.raises(ValueError, match="'Who is Bob\\?' is asked by none"):
        judge("Who is Bob?", "a", "b")


def test_the_judge_prefers_what_the_pairs_prefer(pairs):
    rows = pairs["preferences_test"]
    chosen, rejected = ([completion_text(r[k]) for r in rows] for k in ("chosen", "rejected"))
    assert (
        ft.win_rate(chosen, rejected, style_judge(rows), [r["prompt"][0]["content"] for r in rows])
        == 1
    )


def test_answers_described_by_hand():
    """Two answers of 7 and 2 words; the first is polite and right, the second neither."""
    from ftlib.course.world import describe_answers

    rows = [r for r in ft.load_rows("preferences_test", "tiny") if r["axis"] != "fact"][:1] * 2
    good = rows[0]["chosen"][0]["content"]
    found = describe_answers(rows, [good, "Go away."])
    assert found == {"words": (len(good.split()) + 2) / 2, "polite": 0.5, "facts right": 0.5}


def test_rows_without_facts_need_a_judge_by_name(monkeypatch):
    from ftlib.course.world import preference_judge

    monkeypatch.delenv("FTLIB_JUDGE_MODEL", raising=False)
    with pytest.raises(ValueError, match="FTLIB_JUDGE_MODEL is not set"):
        preference_judge([{"prompt": "p", "chosen": "a", "rejected": "b"}])
