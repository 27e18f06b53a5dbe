"""Text as it should be stored: line ends, invisible characters, spaces. Newlines and code stay as
they are.
"""

from __future__ import annotations

import re
import unicodedata

# Format characters that no reader sees; joiners stay, which scripts and emoji are spelt with.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
_CONTROL = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f]")
_LINE_ENDS = re.compile("\r\n?|\x0b|\x0c|\x85|\u2028|\u2029")
_SPACES = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")
_TRAILING = re.compile("[ \t]+(?=\n|$)")
_BLANK_LINES = re.compile("\n{4,}")


def clean_text(text: str) -> str:
    """The text with one kind of newline and space, composed Unicode (NFC), and nothing invisible.

    Newlines, indentation, tabs and runs of spaces inside a line stay: they are code, tables and
    verse. Spaces at the end of a line, blank lines at both ends and more than two in a row go.
    Cleaning twice is cleaning once. (ftfy's fixes go another way: they keep zero-width, no-break
    and soft-hyphen characters and spaces at the ends of lines, and take form feeds and other line
    ends out where here a newline comes in.)
    """
    text = unicodedata.normalize("NFC", text)
    text = _LINE_ENDS.sub("\n", text)
    text = _SPACES.sub(" ", text)
    text = _INVISIBLE.sub("", text)
    text = _CONTROL.sub("", text)
    # Once more: what lay between a letter and its accent may be gone.
    text = unicodedata.normalize("NFC", text)
    text = _TRAILING.sub("", text)
    text = _BLANK_LINES.sub("\n\n\n", text)
    return text.strip("\n")
