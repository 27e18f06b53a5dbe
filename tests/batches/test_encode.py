"""Rows, templates and loss masks: what is learnt, what is left out, and which line is at fault."""

import json

import pytest
import torch
from conftest import CHATML, LLAMA3, PLAIN, byte_tokenizer, chat, unmarked
from hypothesis import given
from hypothesis import strategies as st

import ftlib as ft
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.batches.template import IGNORE, encode, template_ids
from ftlib.core.errors import DataError, LoadError
from ftlib.core.profiles import PROFILES
from ftlib.data.rows import check_row, fingerprint

PAD = {LLAMA3: {"pad_token": "<|finetune_right_pad_id|>"}}
STOP = {PLAIN: "<|end|>", LLAMA3: "<|eot_id|>", CHATML: "<|im_end|>"}
TEMPLATES = pytest.mark.parametrize(
    "template", [PLAIN, LLAMA3, CHATML], ids=["plain", "llama3", "chatml"]
)
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello\nyou"},
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "2"},
]


def tok(template, marks=True):
    tokenizer = byte_tokenizer(template, **PAD.get(template, {}))
    tokenizer.chat_template = template if marks else unmarked(template)
    return tokenizer


def learnt(tokenizer, row) -> list[str]:
    """The texts of the runs of tokens that the loss counts."""
    runs = []
    open_run = False
    for i, label in zip(row["input_ids"], row["labels"], strict=True):
        assert label in (IGNORE, i)
        if label != IGNORE:
            runs = [*runs, [i]] if not open_run else [*runs[:-1], runs[-1] + [i]]
        open_run = label != IGNORE
    return [tokenizer.decode(r) for r in runs]


# --- masks ----------------------------------------------------------------------------------------
@TEMPLATES
@pytest.mark.parametrize("marks", [True, False], ids=["marked", "unmarked"])
def test_the_loss_counts_every_answer_with_its_stop_token_and_nothing_else(template, marks):
    tokenizer = tok(template, marks)
    assert learnt(tokenizer, encode(tokenizer, TURNS)) == [
        "Hello\nyou" + STOP[template],
        "2" + STOP[template],
    ]
    assert learnt(tokenizer, encode(tokenizer, TURNS[1:3])) == ["Hello\nyou" + STOP[template]]


def test_mask_by_hand():
    """<|bos|><|user|>a<|end|><|assistant|>bc<|end|>: eight tokens; b, c and the last <|end|> are
    learnt.
    """
    tokenizer = tok(PLAIN)
    row = encode(tokenizer, chat("a", "bc")["messages"])
    ids = tokenizer.convert_tokens_to_ids
    assert row["input_ids"] == [
        ids(t)
        for t in ["<|bos|>", "<|user|>", "a", "<|end|>", "<|assistant|>", "b", "c", "<|end|>"]
    ]
    assert row["labels"] == [IGNORE] * 5 + row["input_ids"][5:]


texts = st.text(
    st.characters(blacklist_categories=("Cs",), blacklist_characters="<|>"), min_size=1, max_size=12
).filter(str.strip)


@given(
    contents=st.lists(texts, min_size=2, max_size=6),
    template=st.sampled_from([PLAIN, LLAMA3, CHATML]),
)
def test_templates_with_and_without_marks_give_the_same_mask(contents, template):
    """Any text: several scripts, newlines, spaces; the marks only say what the prefixes already
    tell.
    """
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": c}
        for i, c in enumerate(contents[: len(contents) // 2 * 2])
    ]
    assert encode(MARKED[template], messages) == encode(UNMARKED[template], messages)


MARKED, UNMARKED = ({t: tok(t, marks) for t in (PLAIN, LLAMA3, CHATML)} for marks in (True, False))


@TEMPLATES
def test_bos_is_written_once(template):
    tokenizer = tok(template)
    ids = encode(tokenizer, TURNS)["input_ids"]
    bos = tokenizer.bos_token_id
    assert ids.count(bos) == (0 if bos is None else 1)
    if bos is not None:
        assert ids[0] == bos


@pytest.mark.parametrize("marks", [True, False])
def test_a_doubled_bos_is_an_error(marks):
    tokenizer = tok(PLAIN, marks)
    tokenizer.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(DataError, match="BOS"):
        encode(tokenizer, TURNS)


@TEMPLATES
def test_equal_pad_and_stop_token_is_learnt_but_padding_is_not(template):
    """The classic: pad = eos, a mask by `ids != pad` loses the stop token, and the model never
    stops.
    """
    tokenizer = tok(template)
    tokenizer.pad_token = tokenizer.eos_token
    rows = [encode(tokenizer, m) for m in (TURNS, TURNS[:3])]
    batch = SFTCollator(tokenizer.pad_token_id)(rows)
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        assert (
            batch["input_ids"][i, :n].tolist() == row["input_ids"]
            and batch["labels"][i, :n].tolist() == row["labels"]
        )
        assert set(batch["input_ids"][i, n:].tolist()) <= {tokenizer.pad_token_id}
        assert set(batch["labels"][i, n:].tolist()) <= {IGNORE}
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (
            batch["input_ids"].shape[1] - n
        )
        assert tokenizer.eos_token_id in row["labels"]
    assert (
        batch["input_ids"].dtype
        == batch["labels"].dtype
        == batch["attention_mask"].dtype
        == torch.int64
    )


@pytest.mark.parametrize("name", ["llama3", "llama3_1", "qwen2_5", "qwen3"])
def test_published_templates(name):
    """The templates of the models in the profiles (TRL ships copies): the mask is the answer and
    its stop token.

    Qwen3 writes an empty thought before an answer; it belongs to the prompt, in training as in
    generation.
    """
    from importlib.util import find_spec
    from pathlib import Path

    kind = LLAMA3 if name.startswith("llama") else CHATML
    tokenizer = tok(kind)
    tokenizer.chat_template = (
        Path(find_spec("trl").origin).parent / "chat_templates" / f"{name}.jinja"
    ).read_text()
    row = encode(tokenizer, TURNS[:3])
    assert learnt(tokenizer, row) == ["Hello\nyou" + STOP[kind]]
    prompt = template_ids(tokenizer, TURNS[:2], add_generation_prompt=True)
    assert row["input_ids"][: len(prompt)] == prompt and row["labels"][len(prompt)] != IGNORE


def test_a_template_that_rewrites_earlier_turns_is_refused():
    tokenizer = tok(PLAIN, marks=False)
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ bos_token }}", "{{ bos_token ~ (messages | length) }}"
    )
    with pytest.raises(DataError, match="rewrites earlier turns"):
        encode(tokenizer, TURNS)


def test_nothing_to_learn_is_an_error():
    for marks in (True, False):
        with pytest.raises(DataError, match="no token"):
            encode(tok(PLAIN, marks), TURNS[:2])


def test_a_template_that_refuses_a_role_is_an_error_that_names_the_row():
    tokenizer = tok(PLAIN)
    tokenizer.chat_template = (
        "{{ raise_exception('roles must alternate') }}" + tokenizer.chat_template
    )
    with pytest.raises(DataError, match=r"row 0.*roles must alternate"):
        encode_rows(tokenizer, [chat("a", "b")])


def test_tokenizers_that_cannot_be_used():
    with pytest.raises(LoadError, match="no chat template"):
        encode(byte_tokenizer(template=None), TURNS)
    with pytest.raises(LoadError, match="no pad token"):
        encode(byte_tokenizer(LLAMA3), TURNS)


def test_show_mask():
    shown = ft.show_mask(tok(PLAIN), chat("a<", "bc")["messages"])
    assert repr(shown) == "<|bos|><|user|>a<<|end|><|assistant|>[b][c][<|end|>]"
    html = shown._repr_html_()
    assert "&lt;|end|&gt;" in html and "<|" not in html and html.count("#0072B2") == 3


# --- encoding rows --------------------------------------------------------------------------------
def test_long_rows_are_left_out_and_counted(capsys):
    rows = [chat("a", "b" * n) for n in (1, 50, 2, 90)]
    kept = encode_rows(tok(PLAIN), rows, max_length=20)
    assert [len(r["input_ids"]) for r in kept] == [7, 8]
    out = capsys.readouterr().out
    assert "left out 2 of 4 rows" in out and "max_length=20" in out and "longest 96" in out
    assert [len(r["input_ids"]) for r in encode_rows(tok(PLAIN), rows, max_length=96)] == [
        7,
        56,
        8,
        96,
    ]
    assert capsys.readouterr().out == ""


def test_no_row_left():
    with pytest.raises(DataError, match="all 1 rows are longer than max_length=3"):
        encode_rows(tok(PLAIN), [chat("a", "b")], max_length=3)
    with pytest.raises(DataError, match="no rows"):
        encode_rows(tok(PLAIN), [])


BAD_ROWS = [
    ([], "messages"),
    ({}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": ["hi"]}, "message 0"),
    ({"messages": [{"role": "user"}]}, "message 0"),
    (
        {"messages": [*chat("a", "b")["messages"], {"role": "assistant", "content": None}]},
        "message 2",
    ),
    (chat("a", "  \n"), "non-empty answer"),
    ({"messages": chat("a", "b")["messages"][:1]}, "assistant"),
]


@pytest.mark.parametrize("row, word", BAD_ROWS, ids=str)
def test_rows_of_the_wrong_structure(row, word):
    with pytest.raises(DataError, match="here: .*" + word):
        check_row(row, "here")
    with pytest.raises(DataError, match="row 1: .*" + word):
        encode_rows(tok(PLAIN), [chat("a", "b"), row])


# --- files ----------------------------------------------------------------------------------------
GOOD = json.dumps(chat("ä\n", "ö")).encode()
BAD_LINES = {
    b'{"messages": [': "not valid JSON",
    b"\xff\xfe": "not UTF-8",
    b'{"text": "x"}': "no list 'messages'",
    json.dumps(chat("a", "")).encode(): "non-empty answer",
    b"[1, 2]": "no list 'messages'",
    b"\x00": "not valid JSON",
    GOOD[:-1] + b", }": "not valid JSON",
    b'"a": 1}': "not valid JSON",
}


@pytest.mark.parametrize("line", BAD_LINES)
def test_a_bad_line_is_named_by_file_line_and_reason(line, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join([GOOD, b"", line, GOOD]) + b"\n")
    with pytest.raises(DataError) as caught:
        ft.read_jsonl(file)
    assert str(caught.value).startswith(f"{file}:3: ") and BAD_LINES[line] in str(caught.value)


def test_skipping_counts_the_bad_lines(tmp_path, capsys):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\n".join([GOOD, *BAD_LINES, GOOD]))
    assert ft.read_jsonl(file, on_error="skip") == [chat("ä\n", "ö")] * 2
    out = capsys.readouterr().out
    assert (
        f"left out {len(BAD_LINES)} of {len(BAD_LINES) + 2} lines" in out
        and f"{file}:2: not valid JSON" in out
    )
    file.write_bytes(GOOD)
    ft.read_jsonl(file, on_error="skip")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("text", [b"", b"\r\n", GOOD + b"\r\n" + GOOD])
def test_empty_files_and_windows_line_ends(text, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(text)
    assert ft.read_jsonl(tmp_path / "rows.jsonl") == [chat("ä\n", "ö")] * text.count(b"messages")


def test_bad_calls(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        ft.read_jsonl(tmp_path / "nothing.jsonl")
    with pytest.raises(ValueError, match="on_error='ignore'"):
        ft.read_jsonl(tmp_path / "nothing.jsonl", on_error="ignore")


# --- splits ---------------------------------------------------------------------------------------
def test_embedded_splits():
    assert len(ft.load_rows("golden")) == 100 and len(ft.load_rows("validation")) == 300
    with pytest.raises(DataError, match=r"no split 'test'.*golden.*train.*validation"):
        ft.load_rows("test")
    text = ft.load_base_text(count=7)
    assert len(text) == 7 and all(isinstance(t, str) and t for t in text)


def test_rows_from_a_folder(tmp_path, monkeypatch):
    """FTLIB_ROWS replaces the profile's data at every scale."""
    (tmp_path / "train.jsonl").write_bytes(GOOD)
    (tmp_path / "base_text.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    monkeypatch.setenv("FTLIB_ROWS", str(tmp_path))
    for profile in PROFILES:
        assert ft.load_rows("train", profile) == [chat("ä\n", "ö")] and ft.load_base_text(
            profile
        ) == ["one", "two"]
    with pytest.raises(DataError, match=r"golden\.jsonl does not exist"):
        ft.load_rows("golden")
    (tmp_path / "base_text.jsonl").write_text('{"text": "one"}\n{"txt": "two"}\n')
    with pytest.raises(DataError, match=r"base_text.jsonl:2: .*'text'"):
        ft.load_base_text()
    (tmp_path / "base_text.jsonl").write_text('\ufeff{"text": "one"}\n\n{"text": "two"\n')
    with pytest.raises(DataError, match=r"base_text.jsonl:3: not valid JSON"):
        ft.load_base_text()
    (tmp_path / "base_text.jsonl").unlink()
    with pytest.raises(DataError, match=r"base_text\.jsonl does not exist"):
        ft.load_base_text()


def test_fingerprint_sees_content_and_order_but_not_key_order():
    one = chat("a", "b", family="x")
    two = chat("c", "d")
    assert fingerprint([one, two]) == fingerprint([dict(reversed(one.items())), two])
    assert (
        len({fingerprint(r) for r in ([one, two], [two, one], [one], [one, chat("c", "e")], [])})
        == 5
    )
