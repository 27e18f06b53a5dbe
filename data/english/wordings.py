"""How a constraint is asked for: several wordings a kind, the last kept for test rows."""

from __future__ import annotations

HELD_OUT_KINDS = ("upper_case", "end_with", "paragraphs", "quoted")
# kind -> how it is asked for.
WORDED: dict[str, tuple[str, ...]] = {
    "sentences": (
        "Write exactly {count} sentences.",
        "Number of sentences: {count}.",
        "It has to be {count} sentences, no more and no fewer.",
    ),
    "most_words": (
        "Use at most {count} words.",
        "Write no more than {count} words.",
        "Stay within {count} words.",
    ),
    "least_words": (
        "Use at least {count} words.",
        "Write {count} words or more.",
        "Do not write fewer than {count} words.",
    ),
    "use_words": (
        "Include {listed}.",
        "Use {listed} somewhere.",
        "The text has to contain {listed}.",
    ),
    "avoid_words": (
        "Do not use {listed}.",
        "Write it without {listed}.",
        "Nowhere may the text say {listed}.",
    ),
    "bullets": (
        'Answer with nothing but a list of {count} bullet points, each on a line with "- ".',
        'Write {count} bullet points, each after "- " on its own line, and nothing else.',
        'Give only a bulleted list, "- " before each of its {count} items.',
    ),
    "lower_case": (
        "Write everything in small letters.",
        "Use no capital letters.",
        "Capital letters are forbidden.",
    ),
    "begin_with": (
        'Begin with "{phrase}"',
        'The first words are "{phrase}"',
        'Let the answer start with "{phrase}"',
    ),
    "json_keys": (
        "Answer with a JSON object that has the keys {listed}, and nothing else.",
        "Output JSON only, with exactly these keys: {listed}.",
        "I need one JSON object, keys {listed}, no text around it.",
    ),
    "no_commas": (
        "Do not use commas.",
        "Write without any comma.",
        "The text may not contain a comma.",
    ),
    "upper_case": ("Write everything in capital letters.",),
    "end_with": ('End with exactly these words: "{phrase}"',),
    "paragraphs": ("Write exactly {count} paragraphs, with an empty line between two.",),
    "quoted": ("Put the whole answer in double quotation marks.",),
}
TRAINED_KINDS = tuple(kind for kind in WORDED if kind not in HELD_OUT_KINDS)
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


def asked_for(constraint: dict, wording: str) -> str:
    """The constraint in words."""
    count = constraint.get("count", 0)
    if constraint["kind"] in ("sentences", "bullets", "paragraphs"):
        count = NUMBERS[count]
    listed = _listed(constraint.get("keys", []), "and")
    if "words" in constraint:
        listed = _quoted(
            constraint["words"], "or" if constraint["kind"] == "avoid_words" else "and"
        )
    text = wording.format(count=count, listed=listed, phrase=constraint.get("phrase", ""))
    return text.replace("one sentences", "one sentence")


def _quoted(words: list[str], last: str) -> str:
    quoted = [f'"{word}"' for word in words]
    return f"the word{'s' if len(words) > 1 else ''} {_listed(quoted, last)}"


def _listed(names: list[str], last: str) -> str:
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"
