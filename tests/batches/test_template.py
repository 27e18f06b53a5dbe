"""Templates and masks: the marks that training_template puts into a template, what is refused by
name, and the mask shown.
"""

import pytest
from conftest import CHATML, LLAMA3, PLAIN, byte_tokenizer, chat, unmarked
from hypothesis import given
from hypothesis import strategies as st

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.batches.shown_mask import show_mask
from ftlib.batches.template import IGNORE, encode, inference_template, template_ids
from ftlib.batches.training_template import training_template
from ftlib.core.errors import DataError

HEADER = "'<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n'"
# Llama 3.1's layout: a system turn always, with two lines of dates before its text; contents are
# trimmed.
DATED = (
    "{{ bos_token }}{% set role = 'system' %}{{ "
    + HEADER
    + " }}{{ 'Known until: 2023\\nToday: 26 Jul\\n\\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content | trim }}{% endif %}{{ "
    "'<|eot_id|>' }}"
    "{% for m in messages %}{% if m.role == 'tool' %}{% set role = 'ipython' %}{{ "
    + HEADER
    + " ~ (m.content | tojson) ~ '<|eot_id|>' }}"
    "{% elif not (m.role == 'system' and loop.first) %}{% set role = m.role %}{{ "
    + HEADER
    + " ~ (m.content | trim) ~ '<|eot_id|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{% set role = 'assistant' %}{{ "
    + HEADER
    + " }}{% endif %}"
)
# Qwen 2.5's: ChatML with a system turn of its own where none is given, tool answers in a user turn.
DEFAULT = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% "
    "endif %}"
    "{% for m in messages %}{{ '<|im_start|>' ~ ('user' if m.role == 'tool' else m.role) ~ '\\n' }}"
    "{{ ('<tool>' ~ m.content ~ '</tool>' if m.role == 'tool' else m.content) ~ '<|im_end|>\\n' "
    "}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
# Qwen 3's: an empty thought before the last answer only, and in the prompt where thinking is off.
THOUGHT = (
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' }}{% if m.role == 'assistant' and "
    "loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}"
    "{% endif %}{{ m.content ~ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ "
    "'<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}{% endif %}"
)
KINDS = {
    "plain": (PLAIN, unmarked(PLAIN)),
    "llama3": (LLAMA3, unmarked(LLAMA3)),
    "chatml": (CHATML, unmarked(CHATML)),
    "llama3.1": (LLAMA3, DATED),
    "qwen2.5": (CHATML, DEFAULT),
    "qwen3": (CHATML, THOUGHT),
}
STOP = {PLAIN: "<|end|>", LLAMA3: "<|eot_id|>", CHATML: "<|im_end|>"}
EACH = pytest.mark.parametrize("kind", KINDS)


def tok(kind: str, template: str | None = None):
    vocabulary, own = KINDS[kind]
    tokenizer = byte_tokenizer(
        vocabulary, **({"pad_token": "<|finetune_right_pad_id|>"} if vocabulary is LLAMA3 else {})
    )
    tokenizer.chat_template = template or own
    return tokenizer


PREFIX = {kind: tok(kind) for kind in KINDS}
MARKED = {kind: tok(kind, training_template(PREFIX[kind])) for kind in KINDS}


def talk(*contents, system=None):
    turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system is not None else []) + turns


texts = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="<|>"), min_size=1, max_size=10
).filter(str.strip)


@given(
    kind=st.sampled_from([k for k in KINDS if k != "qwen3"]),
    contents=st.lists(texts, min_size=2, max_size=6),
    system=st.none() | texts,
)
def test_marks_and_prefixes_give_the_same_mask(kind, contents, system):
    messages = talk(*contents[: len(contents) // 2 * 2], system=system)
    assert encode(MARKED[kind], messages) == encode(PREFIX[kind], messages)


@given(contents=st.lists(texts, min_size=2, max_size=2), system=st.none() | texts)
def test_so_they_do_with_a_thought_before_one_answer(contents, system):
    messages = talk(*contents, system=system)
    assert encode(MARKED["qwen3"], messages) == encode(PREFIX["qwen3"], messages)


def test_rows_become_an_example_an_answer_where_the_template_rewrites_earlier_ones(capsys):
    """Each example is the prompt that generation gives, the answer and its stop token; a turn of
    weight 0 stays context.
    """
    tokenizer = PREFIX["qwen3"]
    messages = talk("a", "b", "c", "d", "e", "f")
    messages[3]["weight"] = 0
    single = talk("g", "h")
    examples = encode_rows(tokenizer, [{"messages": messages}, {"messages": single}])
    assert len(examples) == 3
    for example, upto in zip(examples, (messages[:2], messages, single), strict=True):
        prompt = template_ids(tokenizer, upto[:-1], add_generation_prompt=True)
        answer = tokenizer(upto[-1]["content"] + "<|im_end|>", add_special_tokens=False)
        learnt = [IGNORE] * len(prompt) + answer["input_ids"]
        assert example["input_ids"][: len(learnt)] == prompt + answer["input_ids"]
        assert example["labels"][: len(learnt)] == learnt
        assert set(example["labels"][len(learnt) :]) <= {IGNORE}
    said = capsys.readouterr().out
    assert said.startswith("1 conversation became 2 examples, one per answer")
    marked = encode_rows(MARKED["qwen3"], [{"messages": messages}])
    assert len(marked) == 1 and capsys.readouterr().out == ""


def test_earlier_answers_without_their_thought():
    """The unmarked template rewrites the first answer's turn once a second one follows: prefixes
    cannot tell it, marks can.
    """
    messages = talk("a", "b", "c", "d")
    with pytest.raises(DataError, match=r"rewrites earlier turns.*training_template"):
        encode(PREFIX["qwen3"], messages)
    asked = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert repr(show_mask(PREFIX["qwen3"], messages)) == (
        asked
        + "<think>\n\n</think>\n\n[b][<|im_end|>]\n\n"
        + asked
        + "b<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[d][<|im_end|>]\n"
    )
    assert repr(show_mask(MARKED["qwen3"], messages)) == (
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b][<|im_end|>]\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n[d][<|im_end|>]\n"
    )


@EACH
def test_the_mask_is_each_answer_and_its_stop_token(kind):
    """Also where a newline follows the stop token; BOS once; pad may be the stop token."""
    tokenizer = MARKED[kind]
    row = encode(tokenizer, talk("a", "one", "b", "two", system="S"))
    learnt = [
        i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != IGNORE
    ]
    stop = STOP[KINDS[kind][0]]
    assert tokenizer.decode(learnt) == "one" + stop + "two" + stop
    assert row["input_ids"].count(tokenizer.bos_token_id) == (tokenizer.bos_token_id is not None)


@EACH
@pytest.mark.parametrize("system", [None, " be\nbrief "])
@pytest.mark.parametrize("prompt", [False, True])
def test_a_learnt_template_writes_what_the_original_writes(kind, system, prompt):
    messages = talk("a", " {{ b }} \n", "'\"\\", "d", "e", system=system)[: None if prompt else -1]
    options = dict(tokenize=False, add_generation_prompt=prompt, enable_thinking=False)
    assert MARKED[kind].apply_chat_template(messages, **options) == PREFIX[
        kind
    ].apply_chat_template(messages, **options)
    bare = tok(kind, inference_template(MARKED[kind].chat_template))
    assert bare.apply_chat_template(messages, **options) == PREFIX[kind].apply_chat_template(
        messages, **options
    )


def test_training_template_leaves_the_tokenizer_and_marked_templates_alone():
    for template in (PLAIN, LLAMA3, CHATML):
        tokenizer = (
            byte_tokenizer(
                template, pad_token="<|finetune_right_pad_id|>" if template is LLAMA3 else None
            )
            if template is LLAMA3
            else byte_tokenizer(template)
        )
        assert training_template(tokenizer) == template
    assert PREFIX["qwen2.5"].chat_template == DEFAULT


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.replace("m.content", "(m.content | upper)"), "does not write each turn once"),
        (lambda t: "{{ messages | length }}" + t, "turns differ"),
        (
            lambda t: "{{ raise_exception('no') if messages | length > 2 }}" + t,
            "refuses a conversation of user, assistant, user, assistant",
        ),
    ],
)
def test_templates_that_marks_cannot_be_put_into(change, words):
    with pytest.raises(DataError, match=words):
        training_template(tok("qwen2.5", change(DEFAULT)))


@pytest.mark.parametrize(
    "template, bare",
    [
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        ("a {%- generation -%} b", "a {#- -#} b"),
        ("{%generation%}x{%-endgeneration%}", "x"),
        ("{{ 'generation' }}", "{{ 'generation' }}"),
        ("a\n  {% generation %}\nb", "a\n  {# #}\nb"),
    ],
)
def test_marks_are_stripped(template, bare):
    assert inference_template(template) == bare


@pytest.mark.parametrize("template", [PLAIN, LLAMA3, CHATML])
def test_stripped_templates_write_the_same(template):
    spaced = template.replace("{% generation %}", "\n  {%- generation -%}\n ").replace(
        "{% endgeneration %}", "\n{%- endgeneration -%}\n  "
    )
    tokenizer, messages = byte_tokenizer(template), talk("a", "b", "c", "d")

    def render(t):
        return tokenizer.apply_chat_template(messages, chat_template=t, tokenize=False)

    assert render(inference_template(spaced)) == render(spaced) == render(template)


# --- what is refused ------------------------------------------------------------------------------
def test_tool_turns_are_kept_or_refused_by_name():
    messages = [
        *talk("q", "call"),
        {"role": "tool", "content": '{"t": "«3»"}'},
        {"role": "assistant", "content": "3"},
    ]
    for kind in ("llama3.1", "qwen2.5"):
        row = encode(PREFIX[kind], messages)
        assert "«3»" in PREFIX[kind].decode(row["input_ids"]) and "«3»" not in PREFIX[kind].decode(
            [x for x in row["labels"] if x != IGNORE]
        )
        with pytest.raises(
            DataError, match="message 2 of the role tool: user and assistant in turn"
        ):
            encode(MARKED[kind], messages)
    silent = tok("qwen2.5", DEFAULT.replace("m in messages", "m in messages if m.role != 'tool'"))
    with pytest.raises(
        DataError, match="row 0: the chat template drops message 2 of the role 'tool'"
    ):
        encode_rows(silent, [{"messages": messages}])


def test_a_dropped_system_turn_is_refused():
    silent = tok("qwen2.5", DEFAULT.replace("m in messages", "m in messages if m.role != 'system'"))
    with pytest.raises(DataError, match="drops message 0 of the role 'system'"):
        encode(silent, talk("a", "b", system="S"))


@pytest.mark.parametrize(
    "messages, words",
    [
        (talk("a", "b")[::-1] + talk("c", "d"), "message 0 of the role assistant"),
        (talk("a")[:1] * 2 + talk("a", "b")[1:], "message 1 of the role user"),
    ],
)
def test_learnt_templates_refuse_turns_out_of_order(messages, words):
    with pytest.raises(DataError, match=words):
        encode(MARKED["chatml"], messages)


def test_marks_that_leave_the_stop_token_out_are_refused():
    template = PLAIN.replace(
        "{{ m['content'] ~ '<|end|>' }}{% endgeneration %}",
        "{{ m['content'] }}{% endgeneration %}{{ '<|end|>' }}",
    )
    with pytest.raises(DataError, match="end before the stop token"):
        encode(tok("plain", template), talk("a", "b"))


def test_a_newline_within_the_marks_is_not_learnt():
    template = CHATML.replace(
        "'<|im_end|>' }}{% endgeneration %}",
        "'<|im_end|>\n' }}{% endgeneration %}{% if false %}{% endif %}",
    )
    row = encode(tok("chatml", template), talk("a", "b"))
    assert [PREFIX["chatml"].decode([i]) for i in row["labels"] if i != IGNORE] == [
        "b",
        "<|im_end|>",
    ]


# --- training on the prompt, and the mask shown ---------------------------------------------------
def test_training_on_the_prompt():
    row = encode(PREFIX["plain"], talk("a", "b"), train_on_prompt=True)
    assert row["labels"] == row["input_ids"] == encode(PREFIX["plain"], talk("a", "b"))["input_ids"]
    assert encode_rows(PREFIX["plain"], [chat("a", "b")], train_on_prompt=True) == [row]


def test_the_mask_shown_over_turns():
    """bos, 3 tokens of each user turn with its marker, role marker, two answers of 2 and 1 letters,
    each with its stop token: 5 learnt.
    """
    shown = show_mask(PREFIX["plain"], talk("a", "bc", "d", "e"))
    assert str(shown) == "5 of 14 tokens are trained on, in 2 turns"
    page = shown._repr_html_()
    assert (
        page.count("outline:1px dotted") == 9 and page.count("#0072B2") == 5 and str(shown) in page
    )
    assert (
        "1 turn" in str(ft.show_mask(PREFIX["plain"], talk("a", "b")))
        and "↵<br>" in show_mask(PREFIX["chatml"], talk("a", "b"))._repr_html_()
    )


@pytest.mark.parametrize(
    "template, stripped",
    [
        ("a{% generation %}b{% endgeneration %}c", "abc"),
        ("{% generation %}b{% endgeneration %}", "b"),
        ("a {% generation %}b{% endgeneration %} c", "a {# #}b{# #} c"),
        ("a\n  {% generation %}\nb\n  {% endgeneration %}\nc", None),
        ("a\r\n{% generation %}\r\nb{% endgeneration %}\r\nc", None),
        ("a \n {%- generation -%} \n b {%- endgeneration %} c", None),
        ("a\n  {%+ generation +%}\nb\n{% endgeneration %}", None),
        ("{% generation %}\n b{%endgeneration%}", None),
        ("a{% generation %}{% endgeneration %}\n b", None),
        (" {%- generation %}{%- endgeneration -%}\n b", None),
        ("a{# #}\nb{# #} c{% generation %}d{% endgeneration %}", "a{# #}\nb{# #} cd"),
    ],
)
def test_marks_are_stripped_as_the_white_space_beside_them_asks(template, stripped):
    """Without white space nothing stays; with it an empty comment; the text is the same. Comments
    of the template's own are left alone.
    """
    from transformers.utils.chat_template_utils import _compile_jinja_template

    bare = inference_template(template)
    assert "generation" not in bare
    assert stripped is None or bare == stripped
    assert _compile_jinja_template(bare).render() == _compile_jinja_template(template).render()
