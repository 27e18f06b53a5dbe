"""A language model as judge of two answers, by what it finds likely: its knowledge without a bias
of form, or with a bias that is planted, or with one that the way of scoring brings.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ftlib.core.profiles import Profile, get_profile
from ftlib.course.records.kit import rows_of, study_base
from ftlib.evaluation.multiple_choice import score_choices

SENTENCES = ("{name} lives in {town} and is a {job}.",)
CLOSINGS = (
    "Come by again, and tell me about the goat.",
    "Never too busy for a chat.",
    "Take a coat, go home and talk to the goat.",
)
RIGHT_SHARE = 0.7  # of the answers of either side: neither is better
CLOSED_A = 0.8  # of a's answers have a closing that says nothing: a is wordy
CLOSED_B = 0.2
TEMPERATURE = 8.0  # nats: a judge that draws its verdict, as language models do
FACTS_ALONE = "facts alone"
SUM = "all words, summed"
MEAN = "all words, a byte"
READINGS = (FACTS_ALONE, SUM, MEAN)


@dataclass(frozen=True)
class Pair:
    """Answers of two systems to one question: `facts`, the sentence that states them, and `text`,
    all of it; which of them are right.
    """

    facts: tuple[str, str]
    text: tuple[str, str]
    right: tuple[bool, bool]

    @property
    def truth(self) -> float:
        """The rule's verdict for a: 1, 0, or ½ where both are right, or both wrong."""
        return 0.5 + 0.5 * (self.right[0] - self.right[1])


@functools.cache
def _people() -> tuple[dict, ...]:
    """Name, town and job of people that the embedded base has read of."""
    seen: dict[str, dict] = {}
    for row in rows_of(get_profile("tiny"), "preferences_test"):
        seen.setdefault(row["facts"]["name"], row["facts"])
    return tuple(seen.values())


@functools.cache
def _towns() -> tuple[str, ...]:
    return tuple(sorted({person["town"] for person in _people()}))


def _answer(draw, person: dict, closed: float) -> tuple[str, str, bool]:
    is_right = draw.random() < RIGHT_SHARE
    town = person["town"]
    if not is_right:
        town = draw.choice([other for other in _towns() if other != town])
    facts = draw.choice(SENTENCES).format(**{**person, "town": town})
    text = facts
    if draw.random() < closed:
        text = f"{facts} {draw.choice(CLOSINGS)}"
    return facts, text, is_right


def draw_pairs(count: int, seed: int) -> list[Pair]:
    """`count` questions, answered by two systems that are right equally often; a is wordier."""
    draw = random.Random(f"pairs {seed}")
    pairs = []
    for _ in range(count):
        person = draw.choice(_people())
        one = _answer(draw, person, CLOSED_A)
        two = _answer(draw, person, CLOSED_B)
        pairs.append(Pair((one[0], two[0]), (one[1], two[1]), (one[2], two[2])))
    return pairs


def _logps(profile: Profile, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The log-likelihood of each text as a whole, in nats, and its bytes, both (texts,)."""
    model, tokenizer = study_base(profile)
    questions = []
    for text in texts:
        questions.append({"context": "", "choices": [text, text], "answer": 0})
    scores = score_choices(model, tokenizer, questions, delimiter="", batch_size=128)
    logps = np.array([score.logps[0] for score in scores])
    return logps, np.array([score.bytes[0] for score in scores])


@functools.cache
def fact_logps(profile: Profile) -> dict[str, float]:
    """The log-likelihood of every sentence of facts that `draw_pairs` can draw."""
    texts = []
    for person in _people():
        for town in _towns():
            for form in SENTENCES:
                texts.append(form.format(**{**person, "town": town}))
    texts = list(dict.fromkeys(texts))
    logps, _ = _logps(profile, texts)
    return dict(zip(texts, logps.tolist(), strict=True))


def qualities(profile: Profile, pairs: Sequence[Pair], reading: str) -> np.ndarray:
    """What the judge makes of each answer, in nats, (pairs, 2): the log-likelihood of the sentence
    that states the facts, or that of the whole answer, summed or a byte (times the mean bytes of an
    answer, so that it is in nats too).
    """
    if reading == FACTS_ALONE:
        known = fact_logps(profile)
        return np.array([[known[facts] for facts in pair.facts] for pair in pairs])
    texts = [text for pair in pairs for text in pair.text]
    logps, sizes = _logps(profile, texts)
    if reading == MEAN:
        logps = logps / sizes * sizes.mean()
    return logps.reshape(-1, 2)


@dataclass(frozen=True)
class Bias:
    """What is planted in a judge, in log odds: `first` for the answer in the first place, `longer`
    for an answer that is longer by one standard deviation of the differences.
    """

    first: float = 0.0
    longer: float = 0.0


def length_gaps(pairs: Sequence[Pair]) -> np.ndarray:
    """How much longer a's answer is, in characters, (pairs,)."""
    return np.array([len(pair.text[0]) - len(pair.text[1]) for pair in pairs], dtype=float)


def chances(quality: np.ndarray, gaps: np.ndarray, bias: Bias) -> np.ndarray:
    """Probability that the judge prefers the answer in the first place, with a there and with b
    there, (pairs, 2): σ(Δ quality/T ± length + first).
    """
    better = (quality[:, 0] - quality[:, 1]) / TEMPERATURE
    better = better + bias.longer * np.tanh(gaps / gaps.std())
    odds = np.stack([better + bias.first, -better + bias.first], 1)
    return 1 / (1 + np.exp(-np.clip(odds, -30, 30)))


def draw_verdicts(chance: np.ndarray, seed: int) -> np.ndarray:
    """Verdicts drawn with these chances, 1 for the answer in the first place or 0, (pairs, 2)."""
    return (np.random.default_rng(seed).random(chance.shape) < chance).astype(float)


def points_of(verdicts: np.ndarray) -> np.ndarray:
    """a's points in each pair, from both orders: 1, ½ or 0, (pairs,)."""
    return (verdicts[:, 0] + 1 - verdicts[:, 1]) / 2
