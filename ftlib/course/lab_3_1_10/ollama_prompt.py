"""Lab 3.1.10, export and Ollama, exercise 7: the template."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong
from ftlib.export.go_render import render_go
from ftlib.export.go_template import WORLD


def ollama_prompt(render, messages: list[dict]) -> str:
    """The prompt that Ollama makes of `messages`: render(template, messages), with the Go template
    of our format.
    """
    return render(
        "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>", messages
    )


def _template_cases(g):
    for roles in ("user", "system user", "user assistant user", "system user assistant user"):
        yield (
            render_go,
            [{"role": role, "content": f"{role} says {i}"} for i, role in enumerate(roles.split())],
        )


def _rendered(template):
    return lambda render, messages: render(template, messages)


TEMPLATE = Exercise(
    name="ollama_prompt",
    title="A template in Go",
    minutes=12,
    difficulty=2,
    reference=ollama_prompt,
    cases=_template_cases,
    hints=(
        "`{{ range .Messages }} … {{ end }}` repeats what is inside it for each message; "
        "there `.Role` and `.Content` are that message's.",
        "One message is `<|`, the role, `|>`, the content, `<|end|>`. Nothing is between two "
        "messages, "
        "no space and no newline.",
        "After the last message comes the opening of the answer, `<|assistant|>`. The start token "
        "is the runtime's to add.",
        'return render("{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}'
        '<|assistant|>", messages)',
    ),
    wrong=(
        Wrong(
            "no opening",
            _rendered(WORLD.removesuffix("<|assistant|>")),
            "The answer is not opened: end with <|assistant|>, else the model first has to guess "
            "who speaks.",
        ),
        Wrong(
            "no end of turn",
            _rendered(WORLD.replace("<|end|>", "")),
            "The turns are not closed: <|end|> follows each content, as in training.",
        ),
        Wrong(
            "start token",
            _rendered("<|bos|>" + WORLD),
            "You wrote the start token: the runtime adds it, and the model would see two.",
        ),
        Wrong(
            "opened in the loop",
            _rendered(WORLD.replace("{{ end }}<|assistant|>", "<|assistant|>{{ end }}")),
            "<|assistant|> is inside the loop: every message then opens an answer. Put it "
            "after {{ end }}.",
        ),
        Wrong(
            "newlines",
            _rendered(WORLD.replace("<|end|>", "<|end|>\n")),
            "There is a newline after each turn: the training text had none, and this model has "
            "never seen one there.",
        ),
        Wrong(
            "user always",
            _rendered(WORLD.replace("{{ .Role }}", "user")),
            "Every message is written as the user's: take {{ .Role }}.",
        ),
        Wrong(
            "another family",
            _rendered(
                "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end "
                "}}<|im_start|>assistant\n"
            ),
            "That is ChatML, which Qwen was trained on. A model understands the one format of its "
            "training.",
        ),
        Wrong(
            "system left out",
            _rendered(
                '{{ range .Messages }}{{ if ne .Role "system" }}'
                "<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}{{ end }}<|assistant|>"
            ),
            "System messages are left out: the loop already has them among .Messages.",
        ),
    ),
)
