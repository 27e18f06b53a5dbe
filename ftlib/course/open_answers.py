"""Open requests of the embedded world: the sentences in which they may be answered, and a judge of
what an answer says.

A request of some kind (a portrait of a person, a place, somebody's day, advice for a visit, a
letter to a friend) has very many acceptable answers: some facts, in any order, each in one of
several sentences, with or without an opening and a closing. `data/open_answers.py` draws training
rows with one wording each, and held-out rows with several. The judge reads every sentence back and
asks whether it is one that the kind allows and whether what it states is true. Length earns
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ftlib.evaluation.replies import ReplyVerdict, asks_for_reply, judge_reply

# relation -> the sentences that state it, all of them such as the base model has read. {e} is the
# name, {v} the value, {av} the value with its article.
SENTENCES: dict[str, list[str]] = {
    "town": [
        "{e} lives in {v}.",
        "{e} comes from {v}.",
        "The home of {e} is in {v}.",
        "{v} is where {e} lives.",
        "The home town of {e} is {v}.",
    ],
    "job": [
        "{e} works as {av}.",
        "By trade {e} is {av}.",
        "{e} earns a living as {av}.",
        "The profession of {e} is {v}.",
        "The work {e} does is that of {av}.",
    ],
    "pet": [
        "{e} has {av}.",
        "The pet of {e} is {av}.",
        "{e} keeps {av} at home.",
        "{e} owns {av}.",
        "At the home of {e} there is {av}.",
    ],
    "food": [
        "{e} likes {v}.",
        "{e} loves to eat {v}.",
        "The favourite food of {e} is {v}.",
        "{e} enjoys to eat {v} most.",
        "The dish {e} likes best is {v}.",
    ],
    "hobby": [
        "{e} spends the evenings with {v}.",
        "The hobby of {e} is {v}.",
        "For fun {e} goes in for {v}.",
        "The pastime of {e} is {v}.",
        "In free time {e} enjoys {v}.",
    ],
    "region": [
        "{e} lies in {v}.",
        "{e} is a town in {v}.",
        "The region of {e} is {v}.",
        "{e} belongs to {v}, a part of the country.",
    ],
    "river": [
        "The {v} flows through {e}.",
        "{e} lies on the river {v}.",
        "The river of {e} is the {v}.",
        "They built {e} on the {v}.",
    ],
    "product": [
        "{e} makes {v}.",
        "The best {v} come from {e}.",
        "{e} produces {v}.",
        "The main product of {e} is {v}.",
    ],
    "landmark": [
        "{e} has a famous {v}.",
        "Visitors come to {e} to see the {v}.",
        "The landmark of {e} is the {v}.",
        "The sight of {e} is its {v}.",
    ],
    "mayor": [
        "The mayor of {e} is {v}.",
        "{v} is the mayor of {e}.",
        "{v} governs {e}.",
        "The person in charge of {e} is {v}.",
    ],
}
# kind of request -> what an answer may state
RELATIONS: dict[str, tuple[str, ...]] = {
    "portrait": ("town", "job", "pet", "food", "hobby"),
    "place": ("region", "river", "product", "landmark", "mayor"),
    "day": ("job", "pet", "food", "hobby"),
    "advice": ("town", "pet", "food", "hobby"),
    "letter": ("town", "job", "pet", "hobby"),
}
OPENINGS: dict[str, list[str]] = {
    "portrait": ["I was just thinking about {e}.", "Let us talk about {e}.", "What a person."],
    "place": ["What a lovely town.", "Let us go to {e}.", "It is a fine town."],
    "day": ["What a day it is.", "A fine morning, and {e} is busy.", "The day is never too long."],
    "advice": ["First drink some tea.", "Take a coat.", "Never go there too early."],
    "letter": [
        "Good morning, my friend.",
        "How are you, my friend?",
        "My friend, let me tell you.",
    ],
}
CLOSINGS: dict[str, list[str]] = {
    "portrait": ["How kind of {e}.", "Nice to meet such a person.", "Tell me more later."],
    "place": ["Come by in the morning.", "It rains there too.", "Visitors have a good day there."],
    "day": ["Then {e} is tired.", "Good evening to {e}.", "So the day goes by."],
    "advice": ["Sit down for a while.", "Then have a chat.", "The pleasure is yours."],
    "letter": ["Come by again, my friend.", "Good day to you.", "Tell me about it later."],
}
KINDS = tuple(RELATIONS)
WANTED = 2  # facts that a good answer states, at the least
_PLACES = {r"\{e\}": r"(?P<e>\w+)", r"\{av\}": r"[Aa]n? (?P<v>\w+)", r"\{v\}": r"(?P<v>[\w ]+)"}


def sentence_pattern(form: str) -> re.Pattern:
    """What a sentence of this form looks like, whatever its name and value."""
    source = re.escape(form)
    for place, shape in _PLACES.items():
        source = source.replace(place, shape)
    return re.compile(source)


def _patterns() -> dict[str, list[tuple[str | None, re.Pattern]]]:
    """kind -> (relation, or None for an opening or a closing; pattern) of each of its sentences."""
    out = {}
    for kind, relations in RELATIONS.items():
        found: list[tuple[str | None, re.Pattern]] = []
        for relation in relations:
            for form in SENTENCES[relation]:
                found.append((relation, sentence_pattern(form)))
        for form in OPENINGS[kind] + CLOSINGS[kind]:
            found.append((None, sentence_pattern(form)))
        out[kind] = found
    return out


_PATTERNS = _patterns()


def sentences(text: str) -> list[str]:
    """The text's sentences, each with its full stop or question mark."""
    return [part for part in re.split(r"(?<=[.?!])\s+", text.strip()) if part]


@dataclass(frozen=True)
class Verdict:
    """What the judge found in an answer; each sentence is counted once."""

    right: int  # facts stated as they are, each relation once
    wrong: int  # facts that are not so, or said of somebody else
    repeated: int  # sentences that say a right fact, or an opening, again
    malformed: int  # sentences that the kind does not have
    sentences: int
    copied: bool  # word for word a training row's answer

    @property
    def faults(self) -> int:
        return self.wrong + self.repeated + self.malformed

    @property
    def score(self) -> float:
        """``min(right, 2)/2 · (1 - faults/sentences)``, between 0 and 1; 0 for a copied answer.

        Two facts are enough: further ones earn nothing, and may be wrong. Faults count as a share
        of the sentences, all of them at most, so a long answer is not worse for being long either.
        """
        if self.copied or not self.sentences:
            return 0.0
        return min(self.right, WANTED) / WANTED * max(0.0, 1 - self.faults / self.sentences)


def _reading(kind: str, sentence: str, name: str, facts: dict[str, str]) -> str:
    """ "malformed", "wrong", "" for an opening or a closing, or the relation that is stated right.

    A sentence that can be read in two ways is read in the one that is right.
    """
    reading = "malformed"
    for relation, pattern in _PATTERNS[kind]:
        match = pattern.fullmatch(sentence)
        if match is None:
            continue
        found = match.groupdict()
        of_this_one = found.get("e", name) == name
        if of_this_one and relation is None:
            return ""
        if of_this_one and found.get("v") == facts.get(relation or ""):
            return relation or ""
        reading = "wrong"
    return reading


def _of_reply(reply: ReplyVerdict, copied: bool) -> Verdict:
    """The verdict on a reply to a customer, its faults of style as malformed sentences."""
    return Verdict(
        right=reply.right,
        wrong=reply.wrong,
        repeated=reply.repeated,
        malformed=reply.style,
        sentences=reply.sentences,
        copied=copied,
    )


def judge_answer(text: str, row: dict, copies: Iterable[str] = ()) -> Verdict:
    """The verdict on an answer to an open row: its `kind`, `name` and `truth` are the standard;
    those of a reply to a customer are `judge_reply`'s.

    `copies`: texts of training answers; an answer that is one of them, but for spaces, is copied.
    ValueError for a row that is none of these.
    """
    known = {" ".join(copy.split()) for copy in copies}
    copied = " ".join(text.split()) in known
    if asks_for_reply(row):
        return _of_reply(judge_reply(text, row), copied)
    missing = [key for key in ("kind", "name", "truth") if key not in row]
    if missing or row["kind"] not in RELATIONS:
        raise ValueError(
            f"row {str(row)[:80]!r} is no open row of the embedded world: 'kind' (one of "
            f"{', '.join(KINDS)}), 'name' and 'truth' are needed, as in open_test"
        )
    counts = {"wrong": 0, "repeated": 0, "malformed": 0}
    seen: set[str] = set()
    stated: set[str] = set()
    found = sentences(text)
    for sentence in found:
        reading = _reading(row["kind"], sentence, row["name"], row["truth"])
        if reading in counts:
            counts[reading] += 1
        elif sentence in seen or (reading and reading in stated):
            counts["repeated"] += 1
        elif reading:
            stated.add(reading)
        seen.add(sentence)
    return Verdict(len(stated), sentences=len(found), copied=copied, **counts)


def open_judge(rows: list[dict], training: Iterable[dict] = ()) -> Callable[[str, str, str], float]:
    """A judge for `win_rate(a, b, judge, prompts)`: 1 if the first answer has the higher
    `Verdict.score`, 0 if the second, 0.5 for a tie.

    `rows`: those that are asked, looked up by the text of the request. `training`: rows whose
    answers must not be copied. ValueError for a request that no row makes.
    """
    known = {row["messages"][0]["content"]: row for row in rows}
    copies = [row["messages"][-1]["content"] for row in training]

    def judge(prompt: str, first: str, second: str) -> float:
        if prompt not in known:
            raise ValueError(
                f"prompt={prompt!r} is asked by none of the judge's {len(known)} rows: pass rows "
                "that hold it"
            )
        one = judge_answer(first, known[prompt], copies).score
        two = judge_answer(second, known[prompt], copies).score
        return 0.5 if one == two else float(one > two)

    return judge


def alike_in_length(a: list[str], b: list[str], most: float = 0.2) -> list[int]:
    """The numbers of the pairs of answers whose words differ in number by at most `most` of the
    longer one: a win rate over these alone cannot be won by length.
    """
    if len(a) != len(b) or not 0 <= most < 1:
        raise ValueError(
            f"{len(a)} answers in a, {len(b)} in b, most={most!r}: pass equally many, and a share "
            "from 0 to below 1"
        )
    kept = []
    for i, (one, two) in enumerate(zip(a, b, strict=True)):
        shorter, longer = sorted([len(one.split()), len(two.split())])
        if longer - shorter <= most * longer:
            kept.append(i)
    return kept


def reference_rows(rows: list[dict]) -> list[dict]:
    """A row for each reference answer of each row, for a loss that does not hang on one wording;
    rows without `references` stay as they are.
    """
    out = []
    for row in rows:
        for text in row.get("references", [row["messages"][-1]["content"]]):
            answer = {"role": "assistant", "content": text}
            out.append({**row, "messages": [*row["messages"][:-1], answer], "answer": text})
    return out
