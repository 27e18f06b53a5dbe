"""Formats there and back: hand-written rows, ten thousand generated ones, and errors by name for
everything else.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftlib.core.errors import DataError
from ftlib.data.formats import END, FORMATS, START, convert, detect_format

TALK = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\n\nthere"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "  def f():\n\treturn 1\n"},
        {"role": "assistant", "content": ""},
    ],
    "id": 7,
}


# By hand


def test_alpaca():
    row = {
        "instruction": "Add.",
        "input": "2 and 3",
        "output": "5",
        "system": "You add.",
        "history": [["1 and 1?", "2"]],
        "id": "a",
    }
    messages = convert(row)
    assert [(m["role"], m["content"]) for m in messages["messages"]] == [
        ("system", "You add."),
        ("user", "1 and 1?"),
        ("assistant", "2"),
        ("user", "Add.\n\n2 and 3"),
        ("assistant", "5"),
    ]
    assert messages["id"] == "a" and convert(messages, "alpaca") == row


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Q", "output": "A"},
        {"instruction": "Q", "input": "", "output": "A"},
        {"instruction": "Q\n\nmore", "input": "x\n\ny", "output": "A"},
        {"instruction": "", "input": "x", "output": ""},
        {"instruction": "Q", "output": "A", "history": []},
        {"instruction": "Q", "output": "A", "system": ""},
    ],
)
def test_alpaca_there_and_back(row):
    assert convert(convert(row), "alpaca") == row


def test_sharegpt():
    row = {
        "conversations": [
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "tool", "value": "{}"},
        ],
        "score": 0.5,
    }
    messages = convert(row)
    assert [m["role"] for m in messages["messages"]] == [
        "user",
        "assistant",
        "tool",
    ] and "sharegpt" not in messages
    assert convert(messages, "sharegpt") == row


@pytest.mark.parametrize(
    "names",
    [("user", "assistant"), ("human", "chatgpt"), ("human", "observation"), ("system", "gpt")],
)
@pytest.mark.parametrize("beside", [{}, {"system": "Be kind."}])
def test_sharegpts_names_come_back(names, beside):
    row = {"conversations": [{"from": n, "value": n} for n in names], **beside}
    assert convert(convert(row), "sharegpt") == row


def test_chatml():
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nTwo\nlines <|im_end|>\n"
    messages = convert({"text": text})
    assert messages["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Two\nlines "},
    ]
    assert convert(messages, "chatml") == {"text": text}


def test_from_any_to_any():
    """Through every pair of formats and back, nothing is changed."""
    for first in FORMATS:
        for second in FORMATS:
            row = convert(TALK, first)
            assert convert(convert(convert(row, second), first), "messages") == TALK


def test_the_format_is_told_from_the_keys():
    for name in FORMATS:
        assert detect_format(convert(TALK, name)) == name


# Generated

text = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=30).filter(
    lambda t: START not in t and END not in t
)
turn = st.tuples(text, text)
extra = st.dictionaries(
    st.sampled_from(["id", "family", "score", "source"]), st.one_of(st.integers(), text), max_size=2
)


@given(system=st.none() | text, turns=st.lists(turn, min_size=1, max_size=4), extra=extra)
@settings(max_examples=200)
def test_messages_through_every_format(system, turns, extra):
    messages = [{"role": "system", "content": system}] if system is not None else []
    messages += [
        {"role": r, "content": c}
        for pair in turns
        for r, c in zip(("user", "assistant"), pair, strict=True)
    ]
    row = {**extra, "messages": messages}
    for name in FORMATS:
        assert convert(convert(row, name), "messages") == row


@given(
    instruction=text,
    given_=st.none() | text,
    output=text,
    system=st.none() | text,
    history=st.none() | st.lists(turn, max_size=3),
    extra=extra,
)
@settings(max_examples=200)
def test_alpaca_through_every_format(instruction, given_, output, system, history, extra):
    row = {**extra, "instruction": instruction, "output": output}
    row |= {
        k: v
        for k, v in (
            ("input", given_),
            ("system", system),
            ("history", history and [list(p) for p in history]),
        )
        if v is not None
    }
    assert convert(convert(row), "alpaca") == row


def test_ten_thousand_conversations():
    rng = random.Random(0)
    words = [
        "",
        " ",
        "\n",
        "\t",
        "code:\n    x = 1\n",
        "Ünï",
        "日本",
        "{}",
        "\\n",
        "a" * 50,
        "<b>",
        "|",
    ]

    def talk():
        return "".join(rng.choices(words, k=rng.randint(0, 5)))

    for i in range(10_000):
        messages = [{"role": "system", "content": talk()}] if rng.random() < 0.3 else []
        for _ in range(rng.randint(1, 4)):
            messages += [
                {"role": "user", "content": talk()},
                {"role": "assistant", "content": talk()},
            ]
        row = {"messages": messages, "id": i}
        for name in ("alpaca", "sharegpt", "chatml"):
            assert convert(convert(row, name), "messages") == row


# Bad input

BROKEN = [
    ({}, "no known format"),
    ({"prompt": "x"}, "no known format: the row has prompt"),
    ([], "the row is list"),
    ({"text": "plain"}, "no known format"),
    ({"messages": []}, "messages is list"),
    ({"messages": "hi"}, "messages is str"),
    ({"messages": [1]}, "message 0 has role '1'"),
    ({"messages": [{"role": "bot", "content": ""}]}, "message 0 has role 'bot'"),
    ({"messages": [{"role": "user", "content": None}]}, "message 0's content is NoneType"),
    (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": []}]},
        "'tool_calls', which would be lost",
    ),
    ({"instruction": "x"}, "needs 'output'"),
    ({"instruction": 1, "output": ""}, "instruction is int"),
    ({"instruction": "", "output": "", "history": [["a"]]}, "history is"),
    ({"instruction": "", "output": "", "messages_": 1, "history": "x"}, "history is 'x'"),
    ({"instruction": "", "output": "", "alpaca": 1}, "already has a key 'alpaca'"),
    ({"conversations": {}}, "conversations is dict"),
    ({"conversations": [{"from": "function_call", "value": ""}]}, "turn 0 is from 'function_call'"),
    (
        {"conversations": [{"from": "human", "value": "", "weight": 1}]},
        "'weight', which would be lost",
    ),
    ({"conversations": [{"from": "human"}]}, "turn 0's value is NoneType"),
    ({"conversations": [{"from": [], "value": ""}]}, "turn 0 is from '[]'"),
    ({"conversations": [{"from": "gpt", "value": "", 3: 1, "x": 2}]}, "turn 0 has 3, which would"),
    ({"messages": [{"role": "user", "content": "", 3: 1, "x": 2}]}, "message 0 has 3, which would"),
    ({"text": f"{START}user\nHi"}, "no ChatML from character 0"),
    ({"text": f"{START}user\nHi{END}\nrest"}, "from character 30 on: 'rest'"),
    ({"text": f"{START}bot\nHi{END}\n"}, "no ChatML"),
    ({"text": f"{START}user\n{START}user\nHi{END}\n"}, "no ChatML"),
]


@pytest.mark.parametrize("row, words", BROKEN, ids=range(len(BROKEN)))
def test_broken_rows_are_named(row, words):
    with pytest.raises(DataError, match=words.replace("[", r"\[").replace("|", r"\|")):
        convert(row)


@pytest.mark.parametrize(
    "messages, to, words",
    [
        ([{"role": "user", "content": "x"}], "alpaca", "this conversation is user"),
        (
            [{"role": "assistant", "content": "x"}, {"role": "user", "content": "x"}],
            "alpaca",
            "assistant user",
        ),
        ([{"role": "user", "content": END}], "chatml", "which ChatML reads as the edge"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(messages, to, words):
    with pytest.raises(DataError, match=words):
        convert({"messages": messages}, to)


def test_marks_that_no_longer_fit_are_refused():
    edited = convert({"instruction": "Add.", "input": "2", "output": "2"})
    edited["messages"][0]["content"] = "Other"
    with pytest.raises(DataError, match="no longer fits"):
        convert(edited, "alpaca")
    edited = convert({"conversations": [{"from": "user", "value": "x"}]})
    edited["messages"].append({"role": "assistant", "content": "y"})
    with pytest.raises(DataError, match="no longer fits"):
        convert(edited, "sharegpt")


@pytest.mark.parametrize(
    "name, kept, words",
    [
        ("alpaca", 3, "alpaca is '3': delete this key"),
        ("alpaca", {"instruction": "x"}, r"alpaca\['instruction'\] no longer fits"),
        ("sharegpt", [1], r"sharegpt is '\[1\]': delete this key"),
        ("sharegpt", {"from": 3}, "'sharegpt' no longer fits"),
        ("sharegpt", {"from": [[], "gpt"]}, "'sharegpt' no longer fits"),
    ],
)
def test_what_no_conversion_wrote_for_the_way_back_is_named(name, kept, words):
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = {"messages": turns, name: kept}
    with pytest.raises(DataError, match=words):
        convert(row, name)


def test_unknown_formats():
    for options in ({"to": "csv"}, {"source": "csv"}, {"to": None}):
        with pytest.raises(DataError, match="use one of alpaca"):
            convert(TALK, **options)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda kids: (
            st.lists(kids, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "messages",
                        "conversations",
                        "instruction",
                        "output",
                        "input",
                        "text",
                        "role",
                        "content",
                        "from",
                        "value",
                        "history",
                    ]
                ),
                kids,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(sorted(FORMATS)),
)
@settings(max_examples=400)
def test_whatever_comes_in_the_error_has_a_name(row, to):
    try:
        out = convert(row, to)
    except DataError:
        return
    assert convert(out, "messages", to)["messages"]
