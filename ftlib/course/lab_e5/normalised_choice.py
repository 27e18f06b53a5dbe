"""Lab E5, benchmarks and judges, exercise 2: which choice is the model's answer."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def normalised_choice(logps: list[float], choices: list[str], unit: str) -> int:
    """The place of the choice with the largest log-probability: its sum (unit "sum"), or the sum a
    character ("characters") or a byte of UTF-8 ("bytes"); of equal ones the first.
    """
    lengths = [1] * len(choices)
    if unit == "characters":
        lengths = [len(choice) for choice in choices]
    if unit == "bytes":
        lengths = [len(choice.encode()) for choice in choices]
    scores = [logp / length for logp, length in zip(logps, lengths, strict=True)]
    return scores.index(max(scores))


def _choice_cases(g):
    cities = ["Rome", "Santiago de Compostela", "Oslo", "Bern"]
    accents = ["éé", "abc", "日本語", "a"]
    ties = ["one", "two", "six", "ten"]
    words = ["no", "a b c d e f", "internationalisation", "maybe"]
    for unit in ("sum", "characters", "bytes"):
        yield [-5.0, -9.0, -6.0, -7.0], cities, unit
        yield [-3.0, -4.2, -4.4, -2.3], accents, unit
        yield [-4.0, -2.0, -2.0, -3.0], ties, unit
        yield [-2.4, -6.0, -12.0, -5.1], words, unit
        yield [-9.0, -2.2, -8.0, -1.9], accents, unit
        yield [-1.0, -1.9, -2.6, -4.0], ["a", "ab", "abc", "abcdef"], unit
        # The likeliest sum is of the longest choice: a product would turn to a short one.
        yield [-6.0, -7.0, -5.0, -8.0], ["up", "down", "in neither direction", "left"], unit


def _by(length):
    def choose(logps, choices, unit):
        scores = []
        for logp, choice in zip(logps, choices, strict=True):
            scores.append(logp / (1 if unit == "sum" else length(choice, unit)))
        return scores.index(max(scores))

    return choose


def _length(choice, unit):
    return len(choice.encode()) if unit == "bytes" else len(choice)


def _last_of_equals(logps, choices, unit):
    scores = []
    for logp, choice in zip(logps, choices, strict=True):
        scores.append(logp / (1 if unit == "sum" else _length(choice, unit)))
    best = max(scores)
    return max(place for place, score in enumerate(scores) if score == best)


def _smallest(logps, choices, unit):
    scores = []
    for logp, choice in zip(logps, choices, strict=True):
        scores.append(logp / (1 if unit == "sum" else _length(choice, unit)))
    return scores.index(min(scores))


def _multiplied(logps, choices, unit):
    scores = []
    for logp, choice in zip(logps, choices, strict=True):
        scores.append(logp * (1 if unit == "sum" else _length(choice, unit)))
    return scores.index(max(scores))


CHOICE = Exercise(
    name="normalised_choice",
    title="acc and acc_norm",
    minutes=8,
    difficulty=1,
    reference=normalised_choice,
    cases=_choice_cases,
    hints=(
        "All three units follow one rule: divide each sum by a length, and take the largest. For "
        '"sum" every length is 1.',
        "`len(text)` counts characters, `len(text.encode())` bytes. `scores.index(max(scores))` "
        "is the first of the largest scores.",
        "lengths = [len(c.encode()) for c in choices] for bytes; scores = [p / n for p, n in "
        "zip(logps, lengths)]",
    ),
    wrong=(
        Wrong(
            "characters for bytes",
            _by(lambda choice, unit: len(choice)),
            "You count characters for bytes too. They differ for non-ASCII text: é has two bytes, "
            "日 three; `len(text.encode())`.",
        ),
        Wrong(
            "bytes for characters",
            _by(lambda choice, unit: len(choice.encode())),
            "You count bytes for characters too: `len(text)` counts characters.",
        ),
        Wrong(
            "words",
            _by(lambda choice, unit: len(choice.split())),
            "You divided by the number of words: a long word then counts as much as a short one.",
        ),
        Wrong(
            "never divided",
            _by(lambda choice, unit: 1),
            "Your result ignores `unit`: for characters and bytes, divide each sum by the "
            "choice's length first.",
        ),
        Wrong(
            "the delimiter counted",
            _by(lambda choice, unit: _length(choice, unit) + 1),
            "You counted the space before the choice as well: the harness divides by the length of "
            "the choice alone, which favours short ones less.",
        ),
        Wrong(
            "multiplied",
            _multiplied,
            "You multiplied by the length: log-probabilities are negative, so long choices now "
            "lose twice. Divide.",
        ),
        Wrong(
            "the least likely",
            _smallest,
            "You took the smallest. Log-probabilities are negative: the likeliest is the one "
            "nearest to 0, the largest.",
        ),
        Wrong(
            "the last of equals",
            _last_of_equals,
            "Among equal scores you take the last; the harness (NumPy's argmax) takes the first.",
        ),
    ),
)
