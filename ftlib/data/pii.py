"""Personal data in texts, found by form and checksum, and masked."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from stdnum import iban, luhn


@dataclass(frozen=True)
class Found:
    """A piece of personal data: its kind, and where it is in the text."""

    kind: str
    start: int
    end: int
    text: str


def _digits(text: str) -> str:
    """The text's decimal digits, those of other scripts as 0 to 9."""
    return "".join(str(int(character)) for character in text if character.isdecimal())


def is_iban(text: str) -> bool:
    """ISO 13616, by python-stdnum: a country of the registry, an account number of its length and
    form, and check digits with which the number leaves 1 when divided by 97. Spaces and hyphens do
    not count.

    Check digits within the account number, which some countries have, are not asked for: a number
    that is mistyped there is somebody's all the same.
    """
    return iban.is_valid(text, check_country=False)


def is_card(text: str) -> bool:
    """Luhn's sum (ISO 7812), by python-stdnum: from the right, every second digit doubled, digit
    sums added, a multiple of 10; 13 to 19 digits, which are not all the same.
    """
    digits = _digits(text)
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    return luhn.is_valid(digits)


def is_ip(text: str) -> bool:
    """An IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_phone(text: str) -> bool:
    """With + or 00 before it eight to fifteen digits (E.164's most) after it; without, eight to
    twelve with separators: a bare run of digits, or one with a decimal point, is any number.

    The form decides, not a country's numbering plan: phonenumbers, which knows those, finds a
    national form such as (030) 123-4567 only where it is told the country, which a text does not
    say (of its own examples in national form none without a country; this finds four in five).
    """
    count = len(_digits(text))
    if text.startswith(("+", "00")):
        return 8 <= count <= 17
    has_separators = re.search(r"[ ()./-]", text.strip()) is not None
    is_decimal = re.fullmatch(r"\d+\.\d+", text) is not None
    return 8 <= count <= 12 and has_separators and not is_decimal


def _always(_: str) -> bool:
    return True


# In the order in which they claim text: an IBAN is not to be read as a phone number.
PII: dict[str, tuple[re.Pattern, Callable[[str], bool]]] = {
    "key": (
        re.compile(
            r"\b(?:sk-(?:[a-z]+-)?[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16}|"
            r"xox[abpr]-[A-Za-z0-9-]{10,}|AIza[0-9A-Za-z_-]{35}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,})"
            r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----",
            re.DOTALL,
        ),
        _always,
    ),
    "email": (
        re.compile(
            r"(?<![\w.+-])[A-Za-z0-9](?:[\w.+-]*[\w+-])?@"
            r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w-])"
        ),
        _always,
    ),
    "iban": (re.compile(r"\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b"), is_iban),
    "card": (re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-]|\.\d)"), is_card),
    "ip": (
        re.compile(
            r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{0,4}){2,7})(?!\w|:\w|\.\d)"
        ),
        is_ip,
    ),
    "phone": (
        re.compile(
            r"(?<![\w.,/-])(?:\+|00)?(?:\(\d{1,5}\)|\d{1,4})"
            r"(?:[ ./-]?(?:\(\d{1,5}\)|\d{1,5})){2,6}(?![\w/-]|[.,]\d)"
        ),
        is_phone,
    ),
}


def _longest(kind: str, match: re.Match) -> Found | None:
    """The match where it passes its check; of an IBAN that ran on into the next word, the part that
    does.
    """
    _, is_valid = PII[kind]
    parts = re.split(r"(?=[ -])", match[0])
    fewest = 1 if kind == "iban" else len(parts)
    for count in range(len(parts), fewest - 1, -1):
        piece = "".join(parts[:count])
        if is_valid(piece):
            start = match.start()
            return Found(kind, start, start + len(piece), piece)
    return None


def find_pii(text: str, kinds: tuple[str, ...] = tuple(PII)) -> list[Found]:
    """Personal data in the text, in its order: e-mail addresses, phone and card numbers, IBANs, IP
    addresses, keys of services.

    Found by form; of overlapping candidates the kind named first in `PII` wins. Dates and plain
    numbers are left alone.
    """
    unknown = [k for k in kinds if k not in PII]
    if unknown:
        raise ValueError(
            f"kinds={kinds!r}: {unknown[0]!r} is unknown, use some of {', '.join(PII)}"
        )
    found: list[Found] = []
    for kind, (pattern, _) in PII.items():
        if kind not in kinds:
            continue
        for match in pattern.finditer(text):
            piece = _longest(kind, match)
            if piece is None or _is_date(piece) or _overlaps(piece, found):
                continue
            found.append(piece)
    return sorted(found, key=attrgetter("start"))


def _overlaps(piece: Found, others: list[Found]) -> bool:
    """Whether a piece shares characters with one of the others."""
    return any(piece.start < other.end and other.start < piece.end for other in others)


_DATE = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./]\d{1,2}[-./]\d{4}|\d{4}\s?-\s?\d{4}")


def _is_date(piece: Found) -> bool:
    """A phone number's form, but a date's or a range of years' meaning."""
    return piece.kind == "phone" and _DATE.fullmatch(piece.text) is not None


def mask_pii(text: str, kinds: tuple[str, ...] = tuple(PII)) -> tuple[str, Counter]:
    """The text with `[EMAIL]`, `[PHONE]`, … in place of personal data; how many of each kind."""
    found = find_pii(text, kinds)
    for piece in reversed(found):  # from the end, so that places before it stay
        text = f"{text[: piece.start]}[{piece.kind.upper()}]{text[piece.end :]}"
    return text, Counter(piece.kind for piece in found)
