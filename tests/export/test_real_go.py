"""The Go templates of the export, rendered by Go's own text/template: it gives what the Jinja
gives, and `render_go` gives what it gives. `tests/go/render.go` is compiled here.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from jinja2 import TemplateError as JinjaError
from test_go_template import FAMILIES, OF_PARTS, REAL, hub, jinja_text

from ftlib.export.errors import TemplateError
from ftlib.export.go_render import render_go
from ftlib.export.go_template import go_template

CONVERSATIONS = 1000  # random ones, of each template of FAMILIES
FEWER = 100  # of each template that TRL ships
# What contents are made of: what Go, Jinja or a chat would read as its own, and many scripts.
PIECES = (
    "Where is it?",
    "Où est-ce ?",
    "日本語",
    "العربية",
    "हिन्दी",
    "e\u0301",
    "👩‍👩‍👧",
    "\u00a0",
    "\u2028",
    "\x00",
    "{{ .Role }}",
    "{{- end }}",
    "{% endfor %}",
    "{# no comment #}",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<end_of_turn>",
    '{"a": [1, "\\n"]}',
    "it's `so`",
    "&lt;b&gt;",
    "a\n\n\nb",
    "\t",
    "\\",
    "%s",
    "system",
)


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The compiled program. Without a network: it needs the standard library alone."""
    if shutil.which("go") is None:
        pytest.skip("there is no `go`: install Debian's golang-go, or Go from go.dev")
    folder = tmp_path_factory.mktemp("go")
    environment = {
        **os.environ,
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOFLAGS": "",
        "GOCACHE": os.environ.get("GOCACHE") or str(folder / "cache"),
    }
    made = folder / "render"
    source = ROOT / "tests" / "go" / "render.go"
    command = ["go", "build", "-o", str(made), str(source)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return made


def by_go(program: Path, asked: list[tuple[str, list[dict]]]) -> list[dict]:
    """Go's {"text"} or {"error"} for each template and conversation."""
    lines = [json.dumps({"template": t, "messages": messages}) for t, messages in asked]
    given = "\n".join(lines).encode()
    done = subprocess.run([str(program)], input=given, capture_output=True, check=True)
    return [json.loads(line) for line in done.stdout.decode().split("\n") if line]


def texts(program: Path, template: str, conversations: list[list[dict]]) -> list[str]:
    replies = by_go(program, [(template, messages) for messages in conversations])
    assert len(replies) == len(conversations)
    assert not [reply["error"] for reply in replies if "error" in reply]
    return [reply["text"] for reply in replies]


def content(drawn: random.Random) -> str:
    """Without white space around it, which Llama 3's Jinja trims and Go does not."""
    while True:
        pieces = drawn.choices(PIECES, k=drawn.randint(1, 6))
        text = drawn.choice(("", " ", "\n", "\r\n")).join(pieces).strip()
        if text:
            return text


def asked_in_turns(seed: int, count: int, system: bool = True) -> list[list[dict]]:
    """Conversations as a chat has them: user and assistant by turns, the user last; half of them
    after a system message.
    """
    drawn = random.Random(seed)
    conversations = []
    for _ in range(count):
        messages = []
        if system and drawn.random() < 0.5:
            messages.append({"role": "system", "content": content(drawn)})
        for i in range(drawn.choice((1, 3, 5, 7))):
            messages.append({"role": ("user", "assistant")[i % 2], "content": content(drawn)})
        conversations.append(messages)
    return conversations


def of_any_shape(seed: int, count: int) -> list[list[dict]]:
    """Roles in any order, tools among them; contents that are empty or have white space around."""
    drawn = random.Random(seed)
    roles = ("system", "user", "assistant", "tool")
    conversations = []
    for _ in range(count):
        messages = []
        for _ in range(drawn.randint(0, 8)):
            around = drawn.choice(("", "", " ", "\n"))
            text = drawn.choice(("", content(drawn)))
            messages.append({"role": drawn.choice(roles), "content": around + text + around})
        conversations.append(messages)
    return conversations


def test_the_program_collates_as_ollama_does(program):
    """By hand, as in test_go_render: neighbours joined, tool messages apart, .System all of it."""
    given = [("system", "A"), ("user", "b"), ("user", "c"), ("tool", "1"), ("tool", "2")]
    given.append(("system", "D"))
    messages = [{"role": role, "content": text} for role, text in given]
    template = "{{ .System }}|{{ range .Messages }}[{{ .Role }}:{{ .Content }}]{{ end }}"
    wanted = "A\n\nD|[system:A][user:b\n\nc][tool:1][tool:2][system:D]"
    assert texts(program, template, [messages]) == [wanted]


@pytest.mark.parametrize("family", FAMILIES)
def test_go_gives_the_jinjas_text(program, family):
    """A thousand random conversations. Gemma's Jinja takes a system message at the beginning."""
    make, _ = FAMILIES[family]
    tokenizer = make()
    template = go_template(tokenizer)
    conversations = asked_in_turns(1, CONVERSATIONS)
    for given, messages in zip(texts(program, template, conversations), conversations, strict=True):
        assert given == jinja_text(tokenizer, messages)


@pytest.mark.parametrize("family", FAMILIES)
def test_render_go_gives_gos_text(program, family):
    """Of conversations of any shape, which no Jinja need take."""
    _, template = FAMILIES[family]
    conversations = of_any_shape(2, CONVERSATIONS)
    for given, messages in zip(texts(program, template, conversations), conversations, strict=True):
        assert render_go(template, messages) == given


@pytest.mark.parametrize("name", sorted(set(REAL) - OF_PARTS))
def test_the_templates_that_trl_ships(program, name):
    """The same of every other template here that is put into Go, where its Jinja takes the
    conversation.
    """
    tokenizer = hub(name)
    template = go_template(tokenizer)
    conversations = asked_in_turns(3, FEWER)
    compared = 0
    for given, messages in zip(texts(program, template, conversations), conversations, strict=True):
        assert render_go(template, messages) == given
        try:
            wanted = jinja_text(tokenizer, messages)
        except JinjaError:  # Gemma takes no system message
            assert messages[0]["role"] == "system"
            continue
        assert given == wanted
        compared += 1
    assert compared > FEWER // 4


@pytest.mark.parametrize(
    "template",
    [
        "{{- range .Messages -}} <|{{ .Role }}|>{{ .Content -}} |\n{{- end }} {{- $.System }}",
        "{{range $m := .Messages}}<|{{$m.Role}}|>{{.Content}}<|end|>{{end}}{{$.System}}",
        '{{ range $i, $m := .Messages }}{{ $i }}{{ if eq $m.Role "user" }}!{{ end }}{{ end }}',
        "{{ range $i, $m := .Messages }}{{ if ne $i 1 }}!{{ end }}{{ .Content }}{{ end }}",
        '{{ if eq .System "" }}none{{ else if ne .System "x" }}{{ .System }}{{ end }}',
        "a {{- if .Messages }} b {{ else }} c {{- end -}} d",
    ],
)
def test_the_syntax_is_read_as_go_reads_it(program, template):
    """White space, variables, indices, conditions."""
    conversations = of_any_shape(4, 200)
    for given, messages in zip(texts(program, template, conversations), conversations, strict=True):
        assert render_go(template, messages) == given


@pytest.mark.parametrize(
    "template",
    [
        "{{ .Nothing }}",
        "{{ trim .System }}",
        "{{ $m.Role }}",
        "{{-.System }}",
        "{{ if .System }}x",
        "x{{ end }}",
        "{{ range .Messages }}{{ .System }}{{ end }}",
        '{{ range $i, $m := .Messages }}{{ if eq $i "1" }}{{ end }}{{ end }}',
    ],
)
def test_what_render_go_refuses_go_refuses_too(program, template):
    messages = [{"role": "user", "content": "x"}]
    with pytest.raises(TemplateError):
        render_go(template, messages)
    (reply,) = by_go(program, [(template, messages)])
    assert reply["error"]
