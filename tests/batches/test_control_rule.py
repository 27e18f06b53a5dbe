"""The rule of the data pipeline for rows whose texts spell control tokens."""

import pytest
from conftest import byte_tokenizer, chat

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.core.errors import DataError
from ftlib.data.clean import clean_text

ROWS = [
    chat("a", "b"),
    {**chat("x<|end|><|assistant|>y", "b"), "answer": "<|end|>"},
    {"prompt": "a", "chosen": "b <unk>", "rejected": "c"},
    {"prompt": [{"role": "user", "content": "a"}], "completion": "<|end|>", "label": False},
]
CALL = {"type": "function", "function": {"name": "f", "arguments": {"<|pad|>": "x"}}}
WITH_CALL = {
    "messages": [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
    ]
}


def test_rows_are_dropped_with_place_and_token():
    """Of four rows three go; the report has the first reason."""
    prepared = ft.prepare(ROWS, [ft.ControlTokens(byte_tokenizer())])
    assert prepared.rows == ROWS[:1]
    assert [(gone.row, gone.reason) for gone in prepared.dropped] == [
        (1, "'<|end|>' in messages, message 0 of 'user'"),
        (2, "'<unk>' in chosen"),
        (3, "'<|end|>' in completion"),
    ]
    assert prepared.steps()[0][:3] == ("control tokens", 3, 1)
    [gone] = ft.prepare([WITH_CALL], [ft.ControlTokens(["<|pad|>"])]).dropped
    assert gone.reason == "'<|pad|>' in messages, message 1 of 'assistant'"


def test_defused_texts_read_the_same_and_are_no_tokens():
    """By hand: a space behind the first character. Counted: <|end|> in row 1 (the question and the
    gold answer) and row 3, <|assistant|> in row 1, <unk> in row 2; three rows changed.
    """
    tokenizer = byte_tokenizer()
    prepared = ft.prepare(ROWS, [ft.ControlTokens(tokenizer, action="defuse")])
    assert [prepared.rows[1]["messages"][0]["content"], prepared.rows[1]["answer"]] == [
        "x< |end|>< |assistant|>y",
        "< |end|>",
    ]
    assert prepared.rows[2]["chosen"] == "b < unk>"
    assert prepared.rows[3]["completion"] == "< |end|>"
    assert prepared.changed == {
        "control tokens": {"rows": 3, "<|end|>": 3, "<|assistant|>": 1, "<unk>": 1}
    }
    assert "<|end|> 3" in prepared._repr_html_().replace("&lt;", "<").replace("&gt;", ">")
    for before, after in zip(ROWS, prepared.rows, strict=True):
        assert not ft.find_control_tokens(tokenizer, after.get("messages", []))
        assert str(after).replace("< ", "<") == str(before)
    assert encode_rows(tokenizer, prepared.rows[:2])
    again = ft.prepare(prepared.rows, [ft.ControlTokens(tokenizer, action="defuse")])
    assert again.rows == prepared.rows
    assert again.changed == {}


def test_a_defused_text_survives_cleaning():
    """Which is why it is no character that nobody sees: cleaning gives the token back then."""
    finder = ft.ControlTokens(["<|end|>"]).finder
    assert clean_text(finder.parted("a <|end|>", " ")) == "a < |end|>"
    assert clean_text(finder.parted("a <|end|>", "\u200b")) == "a <|end|>"


def test_defusing_reaches_calls():
    prepared = ft.prepare([WITH_CALL], [ft.ControlTokens(["<|pad|>"], "defuse")])
    call = prepared.rows[0]["messages"][1]["tool_calls"][0]
    assert call["function"]["arguments"] == {"< |pad|>": "x"}
    assert WITH_CALL["messages"][1]["tool_calls"][0]["function"]["arguments"] == {"<|pad|>": "x"}


def test_what_goes_to_a_server():
    """Texts and messages without a row around them; nothing else changes, and in place nothing."""
    rule = ft.ControlTokens(["<|end|>"])
    messages = [{"role": "user", "content": "a<|end|>", "weight": 0}]
    assert rule.defused("a<|end|>") == "a< |end|>"
    assert rule.defused(messages) == [{"role": "user", "content": "a< |end|>", "weight": 0}]
    assert messages[0]["content"] == "a<|end|>"


def test_counting_changes_nothing():
    """In the report: rows with some, and each token; no row counts as changed."""
    prepared = ft.prepare(ROWS, [ft.ControlTokens(byte_tokenizer(), action="count")])
    assert prepared.rows == ROWS
    assert prepared.changed == {
        "control tokens": {"rows with some": 3, "<|end|>": 3, "<|assistant|>": 1, "<unk>": 1}
    }


def test_beside_the_standard_rules():
    """Behind the changes: an entity hid the token from whoever looked before."""
    rules = ft.standard_rules()
    rules.insert(3, ft.ControlTokens(byte_tokenizer(), action="defuse"))
    row = chat("What is &lt;|end|&gt; for?", "It ends the turn of whoever speaks.")
    assert ft.find_control_tokens(byte_tokenizer(), row["messages"]) == []
    prepared = ft.prepare([row], rules)
    assert prepared.rows[0]["messages"][0]["content"] == "What is < |end|> for?"


def test_what_only_the_normaliser_makes_a_token_of_is_dropped():
    """There is no place in the text where the space would go."""
    from tokenizers import AddedToken, normalizers

    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.add_tokens([AddedToken("<|stop|>", special=True, normalized=True)])
    prepared = ft.prepare([chat("<|STOP|>", "b")], [ft.ControlTokens(tokenizer, "defuse")])
    assert prepared.rows == []


@pytest.mark.parametrize(
    "tokens, action, said",
    [
        (["<|end|>"], "mask", "action='mask': use one of drop, defuse, count"),
        ("<|end|>", "drop", "a list of tokens such as"),
        ([], "drop", "a list of tokens such as"),
        (["<|end|>", " "], "drop", "a list of tokens such as"),
        ([6], "drop", "a list of tokens such as"),
        (["#"], "defuse", "'#' is one character"),
    ],
)
def test_bad_arguments(tokens, action, said):
    with pytest.raises(DataError, match=said):
        ft.ControlTokens(tokens, action)


def test_one_character_can_be_dropped_and_counted():
    assert len(ft.prepare([chat("a#", "b")], [ft.ControlTokens(["#"])]).dropped) == 1


def test_names_let_two_of_them_stand_in_one_pipeline():
    first = ft.ControlTokens(["<a>"], "defuse", name="a")
    prepared = ft.prepare([chat("<a><b>", "c")], [first, ft.ControlTokens(["<b>"], name="b")])
    assert [gone.rule for gone in prepared.dropped] == ["b"]
