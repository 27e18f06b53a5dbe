"""The sentences of a text, by rule: for constraints that count them.

No rule is right for every text. This one errs where an abbreviation that it does not know stands
before a capital letter, and in a text that calls something by one letter ("Plan B. We go").
"""

from __future__ import annotations

import re

# Never the end of a sentence: something follows that belongs to it.
BEFORE_A_NAME = ("mr", "mrs", "ms", "dr", "prof", "st", "mt", "e.g", "i.e", "cf", "vs", "approx")
# The end of a sentence where a capital letter follows.
MAY_END = ("etc", "a.m", "p.m", "u.s", "u.k", "inc", "ltd", "co", "no", "jr", "sr", "min", "max")
LONGEST = 40  # letters of the last word that are looked at
_CLOSES = "\"'”’»)]*_"  # what may stand between a mark and the space after it
_CLOSING = re.escape(_CLOSES)
_MARK = re.compile(rf"[.!?…]+[{_CLOSING}]*(?=\s|$)|[。！？]+[{_CLOSING}]*")
_LIST_NUMBER = re.compile(r"\s*\d{1,3}[.]$")
_INITIAL = re.compile(r"(?<!\w)(?!I\.)[A-Z]\.$")
_LAST_WORD = re.compile(r"(?:\w+\.)*\w+(?=\.$)")


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them.

    A sentence ends with `.`, `!`, `?` or `…`, with quotation marks or brackets after it, before
    white space or the end of the text. A line break ends one too, but not after a comma or a colon,
    so that "Dear Ada," is no sentence of its own, and an item of a list is one. No sentence ends
    inside a number (3.5), after a list's number ("1." at the start of a line), an initial
    ("J. Bell"), at an ellipsis or a quotation mark or bracket before a small letter
    ('"No!" she said'), or at an abbreviation: after those of `BEFORE_A_NAME` never, after those of
    `MAY_END` only before a capital letter, after both at the end of a line. What has no letter or
    digit is no sentence.
    """
    found = []
    for line in _joined(text).splitlines():
        found += _of_line(line)
    return [part.strip() for part in found if re.search(r"[^\W_]", part)]


def _joined(text: str) -> str:
    """The text with a line that ends in a comma or a colon joined to the next one."""
    return re.sub(r"([,:])[^\S\n]*\n\s*", r"\1 ", text)


def _of_line(line: str) -> list[str]:
    parts = []
    start = 0
    for mark in _MARK.finditer(line):
        if _is_end(line, mark):
            parts.append(line[start : mark.end()])
            start = mark.end()
    return [*parts, line[start:]]


def _is_end(line: str, mark: re.Match[str]) -> bool:
    """Whether a mark ends a sentence."""
    after = line[mark.end() :].lstrip(" \t\"'“«([*_")
    if not after:
        return True
    is_soft = mark[0][-1] in _CLOSES or mark[0] in ("...", "…")
    if is_soft:
        return not after[0].islower()
    if mark[0] != ".":
        return True
    before = line[: mark.start() + 1]
    if _LIST_NUMBER.fullmatch(before) or _INITIAL.search(before):
        return False
    last = _LAST_WORD.search(before[-LONGEST:])
    word = last[0].lower() if last else ""
    if word in MAY_END:
        return after[0].isupper()
    return word not in BEFORE_A_NAME
