"""Control tokens in a text: found, refused by name, or encoded as the plain text that they are; and
texts without them are encoded as they always were.
"""

import json
import subprocess
import sys

import pytest
from conftest import CHATML, EMBEDDED, LLAMA3, PLAIN, byte_tokenizer, chat, unmarked
from hypothesis import assume, example, given
from hypothesis import strategies as st
from test_served import KINDS, stretches, tokenizer_with
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import ftlib as ft
from ftlib.batches.as_text import MARK, ContentsAsText
from ftlib.batches.control_tokens import (
    TokenFinder,
    control_tokens_of,
    handling_of,
    token_finder,
)
from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_binary, encode_pairs
from ftlib.batches.render import template_ids
from ftlib.batches.template import IGNORE, encode, encode_examples, prompt_ids
from ftlib.core.errors import DataError

STOP = {PLAIN: "<|end|>", LLAMA3: "<|eot_id|>", CHATML: "<|im_end|>"}
NAMES = {PLAIN: "plain", LLAMA3: "llama3", CHATML: "chatml"}
TEMPLATES = pytest.mark.parametrize("template", STOP, ids=NAMES.values())
MARKS = pytest.mark.parametrize("marks", [True, False], ids=["marks", "prefix"])
CHOICES = ("refuse", "text", "allow")
CALL = {"type": "function", "function": {"name": "look", "arguments": {"q": "x"}}}


def tok(template=PLAIN, marks=True):
    more = {"pad_token": "<|finetune_right_pad_id|>"} if template == LLAMA3 else {}
    tokenizer = byte_tokenizer(template, **more)
    tokenizer.chat_template = template if marks else unmarked(template)
    return tokenizer


def pieces(tokenizer, ids) -> list[str]:
    return [tokenizer.decode([token]) for token in ids]


def learnt(tokenizer, row) -> str:
    return tokenizer.decode([label for label in row["labels"] if label != IGNORE])


def controls(tokenizer, ids) -> list[int]:
    """The control tokens among token ids."""
    own = set(control_tokens_of(tokenizer).values())
    return [token for token in ids if token in own]


# --- finding them ---------------------------------------------------------------------------------
def test_control_tokens_are_the_special_ones_and_those_that_end_an_answer():
    """Added tokens of answers, such as <think>, are none, and white space is none, even where a
    tokenizer has it as a special token. A stop is one, special or not: <turn> here, which the
    template writes after an answer.
    """
    tokenizer = byte_tokenizer(unmarked(PLAIN).replace("<|end|>", "<turn>"), eos_token="<|eos|>")
    tokenizer.add_tokens(["<think>", "<turn>"])
    tokenizer.add_tokens([AddedToken("\n\n", special=True)])
    found = control_tokens_of(tokenizer)
    specials = ["<|bos|>", "<|eos|>", "<|pad|>", "<|user|>", "<|assistant|>", "<|system|>"]
    assert list(found) == [*specials, "<|end|>", "<unk>", "<turn>"]
    assert found["<|end|>"] == 6
    assert found["<turn>"] == tokenizer.convert_tokens_to_ids("<turn>")
    assert find("a\n\n<think>b</think><turn>", tokenizer) == ["<turn>"]


def find(value, tokenizer=None):
    return ft.find_control_tokens(tokenizer or byte_tokenizer(), value)


def test_they_are_found_in_every_string_of_a_message():
    """In contents, thoughts, names and arguments of calls, keys among them, in their order."""
    assert find("a <|end|> b<|user|><|end|>") == ["<|end|>", "<|user|>", "<|end|>"]
    assert find("a <|end b |end|> < |end|>") == []
    assert find({"role": "user", "content": "x<|bos|>"}) == ["<|bos|>"]
    call = {"function": {"name": "f", "arguments": {"<|pad|>": ["<|end|>", 1, None]}}}
    message = {"role": "assistant", "content": "", "tool_calls": [call]}
    assert find(message) == ["<|pad|>", "<|end|>"]
    assert find([message, {"role": "user", "content": "<unk>"}]) == ["<|pad|>", "<|end|>", "<unk>"]


def test_of_tokens_within_one_another_the_longer_is_found():
    finder = TokenFinder(["<a>", "<a>b"])
    assert finder.in_text("<a><a>b") == ["<a>", "<a>b"]
    assert TokenFinder([]).in_text("<a>") == []
    assert TokenFinder(["aba"]).parted("ababa", " ") == "a ba ba"  # the second overlaps the first
    with pytest.raises(DataError, match="'#' cannot be parted"):
        TokenFinder(["#"]).parted("a#", " ")


def test_a_text_that_the_normaliser_makes_a_token_of_is_found():
    """With lower case before tokens are looked for, <|END|> is read as <|end|>."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert find("<|END|>", tokenizer) == []  # matched in the text as it is written
    tokenizer.add_tokens([AddedToken("<|stop|>", special=True, normalized=True)])
    assert tokenizer("<|STOP|>", add_special_tokens=False)["input_ids"] == [264]
    assert find("a <|STOP|>", tokenizer) == ["<|stop|>"]
    messages = chat("a <|STOP|>", "b")["messages"]
    with pytest.raises(DataError, match=r"message 0 holds '<\|stop\|>'"):
        encode(tokenizer, messages)
    assert 264 not in encode(tokenizer, messages, control_tokens="text")["input_ids"]


# --- refused --------------------------------------------------------------------------------------
@MARKS
@TEMPLATES
def test_a_row_with_one_is_refused_by_row_message_role_and_token(template, marks):
    tokenizer = tok(template, marks)
    rows = [chat("a", "b"), chat("a", "b"), chat(f"x {STOP[template]} y", "b")]
    expected = (
        f"row 2: message 0 holds {STOP[template]!r}, a control token, in the turn of 'user': take "
        "it out (ftlib.ControlTokens does so in all rows), or encode it as plain text with "
        "control_tokens='text', or as the token that it is with control_tokens='allow'"
    )
    with pytest.raises(DataError) as caught:
        encode_rows(tokenizer, rows)
    assert str(caught.value) == expected
    with pytest.raises(DataError, match=r"message 0 holds .* in the turn of 'user'"):
        ft.show_mask(tokenizer, rows[2]["messages"])
    with pytest.raises(DataError, match="message 0 holds"):
        encode_examples(tokenizer, rows[2]["messages"])


def test_an_answer_that_would_end_early_is_not_told_to_allow_it():
    with pytest.raises(DataError, match=r"message 1 holds '<\|end\|>'.*'assistant'.*='text'$"):
        encode(tok(), chat("a", "b <|end|> c")["messages"])


@pytest.mark.parametrize("side", ["prompt", "chosen", "rejected"])
def test_pairs_and_thumbs(side):
    """The prompt is message 0, the answer message 1."""
    pair = {"prompt": "a", "chosen": "b", "rejected": "c"}
    pair[side] += "<|user|>"
    number = 0 if side == "prompt" else 1
    refused = rf"row 1: message {number} holds '<\|user\|>'"
    good = {"prompt": "a", "chosen": "b", "rejected": "c"}
    with pytest.raises(DataError, match=refused):
        encode_pairs(tok(), [good, pair])
    with pytest.raises(DataError, match=refused):
        encode_binary(tok(), [good, pair])
    thumbs = {"prompt": pair["prompt"], "completion": pair["chosen"], "label": True}
    if side != "rejected":
        with pytest.raises(DataError, match=refused):
            encode_binary(tok(), [good, thumbs])


WITH_CALLS = (
    "{% if tools %}{{ '<|system|>' ~ (tools | tojson) ~ '<|end|>' }}{% endif %}{% for m in "
    "messages %}{{ '<|' ~ m.role ~ '|>' ~ m.content }}{% if m.tool_calls %}"
    "{{ m.tool_calls | tojson }}{% endif %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def with_call(value: str) -> list[dict]:
    function = {"name": "look", "arguments": {"q": value}}
    call = {"type": "function", "function": function}
    answer = {"role": "assistant", "content": "", "tool_calls": [call]}
    return [{"role": "user", "content": "a"}, answer]


def test_calls_and_tools():
    """What a call says is as much in the text as a content: refused, or encoded as text."""
    tokenizer = tok(WITH_CALLS)
    with pytest.raises(DataError, match=r"message 1 holds '<\|eos\|>'"):
        encode(tokenizer, with_call("<|eos|>"))
    tool = {"type": "function", "function": {"name": "look", "description": "<|eos|>"}}
    with pytest.raises(DataError, match=r"the tools hold '<\|eos\|>', a control token: take"):
        encode(tokenizer, with_call("x"), tools=[tool])
    for tools in (None, [tool]):
        row = encode(tokenizer, with_call("<|eos|>"), tools=tools, control_tokens="text")
        plain = encode(tokenizer, with_call("x"), tools=[CALL] if tools else None)
        assert controls(tokenizer, row["input_ids"]) == controls(tokenizer, plain["input_ids"])
        call = {"name": "look", "arguments": {"q": "<|eos|>"}}
        said = json.dumps([{"type": "function", "function": call}])
        assert learnt(tokenizer, row) == f"{said}<|end|>"


# --- as text --------------------------------------------------------------------------------------
def test_text_by_hand():
    """Markers are 0 to 7 in the order of PLAIN_SPECIALS: <|bos|> 0, <|user|> 3, <|assistant|> 4,
    <|end|> 6. Then come the bytes; `!`, the first that is printed, is 8, and it is character 33, so
    that a printed character c is c - 25: `<` (60) is 35, `|` (124) 99, e 76, n 85, d 75, `>` 37; x
    is 95 and y 96.
    """
    spelt = [35, 99, 76, 85, 75, 99, 37]
    row = encode(tok(), chat("x<|end|>", "<|end|>y")["messages"], control_tokens="text")
    assert row["input_ids"] == [0, 3, 95, *spelt, 6, 4, *spelt, 96, 6]
    assert row["labels"] == [IGNORE] * 12 + [*spelt, 96, 6]


@MARKS
@TEMPLATES
def test_the_templates_own_are_tokens_and_those_of_contents_are_text(template, marks):
    """Learnt is the whole answer and one stop token; the text is the conversation's."""
    tokenizer = tok(template, marks)
    stop = STOP[template]
    talk = [
        {"role": "system", "content": f"S{stop}"},
        {"role": "user", "content": f"{stop}a {stop}{stop}"},
        {"role": "assistant", "content": f"one {stop} é"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": f"{stop}"},
    ]
    row = encode(tokenizer, talk, control_tokens="text")
    assert learnt(tokenizer, row) == f"one {stop} é{stop}{stop}{stop}"
    whole = tokenizer.apply_chat_template(talk, tokenize=False)
    assert tokenizer.decode(row["input_ids"]) == whole
    benign = [{**turn, "content": turn["content"].replace(stop, "x")} for turn in talk]
    assert controls(tokenizer, row["input_ids"]) == controls(
        tokenizer, template_ids(tokenizer, benign)
    )
    # and the same mask both ways
    other = tok(template, not marks)
    assert encode(other, talk, control_tokens="text") == row


@pytest.mark.parametrize("kind", KINDS)
def test_answers_as_they_are_served(kind):
    """The prompt as generation gives it, the answer as text, the stop token."""
    tokenizer = tokenizer_with(KINDS[kind])
    talk = [
        {"role": "user", "content": "a<|end|>"},
        {"role": "assistant", "content": "one<|end|>"},
        {"role": "user", "content": "<|user|>b"},
        {"role": "assistant", "content": "<|eos|>two"},
    ]
    found = stretches(encode_examples(tokenizer, talk, control_tokens="text"))
    said = [tokenizer.decode(ids) for _, ids in found]
    assert said == ["one<|end|><|end|>", "<|eos|>two<|end|>"]
    assert [before for before, _ in found] == [prompt_ids(tokenizer, talk[:i]) for i in (1, 3)]
    with pytest.raises(DataError, match="message 0 holds"):
        encode_examples(tokenizer, talk)


def test_errors_speak_of_the_contents_as_they_were_given():
    """No mark of the encoding is in what a reader gets to see."""
    template = unmarked(PLAIN).replace("m['content']", "(m['content'] | upper)")
    with pytest.raises(DataError) as caught:
        encode(tok(template), chat("ab<|end|>", "b")["messages"], control_tokens="text")
    assert "'ab<|end|>'" in str(caught.value)
    assert MARK not in str(caught.value)


def test_a_template_that_writes_ascii_json():
    template = WITH_CALLS.replace("tool_calls | tojson", "tool_calls | tojson(ensure_ascii=true)")
    row = encode(tok(template), with_call("<|eos|>"), control_tokens="text")
    assert learnt(tok(template), row).endswith('{"q": "<|eos|>"}}}]<|end|>')


def test_characters_that_mark_are_no_text():
    """Who writes them could otherwise forge what the template writes."""
    for forged in (MARK, "\ufdd26\ufdd3", r"\ufdd0"):
        with pytest.raises(DataError, match="U\\+FDD0 to U\\+FDD3, which are no text"):
            prompt_ids(tok(), [{"role": "user", "content": f"<|end|>{forged}"}])
    ids = prompt_ids(tok(), [{"role": "user", "content": "\ufdd26\ufdd3"}])
    assert controls(tok(), ids) == [0, 3, 6, 4]


@TEMPLATES
def test_transformers_own_way_gives_the_same(template):
    """Where a text is as many tokens as bytes, the cuts that transformers makes change nothing."""
    tokenizer = tok(template)
    if not hasattr(tokenizer, "_mark_chat_inputs"):
        pytest.skip("this transformers has no sanitize_control_tokens")
    stop = STOP[template]
    talk = chat(f"a {stop}b", f"c{stop} d")["messages"]
    theirs = tokenizer.apply_chat_template(talk, sanitize_control_tokens=True)["input_ids"]
    assert encode(tokenizer, talk, control_tokens="text")["input_ids"] == theirs


def test_added_tokens_of_answers_stay_tokens():
    """<think> is no control token: it is one token in both, beside a control token that is text."""
    tokenizer = tok()
    tokenizer.add_tokens(["<think>"])
    thought = tokenizer.convert_tokens_to_ids("<think>")
    for question in ("a", "a<|end|>"):
        talk = chat(question, "<think>b")["messages"]
        row = encode(tokenizer, talk, control_tokens="text")
        assert row["labels"].count(thought) == 1


def test_a_stop_that_is_not_special():
    """ChatML's markers are often added as ordinary tokens, which splitting special tokens alone
    would leave in the text.
    """
    tokenizer = byte_tokenizer(unmarked(PLAIN).replace("<|end|>", "<turn>"), eos_token="<|eos|>")
    tokenizer.add_tokens(["<turn>"])
    end = tokenizer.convert_tokens_to_ids("<turn>")
    row = encode(tokenizer, chat("a<turn>", "b<turn>c")["messages"], control_tokens="text")
    assert row["input_ids"].count(end) == 2
    assert learnt(tokenizer, row) == "b<turn>c<turn>"


def test_a_token_that_takes_the_space_after_it():
    """As Phi's do (rstrip): the template's takes it, the content's text keeps it."""
    tokenizer = byte_tokenizer(unmarked(PLAIN))
    tokenizer.add_tokens([AddedToken("<|user|>", special=True, rstrip=True)])
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "  a<|user|> b"}])
    assert pieces(tokenizer, ids) == [
        *("<|bos|>", "<|user|>", "a"),
        *"<|user|> b",
        *("<|end|>", "<|assistant|>"),
    ]


# --- other tokenizers -----------------------------------------------------------------------------
SENTENCES = "{% for m in messages %}{{ m['content'] ~ '</s>' }}{% endfor %}"


def sentence_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """Tokenizers that write a space before a text: as Llama 2's old and new ones, as T5's."""
    letters = ["▁", "a", "b", "<", "/", "s", ">", "▁a", "▁b"]
    if kind == "unigram":
        scores = [("<unk>", 0.0), ("</s>", 0.0)] + [(piece, -1.0) for piece in letters]
        backend = Tokenizer(models.Unigram(scores, unk_id=0))
    else:
        vocab = {piece: i for i, piece in enumerate(["<unk>", "</s>", *letters])}
        merges = [("▁", "a"), ("▁", "b")]
        backend = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>"))
    if kind == "prepend":
        backend.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
    else:
        scheme = "always" if kind == "unigram" else "first"
        backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    backend.decoder = decoders.Metaspace()
    names = {"unk_token": "<unk>", "eos_token": "</s>", "pad_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    tokenizer.chat_template = SENTENCES
    return tokenizer


@pytest.mark.parametrize("kind", ["first", "prepend", "unigram"])
def test_spaces_before_a_text_come_where_they_always_do(kind):
    """A text without control tokens has the tokenizer's own ids, also when it is read by the one
    that knows the template's tokens by other names; and a control token in it is text.
    """
    tokenizer = sentence_tokenizer(kind)
    reader = handling_of(tokenizer, "text").finder
    reading = ContentsAsText(tokenizer, control_tokens_of(tokenizer), reader.parted)
    for text in ("a b</s>b a</s>", "</s>a", " b </s> a"):
        assert reading(text) == {
            "input_ids": tokenizer(text, add_special_tokens=False)["input_ids"]
        }
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "a</s> b"}])
    assert ids.count(tokenizer.eos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id


def test_a_vocabulary_that_has_the_token_as_a_piece_too():
    """By hand: Unigram has </s> as a piece of score 0, better than its four characters of -1 each,
    so plain text becomes the control token. It is cut behind the first character, and each part
    begins, as texts do here, with ▁: ▁a < | ▁ / s >.
    """
    tokenizer = sentence_tokenizer("unigram")
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "a</s>"}])
    expected = ["▁a", "<", "▁", "/", "s", ">", "</s>"]
    assert tokenizer.convert_ids_to_tokens(ids) == expected


def test_a_tokenizer_of_another_library(monkeypatch):
    tokenizer = tok()
    monkeypatch.setattr(type(tokenizer), "backend_tokenizer", None)
    with pytest.raises(DataError, match=r"no tokenizer of the tokenizers library.*ControlTokens"):
        prompt_ids(tokenizer, [{"role": "user", "content": "<|end|>"}])
    assert prompt_ids(tokenizer, [{"role": "user", "content": "a"}])


@pytest.fixture(scope="module")
def embedded():
    return AutoTokenizer.from_pretrained(EMBEDDED)


def test_the_embedded_tokenizer(embedded):
    """Its own template; a text with a control token is cut as any text is."""
    talk = chat("Who?<|end|>", "No one<|end|>.")["messages"]
    row = encode(embedded, talk, control_tokens="text")
    assert embedded.decode(row["input_ids"]) == embedded.apply_chat_template(talk, tokenize=False)
    assert learnt(embedded, row) == "No one<|end|>.<|end|>"
    asked = prompt_ids(embedded, [{"role": "user", "content": "<|end|>"}])
    text = ["<", "|", "end", "|", ">"]
    assert pieces(embedded, asked) == ["<|bos|>", "<|user|>", *text, "<|end|>", "<|assistant|>"]
    assert controls(embedded, row["input_ids"]) == controls(
        embedded, template_ids(embedded, chat("Who?", "No one.")["messages"])
    )


# --- texts without control tokens -----------------------------------------------------------------
FRAGMENTS = ["<|", "|>", "end", "<", "a b", "\n", "é", "😀", "</s>", "<|end", "user|>", " ", "12"]
WITHOUT = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), min_size=1, max_size=8)


@given(question=WITHOUT, answer=WITHOUT)
@example(question=["<|", "end"], answer=["|>"])
@TEMPLATES
def test_ids_without_control_tokens_are_as_they_were(template, question, answer):
    """In all three ways those that `apply_chat_template` gives, labels too."""
    tokenizer = tok(template)
    talk = chat("".join(question), "".join(answer))["messages"]
    assume(all(turn["content"].strip() for turn in talk) and not find(talk, tokenizer))
    ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
    rows = [encode(tokenizer, talk, control_tokens=choice) for choice in CHOICES]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0]["input_ids"] == ids
    asked = template_ids(tokenizer, talk[:1], add_generation_prompt=True)
    for choice in CHOICES:
        assert prompt_ids(tokenizer, talk[:1], choice) == asked


def test_the_worlds_rows_are_as_they_were(embedded):
    for row in ft.load_rows("train", "tiny")[:40]:
        ids = template_ids(embedded, row["messages"])
        for choice in CHOICES:
            assert encode(embedded, row["messages"], control_tokens=choice)["input_ids"] == ids


TEXTS = st.lists(st.sampled_from([*FRAGMENTS, *STOP.values(), "<|user|>", "<unk>"]), max_size=8)


@given(question=TEXTS, answer=TEXTS)
@TEMPLATES
@MARKS
def test_text_has_no_control_token_beside_the_templates(template, marks, question, answer):
    """The control tokens are those of the same conversation with other contents; decoding gives the
    conversation's text; learnt are the answer and its stop.
    """
    tokenizer = tok(template, marks)
    talk = chat("".join(question), "".join(answer))["messages"]
    assume(all(turn["content"].strip() for turn in talk))
    row = encode(tokenizer, talk, control_tokens="text")
    benign = template_ids(tokenizer, chat("x", "y")["messages"])
    assert controls(tokenizer, row["input_ids"]) == controls(tokenizer, benign)
    whole = tokenizer.apply_chat_template(talk, tokenize=False)
    assert tokenizer.decode(row["input_ids"]) == whole
    said = talk[1]["content"].strip() if template == LLAMA3 else talk[1]["content"]
    assert learnt(tokenizer, row) == said + STOP[template]


@given(question=TEXTS)
def test_the_embedded_tokenizers_texts(embedded, question):
    talk = [{"role": "user", "content": "".join(question)}]
    assume(talk[0]["content"].strip())
    ids = prompt_ids(embedded, talk)
    whole = embedded.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
    assert embedded.decode(ids) == whole
    benign = template_ids(embedded, [{"role": "user", "content": "x"}], add_generation_prompt=True)
    assert controls(embedded, ids) == controls(embedded, benign)
    if not find(talk, embedded):
        assert ids == template_ids(embedded, talk, add_generation_prompt=True)


def test_the_tokenizer_is_left_as_it_is():
    """Nothing of another encoding stays with it: neither its tokens nor how it reads special
    ones.
    """
    tokenizer = tok()
    before = tokenizer.backend_tokenizer.to_str()
    encode(tokenizer, chat("a<|end|>", "b")["messages"], control_tokens="text")
    assert tokenizer.backend_tokenizer.to_str() == before
    assert tokenizer("<|end|>", add_special_tokens=False)["input_ids"] == [6]


def test_a_token_added_later_is_known():
    """The second tokenizer is made anew where the first has changed."""
    tokenizer = tok()
    assert prompt_ids(tokenizer, [{"role": "user", "content": "<|end|>"}])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    ids = prompt_ids(tokenizer, [{"role": "user", "content": "<|end|><|new|>"}])
    assert controls(tokenizer, ids) == [0, 3, 6, 4]


# --- allowed --------------------------------------------------------------------------------------
@TEMPLATES
def test_allow_reads_them_as_the_tokenizer_does(template):
    tokenizer = tok(template)
    talk = chat(f"a{STOP[template]}b", "c")["messages"]
    ids = tokenizer.apply_chat_template(talk, return_dict=True)["input_ids"]
    assert encode(tokenizer, talk, control_tokens="allow")["input_ids"] == ids
    asked = template_ids(tokenizer, talk[:1], add_generation_prompt=True)
    assert prompt_ids(tokenizer, talk[:1], "allow") == asked != prompt_ids(tokenizer, talk[:1])


@pytest.mark.parametrize("choice", ["split", "", None, True])
def test_other_choices(choice):
    with pytest.raises(DataError, match=f"control_tokens={choice!r}: use 'refuse', 'text'"):
        encode(tok(), chat("a", "b")["messages"], control_tokens=choice)
    with pytest.raises(DataError, match="control_tokens="):
        prompt_ids(tok(), chat("a", "b")["messages"][:1], choice)


# --- what is said ---------------------------------------------------------------------------------
def test_one_line_says_how_many_rows_hold_some(capsys):
    """Rows 1 and 2 of 3, with three and one; where none does, nothing is said."""
    rows = [chat("a", "b"), chat("<|user|><|bos|>", "<|user|>"), chat("<|bos|>", "b")]
    encode_rows(tok(), rows, control_tokens="text")
    assert capsys.readouterr().out == (
        "control tokens in 2 of 3 rows, encoded as plain text: '<|user|>' 2 times, '<|bos|>' 2 "
        "times\n"
    )
    pairs = [{"prompt": "a", "chosen": "<|user|>", "rejected": "c"}]
    encode_pairs(tok(), pairs, control_tokens="allow")
    encode_binary(tok(), pairs, control_tokens="text")
    assert capsys.readouterr().out == (
        "control tokens in 1 of 1 rows, encoded as the tokens that they are: '<|user|>' 1 times\n"
        "control tokens in 1 of 1 rows, encoded as plain text: '<|user|>' 1 times\n"
    )
    for choice in CHOICES:
        encode_rows(tok(), rows[:1], control_tokens=choice)
    assert capsys.readouterr().out == ""


def test_pairs_and_thumbs_as_text():
    """By hand: the prompt is bos, user, <, u, >, end, assistant (7 ids); the answer is what it
    spells and the end.
    """
    pair = {"prompt": "<u>", "chosen": "<|end|>", "rejected": "no"}
    spelt = [35, 99, 76, 85, 75, 99, 37]
    prompt = [0, 3, 35, 92, 37, 6, 4]
    [item] = encode_pairs(tok(), [pair], control_tokens="text")
    assert item == {
        "prompt_ids": prompt,
        "chosen_ids": [*spelt, 6],
        "rejected_ids": [85, 86, 6],
    }
    good, bad = encode_binary(tok(), [pair], control_tokens="text")
    assert good == {"prompt_ids": prompt, "completion_ids": [*spelt, 6], "label": True}
    assert bad == {"prompt_ids": prompt, "completion_ids": [85, 86, 6], "label": False}


def test_a_handling_is_made_once_for_many_rows():
    tokenizer = tok()
    handling = handling_of(tokenizer, "text")
    assert handling_of(tokenizer, handling) is handling
    assert token_finder(tokenizer).pattern is handling.finder.pattern  # compiled once
    shown = ft.show_mask(tokenizer, chat("a<|end|>", "b")["messages"], control_tokens="text")
    assert repr(shown) == "<|bos|><|user|>a<|end|><|end|><|assistant|>[b][<|end|>]"


def test_the_command_has_the_option():
    command = [sys.executable, "-m", "ftlib.cli", "sft", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--control-tokens {refuse,text,allow}" in shown
