"""Whether an answer keeps what its request asks of its form, judged by rules that run.

In the manner of IFEval (Zhou et al. 2023, arXiv 2311.07911): "in two sentences", "without a comma",
"as JSON with these keys". A constraint is plain JSON, {"kind": one of `KINDS`, …}, with what its
kind takes beside it. Judged strictly, on the answer as it is. The form says nothing of the content:
an answer that keeps every constraint may be nonsense.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ftlib.core.errors import DataError
from ftlib.evaluation.sentences import sentences

Constraint = Mapping[str, Any]
_WORDLIKE = re.compile(r"[^\W_]")
_BULLET = re.compile(r"\s*[-*•]\s+(.*)")
_FENCED = re.compile(r"```(?:json)?\s*\n(.*?)\n?\s*```", re.DOTALL | re.IGNORECASE)
_COMMAS = ",،、，"  # noqa: RUF001
_QUOTES = {'"': '"', "“": "”"}


# --- one function a kind: (the answer, the constraint) -> kept ------------------------------------
def _sentences(answer: str, constraint: Constraint) -> bool:
    return len(sentences(answer)) == constraint["count"]


def _most_words(answer: str, constraint: Constraint) -> bool:
    return _word_count(answer) <= constraint["count"]


def _least_words(answer: str, constraint: Constraint) -> bool:
    return _word_count(answer) >= constraint["count"]


def _use_words(answer: str, constraint: Constraint) -> bool:
    return all(_has_word(answer, word) for word in constraint["words"])


def _avoid_words(answer: str, constraint: Constraint) -> bool:
    return not any(_has_word(answer, word) for word in constraint["words"])


def _bullets(answer: str, constraint: Constraint) -> bool:
    items = []
    for line in answer.splitlines():
        if line.strip():
            items.append(_BULLET.fullmatch(line))
    return len(items) == constraint["count"] and all(
        item is not None and _WORDLIKE.search(item[1]) for item in items
    )


def _paragraphs(answer: str, constraint: Constraint) -> bool:
    parts = re.split(r"\n[^\S\n]*\n", answer)
    return len([part for part in parts if _WORDLIKE.search(part)]) == constraint["count"]


def _lower_case(answer: str, constraint: Constraint) -> bool:
    return any(c.islower() for c in answer) and not any(map(_is_capital, answer))


def _upper_case(answer: str, constraint: Constraint) -> bool:
    return any(c.isupper() for c in answer) and not any(map(_is_small, answer))


def _begin_with(answer: str, constraint: Constraint) -> bool:
    phrase = re.escape(_plain(constraint["phrase"]))
    return bool(re.match(rf"\s*{phrase}{_edge_after(constraint['phrase'])}", answer))


def _end_with(answer: str, constraint: Constraint) -> bool:
    phrase = re.escape(_plain(constraint["phrase"]))
    return bool(re.search(rf"{_edge_before(constraint['phrase'])}{phrase}\s*\Z", answer))


def _json_keys(answer: str, constraint: Constraint) -> bool:
    text = answer.strip()
    fenced = _FENCED.fullmatch(text)
    try:
        pairs = json.loads(
            fenced[1] if fenced else text, object_pairs_hook=_Pairs, parse_constant=_no_constant
        )
    except (ValueError, RecursionError):
        return False
    if not isinstance(pairs, _Pairs):
        return False
    keys = [key for key, _ in pairs]
    is_filled = not any(_is_empty(value) for _, value in pairs)
    return sorted(keys) == sorted(constraint["keys"]) and is_filled


def _no_commas(answer: str, constraint: Constraint) -> bool:
    return not any(comma in answer for comma in _COMMAS)


def _quoted(answer: str, constraint: Constraint) -> bool:
    text = answer.strip()
    opening, inside, closing = text[:1], text[1:-1], text[-1:]
    if len(text) < 2 or _QUOTES.get(opening) != closing:
        return False
    return opening not in inside and closing not in inside


# kind -> (its function, {argument: its type}); a list holds texts, all of them needed.
_RULES: dict[str, tuple[Callable[[str, Constraint], bool], dict[str, type]]] = {
    "sentences": (_sentences, {"count": int}),
    "most_words": (_most_words, {"count": int}),
    "least_words": (_least_words, {"count": int}),
    "use_words": (_use_words, {"words": list}),
    "avoid_words": (_avoid_words, {"words": list}),
    "bullets": (_bullets, {"count": int}),
    "paragraphs": (_paragraphs, {"count": int}),
    "lower_case": (_lower_case, {}),
    "upper_case": (_upper_case, {}),
    "begin_with": (_begin_with, {"phrase": str}),
    "end_with": (_end_with, {"phrase": str}),
    "json_keys": (_json_keys, {"keys": list}),
    "no_commas": (_no_commas, {}),
    "quoted": (_quoted, {}),
}
KINDS = tuple(_RULES)


# --- what is called -------------------------------------------------------------------------------
def constraint_met(answer: str, constraint: Mapping[str, Any]) -> bool:
    """Whether an answer keeps one constraint, {"kind": …} and what the kind takes:

    - sentences, `count`: exactly so many, as `ftlib.evaluation.sentences` counts them;
    - most_words, least_words, `count`: words are what white space separates and has a letter or
      digit in it;
    - use_words, avoid_words, `words`: all of them, or none, as whole words in any case;
    - bullets, `count`: nothing but so many lines that begin with -, * or • and a space (empty lines
      aside);
    - paragraphs, `count`: so many parts with empty lines between them;
    - lower_case, upper_case: letters of the other case nowhere, one of this case at least;
    - begin_with, end_with, `phrase`: letter for letter with its case and punctuation, space before
      and after the answer aside;
    - json_keys, `keys`: one JSON object and nothing else (one fence ``` around it aside), with
      these keys, each once, no others, no empty value;
    - no_commas: none, also none in numbers;
    - quoted: the whole answer in one pair of double quotation marks, and no other inside.

    An answer without any letter or digit keeps no constraint. Letters with accents are compared
    composed (NFC), and a curly apostrophe counts as a straight one. DataError for what is no such
    constraint, or no text.
    """
    if not isinstance(answer, str):
        raise DataError(f"answer={str(answer)[:80]} is a {type(answer).__name__}: give its text")
    check_constraint(constraint)
    judge, _ = _RULES[constraint["kind"]]
    text = _plain(answer)
    return bool(_WORDLIKE.search(text)) and judge(text, constraint)


@dataclass(frozen=True)
class ConstraintsMet:
    """What was kept: for each row one answer for each of its constraints, and their kinds."""

    met: tuple[tuple[bool, ...], ...]
    kinds: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> list[bool]:
        """For each row whether all its constraints are kept."""
        return [all(row) for row in self.met]

    @property
    def each(self) -> list[bool]:
        """For each constraint of each row, in order, whether it is kept."""
        found: list[bool] = []
        for row in self.met:
            found += row
        return found

    def by_kind(self) -> dict[str, list[bool]]:
        """The same by the constraint's kind."""
        found = defaultdict(list)
        for met, kinds in zip(self.met, self.kinds, strict=True):
            for is_met, kind in zip(met, kinds, strict=True):
                found[kind].append(is_met)
        return dict(found)


def constraints_met(answers: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> ConstraintsMet:
    """Which constraints the answers keep, one answer a row, by `constraint_met`. A row counts as
    kept only if all its constraints are.

    rows: {"constraints": a list of constraints}, such as `load_rows("requests_test")` of the
    profile pocket. DataError for a row without them, and where there are not as many answers.
    """
    if len(answers) != len(rows):
        raise DataError(f"{len(answers)} answers for {len(rows)} rows: one per row is needed")
    met = []
    kinds = []
    for i, (answer, row) in enumerate(zip(answers, rows, strict=True)):
        constraints = row.get("constraints")
        if not isinstance(constraints, list) or not constraints:
            raise DataError(f"row {i} has constraints={constraints!r}: a list of them is needed")
        met.append(tuple(constraint_met(answer, constraint) for constraint in constraints))
        kinds.append(tuple(constraint["kind"] for constraint in constraints))
    return ConstraintsMet(tuple(met), tuple(kinds))


def check_constraint(constraint: Any) -> None:
    """DataError unless this is a constraint: which argument is wrong, its value and the fix."""
    kind = constraint.get("kind") if isinstance(constraint, Mapping) else None
    if kind not in KINDS:
        raise DataError(
            f"constraint={str(constraint)[:80]!r} has kind={kind!r}: use one of {', '.join(KINDS)}"
        )
    _, arguments = _RULES[kind]
    for name, wanted in arguments.items():
        if not _is_usable(constraint.get(name), wanted):
            need = {int: "a whole number from 1", str: "a text", list: "a list of texts"}[wanted]
            value = constraint.get(name)
            raise DataError(f"constraint {kind!r} has {name}={value!r}: {need} is needed")
    unknown = set(constraint) - {"kind", *arguments}
    if unknown:
        takes = ", ".join(arguments) or "nothing"
        raise DataError(f"constraint {kind!r} has {sorted(unknown)[0]!r}: it takes {takes}")


def _is_usable(value: Any, wanted: type) -> bool:
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    texts = [value] if wanted is str else value
    if not isinstance(texts, list) or not texts:
        return False
    return all(isinstance(text, str) and text.strip() for text in texts)


# --- texts ----------------------------------------------------------------------------------------
def _plain(text: str) -> str:
    """Accents composed with their letters, apostrophes straight."""
    return unicodedata.normalize("NFC", text).replace("’", "'")


def _is_capital(letter: str) -> bool:
    """Whether a letter is no small one; Lt holds both in one, as in ǅ."""
    return letter.isupper() or unicodedata.category(letter) == "Lt"


def _is_small(letter: str) -> bool:
    return letter.islower() or unicodedata.category(letter) == "Lt"


def _word_count(text: str) -> int:
    return len([word for word in text.split() if _WORDLIKE.search(word)])


def _edge_before(phrase: str) -> str:
    """A pattern for what may stand before the phrase: no part of the same word."""
    return r"(?<!\w)" if re.match(r"\w", phrase) else ""


def _edge_after(phrase: str) -> str:
    return r"(?!\w)" if re.search(r"\w\Z", phrase) else ""


def _has_word(text: str, word: str) -> bool:
    pattern = rf"{_edge_before(word)}{re.escape(_plain(word))}{_edge_after(word)}"
    return bool(re.search(pattern, text, re.IGNORECASE))


class _Pairs(list):
    """The (key, value) pairs of a JSON object, a key that stands there twice included."""


def _is_empty(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == []


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
