"""Texts of every kind, on which a tokenizer and llama.cpp are held against each other."""

from __future__ import annotations

import random
import unicodedata
from typing import Any

from gguf import TokenType

from ftlib.export.gguf_vocabulary import Vocabulary

# What patterns differ in: digits, contractions, white space, code, scripts, marks, emoji, capitals.
PIECES = (
    "7",
    "42",
    "123",
    "2024",
    "1234567890",
    "3.14159",
    "1,000,000",
    "٣٤٥٦",
    "½²",
    "x1y22z333",
    "I'll",
    "don't",
    "WE'RE",
    "It'S",
    "l’été",
    "'s",
    "'",
    " ",
    "  ",
    "     ",
    "\t",
    "\t\t",
    "\n",
    "\n\n\n",
    "\r\n",
    " \n \n",
    "   x",
    "\u00a0",
    "\u2003",
    "\u3000",
    "def f(x):\n    return x**2  # y\n",
    "for(int i=0;i<n;++i){a[i]+=1;}",
    '<div class="a-b">',
    "http://a.b/c?d=e&f#g",
    "/usr/bin",
    "snake_case",
    "camelCaseWord",
    "HTTPServer",
    "ALL CAPS",
    "Hello, world!",
    "...",
    "!?!?",
    "---",
    "$%&/()=",
    "«»„“”…—",
    "∑∂√≠",
    "日本語の文です。",
    "中文没有空格",
    "한국어 문장",
    "русский текст",
    "Ελληνικά",
    "العربية",
    "עברית",
    "हिन्दी में",
    "ภาษาไทย",
    "ǅ ᾈ",
    "Ünïcödé",
    "e\u0301a\u0308\u0323",
    "\u0301",
    "ﬁ",
    "😀",
    "👩‍👩‍👧",
    "🏳️‍🌈",
    "👍🏽",
    "🇩🇪",
    "\u200b",
    "\U0001d4b3",
    "\x00",
    "\x7f",
)
FEWER = 500  # random rows of pieces for a name that its pattern gave
MORE = 2000  # and for one that is looked for
CHARACTERS = 150  # of all scripts
WORDS = 300  # tokens of the vocabulary, as texts: of each of two sorts
PAIRS = 200  # of such texts
OF_ADDED = 300  # added tokens that are tried
# Unicode's tables of 2002: what they hold, every library classes alike.
OLD_UNICODE = unicodedata.ucd_3_2_0


def proof_texts(vocabulary: Vocabulary, tokenizer: Any, thorough: bool = False) -> list[str]:
    """The pieces alone and in random rows, characters of all scripts among letters and digits,
    tokens of the vocabulary as texts, alone and in pairs, and the added tokens among letters and
    spaces. The same ones each time. `thorough`: more rows, since a name that fits by chance is
    found out only so; and all in random order, since a wrong name then differs early.
    """
    drawn = random.Random(0)
    texts = list(PIECES)
    for _ in range(MORE if thorough else FEWER):
        texts.append("".join(drawn.choices(PIECES, k=drawn.randint(2, 9))))
    texts += [f"the{c}the {c}1  {c}{c}" for c in _characters(drawn)]
    words = _words(vocabulary, tokenizer, drawn)
    texts += words
    if words:
        texts += ["".join(drawn.choices(words, k=2)) for _ in range(PAIRS)]
    added = sorted(tokenizer.get_added_vocab())
    if len(added) > OF_ADDED:
        added = drawn.sample(added, OF_ADDED)
    for token in added:
        texts += [token, f"a{token}b", f" {token} \n{token}{token}"]
    if thorough:
        drawn.shuffle(texts)
    return texts


def _characters(drawn: random.Random) -> list[str]:
    found: list[str] = []
    while len(found) < CHARACTERS:
        character = chr(drawn.randrange(0x20, 0x30000))
        if OLD_UNICODE.category(character) not in ("Cn", "Cs", "Co"):
            found.append(character)
    return found


def _words(vocabulary: Vocabulary, tokenizer: Any, drawn: random.Random) -> list[str]:
    """Texts of tokens. First of those that no merge makes, which are found only where whole words
    are looked up before the merges, and of those with more than letters in them, since at these
    patterns differ; then of any.
    """
    made = {merge.replace(" ", "") for merge in vocabulary.merges}
    added = set(tokenizer.get_added_vocab())
    odd: list[int] = []
    plain: list[int] = []
    for i, token in enumerate(vocabulary.tokens):
        if token in added or vocabulary.types[i] != TokenType.NORMAL:
            continue
        unmade = bool(made) and len(token) > 1 and token not in made
        (odd if unmade or not token[1:].isalpha() else plain).append(i)
    chosen = drawn.sample(odd, min(WORDS, len(odd)))
    chosen += drawn.sample(plain, min(WORDS, len(plain)))
    texts = [tokenizer.decode([i], clean_up_tokenization_spaces=False) for i in chosen]
    return [text for text in texts if text and "\ufffd" not in text]
