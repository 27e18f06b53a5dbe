"""Ollama's Modelfile: written so that Ollama reads back what was meant, and parsed by the same
rules.

`str(modelfile)` and `parse_modelfile` are inverse. The one of an exported model is made by
`make_modelfile`.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, field
from pathlib import Path

# Ollama's parameters, with the type of their value. Those that it calls deprecated (mirostat,
# f16_kv …) or refuses since 0.34 (typical_p) are left out.
PARAMETERS = {
    "num_ctx": int,
    "num_predict": int,
    "num_keep": int,
    "num_batch": int,
    "num_gpu": int,
    "num_thread": int,
    "main_gpu": int,
    "use_mmap": bool,
    "seed": int,
    "temperature": float,
    "top_k": int,
    "top_p": float,
    "min_p": float,
    "repeat_last_n": int,
    "repeat_penalty": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "stop": str,
}
COMMANDS = (
    "FROM",
    "ADAPTER",
    "TEMPLATE",
    "SYSTEM",
    "PARAMETER",
    "LICENSE",
    "MESSAGE",
    "RENDERER",
    "PARSER",
    "REQUIRES",
    "DRAFT",
)
_BARE = re.compile(r'[^"\s]([^\r\n]*\S)?')


class ModelfileError(ValueError):
    """A Modelfile that cannot be written or read, with the reason and the fix."""


@dataclass
class Modelfile:
    """FROM, ADAPTER, TEMPLATE, SYSTEM, PARAMETER by name (`stop` a list), and other instructions as
    (name, text).
    """

    base: str
    adapter: str | None = None
    template: str | None = None
    system: str | None = None
    parameters: dict = field(default_factory=dict)
    others: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"FROM {_quote('FROM', self.base, bare=True)}"]
        if self.adapter is not None:
            lines.append(f"ADAPTER {_quote('ADAPTER', self.adapter, bare=True)}")
        if self.template is not None:
            lines.append(f"TEMPLATE {_quote('TEMPLATE', self.template)}")
        if self.system is not None:
            lines.append(f"SYSTEM {_quote('SYSTEM', self.system)}")
        for name, value in self.parameters.items():
            lines += _parameter_lines(name, value)
        for name, value in self.others:
            lines.append(f"{name} {_quote(name, value, bare=True)}")
        return "\n".join(lines) + "\n"

    def path(self, name: str, folder: Path) -> Path:
        """The file of FROM or ADAPTER, where the Modelfile lies in `folder`."""
        return (folder / Path(name).expanduser()).resolve()


def _parameter_lines(name: str, value) -> list[str]:
    lines = []
    for one in _check_parameter(name, value):
        if isinstance(one, str):
            text = _quote(f"PARAMETER {name}", one)
        else:
            text = str(one).lower().removesuffix(".0")  # 1.0 and 1 are one number to Ollama
        lines.append(f"PARAMETER {name} {text}")
    return lines


def _prints(letter: str) -> bool:
    """Whether Ollama's parser keeps this character."""
    return letter.isprintable() or letter in "\t\r\n"


def _quote(name: str, text: str, bare: bool = False) -> str:
    """`text` as the Modelfile's grammar takes it. There is no escape: a value ends at the first
    line end where its quotes close.
    """
    for position, letter in enumerate(text):
        if not _prints(letter):
            raise ModelfileError(
                f"{name}: Ollama's parser drops U+{ord(letter):04X} (position {position}): "
                "replace it, a no-break space by a plain one, or leave it out"
            )
    if bare and _BARE.fullmatch(text):
        return text
    *within, _ = re.split(r"[\r\n]", text)
    if any(line.rstrip().endswith('"""') for line in within):
        raise ModelfileError(
            f'{name}: a line within the text ends in """, which closes it: put the quotes '
            "elsewhere or use '''"
        )
    if re.search(r'["\r\n]', text):
        return f'"""{text}"""'
    return f'"{text}"'


def _unquote(text: str) -> str | None:
    """The value, or None while its quotes are open."""
    for mark in ('"""', '"'):
        if text.startswith(mark):
            closed = len(text) >= 2 * len(mark) and text.endswith(mark)
            return text[len(mark) : -len(mark)] if closed else None
    return text


def _check_parameter(name: str, value) -> list:
    """The values of a PARAMETER, one a line. ModelfileError for an unknown name or a value of
    another type.
    """
    if name not in PARAMETERS:
        raise ModelfileError(
            f"PARAMETER {name} is unknown to Ollama: use one of {', '.join(PARAMETERS)}"
        )
    kind = PARAMETERS[name]
    is_list = isinstance(value, (list, tuple)) and name == "stop"
    values = list(value) if is_list else [value]
    for one in values:
        if not _fits(one, kind):
            wanted = "a non-empty" if kind is str else "a finite"
            raise ModelfileError(f"PARAMETER {name}: {one!r} is not {wanted} {kind.__name__}")
    return values


def _fits(value, kind: type) -> bool:
    """Whether a value is of the type, in Ollama's sense: an int is a float, a bool no int."""
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, (int, float)) and math.isfinite(value)
    return isinstance(value, kind) and value != ""


def parse_modelfile(source: str | os.PathLike) -> Modelfile:
    """Read a Modelfile, its text as str or its path as Path, as Ollama does: instructions in either
    case, comments only at a line's start, values over several lines in quotes, characters that do
    not print dropped. ModelfileError names the line.
    """
    text = source if isinstance(source, str) else _read(Path(source))
    text = "".join(filter(_prints, text))
    lines = enumerate(re.findall(r"[^\r\n]*[\r\n]|[^\r\n]+", text), 1)
    found: dict = {"parameters": {}, "others": []}
    for number, line in lines:
        line = line.lstrip(" \t")
        if line.startswith("#") or not line.strip():
            continue
        command, value = _first_word(line)
        command = command.strip().upper()
        if command not in COMMANDS:
            raise ModelfileError(
                f"line {number}: {command!r} is no instruction: use one of {', '.join(COMMANDS)}"
            )
        name = None
        if command in ("PARAMETER", "MESSAGE"):
            name, value = _first_word(value.lstrip(" \t"))
        content = _unquote(value.strip())
        while content is None:
            _, more = next(lines, (None, None))
            if more is None:
                raise ModelfileError(f"line {number}: the quotes of {command} are never closed")
            value += more
            content = _unquote(value.strip())
        _store(found, number, command, name, content)
    if "base" not in found:
        raise ModelfileError("there is no FROM line: name the GGUF, such as FROM ./model.gguf")
    return Modelfile(**found)


def _first_word(text: str) -> tuple[str, str]:
    """(the text up to its first blank, what comes after that)."""
    word, *rest = re.split(r"[ \t]", text, maxsplit=1)
    return word, "".join(rest)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelfileError(f"{path} cannot be read ({error})") from None


def _store(found: dict, number: int, command: str, name: str | None, value: str) -> None:
    """Put an instruction's value where `Modelfile` has it."""
    if command == "PARAMETER" and name is not None:
        try:
            typed = _typed(name, value)
        except ModelfileError as error:
            raise ModelfileError(f"line {number}: {error}") from None
        if name == "stop":
            found["parameters"].setdefault("stop", []).append(typed)
        else:
            found["parameters"][name] = typed
    elif command == "FROM":
        found["base"] = value
    elif command in ("ADAPTER", "TEMPLATE", "SYSTEM"):
        found[command.lower()] = value
    else:
        found["others"].append((command if name is None else f"{command} {name}", value))


def _typed(name: str, text: str):
    """A parameter's value of the type that Ollama has for it."""
    kind = PARAMETERS.get(name, str)
    try:
        value = {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ModelfileError(f"PARAMETER {name}: {text!r} is not {kind.__name__}") from None
    [checked] = _check_parameter(name, value)
    return checked
