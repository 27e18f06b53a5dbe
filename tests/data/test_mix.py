"""Replay: exact shares, the same mixture for the same seed."""

import pytest
from conftest import chat

import ftlib as ft

ROWS = [chat(f"q{i}", f"a{i}") for i in range(90)]
REPLAY = [{"text": i} for i in range(50)]


@pytest.mark.parametrize("share, count", [(0.0, 0), (0.01, 1), (0.1, 10), (1 / 3, 45)])
def test_exact_shares(share, count):
    """Of 90 rows: 90·0.1/0.9 = 10, and 10 of 100 are a tenth; 90·0.01/0.99 = 0.91, one row; 90·½ =
    45, and 45 of 135 are a third. Every row is there once, and no replayed one twice.
    """
    mixed = ft.mix_rows(ROWS, REPLAY, share)
    replayed = [row["text"] for row in mixed if "text" in row]
    assert len(mixed) == 90 + count and len(replayed) == len(set(replayed)) == count
    assert all(row in mixed for row in ROWS)


def test_deterministic():
    one = ft.mix_rows(ROWS, REPLAY, 0.1, seed=3)
    assert one == ft.mix_rows(ROWS, REPLAY, 0.1, seed=3)
    assert one != ft.mix_rows(ROWS, REPLAY, 0.1, seed=4)
    more = ft.mix_rows(ROWS, REPLAY, 0.2, seed=3)
    assert all(row in more for row in one)
    assert len(ROWS) == 90 and REPLAY[0] == {"text": 0}


def test_spread_over_the_mixture():
    """Of 100 rows the ten replayed do not stand at the end, where they were put."""
    mixed = ft.mix_rows(ROWS, REPLAY, 0.1)
    places = [i for i, row in enumerate(mixed) if "text" in row]
    assert min(places) < 50 < max(places)


@pytest.mark.parametrize("share", [-0.1, 1, 1.5, float("nan"), "half", True])
def test_bad_shares(share):
    with pytest.raises(ft.DataError, match="share"):
        ft.mix_rows(ROWS, REPLAY, share)


def test_too_few():
    with pytest.raises(ft.DataError, match=r"90 rows, replay has 50"):
        ft.mix_rows(ROWS, REPLAY, 0.5)
    with pytest.raises(ft.DataError, match="less than one row"):
        ft.mix_rows(ROWS[:10], REPLAY, 0.01)


def test_texts_as_rows(tokenizer):
    """A byte tokenizer: "ab" is BOS, a, b; every token is learnt; cut at three tokens."""
    (row, cut) = ft.text_rows(tokenizer, ["ab", "abcdef"], max_length=3)
    assert row["input_ids"] == row["labels"] == tokenizer("ab")["input_ids"]
    assert cut["labels"] == tokenizer("ab")["input_ids"]
    for texts, word in (("ab", "one text"), (["ab", ""], "text 1")):
        with pytest.raises(ft.DataError, match=word):
            ft.text_rows(tokenizer, texts)


def test_control_tokens_in_texts(tokenizer):
    """A text that ends its own document is refused by number, unless it is meant to."""
    end = tokenizer.eos_token
    texts = ["ab", f"a{end}b"]
    with pytest.raises(ft.DataError, match=r"text 1, .* holds .*ControlTokens"):
        ft.text_rows(tokenizer, texts)
    allowed = ft.text_rows(tokenizer, texts, control_tokens="allow")
    assert tokenizer.eos_token_id in allowed[1]["input_ids"][1:]
    broken = ft.ControlTokens(tokenizer).defused(texts)
    assert tokenizer.eos_token_id not in ft.text_rows(tokenizer, broken)[1]["input_ids"]
    with pytest.raises(ft.DataError, match="control_tokens='text'"):
        ft.text_rows(tokenizer, texts, control_tokens="text")
