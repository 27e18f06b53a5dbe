"""What ends a turn: the token that the template writes after an answer, the tokenizer's eos and the
model's own ends; the same in masks, generation and what is left in generation_config.
"""

import pytest
import torch
from conftest import CHATML, LLAMA3, PLAIN, byte_tokenizer, chat, gemma_tokenizer, llama, unmarked

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_pairs
from ftlib.batches.render import chat_template_of
from ftlib.batches.served import say_end
from ftlib.batches.shown_mask import show_mask
from ftlib.batches.stops import learnt_stops, model_stops, name_turn_end, stop_ids, turn_end
from ftlib.batches.template import IGNORE, encode, encode_examples, template_ids
from ftlib.batches.training_template import training_template
from ftlib.core.errors import DataError, LoadError
from ftlib.training import sampling

TALK = [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]
# Phi's: eos once more at the end of the whole conversation, with and without a newline before it.
PHI = (
    "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content ~ '<|end|>SPACE' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)


def phi(space=""):
    tokenizer = byte_tokenizer(eos_token="<|eos|>")
    tokenizer.chat_template = PHI.replace("SPACE", space)
    return tokenizer


@pytest.mark.parametrize(
    "make, end",
    [
        (lambda: byte_tokenizer(PLAIN), "<|end|>"),
        (lambda: byte_tokenizer(LLAMA3, pad_token="<|eot_id|>"), "<|eot_id|>"),
        (lambda: byte_tokenizer(CHATML), "<|im_end|>"),
        (gemma_tokenizer, "<end_of_turn>"),
        (phi, "<|end|>"),
        (lambda: phi("\n"), "<|end|>"),
    ],
)
def test_the_template_says_what_ends_a_turn(make, end):
    tokenizer = make()
    assert tokenizer.convert_ids_to_tokens(turn_end(tokenizer)) == end
    assert stop_ids(tokenizer)[0] == turn_end(tokenizer)
    assert tokenizer.eos_token_id in stop_ids(tokenizer)


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content ~ '\n' }}{% endfor %}",
        "{% for m in messages %}{{ m.content ~ '<|im_end|>' }}{% endfor %}",  # not a token of it
        "{{ raise_exception('no') }}",
        "{{ messages | length }}",
    ],
)
def test_no_token_ends_a_turn(template):
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    assert turn_end(tokenizer) is None and stop_ids(tokenizer) == [tokenizer.eos_token_id]


def test_a_marker_that_is_no_special_token_ends_a_turn_and_is_cut_off_an_answer():
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<END>"])
    tokenizer.chat_template = unmarked(PLAIN).replace("<|end|>", "<END>")
    end = turn_end(tokenizer)
    assert tokenizer.convert_ids_to_tokens(end) == "<END>"
    yes = tokenizer("yes", add_special_tokens=False)["input_ids"]
    assert sampling.answer_texts(llama(), tokenizer, [[*yes, end]]) == ["yes"]


# --- masks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "make", [gemma_tokenizer, phi, lambda: phi("\n")], ids=["gemma", "phi", "phi-n"]
)
@pytest.mark.parametrize("marks", [False, True], ids=["prefix", "marks"])
def test_the_end_that_is_not_eos_is_learnt_and_nothing_after_it(make, marks):
    """Not Gemma's newline, not Phi's eos at the end of the whole conversation."""
    tokenizer = make()
    if marks:
        tokenizer.chat_template = training_template(tokenizer)
    end = tokenizer.convert_ids_to_tokens(turn_end(tokenizer))
    row = encode(tokenizer, TALK)
    ids = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORE]
    assert tokenizer.decode(ids) == f"b{end}d{end}"
    [pair] = encode_pairs(tokenizer, [{"prompt": "a", "chosen": "b", "rejected": "d"}])
    assert tokenizer.decode(pair["chosen_ids"]) == f"b{end}"
    assert tokenizer.decode(pair["rejected_ids"]) == f"d{end}"


def test_what_is_marked_after_the_stop_is_not_learnt():
    """A newline and an eos within the marks: generation ends before either."""
    tokenizer = phi("\n")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content ~ '<|end|>\n' ~ eos_token }}{% endgeneration %}{% else %}"
        "{{ m.content ~ '<|end|>' }}{% endif %}{% endfor %}"
    )
    assert (
        repr(show_mask(tokenizer, TALK[:2])) == "<|user|>a<|end|><|assistant|>[b][<|end|>]\n<|eos|>"
    )


def test_marks_that_end_before_an_end_that_is_not_eos_are_refused():
    tokenizer = phi("\n")
    tokenizer.chat_template = training_template(tokenizer).replace(
        "~ '<|end|>' }}{% endgeneration %}", "}}{% endgeneration %}{{ '<|end|>' }}"
    )
    with pytest.raises(DataError, match=r"marks end before the stop token '<\|end\|>'"):
        encode(tokenizer, TALK)


@pytest.mark.parametrize("marks", [False, True], ids=["prefix", "marks"])
def test_answers_of_a_template_without_a_stop_end_with_the_tokenizers(marks, caplog):
    """Generation stops at eos, so this is what the model must learn to write. Each answer is an
    example of its own: in the whole conversation nothing would end the first.
    """
    say_end.cache_clear()
    tokenizer = byte_tokenizer()
    template = PLAIN.replace("m['content'] ~ '<|end|>'", "m['content']")
    tokenizer.chat_template = template if marks else unmarked(template)
    [first, second] = encode_examples(tokenizer, TALK)
    assert tokenizer.decode(first["input_ids"]).endswith("<|assistant|>b<|end|>")
    learnt = [label for label in second["labels"] if label != IGNORE]
    assert tokenizer.decode(learnt) == TALK[3]["content"] + "<|end|>"
    prompt = template_ids(tokenizer, TALK[:3], add_generation_prompt=True)
    assert second["input_ids"] == [*prompt, *learnt]
    assert caplog.text.count("writes nothing after an answer: each example ends with") == 1
    [pair] = encode_pairs(tokenizer, [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    assert tokenizer.decode(pair["chosen_ids"]) == "b<|end|>"


@pytest.mark.parametrize("marks", [False, True], ids=["prefix", "marks"])
def test_a_template_that_ends_answers_with_plain_text_is_refused(marks):
    """ "###" is no token of this tokenizer: generation would not stop there."""
    tokenizer = byte_tokenizer()
    template = PLAIN.replace("m['content'] ~ '<|end|>'", "m['content'] ~ '###'")
    tokenizer.chat_template = template if marks else unmarked(template)
    with pytest.raises(DataError, match=r"row 0: .*no stop token after the answer.*eos_token"):
        encode_rows(tokenizer, [chat("a", "b")])
    with pytest.raises(DataError, match=r"row 0: .*no stop token"):
        encode_pairs(tokenizer, [{"prompt": "a", "chosen": "b", "rejected": "c"}])


def test_no_marks_are_put_into_a_template_without_a_stop():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = unmarked(PLAIN).replace("<|end|>", "<|im_end|>")
    with pytest.raises(
        DataError, match=r"'<\|im_end\|>', in which the tokenizer has no stop token"
    ):
        training_template(tokenizer)


@pytest.mark.parametrize("marks", [False, True], ids=["prefix", "marks"])
@pytest.mark.parametrize("answer", ["b<|end|>", "<|end|>b", "b <|end|> c"])
def test_an_answer_that_holds_the_stop_is_refused(answer, marks):
    tokenizer = byte_tokenizer()
    if not marks:
        tokenizer.chat_template = unmarked(PLAIN)
    with pytest.raises(DataError, match=r"row 0: message 1 holds '<\|end\|>'.*take it out"):
        encode_rows(tokenizer, [chat("a", answer)])
    with pytest.raises(DataError, match=r"row 0: message 1 holds"):
        encode_pairs(tokenizer, [{"prompt": "a", "chosen": answer, "rejected": "c"}])
    with pytest.raises(DataError, match=r"row 0: message 1 holds '<\|end\|>', which ends a turn"):
        encode_rows(tokenizer, [chat("a", answer)], control_tokens="allow")
    question = chat("a <|end|>", "b")["messages"]
    assert encode(tokenizer, question, control_tokens="allow")  # a question is not learnt


@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_answer_within_a_conversation_is_refused(empty):
    """It would be learnt as an immediate stop; with weight 0 it is context."""
    talk = [dict(m) for m in TALK]
    talk[1]["content"] = empty
    for tokenizer in (byte_tokenizer(), gemma_tokenizer()):
        with pytest.raises(DataError, match="row 0: message 1 is an empty answer"):
            encode_rows(tokenizer, [{"messages": talk}])
        pair = {
            "prompt": talk[:3],
            "chosen": [TALK[3]],
            "rejected": [{"role": "assistant", "content": "no"}],
        }
        with pytest.raises(DataError, match="row 0: message 1 is an empty answer"):
            encode_pairs(tokenizer, [pair])
        weighed = [talk[0], {**talk[1], "weight": 0}, *talk[2:]]
        end = tokenizer.convert_ids_to_tokens(turn_end(tokenizer))
        row = encode(tokenizer, weighed)
        ids = [label for label in row["labels"] if label != IGNORE]
        assert tokenizer.decode(ids) == f"d{end}"


def test_packing_and_a_tokenizer_that_cuts_leave_the_stop_alone(tokenizer):
    """Every conversation of a packed row ends in its learnt stop; a tokenizer.json that was saved
    with truncation to 4 tokens cuts nothing.
    """
    cutting = byte_tokenizer()
    cutting.backend_tokenizer.enable_truncation(4)
    rows = [chat("a" * n, "b" * n) for n in (1, 5, 9, 3)]
    encoded = encode_rows(cutting, rows)
    assert encoded == encode_rows(tokenizer, rows)
    packed = ft.pack(encoded, 40)
    stop = tokenizer.eos_token_id
    assert sum(row["labels"].count(stop) for row in packed.rows) == len(rows)


# --- several templates under names ----------------------------------------------------------------
def test_a_dict_of_templates(tokenizer):
    named = byte_tokenizer()
    named.chat_template = {"default": PLAIN, "tool_use": "{{ tools }}" + PLAIN}
    assert encode(named, TALK) == encode(tokenizer, TALK)
    assert chat_template_of(named, [{"name": "f"}]).startswith("{{ tools }}")
    assert training_template(named) == PLAIN and stop_ids(named) == stop_ids(tokenizer)
    named.chat_template = {"rag": PLAIN}
    with pytest.raises(LoadError, match=r"chat_template is a dict of rag.*'default'"):
        encode(named, TALK)


# --- the model's own ends -------------------------------------------------------------------------
def says(model, tokens: list[int]):
    """The model answers with these tokens, whatever it is asked: its greedy choice by position."""

    def forward(input_ids=None, attention_mask=None, past_key_values=None, **more):
        out = original(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **more,
        )
        step = says.step
        says.step += 1
        out.logits[:] = 0
        out.logits[..., tokens[step % len(tokens)]] = 9
        return out

    original = model.forward
    says.step = 0
    model.forward = forward
    return model


def test_an_answer_ends_where_the_template_ends_it_whatever_generation_config_names():
    """ChatML learnt by a base whose generation_config names <|endoftext|> alone."""
    tokenizer = byte_tokenizer(CHATML)
    other = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    ids = tokenizer("yes", add_special_tokens=False)["input_ids"]
    for end in (tokenizer.eos_token_id, other):
        model = llama(eos_token_id=other, pad_token_id=other)
        said = says(model, [*ids, end, *ids])
        _, [answer] = sampling.generate_ids(said, tokenizer, [TALK[:1]], 7, 1, 0.0, 0)
        assert answer == [*ids, end]
    says.step = 0
    example = chat("a", "yes")
    assert ft.golden_accuracy(
        says(llama(eos_token_id=other), [*ids, 1, *ids]), tokenizer, [example]
    )


def test_the_models_ends_come_after_the_templates(tokenizer):
    model = llama(eos_token_id=[1, 6])
    assert model_stops(model, tokenizer) == [6, 1]
    model.generation_config.eos_token_id = None
    model.config.eos_token_id = 4
    assert model_stops(model, tokenizer) == [6, 4]


def test_an_end_of_the_model_closes_a_learnt_turn():
    """Llama 3.1 ends a tool call in <|eom_id|>, which only its generation_config names."""
    tokenizer = byte_tokenizer(eos_token="<|end|>")
    tokenizer.chat_template = unmarked(PLAIN).replace(
        "{{ m['content'] ~ '<|end|>' }}",
        "{{ m['content'] ~ ('<|eos|>' if m['content'] == 'b' else '<|end|>') }}",
    )
    with pytest.raises(DataError, match="no stop token"):
        encode(tokenizer, TALK)
    stops = learnt_stops(llama(eos_token_id=[6, 1]), tokenizer)
    row = encode(tokenizer, TALK, stops=stops)
    ids = [label for label in row["labels"] if label != IGNORE]
    assert tokenizer.decode(ids) == "b<|eos|>d<|end|>"


def test_an_id_that_is_plain_text_ends_no_learnt_turn(tokenizer):
    """A config made for another tokenizer: id 100 is a letter here."""
    model = llama(eos_token_id=100)
    assert learnt_stops(model, tokenizer) == [6] and 100 in model_stops(model, tokenizer)


@pytest.mark.parametrize("train", ["finetune", "prefer"])
def test_training_leaves_the_learnt_end_in_generation_config(train, caplog):
    tokenizer = byte_tokenizer(CHATML)
    model = ft.add_lora(llama(layers=1, eos_token_id=2), r=2)
    options = dict(steps=1, learning_rate=1e-3, batch_size=2, show=False)
    if train == "finetune":
        ft.finetune(model, tokenizer, [chat("a", "b")] * 2, **options)
    else:
        pairs = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2
        ft.prefer(model, tokenizer, pairs, loss="dpo", **options)
    assert model.generation_config.eos_token_id == [2, tokenizer.eos_token_id]
    assert "<|im_end|>" in caplog.text


def test_nothing_is_added_where_all_is_named(tokenizer):
    model = llama(eos_token_id=6)
    assert name_turn_end(model, tokenizer) == [] and model.generation_config.eos_token_id == 6
    assert name_turn_end(torch.nn.Linear(1, 1), tokenizer) == []
