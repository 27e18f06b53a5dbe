"""The judge of open answers: what it counts, by hand, and that length earns nothing."""

import pytest

import ftlib as ft
from ftlib.course.open_answers import (
    alike_in_length,
    judge_answer,
    open_judge,
    reference_rows,
    sentences,
)

TRUTH = {"town": "Goby", "job": "cook", "pet": "owl", "food": "soup", "hobby": "chess"}
ROW = {
    "messages": [
        {"role": "user", "content": "Describe the person Ann."},
        {"role": "assistant", "content": "Ann lives in Goby. Ann has an owl."},
    ],
    "kind": "portrait",
    "name": "Ann",
    "truth": TRUTH,
}


def counts(text: str, row=ROW, copies=()) -> tuple[int, int, int, int, int]:
    v = judge_answer(text, row, copies)
    return v.right, v.wrong, v.repeated, v.malformed, v.sentences


@pytest.mark.parametrize(
    "text, want",
    [
        ("Ann lives in Goby. Ann has an owl.", (2, 0, 0, 0, 2)),
        ("Let us talk about Ann. By trade Ann is a cook. Tell me more later.", (1, 0, 0, 0, 3)),
        ("Ann lives in Esk. Ann has an owl.", (1, 1, 0, 0, 2)),  # another town
        ("Bob lives in Goby. Ann has an owl.", (1, 1, 0, 0, 2)),  # of somebody else
        ("Ann lives in Goby. The home of Ann is in Goby.", (1, 0, 1, 0, 2)),  # said twice
        ("Ann lives Goby in. Ann has an owl.", (1, 0, 0, 1, 2)),  # no sentence of the world
        ("What a lovely town. Ann has an owl.", (1, 0, 0, 1, 2)),  # of another kind of request
        ("Ann has an owl", (0, 0, 0, 1, 1)),  # no full stop
        ("", (0, 0, 0, 0, 0)),
    ],
)
def test_what_is_counted(text, want):
    assert counts(text) == want


def test_the_score_by_hand():
    """min(right, 2)/2 · (1 - faults/sentences)."""
    right = "Ann lives in Goby. Ann has an owl."
    assert judge_answer(right, ROW).score == 1
    assert judge_answer("Ann lives in Goby.", ROW).score == 0.5
    assert judge_answer(f"{right} Ann likes pie.", ROW).score == pytest.approx(2 / 3)
    assert judge_answer("", ROW).score == 0
    assert judge_answer(right, ROW, copies=["Ann lives in  Goby. Ann has an owl."]).score == 0


def test_length_alone_earns_nothing():
    """Three more right facts and two frames change nothing; each fault costs less in a longer
    answer than in a shorter one, as its share of the sentences is smaller.
    """
    short = "Ann lives in Goby. Ann has an owl."
    long = f"What a person. {short} Ann likes soup. The hobby of Ann is chess. How kind of Ann."
    assert judge_answer(short, ROW).score == judge_answer(long, ROW).score == 1
    assert open_judge([ROW])("Describe the person Ann.", short, long) == 0.5


def test_the_judge_prefers_the_better_and_knows_its_requests():
    judge = open_judge([ROW], training=[ROW])
    request = "Describe the person Ann."
    copied = ROW["messages"][1]["content"]
    assert judge(request, "Ann owns an owl. Ann likes soup.", copied) == 1
    assert judge(request, "Ann has a cat. Ann likes soup.", "Ann likes soup. Ann owns an owl.") == 0
    with pytest.raises(ValueError, match=r"'Who is Bob\?' is asked by none of the judge's 1 rows"):
        judge("Who is Bob?", "a", "b")
    with pytest.raises(ValueError, match="is no open row"):
        judge_answer("a", {"messages": []})
    with pytest.raises(ValueError, match="is no open row"):
        judge_answer("a", {**ROW, "kind": "poem"})


def test_answers_alike_in_length():
    """5 and 4 words differ by 1/5, 5 and 3 by 2/5; two empty answers by nothing."""
    five = "a b c d e"
    assert alike_in_length([five, five, "", "a"], ["a b c d", "a b c", "", ""]) == [0, 2]
    assert alike_in_length([five], ["a b c"], most=0.4) == [0]
    with pytest.raises(ValueError, match="1 answers in a, 0 in b"):
        alike_in_length(["a"], [])
    with pytest.raises(ValueError, match="most=1"):
        alike_in_length(["a"], ["a"], most=1)


def test_a_row_for_every_reference():
    rows = [{**ROW, "references": ["A.", "B."]}, ROW]
    out = reference_rows(rows)
    assert [row["answer"] for row in out] == ["A.", "B.", ROW["messages"][1]["content"]]
    assert [row["messages"][-1]["content"] for row in out] == [row["answer"] for row in out]
    assert all(row["messages"][0] == ROW["messages"][0] for row in out)


def test_sentences():
    assert sentences(" Is it so? Yes. No") == ["Is it so?", "Yes.", "No"]


def test_the_profile_chooses_the_judge():
    from ftlib.course.world import preference_judge

    rows = ft.load_rows("open_test", "tiny")
    judge = preference_judge(rows)
    good = rows[0]["references"][0]
    assert judge(rows[0]["messages"][0]["content"], good, "Good day to you.") == 1
