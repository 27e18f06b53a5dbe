"""Rows of preference training, pairs and binary: what becomes of them, what is refused, and KTO's
batches.
"""

import pytest
from conftest import CHATML, LLAMA3, byte_tokenizer, unmarked
from preference_runs import PAIRS, SETTINGS, adapted, turns

from ftlib.batches.preference import encode_binary, encode_pairs, mismatch, row_length
from ftlib.core.errors import DataError
from ftlib.training.prefer import kto_order, prefer
from ftlib.training.samplers import BlockSampler


# --- rows -----------------------------------------------------------------------------------------
def test_rows_become_prompt_and_completions(tokenizer):
    """The byte tokenizer's ids can be read back: the completion is the answer with its stop token,
    the prompt all before it.
    """
    [item] = encode_pairs(tokenizer, [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    assert {k: tokenizer.decode(v) for k, v in item.items()} == {
        "prompt_ids": "<|bos|><|user|>Hi<|end|><|assistant|>",
        "chosen_ids": "yes<|end|>",
        "rejected_ids": "no<|end|>",
    }


def llama3_tokenizer():
    return byte_tokenizer(LLAMA3, pad_token="<|finetune_right_pad_id|>")


@pytest.mark.parametrize(
    "make", [lambda: byte_tokenizer(CHATML), llama3_tokenizer], ids=["chatml", "llama3"]
)
@pytest.mark.parametrize("marks", [True, False], ids=["marked", "bare"])
def test_strings_are_one_user_and_one_assistant_turn(make, marks):
    """And what a template writes after the stop token, such as ChatML's newline, is not part of the
    completion.
    """
    tok = make()
    tok.chat_template = tok.chat_template if marks else unmarked(tok.chat_template)
    messages = {
        "prompt": turns("user", "Hi"),
        "chosen": turns("assistant", "yes"),
        "rejected": turns("assistant", "no"),
    }
    [item] = encode_pairs(tok, [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    assert encode_pairs(tok, [messages]) == [item]
    assert (
        tok.decode(item["chosen_ids"]) == "yes" + tok.eos_token
        and item["prompt_ids"][-1] != item["chosen_ids"][0]
    )


def test_only_the_last_turn_is_the_completion(tokenizer):
    prompt = [*turns("user", "Hi"), *turns("assistant", "Hello"), *turns("user", "Bye")]
    row = {
        "prompt": prompt,
        "chosen": turns("assistant", "bye"),
        "rejected": turns("assistant", "no"),
    }
    [item] = encode_pairs(tokenizer, [row])
    assert (
        "Hello" in tokenizer.decode(item["prompt_ids"])
        and tokenizer.decode(item["chosen_ids"]) == "bye<|end|>"
    )


def test_a_pair_is_two_binary_rows(tokenizer):
    thumbs = [
        {"prompt": "Hi", "completion": "yes", "label": True},
        {"prompt": "Hi", "completion": "no", "label": False},
    ]
    assert encode_binary(
        tokenizer, [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}]
    ) == encode_binary(tokenizer, thumbs)


BAD_ROWS = {
    "chosen equals rejected": {"prompt": "a", "chosen": "b", "rejected": "b"},
    "rejected is empty": {"prompt": "a", "chosen": "b", "rejected": " "},
    r"chosen is \[\]": {"prompt": "a", "chosen": [], "rejected": "b"},
    "prompt is 3": {"prompt": 3, "chosen": "b", "rejected": "c"},
    "one message of the assistant is needed": {
        "prompt": turns("user", "a"),
        "chosen": turns("user", "b"),
        "rejected": turns("assistant", "c"),
    },
    "text, as the prompt is, is needed": {
        "prompt": "a",
        "chosen": turns("assistant", "b"),
        "rejected": "c",
    },
    "binary row .*loss='kto'": {"prompt": "a", "completion": "b", "label": True},
    "no 'prompt'": {"chosen": "b"},
    "'nothing'": "nothing",
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_bad_rows_are_named(message, tokenizer):
    with pytest.raises(DataError, match=f"row 1.*{message}"):
        encode_pairs(tokenizer, [PAIRS[0], BAD_ROWS[message]])


@pytest.mark.parametrize(
    "message, row",
    [
        ("label is 1", {"prompt": "a", "completion": "b", "label": 1}),
        ("completion is empty", {"prompt": "a", "completion": "", "label": True}),
        ("chosen equals rejected", {"prompt": "a", "chosen": "b", "rejected": "b"}),
    ],
)
def test_bad_binary_rows_are_named(message, row, tokenizer):
    with pytest.raises(DataError, match=f"row 1.*{message}"):
        encode_binary(tokenizer, [PAIRS[0], row])


def test_sides_that_only_the_template_makes_equal_are_refused():
    """Llama-3's template trims: the texts differ, the tokens do not."""
    with pytest.raises(DataError, match="become the same tokens"):
        encode_pairs(llama3_tokenizer(), [{"prompt": "a", "chosen": "b", "rejected": "b "}])


def test_long_rows_are_left_out_never_cut(tokenizer, capsys):
    """ "Hi" is 6 tokens with its markers: 6 + 9 + 1 fit 16, a tenth letter does not."""
    fits, long = ({"prompt": "Hi", "chosen": "a", "rejected": "b" * n} for n in (9, 11))
    assert encode_pairs(tokenizer, [fits, long], max_length=16) == encode_pairs(tokenizer, [fits])
    assert "left out 1 of 2 rows longer than max_length=16 (longest 18)" in capsys.readouterr().out
    with pytest.raises(DataError, match="all 1 rows are longer than max_length=16"):
        encode_pairs(tokenizer, [long], max_length=16)


def test_length_counts_the_prompt_once():
    assert row_length({"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6]}) == 6


# --- KTO's batches --------------------------------------------------------------------------------
def thumbs(n, prompts=None):
    return [
        {
            "prompt_ids": [i if prompts is None else prompts[i]],
            "completion_ids": [100 + i] * (1 + i % 3),
            "label": i % 2 == 0,
        }
        for i in range(n)
    ]


def partners(items):
    return [item["kl_completion_ids"][0] - 100 for item in items]


def test_completions_are_rotated_by_one_within_the_batch():
    assert partners(mismatch(thumbs(6), 3)) == [2, 0, 1, 5, 3, 4]


def test_a_last_batch_of_one_takes_from_the_batch_before():
    assert partners(mismatch(thumbs(4), 3)) == [2, 0, 1, 2]


def test_the_two_sides_of_a_pair_are_no_mismatch():
    """Rows 0 and 1 share a prompt: row 1 goes on, backwards around the batch, to row 2's
    completion. A batch of one prompt keeps the rotation.
    """
    assert partners(mismatch(thumbs(3, prompts=[7, 7, 8]), 3)) == [2, 2, 1]
    assert partners(mismatch(thumbs(2, prompts=[7, 7]), 2)) == [1, 0]


def test_every_row_once_and_the_last_batch_topped_up():
    order = kto_order(thumbs(10), 4, seed=0)
    rows = [item["prompt_ids"][0] for item in order]
    assert len(order) == 12 and set(rows[:10]) == set(range(10)) and rows[10:] == rows[:2]
    assert all(
        partner in rows[i // 4 * 4 : i // 4 * 4 + 4] and partner != rows[i]
        for i, partner in enumerate(partners(order))
    )


def test_batches_stay_together_in_another_order_every_epoch():
    sampler = BlockSampler(24, 4, seed=0)
    orders = []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert len({tuple(o) for o in orders}) > 1 and all(sorted(o) == list(range(24)) for o in orders)
    assert all(
        o[k] % 4 == 0 and o[k : k + 4] == list(range(o[k], o[k] + 4))
        for o in orders
        for k in range(0, 24, 4)
    )


def test_an_unbalanced_set_is_said(tokenizer, caplog):
    rows = [{"prompt": f"a{i}", "completion": "b", "label": i > 1} for i in range(8)]
    prefer(adapted(), tokenizer, rows, loss="kto", **{**SETTINGS, "steps": 1})
    assert (
        "6 desirable and 2 undesirable rows: weights times numbers are in the ratio 3.00"
        in caplog.text
    )
    caplog.clear()
    prefer(
        adapted(), tokenizer, rows, loss="kto", **{**SETTINGS, "steps": 1}, undesirable_weight=3.0
    )
    assert "ratio" not in caplog.text
