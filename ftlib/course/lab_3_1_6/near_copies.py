"""Copies that differ a little from their original, and what a rule for near duplicates makes of
them: found, missed, and rows accused that ask something else.

The rule's tokens put in ("Please:", "Thanks.") were chosen by looking at the messy file's copies.
So it is judged on kinds of copies that were kept out of that choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from ftlib.course.lab_3_1_6.trials import worded
from ftlib.data.duplicates import CLOSE, SHORT, inserted, jaccard, shingles
from ftlib.data.texts import row_text, tokens

LENGTHS = (1, 2, 3, 4, 5)  # tokens in a shingle
THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(15))  # 0.3 to 1
LONG_QUESTION = 45  # characters, of which the messy file made near copies
ROWS = 600  # clean rows among which no two ask the same
BREAK = "\n\n"  # between a request and the message that it is about
LIKE_WORDS = {
    "turn": "convert",
    "write": "put",
    "give": "show",
    "which": "what",
    "holds": "has",
    "message": "text",
    "keys": "fields",
    "is": "was",
    "please": "kindly",
}


# --- kinds of copies kept out ---------------------------------------------------------------------
def _greeting(question: str) -> str:
    return f"Hello! {question}"


def _hurry(question: str) -> str:
    return f"{question} I need it today."


def _quoted(question: str) -> str:
    return f'"{question}"'


def _without_mark(question: str) -> str:
    return question.rstrip(".?!").lower()


def _short_word_dropped(question: str) -> str:
    return re.sub(r" (the|of|a|is|in|to|does) ", " ", question, count=1)


def _letters_swapped(question: str) -> str:
    """The two letters in the middle of the longest word, in each other's place."""
    longest = max(re.findall(r"\w+", question), key=len)
    middle = len(longest) // 2
    swapped = longest[: middle - 1] + longest[middle] + longest[middle - 1] + longest[middle + 1 :]
    return question.replace(longest, swapped, 1)


def _message_first(question: str) -> str:
    """What is asked for behind the message."""
    request, _, message = question.partition(BREAK)
    return f"{message}{BREAK}{request}" if message else question


def _asked_otherwise(question: str) -> str:
    """The same message with a short request before it."""
    _, _, message = question.partition(BREAK)
    return f"Read this and answer in JSON.{BREAK}{message}" if message else question


def _words_replaced(question: str) -> str:
    """Some words of the request, and a few of the message, by words of like meaning."""
    return re.sub(r"\w+", lambda found: LIKE_WORDS.get(found[0].lower(), found[0]), question)


Kinds = Mapping[str, Callable[[str], str]]
KEPT_OUT: Kinds = {
    "greeting": _greeting,
    "sentence more": _hurry,
    "in quotes": _quoted,
    "no mark": _without_mark,
    "word dropped": _short_word_dropped,
    "letters swapped": _letters_swapped,
}
# Long rows, of which the changes above are a small part: here the request is another.
KEPT_OUT_OF_LONG: Kinds = {
    **KEPT_OUT,
    "message first": _message_first,
    "words replaced": _words_replaced,
    "other request": _asked_otherwise,
}


def _with_question(row: dict, question: str) -> dict:
    asked, *rest = row["messages"]
    return {**row, "messages": [{**asked, "content": question}, *rest]}


def copies_kept_out(rows: Sequence[dict], kinds: Kinds = KEPT_OUT) -> list[tuple[str, dict, dict]]:
    """(kind, the copy, its original): every row in every kind that changes its question."""
    made = []
    for row in rows:
        asked = row["messages"][0]["content"]
        for kind, change in kinds.items():
            question = change(asked)
            if question != asked:
                made.append((kind, _with_question(row, question), row))
    return made


def copies_of_short(rows: Sequence[dict]) -> list[tuple[dict, dict]]:
    """(copy, original) in the ways that the messy file uses, the ways in turn, of questions that it
    found too short to copy.
    """
    made = []
    for i, row in enumerate(rows):
        asked = row["messages"][0]["content"]
        if len(asked) < LONG_QUESTION:
            made.append((_with_question(row, worded(asked, 1 + i % 3)), row))
    return made


# --- what a rule sees of a pair -------------------------------------------------------------------
@dataclass(frozen=True)
class Pairs:
    """Pairs of texts: Jaccard similarity by length of the shingles, (lengths, pairs); tokens that
    one has more where it is the other with tokens put in, else -1, (pairs,).
    """

    similarity: np.ndarray
    more: np.ndarray

    def called_copies(self, length: int, threshold: float, insertions: int) -> np.ndarray:
        """Which pairs the rule calls copies, (pairs,) of bool, as `NearDuplicates` decides."""
        similarity = self.similarity[LENGTHS.index(length)]
        is_longer_copy = (self.more >= 0) & (self.more <= insertions) & (similarity >= CLOSE)
        if not insertions:
            return similarity >= threshold
        return (similarity >= threshold) | is_longer_copy


def _more(a: list[str], b: list[str]) -> int:
    if min(len(a), len(b)) < SHORT:
        return -1
    count = inserted(a, b)
    return -1 if count is None else count


def pairs_of(texts: Sequence[tuple[list[str], list[str]]]) -> Pairs:
    """The pairs of these token lists."""
    similarity = np.zeros((len(LENGTHS), len(texts)))
    more: np.ndarray = np.zeros(len(texts), dtype=int)
    for i, (a, b) in enumerate(texts):
        more[i] = _more(a, b)
        for k, length in enumerate(LENGTHS):
            similarity[k, i] = jaccard(shingles(a, length), shingles(b, length))
    return Pairs(similarity, more)


def _similarities(texts: list[list[str]], length: int) -> np.ndarray:
    """Jaccard similarity of every text to every other, (texts, texts)."""
    columns: dict[str, int] = {}
    places = []
    starts = [0]
    for text in texts:
        found = sorted(shingles(text, length))
        places += [columns.setdefault(piece, len(columns)) for piece in found]
        starts.append(len(places))
    ones: np.ndarray = np.ones(len(places), dtype=np.float32)
    holds = csr_matrix((ones, places, starts), shape=(len(texts), len(columns)))
    both = (holds @ holds.T).toarray()  # shingles in common
    sizes: np.ndarray = np.diff(starts)
    return both / (sizes[:, None] + sizes[None, :] - both)


@dataclass(frozen=True)
class Likeness:
    """What rules of any settings make of planted copies, of the same questions copied in other
    ways, of shorter questions copied in the planted ways, and of rows no two of which ask the same.
    """

    planted: Pairs
    short: Pairs
    kept_out: Pairs
    kinds: tuple[str, ...]  # of the copies kept out
    strangers: Pairs  # pairs of different rows that some rule may take for copies
    later: np.ndarray  # the later row of each of these pairs
    rows: int

    def found(self, length: int, threshold: float, insertions: int) -> dict[str, np.ndarray]:
        """Which copies are found: "planted", "short questions", and by kind those kept out."""
        settings = (length, threshold, insertions)
        found = {
            "planted": self.planted.called_copies(*settings),
            "short questions": self.short.called_copies(*settings),
        }
        hits = self.kept_out.called_copies(*settings)
        for kind in dict.fromkeys(self.kinds):
            found[kind] = hits[np.array(self.kinds) == kind]
        return found

    def shares(self, length: int, threshold: float, insertions: int) -> tuple[float, float, float]:
        """(planted copies found, copies kept out found, rows accused wrongly)."""
        settings = (length, threshold, insertions)
        planted = self.planted.called_copies(*settings).mean()
        kept_out = self.kept_out.called_copies(*settings).mean()
        return float(planted), float(kept_out), self.accused(*settings) / self.rows

    def accused(self, length: int, threshold: float, insertions: int) -> int:
        """How many rows would be dropped as copies of an earlier one, and ask something else."""
        called = self.strangers.called_copies(length, threshold, insertions)
        return len(np.unique(self.later[called]))


def measure_likeness(
    clean: Sequence[dict],
    planted: Sequence[tuple[dict, dict]],
    count: int = ROWS,
    kinds: Kinds = KEPT_OUT,
) -> Likeness:
    """Measure on (copy, original) pairs, on copies of the originals in other `kinds`, and on the
    first `count` of rows that all ask something else.
    """
    made = copies_kept_out([original for _, original in planted], kinds)
    texts = [tokens(row_text(row)) for row in clean[:count]]
    candidates: np.ndarray = np.zeros((len(texts), len(texts)), dtype=bool)
    for length in LENGTHS:
        candidates |= _similarities(texts, length) >= THRESHOLDS[0]
    later, earlier = np.nonzero(np.tril(candidates, k=-1))
    strangers = [(texts[i], texts[j]) for i, j in zip(later, earlier, strict=True)]
    return Likeness(
        planted=pairs_of([texts_of(copy, original) for copy, original in planted]),
        short=pairs_of(
            [texts_of(copy, original) for copy, original in copies_of_short(clean[:count])]
        ),
        kept_out=pairs_of([texts_of(copy, original) for _, copy, original in made]),
        kinds=tuple(kind for kind, _, _ in made),
        strangers=pairs_of(strangers),
        later=later,
        rows=len(texts),
    )


def texts_of(copy: dict, original: dict) -> tuple[list[str], list[str]]:
    """The tokens of both."""
    return tokens(row_text(copy)), tokens(row_text(original))
