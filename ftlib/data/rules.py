"""Rules for rows: each has a name, and gives a reason to drop the row, or the changed row with
counts, or None to leave it.

A rule is called with a row; any function `rule(row)` will do. Filters judge by form, with limits
that leave odd but good rows alone; code is out of their reach where it is fenced, `inline` or
indented, and mostly where it is not.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from ftfy.badness import BADNESS_RE

from ftlib.core.errors import DataError
from ftlib.data.clean import clean_text
from ftlib.data.pii import PII, mask_pii
from ftlib.data.texts import (
    map_texts,
    outside_code,
    prose,
    row_answers,
    row_text,
    text_length,
    tokens,
    words,
)

# --- changes --------------------------------------------------------------------------------------
_NAMES = (
    "a|abbr|article|aside|b|big|blockquote|body|br|button|caption|center|cite|code|dd|del|div|dl|"
    "dt|em|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|"
    "kbd|label|li|link|main|mark|meta|nav|noscript|ol|option|p|pre|s|samp|section|select|small|"
    "span|strike|strong|style|sub|sup|table|tbody|td|tfoot|th|thead|tr|tt|u|ul|var"
)
_ATTRIBUTES = (
    r"""(?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+)"""
    r"|\s+(?:hidden|disabled|checked|selected|async|defer))*\s*/?"
)
_TAG = re.compile(rf"</?(?:{_NAMES}){_ATTRIBUTES}>", re.IGNORECASE)
_UNSEEN = re.compile(
    r"<!--.*?-->|<!doctype[^>]*>|<(script|style)\b[^>]*>.*?</\1\s*>", re.DOTALL | re.IGNORECASE
)
_BREAK = re.compile(
    r"<br\s*/?>|</(?:p|div|li|tr|h[1-6]|blockquote|section|article|table|ul|ol)\s*>", re.IGNORECASE
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_MARKUP_TALK = re.compile(
    r"\b(?:x?html5?|xml|svg|css|markup|tags?|entit(?:y|ies)|jsx|dom|beautifulsoup|web ?page)\b",
    re.IGNORECASE,
)


def _character(entity: re.Match) -> str:
    """The character that an entity names."""
    return html.unescape(entity[0])


def _strip_once(text: str) -> str:
    text = _UNSEEN.sub("", text)
    text = _BREAK.sub("\n", text)
    text = _TAG.sub("", text)
    return _ENTITY.sub(_character, text)


def strip_html(text: str) -> str:
    """The text without HTML's tags, comments and scripts, entities as characters; `</p>`, `<br>`
    and the like break the line.

    Code stays as it is, and so does a text that speaks of markup. Stripping twice is stripping
    once: what an entity hid is a tag too.
    """
    if _MARKUP_TALK.search(prose(text)):
        return text
    while "<" in text or "&" in text:
        new = outside_code(text, _strip_once)
        if new == text:
            break
        text = clean_text(new)
    return text


def _changed(row: dict, change: Callable[[str], str]) -> tuple[dict, Counter] | None:
    """The row with its texts changed, and no counts of its own; None where nothing changes."""
    new = map_texts(row, change)
    if new is row:
        return None
    return new, Counter()


@dataclass(frozen=True)
class Clean:
    """`clean_text` on every text of a row."""

    name: str = "clean"

    def __call__(self, row: dict):
        return _changed(row, clean_text)


@dataclass(frozen=True)
class Html:
    """`strip_html` on every text of a row that does not speak of markup anywhere."""

    name: str = "html"

    def __call__(self, row: dict):
        if _MARKUP_TALK.search(prose(row_text(row))):
            return None
        return _changed(row, strip_html)


@dataclass(frozen=True)
class MaskPii:
    """`mask_pii` on every text of a row; counts by kind."""

    kinds: tuple[str, ...] = tuple(PII)
    name: str = "pii"

    def __call__(self, row: dict):
        counts: Counter = Counter()

        def mask(text: str) -> str:
            masked, found = mask_pii(text, self.kinds)
            counts.update(found)
            return masked

        new = map_texts(row, mask)
        if not counts:
            return None
        return new, counts


# --- language and length --------------------------------------------------------------------------
AMONG = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "nl", "pl", "pt", "ru", "tr", "zh")


@lru_cache(maxsize=4)
def _identifier(among: tuple[str, ...]):
    """py3langid's identifier, restricted to these languages."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(among)
    return identifier


@dataclass(frozen=True)
class Language:
    """Drops a row whose prose is in none of the languages `allowed` with a probability of
    `confidence` or more (py3langid).

    The probability is among the languages in `among`, which is surer than among all 139. Less than
    `min_chars` of letters and spaces are not judged: "Give me 1 plus 7." reads as French. A row of
    two languages counts as the one there is more of.
    """

    allowed: tuple[str, ...] = ("en",)
    among: tuple[str, ...] = AMONG
    min_chars: int = 30
    confidence: float = 0.9
    name: str = "language"

    def __post_init__(self):
        if isinstance(self.allowed, str) or not set(self.allowed) <= set(self.among):
            raise DataError(
                f"allowed={self.allowed!r}: a tuple of codes that are in among={self.among!r}"
            )
        try:
            _identifier(self.among)
        except ValueError as error:
            raise DataError(f"among={self.among!r}: {error}") from None

    def __call__(self, row: dict) -> str | None:
        text = _letters(prose(row_text(row)))
        if len(text) < self.min_chars:
            return None
        language, probability = _identifier(self.among).classify(text)
        if language in self.allowed or probability < self.confidence:
            return None
        return f"{language} ({probability:.2f})"


def _letters(text: str) -> str:
    """The text's letters, apostrophes and hyphens, one space for all that is between."""
    kept = [c if c.isalpha() or c in "'’-" else " " for c in text]
    return " ".join("".join(kept).split())


@dataclass(frozen=True)
class Length:
    """Drops a row of fewer than `minimum` or more than `maximum` characters, or tokens if a
    tokenizer is given, in all its texts.
    """

    minimum: int = 1
    maximum: int = 20_000
    tokenizer: object = None
    name: str = "length"

    def __post_init__(self):
        if not 0 <= self.minimum <= self.maximum:
            raise DataError(
                f"minimum={self.minimum}, maximum={self.maximum}: 0 ≤ minimum ≤ maximum is needed"
            )

    def __call__(self, row: dict) -> str | None:
        size = text_length(row_text(row), self.tokenizer)
        unit = "characters" if self.tokenizer is None else "tokens"
        if size < self.minimum:
            return f"{size} {unit}, fewer than {self.minimum}"
        if size > self.maximum:
            return f"{size} {unit}, more than {self.maximum}"
        return None


# --- quality: of what training would teach --------------------------------------------------------
_BOILERPLATE = re.compile(
    r"\bas an? (?:large |artificial )?(?:ai|intelligence|language)\b"
    r"(?:[- ](?:language|powered))?(?: model| assistant|,)"
    r"|\bi(?:'|’)?m (?:just )?an? (?:ai|large) language model\b"
    r"|\bi am an? (?:ai|large) language model\b"
    r"|\bmy (?:knowledge cutoff|training data (?:only )?goes)\b"
    r"|\bi(?:'|’| a)m sorry,? but i "
    r"(?:can(?:no|')?t|can’t|am (?:not able|unable)|(?:'|’)?m (?:not able|unable))\b"
    r"|\bi(?: am|'m|’m) (?:not able|unable) to (?:assist|help|fulfil|provide|browse|access)\b"
    r"|\bi can(?:no|'|’)t (?:assist|help|comply|fulfil)\w* (?:you )?with\b",
    re.IGNORECASE,
)
_LOST_CHARACTER = re.compile("\ufffd")
_FENCE = re.compile(r"(?m)^\s*```")
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)]*\s")
_NO_END = re.compile(r"[\w,;(-]$")
_LIST_LINE = re.compile(r"\s*(?:[-*•|#>]|\d+[.)])")
_SAME_LETTER = re.compile(r"([^\W\d_])\1{29,}")
_SET_WITH = "()[]{}\"'.,:;"


def has_answer(row: dict) -> str | None:
    """Drops a row that teaches nothing: no answer in messages, or an empty one. Pretraining text
    needs none.
    """
    if "text" in row and not row["text"].strip():
        return "empty text"
    answers = row_answers(row)
    for i, (_, answer) in enumerate(answers):
        if not answer.strip():
            return f"answer {i} is empty"
    if "messages" in row and not answers:
        return "no answer"
    return None


def echo(row: dict) -> str | None:
    """Drops a row whose answer is the question again, or begins with a question of five words or
    more.
    """
    for question, answer in row_answers(row):
        asked = words(question)
        said = words(answer)
        is_same = asked == said
        begins_with_it = len(asked) >= 5 and said[: len(asked)] == asked
        if asked and (is_same or begins_with_it):
            return "the answer repeats the question"
    return None


def boilerplate(row: dict) -> str | None:
    """Drops refusals and talk of being a model: "As an AI language model", "I'm sorry, but I
    can't".
    """
    for _, answer in row_answers(row):
        found = _BOILERPLATE.search(prose(answer))
        if found:
            return f"the answer says {found[0]!r}"
    return None


def truncated(row: dict) -> str | None:
    """Drops an answer that stops in mid-sentence, or in a fenced block of code.

    In mid-sentence: some sentence before has an end, and the last line has eight words or more, is
    no list item, and ends in a letter, a digit or a comma. Answers without sentences, lists,
    tables, indented code and signatures are left alone.
    """
    for _, answer in row_answers(row):
        if len(_FENCE.findall(answer)) % 2:
            return "the answer ends inside a block of code"
        text = answer.rstrip()
        last_line = text.rpartition("\n")[2]
        has_sentences = _SENTENCE_END.search(text) is not None
        if has_sentences and _stops_early(last_line):
            return f"the answer stops after {last_line[-30:]!r}"
    return None


def _stops_early(line: str) -> bool:
    """Whether a last line is prose of some length without an end."""
    is_code = line.startswith(("    ", "\t")) or "`" in line
    if is_code or _LIST_LINE.match(line):
        return False
    return len(line.split()) >= 8 and _NO_END.search(line) is not None


def html_left(row: dict) -> str | None:
    """Drops a row with tags or entities in its prose, if it does not speak of markup. After `Html`
    there should be none.
    """
    text = prose(row_text(row))
    if _MARKUP_TALK.search(text):
        return None
    for pattern in (_TAG, _UNSEEN, _ENTITY):
        found = pattern.search(text)
        if found:
            return f"HTML {found[0][:40]!r}"
    return None


def broken_encoding(row: dict) -> str | None:
    """Drops text that was read in another encoding than it was written in, such as UTF-8 in Latin-1
    or cp1252 ("Ã©" for é, "â€™" for ’), by ftfy's sequences that no language has; and the mark of a
    lost character (U+FFFD).

    Such text is dropped, not repaired: where it is what a row speaks of, the repair would be wrong.
    """
    text = row_text(row)
    if text.isascii():  # as most English is; nothing to look for, and soon said
        return None
    found = _LOST_CHARACTER.search(text) or BADNESS_RE.search(text)
    if not found:
        return None
    return f"broken encoding {found[0]!r}"


@dataclass(frozen=True)
class Repetition:
    """Drops an answer whose prose repeats itself: more than `limit` of its runs of four tokens
    occur before, or a letter 30 times in a row.

    A share of repeated n-grams is a filter of Gopher (Rae et al. 2021, appendix A1). Fewer than 20
    tokens are not judged.
    """

    limit: float = 0.5
    name: str = "repetition"

    def __call__(self, row: dict) -> str | None:
        for _, answer in row_answers(row):
            text = prose(answer)
            letters = _SAME_LETTER.search(text)
            if letters:
                return f"{letters[1]!r} {len(letters[0])} times in a row"
            said = tokens(text)
            if len(said) < 20:
                continue
            runs = [tuple(said[start : start + 4]) for start in range(len(said) - 3)]
            share = 1 - len(set(runs)) / len(runs)
            if share > self.limit:
                return f"{share:.0%} of the answer's runs of four tokens repeat"
        return None


@dataclass(frozen=True)
class Symbols:
    """Drops an answer of which, spaces aside, more than `limit` are symbols: neither letters or
    digits nor the quotes, brackets, stops and commas that prose and code are set with. Fewer than
    `min_chars` are not judged.
    """

    limit: float = 0.6
    min_chars: int = 20
    name: str = "symbols"

    def __call__(self, row: dict) -> str | None:
        for _, answer in row_answers(row):
            seen = [c for c in prose(answer) if not c.isspace()]
            symbols = [c for c in seen if _is_symbol(c)]
            share = len(symbols) / max(1, len(seen))
            if len(seen) >= self.min_chars and share > self.limit:
                return f"{share:.0%} of the answer are symbols"
        return None


def _is_symbol(character: str) -> bool:
    """Whether a character is neither a letter, a digit nor one that prose and code are set with."""
    is_mark = unicodedata.category(character).startswith("M")  # vowel signs, accents
    return not character.isalnum() and not is_mark and character not in _SET_WITH


QUALITY = (
    has_answer,
    echo,
    boilerplate,
    truncated,
    html_left,
    broken_encoding,
    Repetition(),
    Symbols(),
)
