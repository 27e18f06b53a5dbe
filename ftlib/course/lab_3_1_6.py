"""Lab 3.1.6, data: the nine exercises, and the wrong answers that each must tell apart."""

from __future__ import annotations

import re
import unicodedata

import torch
from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong


# --- 1: a converter -------------------------------------------------------------------------------
def to_messages(row: dict) -> list[dict]:
    """The messages of a raw row in Alpaca's form (instruction, input, output), ShareGPT's
    (conversations), or messages themselves.
    """
    if "messages" in row:
        return row["messages"]
    if "conversations" in row:
        roles = {"system": "system", "human": "user", "gpt": "assistant"}
        return [
            {"role": roles[turn["from"]], "content": turn["value"]} for turn in row["conversations"]
        ]
    question = row["instruction"] + ("\n\n" + row["input"] if row.get("input") else "")
    return [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]


def _raw_cases(g):
    talk = [
        ("system", "Be brief."),
        ("human", "Hi.\nYou?"),
        ("gpt", "Good."),
        ("human", "And now?"),
        ("gpt", "Now bye."),
    ]
    yield ({"instruction": "Translate.", "input": "two lamps", "output": "deux lampes"},)
    yield ({"instruction": "Say hello.", "input": "", "output": "Hello.\n"},)
    yield ({"conversations": [{"from": who, "value": said} for who, said in talk]},)
    yield ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},)
    yield ({"instruction": "No input key.", "output": "Right."},)


def _converter(
    join=lambda a, b: a + ("\n\n" + b if b else ""),
    role={"system": "system", "human": "user", "gpt": "assistant"}.get,
    turns=lambda t: t,
    text=lambda t: t,
):
    def convert(row):
        if "messages" in row:
            return row["messages"]
        if "conversations" in row:
            return [
                {"role": role(t["from"]), "content": text(t["value"])}
                for t in turns(row["conversations"])
            ]
        return [
            {"role": "user", "content": text(join(row["instruction"], row.get("input", "")))},
            {"role": "assistant", "content": text(row["output"])},
        ]

    return convert


CONVERT = Exercise(
    name="to_messages",
    title="Three formats, one row",
    minutes=10,
    difficulty=1,
    reference=to_messages,
    cases=_raw_cases,
    hints=(
        "Which format it is, the keys tell: `messages`, `conversations`, or `instruction`.",
        "ShareGPT's `human` and `gpt` are `user` and `assistant`; `system` keeps its name. Keep "
        "all turns.",
        'Alpaca\'s `input` may be missing or empty. If it is there, it follows the instruction after a blank line, `"\\n\\n"`.',
        'question = row["instruction"] + ("\\n\\n" + row["input"] if row.get("input") else "")',
    ),
    wrong=(
        Wrong(
            "input dropped",
            _converter(join=lambda a, b: a),
            "Alpaca's `input` is gone: the model would learn to answer about a text that it was "
            "not shown.",
        ),
        Wrong(
            "blank line always",
            _converter(join=lambda a, b: a + "\n\n" + b),
            "An empty `input` leaves two line breaks after the question: "
            "prompts would end in white space in training and not in use.",
        ),
        Wrong(
            "joined by a space",
            _converter(join=lambda a, b: a + (" " + b if b else "")),
            "Instruction and input run into one line: a blank line keeps them apart, and allows "
            "the way back.",
        ),
        Wrong(
            "roles kept",
            _converter(role=lambda name: name),
            "ShareGPT's names are no roles: `human` is `user` and `gpt` is `assistant`. "
            "A chat template would refuse them, or drop the turn.",
        ),
        Wrong(
            "first exchange only",
            _converter(turns=lambda t: t[:3]),
            "A conversation lost its later turns: convert all of them.",
        ),
        Wrong(
            "system dropped",
            _converter(turns=lambda t: [x for x in t if x["from"] != "system"]),
            "The system turn is gone: the answer was given under it.",
        ),
        Wrong(
            "stripped",
            _converter(text=str.strip),
            "A converter that also trims text cannot be undone, and eats the end of code. "
            "Convert here, clean in a rule of its own.",
        ),
    ),
)


# --- 2: cleaning ----------------------------------------------------------------------------------
def clean_lines(text: str) -> str:
    """One kind of newline and space, composed Unicode, nothing invisible, no white space at line
    ends; indentation stays.
    """
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    text = text.replace("\u00a0", " ").replace("\u200b", "").replace("\ufeff", "")
    return re.sub(r"[ \t]+(?=\n|$)", "", text)


def _text_cases(g):
    yield ("def f(x):\n    if x:\n        return 1\n\n    return 2",)
    yield ("Caf\u0065\u0301\r\nau\u00a0lait \rnow  ",)
    yield ("\ufeffone\u200btwo\tthree\n\tindented  wide   gaps",)
    yield ("all:\n\tmake  -j2\t\n",)
    yield ("na\u00efve and plain \u00e9",)


def _cleaner(
    before=lambda t: t.replace("\r\n", "\n").replace("\r", "\n"),
    form="NFC",
    unseen="\u200b\ufeff",
    after=lambda t: re.sub(r"[ \t]+(?=\n|$)", "", t),
    space=" ",
):
    def clean(text):
        text = unicodedata.normalize(form, before(text)) if form else before(text)
        text = text.replace("\u00a0", space)
        for c in unseen:
            text = text.replace(c, "")
        return after(text)

    return clean


CLEAN = Exercise(
    name="clean_lines",
    title="Clean, and harm no code",
    minutes=10,
    difficulty=2,
    reference=clean_lines,
    cases=_text_cases,
    hints=(
        "Line ends first: `\\r\\n` and a lone `\\r` become `\\n`.",
        '`unicodedata.normalize("NFC", text)` joins a letter and its accent to one character.',
        "A no-break space (\\u00a0) becomes a space; a zero-width space (\\u200b) and a "
        "byte-order mark (\\ufeff) go.",
        'Spaces and tabs before a line break or the end: `re.sub(r"[ \\t]+(?=\\n|$)", "", text)`. All others stay.',
    ),
    wrong=(
        Wrong(
            "one line",
            lambda text: " ".join(
                unicodedata.normalize("NFC", text)
                .replace("\u200b", "")
                .replace("\ufeff", "")
                .split()
            ),
            "`split()` takes line breaks for spaces: code, lists and verse become one line. "
            "Python without its lines does not run.",
        ),
        Wrong(
            "lines stripped",
            _cleaner(after=lambda t: "\n".join(line.strip() for line in t.split("\n"))),
            "Indentation is gone: strip the right end of a line, not the left. In Python and "
            "Makefiles it is syntax.",
        ),
        Wrong(
            "runs of spaces",
            _cleaner(after=lambda t: re.sub(r" {2,}", " ", re.sub(r"[ \t]+(?=\n|$)", "", t))),
            "Runs of spaces became one, also at the start of a line and in tables: leave what "
            "stands inside a line.",
        ),
        Wrong(
            "not composed",
            _cleaner(form=None),
            "An e with a separate accent is two characters, é is one: "
            "without NFC the same word is two words to a tokenizer and to duplicates.",
        ),
        Wrong(
            "taken apart",
            _cleaner(form="NFD"),
            "You took letters and accents apart (NFD): most text, and most tokenizers' training, "
            "has them together (NFC).",
        ),
        Wrong(
            "invisible left",
            _cleaner(unseen=""),
            "Zero-width spaces and byte-order marks are still there: nobody sees them, but the "
            "tokenizer does.",
        ),
        Wrong(
            "line ends left",
            _cleaner(before=lambda t: t),
            "Carriage returns are left: a model trained on `\\r\\n` writes it.",
        ),
        Wrong(
            "no-break space removed",
            _cleaner(space=""),
            "The no-break space was removed, and its neighbours became one word: it stands for a "
            "space.",
        ),
    ),
)


# --- 3: a checksum --------------------------------------------------------------------------------
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


# --- 4: Jaccard similarity of shingles ------------------------------------------------------------
def shingle_jaccard(a: list[str], b: list[str], size: int) -> float:
    """Jaccard similarity of the sets of runs of `size` tokens; a text shorter than `size` is one
    run.
    """
    one, two = ({tuple(t[i : i + size]) for i in range(max(1, len(t) - size + 1))} for t in (a, b))
    return len(one & two) / len(one | two)


def _token_cases(g):
    long = [
        "what",
        "is",
        "the",
        "colour",
        "of",
        "the",
        "lamp",
        "in",
        "the",
        "hall",
        "of",
        "the",
        "town",
    ]
    yield long, [*long[:5], "green", *long[5:]], 3
    yield (
        ["please", "send", "the", "order", "to", "the", "town", "please", "send", "the", "order"],
        ["please", "send", "the", "order", "to", "the", "mill"],
        2,
    )
    yield ["hello"], ["hello"], 3
    yield ["a", "b", "a", "b", "a", "b"], ["a", "b"], 2
    yield ["one", "two", "three"], ["three", "two", "one"], 1


def _jaccard(
    runs=lambda t, n: {tuple(t[i : i + n]) for i in range(max(1, len(t) - n + 1))},
    share=lambda x, y: len(x & y) / max(1, len(x | y)),
):
    return lambda a, b, size: share(runs(a, size), runs(b, size))


def _bags(a, b, size):
    from collections import Counter

    one, two = (
        Counter(tuple(t[i : i + size]) for i in range(max(1, len(t) - size + 1))) for t in (a, b)
    )
    return (one & two).total() / (one | two).total()


JACCARD = Exercise(
    name="shingle_jaccard",
    title="How alike are two texts?",
    minutes=8,
    difficulty=1,
    reference=shingle_jaccard,
    cases=_token_cases,
    hints=(
        "A run of `size` tokens from i on: `tuple(tokens[i: i + size])`. There are `len(tokens) - "
        "size + 1` of them.",
        "A text with fewer tokens than `size` counts as one run: take `max(1, …)` starts.",
        "Python's sets have `&` and `|`: the similarity is the size of the one over the size of "
        "the other.",
    ),
    wrong=(
        Wrong(
            "sum in place of union",
            _jaccard(share=lambda x, y: len(x & y) / (len(x) + len(y))),
            "The union counts what both have once: |A| + |B| − |A ∩ B|. With the sum, two equal "
            "texts have 0.5.",
        ),
        Wrong(
            "containment",
            _jaccard(share=lambda x, y: len(x & y) / max(1, min(len(x), len(y)))),
            "You divided by the smaller set: a short text inside a long one is then a duplicate "
            "of it. Divide by the union.",
        ),
        Wrong(
            "last run lost",
            _jaccard(runs=lambda t, n: {tuple(t[i : i + n]) for i in range(max(1, len(t) - n))}),
            "The last run is missing: there are len − size + 1 of them.",
        ),
        Wrong(
            "short texts empty",
            _jaccard(runs=lambda t, n: {tuple(t[i : i + n]) for i in range(len(t) - n + 1)}),
            "A text shorter than `size` has no runs in yours, so it is like nothing, not even "
            "itself: count it as one run.",
        ),
        Wrong(
            "single tokens",
            _jaccard(runs=lambda t, n: set(t)),
            "You compared single tokens: two questions of one form are then nearly the same, "
            "whatever their order.",
        ),
        Wrong(
            "bags",
            _bags,
            "You counted repeats: Jaccard's similarity, and MinHash after it, is of sets.",
        ),
    ),
)


# --- 5: MinHash -----------------------------------------------------------------------------------
PRIME = (1 << 31) - 1  # products of two numbers below it fit into int64


def minhash_signature(hashes: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """For each function (a_i·x + b_i) mod PRIME the least value over the shingles' hashes:
    hashes (n,), a and b (k,), int64 -> (k,)."""
    return ((a[:, None] * hashes[None] + b[:, None]) % PRIME).amin(1)


def _hash_cases(g):
    for n, k in ((5, 3), (17, 8), (1, 4), (6, 6)):
        yield tuple(torch.randint(1, PRIME, (size,), generator=g) for size in (n, k, k))


def _minhash(
    value=lambda x, a, b: (a[:, None] * x[None] + b[:, None]) % PRIME, reduce=lambda v: v.amin(1)
):
    return lambda hashes, a, b: reduce(value(hashes, a, b))


MINHASH = Exercise(
    name="minhash_signature",
    title="A text in k numbers",
    minutes=10,
    difficulty=2,
    reference=minhash_signature,
    cases=_hash_cases,
    tolerance=0.0,
    hints=(
        "Every function i orders all shingles anew. Which comes first in the text is random, "
        "and two texts agree in it with probability |A∩B|/|A∪B|.",
        "A table of k × n values: `a[:, None] * hashes[None] + b[:, None]`, then `% PRIME`.",
        "The least of each row: `.amin(1)`.",
    ),
    wrong=(
        Wrong(
            "least over functions",
            _minhash(reduce=lambda v: v.amin(0)),
            "You took the least over the functions, one number a shingle: take it over the "
            "shingles, one number a function.",
        ),
        Wrong(
            "no modulus",
            _minhash(value=lambda x, a, b: a[:, None] * x[None] + b[:, None]),
            "Without `% PRIME` every function has the same order of shingles: all k numbers then "
            "say the same.",
        ),
        Wrong(
            "no factor",
            _minhash(value=lambda x, a, b: (x[None] + b[:, None]) % PRIME),
            "Without the factor a the functions only shift the hashes: nearly the same order each "
            "time.",
        ),
        Wrong(
            "mean",
            _minhash(reduce=lambda v: v.float().mean(1).long()),
            "A mean changes with every shingle: two texts that differ in one word would agree in "
            "no number. "
            "The minimum changes rarely.",
        ),
        Wrong(
            "largest",
            _minhash(reduce=lambda v: v.amax(1)),
            "You took the largest: just as good an estimate, but signatures must be comparable, "
            "and everyone keeps the least.",
        ),
        Wrong(
            "least shingle first",
            lambda x, a, b: (a * x.amin() + b) % PRIME,
            "You hashed the least shingle: the least must be taken after each function, or all of "
            "them follow the same shingle.",
        ),
    ),
)


# --- 6: contamination -----------------------------------------------------------------------------
def golden_overlap(prompt: list[str], text: list[str], n: int) -> float:
    """Share of the prompt's runs of n words (as a set) that occur in the text; a prompt shorter
    than n is one run.
    """
    n = min(n, len(prompt))
    runs = lambda words: {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
    return len(runs(prompt) & runs(text)) / len(runs(prompt))


def _word_cases(g):
    prompt = ["which", "hobby", "does", "the", "weaver", "of", "the", "old", "town", "have"]
    yield prompt, prompt, 4
    yield (
        prompt,
        [
            *["please", "tell", "me"],
            *prompt,
            *["and", "what", "does", "it", "cost", "to", "learn", "it"],
        ],
        4,
    )
    yield prompt, ["which", "hobby", "does", "the", "weaver", "have", "in", "the", "old", "town"], 4
    yield ["spell", "key"], ["now", "spell", "key", "for", "me"], 8
    yield prompt, ["nothing", "of", "it"], 3
    yield prompt, prompt[2:7], 3


def _overlap(
    runs=lambda t, n: {tuple(t[i : i + n]) for i in range(len(t) - n + 1)},
    share=lambda p, t: len(p & t) / max(1, len(p)),
    short=min,
):
    def overlap(prompt, text, n):
        n = short(n, len(prompt))
        return share(runs(prompt, n), runs(text, n))

    return overlap


OVERLAP = Exercise(
    name="golden_overlap",
    title="Has it seen the exam?",
    minutes=8,
    difficulty=2,
    reference=golden_overlap,
    cases=_word_cases,
    hints=(
        "Runs as before, as sets. How many of the prompt's are in the text's set?",
        "Divide by the number of the *prompt's* runs: a copy inside a long row must still give 1.",
        "A prompt of fewer than n words: let n be its length, `n = min(n, len(prompt))`.",
    ),
    wrong=(
        Wrong(
            "Jaccard",
            _overlap(share=lambda p, t: len(p & t) / max(1, len(p | t))),
            "That is Jaccard's similarity: a golden prompt copied into a long row then counts as "
            "little. "
            "Divide by the prompt's runs alone.",
        ),
        Wrong(
            "share of the row",
            _overlap(share=lambda p, t: len(p & t) / max(1, len(t))),
            "You divided by the row's runs: the longer the row around it, the better the copy "
            "hides.",
        ),
        Wrong(
            "any run",
            _overlap(share=lambda p, t: float(bool(p & t))),
            "You answer yes or no to any shared run: two questions of one form share one. The "
            "share tells a copy from a form.",
        ),
        Wrong(
            "short prompts pass",
            _overlap(short=lambda n, length: n),
            "A prompt of fewer than n words has no run in yours, and is never found: make n its "
            "length then.",
        ),
        Wrong(
            "single words",
            _overlap(runs=lambda t, n: {(w,) for w in t}),
            "You compared words, not runs of words: the same words in another order are another "
            "question.",
        ),
        Wrong(
            "same place",
            lambda p, t, n: (
                sum(p[i : i + n] == t[i : i + n] for i in range(max(1, len(p) - n + 1)))
                / max(1, len(p) - n + 1)
            ),
            "You compared runs at the same place: one word put in front, and the copy is not "
            "found.",
        ),
    ),
)


# --- 7: groups ------------------------------------------------------------------------------------
def group_of(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """For each of `count` rows the least row that it is linked to, over any number of links; itself
    if there is none.
    """
    group = list(range(count))
    changed = True
    while changed:
        changed = False
        for i, j in pairs:
            least = min(group[i], group[j])
            if group[i] != least or group[j] != least:
                group[i] = group[j] = least
                changed = True
    return group


def _pair_cases(g):
    yield 6, [(4, 5), (2, 4), (0, 2)]
    yield 5, []
    yield 7, [(1, 3), (3, 1), (6, 5), (5, 3)]
    yield 8, [(0, 7), (6, 7), (5, 6), (1, 2)]
    yield 4, [(3, 2), (1, 0)]


def _one_pass(least=min, start=lambda n: list(range(n))):
    def groups(count, pairs):
        group = start(count)
        for i, j in pairs:
            group[i] = group[j] = least(group[i], group[j])
        return group

    return groups


def _named_by(pick):
    def groups(count, pairs):
        found = group_of(count, pairs)
        return [pick([j for j in range(count) if found[j] == found[i]]) for i in range(count)]

    return groups


GROUPS = Exercise(
    name="group_of",
    title="Who belongs together",
    minutes=12,
    difficulty=2,
    reference=group_of,
    cases=_pair_cases,
    hints=(
        "Start with every row alone: `group = list(range(count))`.",
        "A pair (i, j) gives both the lesser of their two groups. After one pass over the pairs, "
        "is every chain joined? "
        "Try (4, 5), (2, 4), (0, 2).",
        "Repeat the pass until nothing changes. (A union-find structure does it without "
        "repeating.)",
    ),
    wrong=(
        Wrong(
            "one pass",
            _one_pass(),
            "One pass over the pairs does not join a chain that comes in the wrong order: repeat "
            "until nothing changes.",
        ),
        Wrong(
            "direct neighbours",
            lambda count, pairs: [
                min([i, *(a + b - i for a, b in pairs if i in (a, b))]) for i in range(count)
            ],
            "You joined direct neighbours only: if A is like B and B like C, all three must lie "
            "on one side of a split.",
        ),
        Wrong(
            "first of each pair",
            lambda count, pairs: [next((a for a, b in pairs if b == i), i) for i in range(count)],
            "You took the first row of the pair that a row comes second in: the pairs have no "
            "direction, and chains go on.",
        ),
        Wrong(
            "largest",
            _named_by(max),
            "The groups are right, but each is named by its largest row: the least is wanted, the "
            "one that a filter keeps.",
        ),
        Wrong(
            "numbered",
            lambda count, pairs: [
                sorted(set(group_of(count, pairs))).index(v) for v in group_of(count, pairs)
            ],
            "The groups are right, but numbered 0, 1, 2, …: name each by its least row, which is "
            "the one to keep.",
        ),
    ),
)


# --- 8: packing -----------------------------------------------------------------------------------
def pack_rows(lengths: list[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: indices by bin; the longest first, each into the first bin that has
    room.
    """
    bins, room = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        place = next((k for k, left in enumerate(room) if left >= lengths[i]), len(bins))
        if place == len(bins):
            bins.append([])
            room.append(capacity)
        bins[place].append(i)
        room[place] -= lengths[i]
    return bins


def _length_cases(g):
    yield [3, 7, 5, 5, 2, 8], 10
    yield [4, 4, 4, 6, 6, 6], 10
    yield [10, 1, 10], 10
    yield torch.randint(5, 60, (24,), generator=g).tolist(), 64
    yield [2, 3], 10


def _packer(
    order=lambda n: sorted(range(len(n)), key=lambda i: -n[i]),
    fits=lambda left, size: left >= size,
    first=lambda room: range(len(room)),
):
    def packer(lengths, capacity):
        bins, room = [], []
        for i in order(lengths):
            k = next((k for k in first(room) if fits(room[k], lengths[i])), None)
            if k is None:
                bins, room, k = [*bins, []], [*room, capacity], len(bins)
            bins[k].append(i)
            room[k] -= lengths[i]
        return bins

    return packer


PACK = Exercise(
    name="pack_rows",
    title="First fit, longest first",
    minutes=12,
    difficulty=2,
    reference=pack_rows,
    cases=_length_cases,
    hints=(
        "`sorted(range(len(lengths)), key=lambda i: -lengths[i])` gives the indices, longest "
        "first; "
        "equal lengths keep their order.",
        "Keep a list of bins and a list of the room left in each. Look through the rooms from the "
        "first bin on.",
        "If no bin has room, open one with the whole capacity. A row that fills a bin exactly "
        "fits.",
    ),
    wrong=(
        Wrong(
            "order of arrival",
            _packer(order=lambda n: range(len(n))),
            "You took the rows as they came: long ones that come late find only scraps of room. "
            "Longest first.",
        ),
        Wrong(
            "shortest first",
            _packer(order=lambda n: sorted(range(len(n)), key=lambda i: n[i])),
            "You began with the shortest: they fill the bins that the long ones need.",
        ),
        Wrong(
            "last bin only",
            _packer(first=lambda room: range(len(room) - 1, len(room)) if room else range(0)),
            "You looked into the last bin only (next fit): earlier ones may have room.",
        ),
        Wrong(
            "exact fit refused",
            _packer(fits=lambda left, size: left > size),
            "A row that fills the bin exactly fits: `>=`, not `>`.",
        ),
        Wrong(
            "fullest bin",
            lambda lengths, capacity: _best_fit(lengths, capacity),
            "You took the bin with the least room left (best fit), which is no worse but another "
            "packing: "
            "take the first that has room.",
        ),
        Wrong(
            "over-full",
            _packer(fits=lambda left, size: left > 0),
            "Bins overflow: a row was put where less room is left than it needs, so it would be "
            "cut.",
        ),
    ),
)


def _best_fit(lengths, capacity):
    bins, room = [], []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        fits = [k for k in range(len(room)) if room[k] >= lengths[i]]
        if not fits:
            bins.append([])
            room.append(capacity)
        k = min(fits, key=lambda k: room[k]) if fits else len(bins) - 1
        bins[k].append(i)
        room[k] -= lengths[i]
    return bins


# --- 9: length bias -------------------------------------------------------------------------------
def longer_share(chosen: list[int], rejected: list[int]) -> float:
    """Share of pairs whose chosen answer is the longer one; equal lengths count one half."""
    return sum((c > r) + 0.5 * (c == r) for c, r in zip(chosen, rejected)) / len(chosen)


def _pair_length_cases(g):
    yield [5, 7, 3, 9], [4, 7, 8, 2]
    yield [1, 2, 3], [1, 2, 3]
    yield [10, 20, 5, 6, 1], [1, 30, 5, 5, 2]
    yield [4], [9]


def _longer(score):
    return lambda chosen, rejected: score(list(zip(chosen, rejected)))


LONGER = Exercise(
    name="longer_share",
    title="Does length give it away?",
    minutes=5,
    difficulty=1,
    reference=longer_share,
    cases=_pair_length_cases,
    points=1,
    hints=(
        "Pair by pair: 1 where the chosen answer is longer, 0 where it is shorter.",
        "Pairs of equal length say nothing: with one half each, 0.5 means no bias whatever their "
        "number.",
        "sum((c > r) + 0.5 * (c == r) for c, r in zip(chosen, rejected)) / len(chosen)",
    ),
    wrong=(
        Wrong(
            "ties as shorter",
            _longer(lambda z: sum(c > r for c, r in z) / len(z)),
            "Equal lengths count as shorter in yours: pairs all of one length would look biased "
            "towards short answers.",
        ),
        Wrong(
            "ties as longer",
            _longer(lambda z: sum(c >= r for c, r in z) / len(z)),
            "Equal lengths count as longer in yours: pairs all of one length would look biased "
            "towards long answers.",
        ),
        Wrong(
            "ties left out",
            _longer(lambda z: sum(c > r for c, r in z) / max(1, sum(c != r for c, r in z))),
            "You left pairs of equal length out: two pairs that differ among a thousand that do "
            "not would look like "
            "a bias of the whole set.",
        ),
        Wrong(
            "shorter",
            _longer(lambda z: sum((c < r) + 0.5 * (c == r) for c, r in z) / len(z)),
            "That is the share in which the chosen answer is shorter.",
        ),
        Wrong(
            "mean difference",
            _longer(lambda z: sum(c - r for c, r in z) / len(z)),
            "You took the mean difference: one very long answer rules it. A share is wanted, "
            "between 0 and 1.",
        ),
        Wrong(
            "share of length",
            _longer(lambda z: sum(c for c, _ in z) / sum(c + r for c, r in z)),
            "You compared the total lengths: one very long pair decides. Count pairs.",
        ),
    ),
)

EXERCISES = [CONVERT, CLEAN, LUHN, JACCARD, MINHASH, OVERLAP, GROUPS, PACK, LONGER]
