"""Go templates: the text of each equals the Jinja's, on conversations of every shape; what cannot
be said in Go is refused.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CHATML, EMBEDDED, LLAMA3, PLAIN, byte_tokenizer, unmarked
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import TemplateError as JinjaError

from ftlib.export import go_template as translating
from ftlib.export.chat_format import chat_format
from ftlib.export.errors import TemplateError
from ftlib.export.go_render import render_go, template_stops
from ftlib.export.go_template import WORLD, go_template

HUB = (
    Path(find_spec("trl").origin).parent / "chat_templates"
)  # real models' templates, as TRL ships them


def tokenizer(jinja: str, **tokens):
    made = byte_tokenizer(
        LLAMA3 if "begin_of_text" in jinja or "start_header" in jinja else CHATML, **tokens
    )
    made.chat_template = jinja
    return made


def hub(name: str):
    return tokenizer((HUB / f"{name}.jinja").read_text())


def jinja_text(tokenizer, messages) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    return text.removeprefix(tokenizer.bos_token or "")


def embedded():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(EMBEDDED)


SMOLLM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_GO = translating.CHATML
_LLAMA_TURN = "<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>"
_LLAMA_ANSWER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
# (what makes the tokenizer, its Go template written by hand)
FAMILIES = {
    "world": (embedded, WORLD),
    "chatml": (lambda: byte_tokenizer(CHATML), CHATML_GO),
    "llama-3": (
        lambda: hub("llama3"),
        "{{ range .Messages }}" + _LLAMA_TURN + "{{ end }}" + _LLAMA_ANSWER,
    ),
    "llama-3.1": (
        lambda: hub("llama3_1"),
        "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n{{ .System }}<|eot_id|>"
        '{{ range .Messages }}{{ if ne .Role "system" }}'
        + _LLAMA_TURN
        + "{{ end }}{{ end }}"
        + _LLAMA_ANSWER,
    ),
    "qwen-2.5": (
        lambda: hub("qwen2_5"),
        '{{ if eq .System "" }}<|im_start|>system\n'
        "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n{{ end }}"
        + CHATML_GO,
    ),
    "smollm2": (
        lambda: tokenizer(SMOLLM),
        '{{ if eq .System "" }}<|im_start|>system\n'
        "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n{{ end }}"
        + CHATML_GO,
    ),
    "qwen-3": (lambda: hub("qwen3"), CHATML_GO + "<think>\n\n</think>\n\n"),
    "gemma-3": (
        lambda: hub("gemma3"),
        "{{ if .System }}<start_of_turn>user\n{{ .System }}\n\n{{ end }}"
        '{{ range $i, $m := .Messages }}{{ if eq .Role "user" }}'
        "{{ if ne $i 1 }}<start_of_turn>user\n{{ end }}{{ .Content }}<end_of_turn>\n"
        '{{ else if eq .Role "assistant" }}<start_of_turn>model\n{{ .Content }}<end_of_turn>\n'
        "{{ end }}{{ end }}<start_of_turn>model\n",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_learnt_and_equal(family):
    """What is learnt of a family is what one would write by hand; with and without system prompt,
    of one to five turns, Go and Jinja give the same text.
    """
    make, by_hand = FAMILIES[family]
    tok = make()
    template = go_template(tok)
    assert template == by_hand
    contents = [
        "Où est-ce?",
        "a\n\nb {{ .Role }} {% x %}",
        '{"x": 1}',
        "ende",
        "日本",
        "quote \" and '",
    ]
    for system in ([], [{"role": "system", "content": "Be brief.\nAlways."}]):
        for turns in (1, 3, 5):
            messages = system + [
                {"role": ("user", "assistant")[i % 2], "content": contents[i]} for i in range(turns)
            ]
            assert render_go(template, messages) == jinja_text(tok, messages)


text = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1).filter(
    lambda t: t == t.strip() and "<" not in t
)


@given(st.lists(text, min_size=1, max_size=5), st.none() | text)
def test_any_content(contents, system):
    """Any text without outer whitespace, which Llama-3's Jinja trims and Go cannot."""
    messages = [{"role": "system", "content": system}] * (system is not None)
    messages += [
        {"role": ("user", "assistant")[i % 2], "content": c}
        for i, c in enumerate(contents[: len(contents) - 1 + len(contents) % 2])
    ]
    for tok, template in CACHED:
        assert render_go(template, messages) == jinja_text(tok, messages)


CACHED = [
    (tokenizer(unmarked(CHATML)), CHATML_GO),
    (hub("llama3_1"), FAMILIES["llama-3.1"][1]),
    (hub("qwen2_5"), FAMILIES["qwen-2.5"][1]),
    (hub("gemma3"), FAMILIES["gemma-3"][1]),
]
REAL = sorted(path.stem for path in HUB.glob("*.jinja") if "training" not in path.stem)
# Their contents are lists of parts, text among pictures: a text alone they write letter by letter.
OF_PARTS = {"idefics3", "llava_next", "smolvlm"}


@pytest.mark.parametrize("name", REAL)
def test_a_real_models_template(name):
    """Every template that TRL ships is put into Go, the prompt equal; those of many parts are
    refused.
    """
    tok = hub(name)
    if name in OF_PARTS:
        with pytest.raises(TemplateError, match="content of the user's turn"):
            go_template(tok)
        return
    template = go_template(tok)
    for roles in (["user"], ["user", "assistant", "user"], ["system", "user", "assistant", "user"]):
        messages = [{"role": role, "content": f"The {role} says so."} for role in roles]
        try:
            wanted = jinja_text(tok, messages)
        except JinjaError:  # Gemma takes no system message
            assert roles[0] == "system"
            continue
        assert render_go(template, messages) == wanted
    assert template_stops(template) or name.startswith("glm")


# Adds a sign where a content asks, which no text around contents can say.
BY_CONTENT = unmarked(CHATML).replace(
    "m['content']", "m['content'] ~ ('!' if '?' in m['content'] else '')"
)


def test_what_is_refused_says_what_to_do():
    """A text that depends on what the contents say, no template, a Jinja that refuses."""
    with pytest.raises(TemplateError, match=r"it writes '.*!.*, where Go gives.*pass it as"):
        go_template(tokenizer(BY_CONTENT))
    with pytest.raises(TemplateError, match="-Instruct"):
        go_template(byte_tokenizer(None))
    refuses = "{{ raise_exception('no') }}"
    with pytest.raises(TemplateError, match=r"refuses a plain conversation.*template="):
        go_template(tokenizer(refuses))


def test_a_format_of_nobodys_is_learnt():
    """Turns with other brackets, an opening unlike an answer's turn."""
    jinja = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}|{% endfor %}"
        "{% if add_generation_prompt %}[assistant now]{% endif %}"
    )
    assert go_template(tokenizer(jinja)) == (
        "{{ range .Messages }}[{{ .Role }}]{{ .Content }}|{{ end }}[assistant now]"
    )
    opening = tokenizer(unmarked(CHATML).replace("assistant\n'", "assistant:'"))
    assert go_template(opening) == CHATML_GO.removesuffix("\n") + ":"


def test_without_system_messages(caplog):
    """Gemma's Jinja refuses them; Go cannot, so it is said."""
    template = go_template(hub("gemma"))
    assert ".System" not in template and "takes no system message" in caplog.text
    asked = [{"role": "user", "content": "Hi"}]
    assert render_go(template, asked) == jinja_text(hub("gemma"), asked)


def test_trimmed_contents_are_said(caplog):
    with caplog.at_level("INFO", "ftlib"):
        go_template(hub("llama3"))
    assert "trims white space" in caplog.text


def test_the_date_of_llama_3_2_is_frozen(caplog):
    """Its Jinja asks the clock. The Go template has the day of the export; the log says so."""
    with caplog.at_level("INFO", "ftlib"):
        template = go_template(hub("llama3_2"))
    messages = [{"role": "user", "content": "Hi"}]
    assert (
        render_go(template, messages) == jinja_text(hub("llama3_2"), messages)
        and "frozen" in caplog.text
    )


def test_chat_format_of_tokenizers():
    form = chat_format(byte_tokenizer(LLAMA3))
    assert (
        form.bos == "<|begin_of_text|>"
        and form.eos == ("<|eot_id|>",)
        and form.ends == ("<|eot_id|>", "<|end_of_text|>")
    )
    assert chat_format(byte_tokenizer(PLAIN)).ends == ("<|end|>", "<|eos|>")


def test_a_damaged_gguf_is_named(tmp_path):
    pytest.importorskip("gguf", reason="needs the extra `export`")
    for content in (b"", b"GGUF", b"GGUF" + bytes(40), b"nonsense" * 20):
        (tmp_path / "x.gguf").write_bytes(content)
        with pytest.raises(TemplateError, match=r"x\.gguf.*export it again|no chat template"):
            go_template(tmp_path / "x.gguf")
