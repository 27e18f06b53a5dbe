"""Go templates rendered as Ollama does it, against what Go's text/template gives, by hand."""

import pytest

from ftlib.export.errors import TemplateError
from ftlib.export.go_render import collated, render_go, template_stops


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


def test_tool_messages_stay_apart():
    """Each answers a call of its own: collate() joins neighbours of every role but this one."""
    given = [("user", "a"), ("user", "b"), ("tool", "1"), ("tool", "2"), ("assistant", "c")]
    messages = [{"role": role, "content": content} for role, content in given]
    template = "{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}"
    wanted = "[user:a\n\nb][tool:1][tool:2][assistant:c]"
    assert render_go(template, messages) == wanted
    system, turns = collated([*messages, {"role": "assistant", "content": "d"}])
    assert system == "" and turns[-1] == {"Role": "assistant", "Content": "c\n\nd"}
    assert len(turns) == 4


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


def test_a_condition_on_the_index_of_a_range():
    """`eq $i 1` compares numbers; Go refuses to compare a number with a text."""
    messages = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    loop = "{{ range $i, $m := .Messages }}{{ if %s }}!{{ end }}{{ .Content }}{{ end }}"
    assert render_go(loop % "eq $i 1", messages) == "S!U"
    assert render_go(loop % "ne $i 1", messages) == "!SU"
    with pytest.raises(TemplateError, match="two types"):
        render_go(loop % 'eq $i "1"', messages)
    with pytest.raises(TemplateError, match="two types"):
        render_go(loop % "eq .Role 1", messages)


def test_stops():
    """What a template writes after a content ends a turn; a content at the end has no such."""
    turn = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}"
    assert template_stops(turn) == ("<|end|>",)
    gemma = "{{ .Prompt }} {{ .Response }}\n<end_of_turn>"
    assert template_stops(gemma) == ("<end_of_turn>",)
    assert template_stops("{{ .Content }}") == ()
