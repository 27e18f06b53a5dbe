"""Chat templates for Ollama: its TEMPLATE is a Go template, a tokenizer's is Jinja. They must give
the same text.

No family is known by name. A format is learnt by what its Jinja writes around marked contents, put
into Go, and taken only if a thousand random conversations come out equal. A start-of-text token
that the runtime adds (`tokenizer.ggml.add_bos_token`) is not in these templates: no model was
trained on two.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError as JinjaError

from ftlib.export.chat_format import ChatFormat, chat_format, render_jinja
from ftlib.export.errors import TemplateError
from ftlib.export.go_render import render_go

log = logging.getLogger(__name__)

WORLD = "{{ range .Messages }}<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>"
CHATML = (
    "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n"
)
PROVEN_ON = 1000  # random conversations
MARK = "qz{}zq"
ROLES = ("system", "user", "assistant")
# Pieces of contents: quotes, braces of both languages, line breaks inside, scripts, digits.
WORDS = (
    "Where is it?",
    "Où est-ce ?",
    "日本語で",
    '{"a": [1, 2]}',
    "{{ .Role }}",
    "{% set x = 1 %}",
    'it\'s "so"',
    "first\n\n  second",
    "\ttab",
    "3.14159",
    "🙂",
    "system",
    "assistant:",
    "\\n",
)
_FIX = "write one, compare it by render_go(template, messages), and pass it as template="


@dataclass(frozen=True)
class Turns:
    """The texts of a chat format: before and after the content of each role's turn, before the
    first turn where there is no system message, and what opens the answer.
    """

    head: str
    system: tuple[str, str] | None  # None where the Jinja refuses a system message
    user: tuple[str, str]
    assistant: tuple[str, str]
    opening: str
    in_user: bool = False  # the system message stands in the first user's turn


def go_template(source: Any) -> str:
    """The Go template that gives the same prompts as the Jinja of `source`, a tokenizer or a GGUF's
    path.

    What the Jinja writes around marked contents, with and without a system message, is put into
    Go, and taken if it gives the Jinja's text for a thousand random conversations of one to seven
    turns. Contents have no outer white space there: where the Jinja trims them (Llama 3), Ollama
    does not, which is said. A date that the Jinja takes from the clock is frozen. Where the Jinja
    writes a system message only at the beginning, Go writes every one there. TemplateError where no
    Go template was found, with the first text that differs.
    """
    form = chat_format(source)
    if not form.jinja:
        raise TemplateError(
            "there is no chat template: use the -Instruct tokenizer or set tokenizer.chat_template"
        )
    try:
        turns = _learnt(form)
    except JinjaError as error:
        raise TemplateError(
            f"the chat template refuses a plain conversation ({error}): {_FIX}"
        ) from None
    different = ""
    for make, system in _ways(turns):
        template = make(turns)
        found = _first_difference(form, template, _conversations(system))
        if not found:
            _say_what_differs(form, turns)
            return template
        different = different or found
    raise TemplateError(f"no Go template was found for this chat template: {different}; {_FIX}")


# --- learning a format ----------------------------------------------------------------------------
def _pieces(form: ChatFormat, roles: Iterable[str], answer: bool = True) -> list[str]:
    """What stands before, between and after the contents of a conversation of these roles."""
    roles = list(roles)
    marks = [MARK.format(i) for i in range(len(roles))]
    messages = [{"role": role, "content": m} for role, m in zip(roles, marks, strict=True)]
    text = render_jinja(form, messages, answer)
    pieces = []
    for role, mark in zip(roles, marks, strict=True):
        before, found, text = text.partition(mark)
        if not found or mark in text:
            raise TemplateError(
                f"the chat template does not write the content of the {role}'s turn once and in "
                f"its place: {_FIX}"
            )
        pieces.append(before)
    return [*pieces, text]


def _learnt(form: ChatFormat) -> Turns:
    """The texts around each role's contents."""
    first, last = _pieces(form, ["user"])
    _, to_answer, to_user, _ = _pieces(form, ["user", "assistant", "user"])
    after_user = _pieces(form, ["user"], answer=False)[-1]
    if not (to_answer.startswith(after_user) and last.startswith(after_user)):
        after_user = _common_prefix(to_answer, last)
    after_answer = _pieces(form, ["user", "assistant"], answer=False)[-1]
    before_user = to_user.removeprefix(after_answer)
    if not (to_user.startswith(after_answer) and first.endswith(before_user)):
        before_user = _common_suffix(first, to_user)
        after_answer = to_user.removesuffix(before_user)
    head = first.removesuffix(before_user)
    system, in_user = _learnt_system(form, before_user)
    return Turns(
        head=head,
        system=system,
        user=(before_user, after_user),
        assistant=(to_answer.removeprefix(after_user), after_answer),
        opening=last.removeprefix(after_user),
        in_user=in_user,
    )


def _learnt_system(form: ChatFormat, before_user: str) -> tuple[tuple[str, str] | None, bool]:
    """(the texts around a system message or None, whether it stands in the first user's turn)."""
    try:
        before, between, _ = _pieces(form, ["system", "user"])
    except (JinjaError, TemplateError):
        return None, False
    if between.endswith(before_user):
        return (before, between.removesuffix(before_user)), False
    return (before, between), True


def _common_prefix(a: str, b: str) -> str:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return a[:length]


def _common_suffix(a: str, b: str) -> str:
    return _common_prefix(a[::-1], b[::-1])[::-1]


# --- writing it in Go -----------------------------------------------------------------------------
def _ways(turns: Turns) -> list[tuple[Callable[[Turns], str], str]]:
    """(what writes the Go template, where system messages may stand in conversations of its
    proof).
    """
    if turns.system is None:
        return [(_without_system, "nowhere")]
    if turns.in_user:
        return [(_system_in_user, "first")]
    return [
        (_system_in_place, "anywhere"),
        (_system_in_place, "after a first"),
        (_system_first, "first"),
    ]


def _system_in_place(turns: Turns) -> str:
    """Every system message is a turn like the others."""
    head = f'{{{{ if eq .System "" }}}}{turns.head}{{{{ end }}}}' if turns.head else ""
    return head + _range(turns, ROLES) + turns.opening


def _system_first(turns: Turns) -> str:
    """All system messages stand at the beginning."""
    return _head(turns) + _range(turns, ROLES[1:]) + turns.opening


def _system_in_user(turns: Turns) -> str:
    """As `_system_first`, and the first user's turn has been opened before the system message. With
    one, `.Messages` begins with it, so that the user's is the message of index 1.
    """
    before, after = turns.user
    opened = f"{{{{ if ne $i 1 }}}}{before}{{{{ end }}}}"
    user = f'{{{{ if eq .Role "user" }}}}{opened}{{{{ .Content }}}}{after}'
    before, after = turns.assistant
    answer = f'{{{{ else if eq .Role "assistant" }}}}{before}{{{{ .Content }}}}{after}'
    loop = f"{{{{ range $i, $m := .Messages }}}}{user}{answer}{{{{ end }}}}{{{{ end }}}}"
    return _head(turns) + loop + turns.opening


def _without_system(turns: Turns) -> str:
    return turns.head + _range(turns, ROLES[1:]) + turns.opening


def _head(turns: Turns) -> str:
    """What stands before the first turn, with the system message if there is one."""
    assert turns.system is not None
    before, after = turns.system
    with_system = f"{before}{{{{ .System }}}}{after}"
    if turns.head == before + after:
        return with_system
    other = f"{{{{ else }}}}{turns.head}" if turns.head else ""
    return f"{{{{ if .System }}}}{with_system}{other}{{{{ end }}}}"


def _range(turns: Turns, roles: Iterable[str]) -> str:
    """The loop over the messages of these roles: one text with `{{ .Role }}` where the turns differ
    in the role's name alone, else a branch a role.
    """
    around: dict[str, tuple[str, str]] = {role: getattr(turns, role) for role in roles}
    alike = set()
    for role, (before, after) in around.items():
        alike.add((before.replace(role, "{{ .Role }}", 1), after))
    if len(alike) == 1:
        before, after = alike.pop()
        turn = f"{before}{{{{ .Content }}}}{after}"
        if "system" not in around:
            turn = f'{{{{ if ne .Role "system" }}}}{turn}{{{{ end }}}}'
        return f"{{{{ range .Messages }}}}{turn}{{{{ end }}}}"
    branches = []
    for role, (before, after) in around.items():
        branches.append(f'if eq .Role "{role}" }}}}{before}{{{{ .Content }}}}{after}')
    chain = "{{ " + "{{ else ".join(branches) + "{{ end }}"
    return f"{{{{ range .Messages }}}}{chain}{{{{ end }}}}"


# --- the proof ------------------------------------------------------------------------------------
def _conversations(system: str) -> list[list[dict]]:
    """Random conversations, the same ones each time, of one to seven turns of user and assistant,
    the user last. System messages stand "nowhere"; "first", in half of them; also before some later
    turns, but only where one stands "after a first"; or "anywhere".
    """
    drawn = random.Random(0)
    conversations = []
    for _ in range(PROVEN_ON):
        messages = []
        if system != "nowhere" and drawn.random() < 0.5:
            messages.append({"role": "system", "content": _content(drawn)})
        later = system == "anywhere" or (system == "after a first" and bool(messages))
        for i in range(drawn.choice((1, 3, 5, 7))):
            before_a_question = i > 0 and i % 2 == 0
            if later and before_a_question and drawn.random() < 0.2:
                messages.append({"role": "system", "content": _content(drawn)})
            messages.append({"role": ROLES[1 + i % 2], "content": _content(drawn)})
        conversations.append(messages)
    return conversations


def _content(drawn: random.Random) -> str:
    words = drawn.choices(WORDS, k=drawn.randint(1, 4))
    return drawn.choice((" ", "\n", ", ")).join(words).strip()


def _first_difference(form: ChatFormat, template: str, conversations: list[list[dict]]) -> str:
    """Where Jinja and Go give different texts, in words; empty where they never do. A conversation
    that the Jinja refuses is left out: nothing is trained on it.
    """
    for messages in conversations:
        try:
            wanted = render_jinja(form, messages)
        except JinjaError:
            continue
        given = render_go(template, messages)
        if given != wanted:
            at = len(_common_prefix(given, wanted))
            return (
                f"it writes {wanted[max(0, at - 20) : at + 40]!r}, where Go gives "
                f"{given[max(0, at - 20) : at + 40]!r}"
            )
    return ""


def _say_what_differs(form: ChatFormat, turns: Turns) -> None:
    """What a user of the Go template should know of: a frozen date, white space, no system."""
    if "strftime_now" in (form.jinja or ""):
        log.info("the chat template asks the clock: in TEMPLATE the date is frozen at today's")
    spaced = render_jinja(form, [{"role": "user", "content": f" {MARK} "}])
    if f" {MARK} " not in spaced:
        log.info("the chat template trims white space around contents, Ollama does not")
    if turns.system is None:
        log.warning("the chat template takes no system message: Ollama leaves one out")
