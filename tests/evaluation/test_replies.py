"""Replies to customers judged by rule, each rule by hand."""

import pytest

from ftlib.core.errors import DataError
from ftlib.course.open_answers import judge_answer
from ftlib.course.reports import Faults, report_faults, report_judge
from ftlib.course.world import preference_judge
from ftlib.evaluation.replies import judge_reply

ROW = {
    "prompt": [{"role": "user", "content": "Write a reply."}],
    "kind": "reply",
    "name": "Ada",
    "truth": {"order": "48213"},
    "reply": {
        "name": "Ada",
        "order": "48213",
        "item": "desk lamps",
        "step": "refund",
        "days": 5,
        "most_words": 30,
    },
}
RIGHT = (
    "Dear Ada, thank you for writing about order 48213. We are sorry about the desk lamps. You "
    "will have a refund within 5 days. Does that suit you?"
)


@pytest.mark.parametrize(
    "text, faults",
    [
        (RIGHT, Faults(0, 0, 0)),
        (RIGHT.replace("Dear Ada", "Hello Ms Ada"), Faults(0, 0, 0)),
        (RIGHT.replace("a refund", "your money back"), Faults(0, 0, 0)),
        (RIGHT.replace("5 days", "5 working days"), Faults(0, 0, 0)),
        (RIGHT.replace("48213", "48214"), Faults(1, 0, 0)),
        (RIGHT.replace("48213", "48213, not 48214,"), Faults(1, 0, 0)),  # both are named
        (RIGHT.replace("a refund", "a voucher"), Faults(1, 0, 0)),
        (RIGHT.replace("5 days", "15 days"), Faults(1, 0, 0)),
        (RIGHT.replace(" within 5 days", ""), Faults(0, 1, 0)),
        (RIGHT.replace("desk lamps", "parcel"), Faults(0, 1, 0)),
        (RIGHT.replace("Dear Ada, t", "T"), Faults(0, 0, 1)),
        (RIGHT.replace("Dear Ada", "Dear Ben"), Faults(0, 0, 1)),
        (RIGHT.replace("You will", "We promise: you will"), Faults(0, 0, 1)),
        (RIGHT.replace(" Does that suit you?", ""), Faults(0, 0, 1)),
        (f"{RIGHT} Does that suit you?", Faults(0, 0, 2)),  # said twice, and 31 words
        ("", Faults(0, 4, 2)),  # no greeting, no question
    ],
)
def test_each_rule_by_hand(text, faults):
    assert report_faults(text, ROW) == faults


def test_the_labs_judges_know_replies():
    worse = RIGHT.replace("48213", "48214")
    for judge in (report_judge([ROW]), preference_judge([ROW])):
        assert judge("Write a reply.", RIGHT, worse) == 1
        assert judge("Write a reply.", worse, RIGHT) == 0
        assert judge("Write a reply.", RIGHT, RIGHT) == 0.5


def test_as_an_open_answer_two_facts_are_enough_and_faults_count_by_the_sentence():
    """By hand: four sentences; one wrong fact leaves 1 - 1/4 of the score; three rules of style
    broken in one sentence leave nothing, and not less.
    """
    assert judge_answer(RIGHT, ROW).score == 1
    assert judge_answer(RIGHT.replace("48213", "48214"), ROW).score == 0.75
    assert judge_answer("Order 48213, the desk lamps: we promise a refund", ROW).score == 0
    assert judge_answer(RIGHT, ROW, copies=[RIGHT]).copied


def test_a_row_that_does_not_say_what_is_so_is_named():
    with pytest.raises(DataError, match="has no 'days'"):
        judge_reply("Hello", _without("days"))


def _without(key: str) -> dict:
    reply = {name: value for name, value in ROW["reply"].items() if name != key}
    return {"reply": reply}
