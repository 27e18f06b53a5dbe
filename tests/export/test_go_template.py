"""Go templates: the text of each equals the Jinja's, on conversations of every shape; others are
refused.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest
from conftest import CHATML, EMBEDDED, LLAMA3, PLAIN, byte_tokenizer, unmarked
from hypothesis import given
from hypothesis import strategies as st

from ftlib.export.go_template import (
    TEMPLATES,
    TemplateError,
    chat_format,
    go_template,
    render_go,
    template_stops,
)

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


FAMILIES = {
    "world": embedded,
    "chatml": lambda: byte_tokenizer(CHATML),
    "llama-3": lambda: hub("llama3"),
    "llama-3.1": lambda: hub("llama3_1"),
    "qwen-2.5": lambda: hub("qwen2_5"),
    "qwen-3": lambda: hub("qwen3"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_recognised_and_equal(family):
    """The named template is found; with and without system prompt, of one to three turns, Go and
    Jinja give the same text.
    """
    tok = FAMILIES[family]()
    template = go_template(tok)
    assert template == TEMPLATES[family]
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
    for tok, family in CACHED:
        assert render_go(TEMPLATES[family], messages) == jinja_text(tok, messages)


CACHED = [
    (tokenizer(unmarked(CHATML)), "chatml"),
    (hub("llama3_1"), "llama-3.1"),
    (hub("qwen2_5"), "qwen-2.5"),
]


def test_what_ollama_joins():
    """Ollama joins neighbours of one role, and all system messages in .System: by hand from its
    collate().
    """
    messages = [
        {"role": r, "content": c}
        for r, c in (("system", "A"), ("user", "b"), ("user", "c"), ("system", "D"))
    ]
    assert render_go(
        "{{ .System }}|{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}", messages
    ) == ("A\n\nD|[system:A][user:b\n\nc][system:D]")


def test_go_syntax_by_hand():
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    template = (
        '{{ range .Messages }}{{ if eq .Role "user" }}U'
        '{{ else if eq .Role "tool" }}T{{ else }}A{{ end }}{{ end }}'
    )
    assert render_go(template, messages) == "UA"
    assert (
        render_go('{{ if .System }}s{{ else }}n{{ end }}{{if ne .System ""}}s{{end}}.', messages)
        == "n."
    )


@pytest.mark.parametrize(
    "template, word",
    [
        ("{{ .Nothing }}", "Nothing"),
        ("{{ trim .System }}", "trim"),
        ("{{ $m.Role }}", "outside the subset"),
        ("{{-.System }}", "outside the subset"),
        ("{{ if .System }}x", "end"),
        ("x{{ end }}", "without"),
        ("{{ range .Messages }}{{ .System }}{{ end }}", "System"),
        ('{{ if .System "x" }}{{ end }}', "subset"),
    ],
)
def test_outside_the_subset(template, word):
    with pytest.raises(TemplateError, match=word):
        render_go(template, [{"role": "user", "content": "x"}])


def test_unknown_templates_say_what_to_do():
    """Another format, no template, and one that refuses system prompts (Gemma's)."""
    with pytest.raises(TemplateError, match="pass it as template="):
        go_template(
            tokenizer("{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}")
        )
    with pytest.raises(TemplateError, match="-Instruct"):
        go_template(byte_tokenizer(None))
    with pytest.raises(TemplateError, match=r"refuses a plain conversation.*template="):
        go_template(hub("gemma"))


def test_one_changed_letter_is_another_template():
    with pytest.raises(TemplateError):
        go_template(tokenizer(unmarked(CHATML).replace("assistant\n'", "assistant:'")))


def test_the_date_of_llama_3_2_is_frozen(caplog):
    """Its Jinja asks the clock. The Go template has the day of the export; the log says so."""
    with caplog.at_level("INFO", "ftlib"):
        template = go_template(hub("llama3_2"))
    messages = [{"role": "user", "content": "Hi"}]
    assert (
        render_go(template, messages) == jinja_text(hub("llama3_2"), messages)
        and "frozen" in caplog.text
    )


def test_stops():
    assert template_stops(TEMPLATES["world"]) == ("<|end|>",)
    assert template_stops(TEMPLATES["llama-3.1"]) == ("<|eot_id|>",) and template_stops(
        TEMPLATES["qwen-3"]
    ) == ("<|im_end|>",)
    assert (
        template_stops("{{ .Prompt }} {{ .Response }}\n<end_of_turn>") == ("<end_of_turn>",)
        and template_stops("{{ .Content }}") == ()
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


@pytest.mark.parametrize(
    "template",
    [
        "{{- range .Messages -}} <|{{ .Role }}|>{{ .Content -}} <|end|>\n{{- end }}"
        " {{- $.System }}",
        "{{ range $i, $m := .Messages }}<|{{ $m.Role }}|>{{ $m.Content }}<|end|>{{ end }}"
        "{{ .System }}",
        "{{range $m := .Messages}}<|{{$m.Role}}|>{{.Content}}<|end|>{{end}}{{$.System}}",
    ],
)
def test_white_space_trimmed_and_variables(template):
    """As Go's text/template does it: a dash beside a brace takes the white space on its side; in a
    range `$i` and `$m` are the index and the item, and `$` is what the template was given.
    """
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert render_go(template, messages) == "<|system|>S<|end|><|user|>U<|end|>S"


def test_the_index_of_a_range_and_a_condition_on_a_variable():
    template = (
        '{{ range $i, $m := .Messages }}{{ $i }}{{ if eq $m.Role "user" }}!{{ end }}{{ end }}'
    )
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    assert render_go(template, messages) == "01!"
