"""Formulas: the notation of ftlib's docstrings to LaTeX, and LaTeX to MathML.

A docstring writes ``-log σ(β·(p̄_c - p̄_r) - γ)``, which a terminal shows as it stands. The site
shows it as a formula. MathML is drawn by the browser itself and read out by screen readers, so the
pages need no script and no network for it.
"""

from __future__ import annotations

import html
import re
import unicodedata

from latex2mathml.converter import convert

# A text between double backticks is a formula if it has one of these, and nothing of Python.
SIGNS = re.compile(
    r"[·σβαγρθφπκεδΔΣ√‖←≤≥×±½²⊙∞Φ]|\b(?:min|max|exp)\(|\u0304|[a-z]\^|\b[A-Za-z]_[a-z]\b"
)
CODE = re.compile(r"[\"`{}#]|(?<!E)\[|(?<! )\||\w=\w|\w=-|\.\w|…|->|[a-z]{2}_\w+\(|:")
CODE_BLOCK = re.compile(r"[\"`{}#]|\w=\w|…|->")
MACRON = "\u0304"
FUNCTIONS = {"log", "exp", "max", "min", "tanh", "ln", "cos", "sin"}
GREEK = re.compile("[α-ω]+")
PRODUCTS = {"BA", "sBA"}  # letters side by side that are factors, and not a word
SYMBOLS = {
    "·": r"\cdot ",
    "−": "-",
    "←": r"\leftarrow ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "×": r"\times ",
    "±": r"\pm ",
    "½": r"\tfrac12 ",
    "∞": r"\infty ",
    "⊙": r"\odot ",
    "‖": r"\|",
    "Σ": r"\sum ",
    "∂": r"\partial ",
    "|": r"\mid ",
    "%": r"\%",
    "²": "^{2}",
    "³": "^{3}",
}
TOKEN = re.compile(
    rf"(?P<word>(?:[^\W\d_Σ½²³]{MACRON}?)+)|(?P<number>\d[\d,.]*(?<=\d))|(?P<space>\s+)|(?P<sign>.)",
    re.S,
)
# A function's name in MathML; what a factor before it ends with; a minus that begins a bracket.
FUNCTION = re.compile(r"<mi>(?:log|exp|tanh|ln|cos|sin)</mi>")
FACTOR_ENDS = ("</mi>", "</mn>", "</msub>", "</msup>", "</mfrac>", "&#x00029;</mo>")
OPENING_MINUS = re.compile(r"(<mo[^>]*>(?:&#x00028;|&#x0003D;|,)</mo>)<mo>(&#x02212;)</mo>")
NOT_APART = re.compile(r"<mo[^>]*>&#x00028;|</|<m[nir][^>]*>[^<]*</m.></msu")  # bracket, end, index
# What the converter leaves as it found it.
LEFT = {r"\lceil": "⌈", r"\rceil": "⌉", r"\_": "_", r"\arg": "arg", r"\{": "{", r"\}": "}"}


def is_formula(text: str, block: bool = False) -> bool:
    """Whether a text between double backticks, or a `block` of its own, is mathematics rather than
    code.
    """
    decomposed = unicodedata.normalize("NFD", text)
    code = CODE_BLOCK if block else CODE
    return bool(SIGNS.search(decomposed)) and not code.search(text)


def to_latex(text: str) -> str:
    """LaTeX of a formula in the notation of the docstrings."""
    return _Reader(unicodedata.normalize("NFD", text)).read()


class _Reader:
    """Goes over the tokens of a formula once."""

    def __init__(self, text: str):
        self.tokens = [(match.lastgroup, match.group()) for match in TOKEN.finditer(text)]
        self.at = 0

    def read(self, closing: str = "") -> str:
        """Up to the closing sign, which is taken too, or to the end."""
        parts = []
        while self.at < len(self.tokens):
            kind, text = self.tokens[self.at]
            self.at += 1
            if kind == "sign" and text == closing:
                break
            parts.append(self._one(kind, text))
        return "".join(parts)

    def _one(self, kind: str, text: str) -> str:
        if kind == "word":
            return self._name(text)
        if kind == "number":
            return text
        if kind == "space" and len(text) > 1:  # between two formulas
            return r"\qquad "
        if kind == "space":
            return r"\ " if self._between_words() else " "
        if text == "√":
            return rf"\sqrt{{{self._operand()}}}"
        if text in "_^":
            return f"{text}{{{self._operand()}}}"
        if text == "(":
            return f"({self.read(')')})"
        return SYMBOLS.get(text, text)

    def _between_words(self) -> bool:
        """Whether the space just read stands between two names, which would run together."""
        if self.at < 2 or self.at >= len(self.tokens):
            return False
        before = self.tokens[self.at - 2]
        after = self.tokens[self.at]
        if before[1] in FUNCTIONS or after[1] in FUNCTIONS:
            return False
        return before[0] in ("word", "number") and after[0] == "word"

    def _next(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "")

    def _name(self, word: str) -> str:
        """A letter is a variable; a longer word is a name, with its own underscores."""
        if word in FUNCTIONS:
            return rf"\{word} "
        if word in PRODUCTS or (_letters(word) > 1 and GREEK.fullmatch(word)):
            return word
        if _letters(word) == 1:
            return rf"\bar{{{word[0]}}}" if MACRON in word else word
        while word.islower() and self._next()[1] == "_":  # ref_logp, but odds_c
            following = self.tokens[self.at + 1][1]
            if _letters(following) == 1:
                break
            self.at += 2
            word += "_" + following
        escaped = word.replace("_", r"\_")
        return rf"\mathrm{{{escaped}}}"

    def _operand(self) -> str:
        """What a root, an index or an exponent is of: a group, or one name or number."""
        kind, text = self._next()
        self.at += 1
        if text == "(":
            inner = self.read(")")
            return inner
        if text == "-":
            return "-" + self._operand()
        if kind == "word":
            short = _letters(text) == 2 and text.islower()
            name = text if short else self._name(text)
            if self._next()[1] == "'":
                self.at += 1
                name += "'"
            return name
        if text == "." and self._next()[0] == "word":  # the mean over an index: d_.j
            return "." + self._operand()
        return SYMBOLS.get(text, text)


def _letters(word: str) -> int:
    return len(word.replace(MACRON, ""))


def to_mathml(latex: str, display: bool = False) -> str:
    """MathML of LaTeX. ValueError where something of it would be shown as its command."""
    given = latex.strip()
    known = given.replace("{aligned}", "{align*}")
    markup = convert(known, display="block" if display else "inline")
    for command, shown in LEFT.items():
        markup = markup.replace(command, shown)
    if "\\" in html.unescape(markup) or "<mi>&</mi>" in markup:
        raise ValueError(f"the formula {given!r} has a command that is not known: {markup}")
    markup = FUNCTION.sub(_with_space, markup)
    return OPENING_MINUS.sub(r'\1<mo form="prefix">\2</mo>', markup)


def _with_space(match: re.Match) -> str:
    """A function's name apart from what it is of, if that has no brackets, and from a factor."""
    space = '<mspace width="0.17em"></mspace>'
    before = match.string[: match.start()]
    after = match.string[match.end() :]
    left = space if before.endswith(FACTOR_ENDS) else ""
    right = "" if NOT_APART.match(after) else space
    return f"<mrow>{left}{match[0]}{right}</mrow>" if left or right else match[0]
