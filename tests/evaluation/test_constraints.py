"""Constraints judged by rule: each kind by hand, with what is nearly right and nearly wrong."""

import json

import pytest

import ftlib as ft
from ftlib.core.errors import DataError
from ftlib.evaluation.constraints import KINDS, constraint_met, constraints_met
from ftlib.evaluation.sentences import sentences

NFD = "Cafe\u0301"  # an accent apart from its letter
# kind -> (arguments, answers that keep it, answers that do not)
BY_HAND = {
    "sentences": (
        {"count": 2},
        [
            "It rains. We stay at home.",
            "Bring fruit, e.g. apples. Come at 5 p.m. on Friday!",
            "Version 3.5 costs 2.50 euros. Buy it?",
            'He said "No!" and left. She stayed.',
            "Dear Ada,\n\nIt rains. We stay at home.",
            "- tea\n- coffee",
            "Really?! Yes...",
            "Dr. Bell met J. Smith. They talked.",
            "It opens at 9 a.m. We go.",
            "雨です。家にいます。",
        ],
        [
            "It rains.",
            "It rains. We stay. Home is dry.",
            "It rains, e.g. today",
            "It rains. We stay at home.\n\nGood night",
            "3.5 and 4.5 are 8.0",
        ],
    ),
    "most_words": (
        {"count": 3},
        ["one two three", "one - two – three .", "well-known it's 3.5", "one"],
        ["one two three four", "a\nb\nc\nd"],
    ),
    "least_words": ({"count": 3}, ["one two three", "a b c d"], ["one two", "one - two"]),
    "use_words": (
        {"words": ["tea", "café"]},
        ["TEA in the Café", f"Tea at the {NFD}!", "tea-pot (café)"],
        ["teapot and café", "tea and cafe", "tea"],
    ),
    "avoid_words": (
        {"words": ["don't", "free"]},
        ["We do not freely give.", "carefree"],
        ["FREE today", "It is free.", "We don’t", "We Don't"],
    ),
    "bullets": (
        {"count": 2},
        ["- tea\n- coffee", "* tea\n\n* coffee\n", "  • tea\n  • 3.5 cups"],
        [
            "- tea",
            "- tea\n- milk\n- jam",
            "Here:\n- tea\n- coffee",
            "1. tea\n2. coffee",
            "-tea\n-jam",
        ],
    ),
    "paragraphs": (
        {"count": 2},
        ["One.\n\nTwo.", "One.\nStill one.\n \n\n\nTwo.\n", "One.\n\n***\n\nTwo."],
        ["One.\nTwo.", "One.", "One.\n\nTwo.\n\nThree."],
    ),
    "lower_case": ({}, ["all small, 3 of 4", "straße", "é"], ["all Small", "ALL", "3 4", "ǅ a"]),
    "upper_case": ({}, ["ALL BIG, 3 OF 4!", "É"], ["ALL bIG", "all", "3 4", "STRAßE"]),
    "begin_with": (
        {"phrase": "Good news"},
        ["Good news: it works.", "  \nGood news"],
        ["good news: it works.", "Good newspapers", "Here: Good news", '"Good news"', "Good  news"],
    ),
    "end_with": (
        {"phrase": "See you soon."},
        ["It works. See you soon.", "See you soon.\n"],
        ["See you soon!", "See you soon", "see you soon.", "See you soon. Ada", "Unsee you soon."],
    ),
    "json_keys": (
        {"keys": ["day", "place"]},
        [
            '{"place": "Oslo", "day": 3}',
            '```json\n{"day": "Monday", "place": {"city": "Oslo"}}\n```',
            '{"day": 0, "place": false}',
        ],
        [
            '{"day": 3}',
            '{"day": 3, "place": "Oslo", "who": "Ada"}',
            '{"day": 3, "place": ""}',
            '{"day": 3, "place": " "}',
            '{"day": 3, "place": null}',
            '{"day": 3, "place": {}}',
            '{"day": 3, "day": 4, "place": "Oslo"}',
            '{"Day": 3, "place": "Oslo"}',
            "{'day': 3, 'place': 'Oslo'}",
            '{"day": NaN, "place": "Oslo"}',
            'Here: {"day": 3, "place": "Oslo"}',
            '[{"day": 3, "place": "Oslo"}]',
            '"day place"',
            "[" * 100_000 + "1",
        ],
    ),
    "no_commas": ({}, ["One; two. 3.5"], ["one, two", "1,000", "一\uff0c二", "واحد، اثنان"]),
    "quoted": (
        {},
        ['"It works."', "“It works.”\n", '"It\'s here."'],
        ['"It works." Yes', "'It works.'", "It works.", '"One" and "two"', '"', '"a', '“a"'],
    ),
}


def test_every_kind_is_tried_by_hand():
    assert set(BY_HAND) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_by_hand(kind):
    arguments, kept, broken = BY_HAND[kind]
    constraint = {"kind": kind, **arguments}
    assert json.loads(json.dumps(constraint)) == constraint
    for answer in kept:
        assert constraint_met(answer, constraint), answer
    for answer in broken:
        assert not constraint_met(answer, constraint), answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("answer", ["", " \n", "—", "...", "- \n- ", "_"])
def test_an_answer_without_a_word_keeps_nothing(kind, answer):
    assert not constraint_met(answer, {"kind": kind, **BY_HAND[kind][0]})


@pytest.mark.parametrize(
    "text, parts",
    [
        ("1. Wash it. 2. Dry it.", ["1. Wash it.", "2.", "Dry it."]),
        ("1. Wash it.\n2. Dry it.", ["1. Wash it.", "2. Dry it."]),
        ("So do I. You too.", ["So do I.", "You too."]),
        ("Take no. 5 or no. 6", ["Take no. 5 or no. 6"]),
        ("He said no. She left.", ["He said no.", "She left."]),
        ("Pens, ink etc. are sold. Come!", ["Pens, ink etc. are sold.", "Come!"]),
        ("(It rains.) We stay.", ["(It rains.)", "We stay."]),
        ("Wait… what? Oh... Yes.", ["Wait… what?", "Oh...", "Yes."]),
        ("Bring:\n- tea\n- jam", ["Bring: - tea", "- jam"]),
        ("See example.com for more.", ["See example.com for more."]),
        ("- - -", []),
    ],
)
def test_sentences_by_hand(text, parts):
    assert sentences(text) == parts


def test_answers_are_judged_by_constraint_and_by_row():
    rows = [
        {"constraints": [{"kind": "no_commas"}, {"kind": "most_words", "count": 2}]},
        {"constraints": [{"kind": "no_commas"}]},
    ]
    found = constraints_met(["one two three", "one"], rows)
    assert found.met == ((True, False), (True,))
    assert found.rows == [False, True]
    assert found.each == [True, False, True]
    assert found.by_kind() == {"no_commas": [True, True], "most_words": [False]}
    assert ft.constraints_met is constraints_met and ft.constraint_met is constraint_met


@pytest.mark.parametrize(
    "constraint, message",
    [
        ({"kind": "rhyme"}, "has kind='rhyme': use one of sentences, "),
        ("no_commas", "has kind=None: use one of"),
        ({"kind": ["no_commas"]}, "has kind=.*: use one of"),
        ({"kind": "sentences"}, "'sentences' has count=None: a whole number from 1 is needed"),
        ({"kind": "sentences", "count": 0}, "has count=0: a whole number from 1"),
        ({"kind": "sentences", "count": True}, "has count=True"),
        ({"kind": "bullets", "count": 2.5}, "has count=2.5"),
        ({"kind": "use_words", "words": "tea"}, "has words='tea': a list of texts is needed"),
        ({"kind": "use_words", "words": []}, r"has words=\[\]"),
        ({"kind": "json_keys", "keys": [1]}, r"has keys=\[1\]"),
        ({"kind": "end_with", "phrase": " "}, "has phrase=' ': a text is needed"),
        ({"kind": "no_commas", "count": 2}, "has 'count': it takes nothing"),
    ],
)
def test_what_is_no_constraint_is_named(constraint, message):
    with pytest.raises(DataError, match=message):
        constraint_met("text", constraint)


def test_rows_and_answers_that_do_not_fit_are_named():
    row = {"constraints": [{"kind": "no_commas"}]}
    with pytest.raises(DataError, match="1 answers for 2 rows"):
        constraints_met(["text"], [row, row])
    with pytest.raises(DataError, match="row 1 has constraints=None"):
        constraints_met(["text", "text"], [row, {"messages": []}])
    with pytest.raises(DataError, match=r"row 0 has constraints=\[\]"):
        constraints_met(["text"], [{"constraints": []}])
    with pytest.raises(DataError, match="answer=None is a NoneType: give its text"):
        constraints_met([None], [row])
