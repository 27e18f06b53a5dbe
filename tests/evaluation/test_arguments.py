"""Arguments of evaluating and of adapters that no call can have are named, with their value."""

import math

import pytest
from conftest import chat, llama

import ftlib as ft

ROWS = [chat("who", "me")]


@pytest.fixture(scope="module")
def model():
    return ft.add_lora(llama(layers=1), r=2)


@pytest.mark.parametrize("value", [0, -1, 1.5, "2", None])
@pytest.mark.parametrize("name", ["batch_size", "max_new_tokens"])
def test_accuracy(name, value, model, tokenizer):
    with pytest.raises(ValueError, match=f"{name}={value!r}: must be a whole number"):
        ft.golden_accuracy(model, tokenizer, ROWS, **{name: value})


@pytest.mark.parametrize("name", ["batch_size", "max_length"])
def test_perplexity(name, model, tokenizer):
    with pytest.raises(ValueError, match=f"{name}=0: must be a whole number"):
        ft.perplexity(model, tokenizer, ["a text"], **{name: 0})


def test_one_text_is_not_a_list_of_its_letters(model, tokenizer):
    with pytest.raises(ValueError, match="texts is one text, 'a text': pass a list"):
        ft.perplexity(model, tokenizer, "a text")


@pytest.mark.parametrize(
    "name, value",
    [
        ("r", 0),
        ("r", "8"),
        ("lora_alpha", 0),
        ("lora_alpha", "16"),
        ("lora_alpha", math.nan),
        ("lora_alpha", math.inf),
        ("lora_dropout", 1),
        ("lora_dropout", -0.1),
        ("lora_dropout", "0.1"),
    ],
)
def test_an_adapter(name, value):
    plain = llama(layers=1)
    with pytest.raises(ValueError, match=f"{name}={value!r}: "):
        ft.add_lora(plain, **{name: value})
    assert not ft.lora_layers(plain)


def test_rows_to_evaluate_on_are_told_from_rows_to_train_on(model, tokenizer):
    """Of which an error speaks: both have a row 0."""
    blank = [{"input_ids": [1, 2, 3], "labels": [-100] * 3}]
    given = {"steps": 1, "learning_rate": 1e-3, "show": False}
    with pytest.raises(ft.DataError, match=r"^eval_rows, row 0: none of its 3 labels"):
        ft.finetune(model, tokenizer, ROWS, eval_rows=blank, **given)
    with pytest.raises(ft.DataError, match=r"^row 0: none of its 3 labels"):
        ft.finetune(model, tokenizer, blank, **given)
