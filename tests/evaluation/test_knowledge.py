"""Answers to general questions."""

import pytest
from conftest import byte_tokenizer, llama

from ftlib.core.errors import DataError
from ftlib.evaluation.knowledge import knowledge_hits, names_answer


@pytest.mark.parametrize(
    "text, accepted, named",
    [
        ("The capital is paris.", ("Paris",), True),
        ("Parisians live there", ("Paris",), False),
        ("It has 8 legs", ("eight", "8"), True),
        ("It has 18 legs", ("eight", "8"), False),
        ("In South America, of course", ("South America",), True),
        ("", ("0",), False),
        ("the formula is H2O!", ("H2O",), True),
    ],
)
def test_whole_words_in_any_case(text, accepted, named):
    assert names_answer(text, accepted) == named


def test_every_row_is_asked(monkeypatch):
    from ftlib.evaluation import knowledge

    said = {"Q1": "It is Rome.", "Q2": "I do not know."}

    def answer(model, tokenizer, questions, new, batch):
        return [said[question[0]["content"]] for question in questions]

    monkeypatch.setattr(knowledge, "generate_answers", answer)
    rows = []
    for question in said:
        turn = {"role": "user", "content": question}
        rows.append({"messages": [turn], "accepted": ["Rome"]})
    assert knowledge_hits(None, None, rows) == [True, False]


def test_a_real_model_answers_and_bad_rows_are_named():
    turn = {"role": "user", "content": "Hi"}
    rows = [{"messages": [turn], "accepted": ["Rome"]}]
    assert knowledge_hits(llama(), byte_tokenizer(), rows, 3) == [False]
    with pytest.raises(DataError, match="row 0 has no 'accepted'"):
        knowledge_hits(None, None, [{"messages": [turn]}])
