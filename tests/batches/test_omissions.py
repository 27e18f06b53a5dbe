"""What a row says and its chat template does not write: tool calls, tools, thoughts, weights,
turns; and rows whose words are not what a template knows.
"""

import pytest
from conftest import CHATML, PLAIN, byte_tokenizer, chat, unmarked

from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_binary, encode_pairs
from ftlib.batches.shown_mask import show_mask
from ftlib.batches.template import IGNORE, encode
from ftlib.batches.training_template import training_template
from ftlib.core.errors import DataError, PairError
from ftlib.data.rows import check_row

TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Of today.", "parameters": {}},
    }
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": 'Par"is'}}}
ASKED = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "content": "sun"},
    {"role": "assistant", "content": "It is sunny."},
]
# ChatML that writes the tools, tool calls and thoughts, as Qwen does.
FULL = (
    "{% if tools %}{{ '<|im_start|>system\n' ~ (tools | tojson) ~ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\n' }}"
    "{% if m.reasoning_content and loop.last %}"
    "{{ '<think>' ~ m.reasoning_content ~ '</think>' }}{% endif %}{{ m.content }}"
    "{% for call in m.tool_calls %}{{ '<call>' ~ call.function.name ~ ' ' ~ "
    "(call.function.arguments | tojson) ~ '</call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tok(template=FULL):
    tokenizer = byte_tokenizer(CHATML)
    tokenizer.chat_template = template
    return tokenizer


def learnt(tokenizer, row) -> str:
    return tokenizer.decode([label for label in row["labels"] if label != IGNORE])


# --- tools ----------------------------------------------------------------------------------------
def test_a_tool_call_is_learnt_through_the_template_and_the_tools_are_shown():
    tokenizer = tok()
    [row] = encode_rows(tokenizer, [{"messages": ASKED, "tools": TOOLS}])
    call = '<call>weather {"city": "Par\\"is"}</call><|im_end|>'
    assert learnt(tokenizer, row) == call + "It is sunny.<|im_end|>"
    assert '"description": "Of today."' in tokenizer.decode(row["input_ids"])
    assert learnt(tokenizer, encode(tokenizer, ASKED[:2])) == call  # it may end a row
    assert "[<]" in repr(show_mask(tokenizer, ASKED[:2], tools=TOOLS))


def test_tools_in_pairs():
    other = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "news"}}]}
    tools = [*TOOLS, {"type": "function", "function": {"name": "news"}}]
    row = {"prompt": ASKED[:1], "chosen": [ASKED[1]], "rejected": [other], "tools": tools}
    template = FULL.replace("(call.function.arguments | tojson)", "(call.function.arguments or '')")
    tokenizer = tok(template)
    [pair] = encode_pairs(tokenizer, [row])
    assert "weather" in tokenizer.decode(pair["chosen_ids"])
    assert tokenizer.decode(pair["rejected_ids"]).startswith("<call>news")
    assert "Of today." in tokenizer.decode(pair["prompt_ids"])
    with pytest.raises(PairError, match="chosen equals rejected"):
        encode_pairs(tokenizer, [{**row, "rejected": [ASKED[1]]}])
    after_tool = {"prompt": ASKED[:3], "completion": [ASKED[3]], "label": True, "tools": tools}
    [binary] = encode_binary(tokenizer, [after_tool])
    assert tokenizer.decode(binary["completion_ids"]) == "It is sunny.<|im_end|>"


@pytest.mark.parametrize(
    "template, words",
    [
        (CHATML, "leaves out 'tool_calls' of message 1.*weather"),
        (unmarked(CHATML), "leaves out 'tool_calls' of message 1.*weather"),
        (FULL.replace("call.function.name", "'f'"), "leaves 'weather' of tool call 0 of message 1"),
        (FULL.replace("call.function.arguments", "1"), "leaves 'city' of tool call 0"),
        (FULL.replace("tools | tojson", "'some tools'"), r"leaves out the tools.*weather"),
        (FULL.replace("if tools", "if false"), r"leaves out the tools"),
    ],
)
@pytest.mark.parametrize("pair", [False, True])
def test_what_a_template_leaves_out_of_tool_use_is_refused(template, words, pair):
    tokenizer = tok(template)
    with pytest.raises(DataError, match=f"row 0: .*{words}"):
        if pair:
            row = {"prompt": ASKED[:3], "completion": [ASKED[3]], "label": True, "tools": TOOLS}
            encode_binary(tokenizer, [row])
        else:
            encode_rows(tokenizer, [{"messages": ASKED, "tools": TOOLS}])


def test_arguments_as_a_string():
    """OpenAI's form; `| tojson` writes a string with quotes around it and within, escaped."""
    call = {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    messages = [ASKED[0], {**ASKED[1], "tool_calls": [call]}]
    with pytest.raises(
        DataError, match=r"arguments of tool call 0 of message 1 as they are.*object"
    ):
        encode(tok(), messages)
    raw = tok(FULL.replace("(call.function.arguments | tojson)", "call.function.arguments"))
    assert learnt(raw, encode(raw, messages)).startswith('<call>weather {"city": "Rome"}<')


def test_marks_put_into_a_template_leave_no_tool_call_out():
    """The learnt template writes contents alone."""
    marked = tok(training_template(tok()))
    with pytest.raises(DataError, match="leaves out 'tool_calls'"):
        encode(marked, ASKED[:2])


@pytest.mark.parametrize(
    "more, words",
    [
        ({"tools": '[{"name": "f"}]'}, "tools is str"),
        ({"tools": ["f"]}, "tools is list"),
        ({"functions": [{"name": "f"}]}, "functions is .* give them as 'tools'"),
        ({"system": "Be brief."}, "system is 'Be brief.'.*first message"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "chat_template_kwargs"),
    ],
)
def test_keys_of_a_row_that_are_not_read(more, words):
    with pytest.raises(DataError, match=f"row 0: {words}"):
        encode_rows(tok(), [chat("a", "b", **more)])
    with pytest.raises(DataError, match=f"row 0: {words}"):
        encode_pairs(tok(), [{"prompt": "a", "chosen": "b", "rejected": "c", **more}])


def test_a_system_column_that_repeats_the_system_turn_is_fine():
    system = {"role": "system", "content": "Be brief."}
    row = {"messages": [system, *chat("a", "b")["messages"]], "system": "Be brief."}
    assert encode_rows(tok(), [row]) == encode_rows(tok(), [{"messages": row["messages"]}])
    assert encode_rows(tok(), [chat("a", "b", tools=[], functions=None, system="", id=3)])


# --- thoughts -------------------------------------------------------------------------------------
THOUGHT = {"role": "assistant", "content": "yes", "reasoning_content": "because"}


def test_a_thought_is_learnt_where_the_template_writes_it():
    tokenizer = tok()
    row = encode(tokenizer, [ASKED[0], THOUGHT])
    assert learnt(tokenizer, row) == "<think>because</think>yes<|im_end|>"
    with pytest.raises(DataError, match=r"leaves out 'reasoning_content' of message 1.*because"):
        encode(tok(CHATML), [ASKED[0], THOUGHT])


@pytest.mark.parametrize("marks", [False, True], ids=["prefix", "marks"])
def test_a_thought_that_is_cut_from_an_earlier_turn_is_noticed(marks):
    """The earlier answer would be learnt without its thought; with weight 0 it is context."""
    template = FULL
    if marks:
        template = FULL.replace("{% if m.reasoning", "{% generation %}{% if m.reasoning").replace(
            "{{ '<|im_end|>\n' }}{% endfor %}{% if add",
            "{{ '<|im_end|>\n' }}{% endgeneration %}{% endfor %}{% if add",
        )
    tokenizer = tok(template)
    talk = [ASKED[0], THOUGHT, ASKED[0], {**THOUGHT, "content": "no"}]
    with pytest.raises(DataError, match=r"'reasoning_content' of message 1.*weight 0"):
        encode(tokenizer, talk)
    if not marks:
        row = encode(tokenizer, [talk[0], {**THOUGHT, "weight": 0}, *talk[2:]])
        assert learnt(tokenizer, row) == "<think>because</think>no<|im_end|>"


def test_a_thought_within_the_text_that_is_cut_is_noticed():
    """Qwen3 and R1 split answers at </think>."""
    template = CHATML.replace("m['content'] ~", "m['content'].split('</think>')[-1] ~")
    with pytest.raises(DataError, match="cuts the thought out of message 1"):
        encode(tok(template), chat("a", "<think>b</think>c")["messages"])
    assert "</think>" in learnt(tok(), encode(tok(), chat("a", "<think>b</think>c")["messages"]))


@pytest.mark.parametrize("marks", [False, True], ids=["prefix", "marks"])
def test_a_thought_after_a_prompt_that_ends_in_an_empty_one_is_refused(marks):
    """Qwen3 asked without thinking: the empty thought is in the prompt, and would be learnt before
    the real one, or in its place.
    """
    template = FULL if not marks else CHATML
    prompt = "{{ '<|im_start|>assistant\n' }}"
    template = template.replace(prompt, prompt + "{{ '<think>\n\n</think>\n\n' }}")
    answer = THOUGHT if not marks else {**ASKED[3], "content": "<think>because</think>yes"}
    with pytest.raises(DataError, match=r"enable_thinking=False.*take the thought out"):
        encode(tok(template), [ASKED[0], answer])


# --- weights --------------------------------------------------------------------------------------
@pytest.mark.parametrize("template", [PLAIN, unmarked(PLAIN)], ids=["marks", "prefix"])
def test_weight_zero_is_context_only(template):
    tokenizer = byte_tokenizer(PLAIN)
    tokenizer.chat_template = template
    talk = [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]
    for first, second, wanted in ((0, 1, "d<|end|>"), (1, 0, "b<|end|>"), (0.0, None, "d<|end|>")):
        weighed = [talk[0], {**talk[1], "weight": first}, talk[2], {**talk[3], "weight": second}]
        [row] = encode_rows(tokenizer, [{"messages": weighed}])
        assert learnt(tokenizer, row) == wanted
        assert row["input_ids"] == encode(tokenizer, talk)["input_ids"]
    nothing = [talk[0], {**talk[1], "weight": 0}]
    with pytest.raises(DataError, match=r"row 0: no token.*user, assistant.*learnt"):
        encode_rows(tokenizer, [{"messages": nothing}])


@pytest.mark.parametrize(
    "i, weight", [(1, 0.5), (1, "0"), (1, -1), (0, 1), (1, float("nan"))], ids=str
)
def test_weights_that_cannot_be_had(i, weight):
    talk = chat("a", "b")["messages"]
    talk[i] = {**talk[i], "weight": weight}
    with pytest.raises(DataError, match=f"row 0: message {i} of the role .* weight="):
        encode_rows(byte_tokenizer(), [{"messages": talk}])


def test_weights_of_a_pair(tokenizer):
    """A prompt's turns are never learnt; a completion is."""
    prompt = [*chat("a", "b")["messages"], *chat("c", "d")["messages"][:1]]
    weighed = [prompt[0], {**prompt[1], "weight": 0}, prompt[2]]
    answers = {"chosen": [ASKED[3]], "rejected": chat("a", "no")["messages"][1:]}
    assert encode_pairs(tokenizer, [{"prompt": weighed, **answers}]) == encode_pairs(
        tokenizer, [{"prompt": prompt, **answers}]
    )
    with pytest.raises(PairError, match="row 0: chosen has weight=0"):
        encode_pairs(
            tokenizer, [{"prompt": prompt, **answers, "chosen": [{**ASKED[3], "weight": 0}]}]
        )


def test_marks_that_begin_before_the_answers_are_not_followed():
    """Around whole conversations, as around the headers of turns: the answers alone are learnt."""
    template = PLAIN.replace("{% endgeneration %}", "").replace("{% generation %}", "")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% generation %}" + template + "{% endgeneration %}"
    talk = [*chat("a", "b")["messages"], *chat("c", "d")["messages"]]
    talk[1]["weight"] = 0
    assert repr(show_mask(tokenizer, talk)).endswith("<|assistant|>[d][<|end|>]")
    assert "[b]" not in repr(show_mask(tokenizer, talk))


def test_weights_that_the_marks_cannot_tell_apart():
    """Two answers in a row, which this template writes as one stretch."""
    header = "{{ '<|' ~ m.role ~ '|>' if m.role != 'assistant' or not answers else '' }}"
    template = (
        "{% for m in messages %}{% set answers = loop.previtem is defined and "
        "loop.previtem.role == 'assistant' %}"
        + header
        + "{% if m.role == 'assistant' %}{% generation %}{{ m.content ~ '<|end|>' }}"
        "{% endgeneration %}{% else %}{{ m.content ~ '<|end|>' }}{% endif %}{% endfor %}"
        "{{ '<|assistant|>' if add_generation_prompt else '' }}"
    )
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = template
    talk = [*chat("a", "b")["messages"], {"role": "assistant", "content": "d"}]
    with pytest.raises(DataError, match=r"around 1 stretches of text.*2 answers"):
        encode(tokenizer, [talk[0], {**talk[1], "weight": 0}, *talk[2:]])


# --- turns that are left out ----------------------------------------------------------------------
@pytest.mark.parametrize("template", [CHATML, unmarked(CHATML)], ids=["marks", "prefix"])
def test_early_turns_that_a_template_cuts_are_noticed(template):
    """The last two messages only: the same words earlier do not stand in for them."""
    cut = template.replace("for m in messages", "for m in messages[-2:]")
    talk = chat("hello", "hello")["messages"] * 2
    with pytest.raises(DataError, match=r"row 0: .*drops message 2 of the role 'user', 'hello'"):
        encode_rows(tok(cut), [{"messages": talk}])
    assert encode_rows(tok(cut), [{"messages": talk[:2]}])


def test_white_space_and_escapes_are_not_omissions():
    trims = tok(CHATML.replace("m['content']", "m['content'] | trim"))
    escapes = tok(unmarked(CHATML).replace("m['content']", "(m['content'] | tojson)"))
    talk = chat(' a "b"\n\tc ', "d\n e ")["messages"]
    assert encode(trims, talk) and encode(escapes, talk)


# --- rows -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("role", ["human", "gpt", "model", "User", ""])
def test_an_unknown_role_is_refused(role, tokenizer):
    talk = [{"role": role, "content": "a"}, *chat("b", "c")["messages"]]
    with pytest.raises(DataError, match=f"row 0: message 0 has the role '{role}': use one of"):
        encode_rows(tokenizer, [{"messages": talk}])
    with pytest.raises(PairError, match=f"row 0: prompt: message 0 has the role '{role}'"):
        encode_pairs(tokenizer, [{"prompt": talk[:2], "chosen": talk[2:], "rejected": talk[2:]}])
    with pytest.raises(DataError, match=f"message 0 has the role '{role}'"):
        show_mask(tokenizer, talk)


@pytest.mark.parametrize(
    "row, words",
    [
        ({"messages": ASKED[:1]}, "last message must be .* it is 'user' 'q': add the answer"),
        ({"messages": [ASKED[0], {**ASKED[1], "content": None}]}, r"content may be ''"),
        ({"messages": [ASKED[0], {"role": "assistant", "content": ""}]}, "it is 'assistant' ''"),
    ],
)
def test_rows_without_an_answer(row, words):
    with pytest.raises(DataError, match=f"here: .*{words}"):
        check_row(row, "here")


def test_a_lone_user_turn(tokenizer):
    with pytest.raises(DataError, match=r"no token of this conversation \(user\).*add an answer"):
        encode(tokenizer, ASKED[:1])
    with pytest.raises(DataError, match="no messages"):
        encode(tokenizer, [])


@pytest.mark.parametrize("labels", [[IGNORE] * 3, [5, IGNORE, IGNORE]])
def test_encoded_rows_without_a_label_are_refused(labels, tokenizer):
    """Their loss would be 0. A label of the first token is predicted by nothing."""
    good = encode(tokenizer, chat("a", "b")["messages"])
    with pytest.raises(DataError, match="row 1: none of its 3 labels is to be learnt"):
        encode_rows(tokenizer, [good, {"input_ids": [5, 6, 7], "labels": labels}])


@pytest.mark.parametrize("more", [{"attention_mask": [1, 1]}, {"labels": [1]}, {}])
def test_half_encoded_rows_are_named(more, tokenizer):
    with pytest.raises(DataError, match=r"row 0 has the keys input_ids.*equally long"):
        encode_rows(tokenizer, [{"input_ids": [5, 6], **more}])
