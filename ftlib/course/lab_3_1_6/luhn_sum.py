"""Lab 3.1.6, data, exercise 3: a checksum."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def luhn_sum(digits: str) -> int:
    """Luhn's sum: from the right, every second digit is doubled, and a product above 9 counts as
    the sum of its digits.
    """
    total = 0
    for i, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if i % 2 else 1)
        total += value - 9 if value > 9 else value
    return total


def _digit_cases(g):
    yield from [
        ("4111111111111111",),
        ("378282246310005",),
        ("79927398713",),
        ("1234567890123",),
        ("0000000000000",),
    ]


def _luhn(order=reversed, first=1, fold=lambda v: v - 9 if v > 9 else v, factor=2):
    def luhn(digits):
        return sum(
            fold(int(d) * (factor if i % 2 == first else 1)) for i, d in enumerate(order(digits))
        )

    return luhn


LUHN = Exercise(
    name="luhn_sum",
    title="A number, or a card number?",
    minutes=6,
    difficulty=1,
    reference=luhn_sum,
    cases=_digit_cases,
    points=1,
    hints=(
        "`enumerate(reversed(digits))` counts from the right: the last digit has i = 0 and is not "
        "doubled, the next one is.",
        "8 doubled is 16, and 1 + 6 = 7 = 16 − 9.",
        "value = int(digit) * (2 if i % 2 else 1); total += value - 9 if value > 9 else value",
    ),
    wrong=(
        Wrong(
            "from the left",
            _luhn(order=lambda d: d, first=0),
            "You count from the left: right for 16 digits, wrong for the 15 of other cards. Count "
            "from the right.",
        ),
        Wrong(
            "last digit doubled",
            _luhn(first=0),
            "You doubled the last digit, which is the check digit: begin with the one before it.",
        ),
        Wrong(
            "products not folded",
            _luhn(fold=lambda v: v),
            "A product above 9 counts as the sum of its digits: 16 as 7.",
        ),
        Wrong(
            "last digit of the product",
            _luhn(fold=lambda v: v % 10),
            "You kept the last digit of the product: 16 counts as 1 + 6 = 7, not as 6.",
        ),
        Wrong(
            "nothing doubled",
            _luhn(factor=1),
            "That is the plain sum of digits: it does not see two neighbours swapped.",
        ),
    ),
)
