"""Lab 3.1.6, data, exercise 2: cleaning."""

from __future__ import annotations

import re
import unicodedata

from ftlib.course.exercise import Exercise, Wrong


def clean_lines(text: str) -> str:
    """One kind of newline and space, composed Unicode, nothing invisible, no white space at line
    ends; indentation stays.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.replace("\u00a0", " ").replace("\u200b", "").replace("\ufeff", "")
    return re.sub(r"[ \t]+(?=\n|$)", "", text)


def _text_cases(g):
    yield ("def f(x):\n    if x:\n        return 1\n\n    return 2",)
    yield ("Caf\u0065\u0301\r\nau\u00a0lait \rnow  ",)
    yield ("\ufeffone\u200btwo\tthree\n\tindented  wide   gaps",)
    yield ("all:\n\tmake  -j2\t\n",)
    yield ("na\u00efve and plain \u00e9",)
    yield ("x\u00b2 \u2264 \u00bd, \ufb01ve\u2026",)


def _cleaner(
    before=lambda t: t.replace("\r\n", "\n").replace("\r", "\n"),
    form="NFC",
    unseen="\u200b\ufeff",
    after=lambda t: re.sub(r"[ \t]+(?=\n|$)", "", t),
    space=" ",
):
    def clean(text):
        text = unicodedata.normalize(form, before(text)) if form else before(text)
        text = text.replace("\u00a0", space)
        for c in unseen:
            text = text.replace(c, "")
        return after(text)

    return clean


CLEAN = Exercise(
    name="clean_lines",
    title="Clean, and harm no code",
    minutes=10,
    difficulty=2,
    reference=clean_lines,
    cases=_text_cases,
    hints=(
        "Line ends first: `\\r\\n` and a lone `\\r` become `\\n`.",
        '`unicodedata.normalize("NFC", text)` joins a letter and its accent to one character.',
        "A no-break space (\\u00a0) becomes a space; a zero-width space (\\u200b) and a "
        "byte-order mark (\\ufeff) go.",
        'Spaces and tabs before a line break or the end: `re.sub(r"[ \\t]+(?=\\n|$)", "", text)`. '
        "All others stay.",
    ),
    wrong=(
        Wrong(
            "one line",
            lambda text: " ".join(
                unicodedata.normalize("NFC", text)
                .replace("\u200b", "")
                .replace("\ufeff", "")
                .split()
            ),
            "`split()` takes line breaks for spaces: code, lists and verse become one line. "
            "Python without its lines does not run.",
        ),
        Wrong(
            "lines stripped",
            _cleaner(after=lambda t: "\n".join(line.strip() for line in t.split("\n"))),
            "Indentation is gone: strip the right end of a line, not the left. In Python and "
            "Makefiles it is syntax.",
        ),
        Wrong(
            "runs of spaces",
            _cleaner(after=lambda t: re.sub(r" {2,}", " ", re.sub(r"[ \t]+(?=\n|$)", "", t))),
            "Runs of spaces became one, also at the start of a line and in tables: leave what "
            "is inside a line.",
        ),
        Wrong(
            "not composed",
            _cleaner(form=None),
            "An e with a separate accent is two characters, é is one: "
            "without NFC the same word is two words to a tokenizer and to duplicates.",
        ),
        Wrong(
            "taken apart",
            _cleaner(form="NFD"),
            "You took letters and accents apart (NFD): most text, and most tokenizers' training, "
            "has them together (NFC).",
        ),
        Wrong(
            "compatibility forms",
            _cleaner(form="NFKC"),
            "You used NFKC, which also replaces characters by similar ones: x\u00b2 becomes x2. "
            "NFC is asked for: it only joins letters and their accents.",
        ),
        Wrong(
            "invisible left",
            _cleaner(unseen=""),
            "Zero-width spaces and byte-order marks are still there: nobody sees them, but the "
            "tokenizer does.",
        ),
        Wrong(
            "line ends left",
            _cleaner(before=lambda t: t),
            "Carriage returns are left: a model trained on `\\r\\n` writes it.",
        ),
        Wrong(
            "no-break space removed",
            _cleaner(space=""),
            "The no-break space was removed, and its neighbours became one word: it is a kind of "
            "space.",
        ),
    ),
)
