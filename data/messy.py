"""A deliberately messy raw file and the truth about every line: what lab 3.1.6 cleans, and what its
cleaning is measured by. What differs between two such files is a `Recipe`: `EMBEDDED` here,
English in `data.english.messy`.

Personal data is made up in ranges kept for that: example.com, addresses of RFC 5737 and RFC 3849,
telephone numbers for fiction, card numbers published for tests, IBANs of a bank called TEST with
right check digits, keys that say that they are none.
"""

from __future__ import annotations

import html
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from data.world import SEED
from ftlib.core.errors import DataError
from ftlib.data.formats import convert

CLEAN = 2000  # rows of train.jsonl that are left as they are
COUNTS = {
    "duplicate": 150,
    "near duplicate": 150,
    "pii": 150,
    "html": 100,
    "contamination": 60,
    "wrong answer": 100,
    "empty answer": 50,
    "language": 90,
    "code": 60,
    "invalid json": 40,
    "missing key": 40,
    "not utf-8": 20,
}

FOREIGN = {
    "de": [
        (
            "Wie komme ich von hier am schnellsten zum Bahnhof?",
            "Gehen Sie immer geradeaus und dann an der Kirche nach links.",
        ),
        (
            "Was kann ich heute Abend mit {n} Kartoffeln kochen?",
            "Sie können daraus einen Auflauf mit Käse und Zwiebeln machen.",
        ),
        (
            "Warum ist der Himmel am Abend manchmal rot?",
            "Weil das Licht dann einen längeren Weg durch die Luft nehmen muss.",
        ),
        (
            "Kannst du mir bitte {n} Bücher für den Urlaub nennen?",
            "Gerne, aber zuerst möchte ich wissen, was du sonst gerne liest.",
        ),
        (
            "Wie viele Stunden Schlaf brauchen Kinder mit {n} Jahren?",
            "Das ist verschieden, doch meistens brauchen sie mehr als Erwachsene.",
        ),
    ],
    "fr": [
        (
            "Comment puis-je apprendre à jouer du piano en {n} mois ?",
            "Il faut jouer un peu tous les jours et choisir des morceaux faciles.",
        ),
        (
            "Pourquoi les feuilles tombent-elles des arbres en automne ?",
            "Parce que les arbres gardent ainsi leur eau pendant l'hiver.",
        ),
        (
            "Où se trouve la boulangerie la plus proche de la gare ?",
            "Elle est juste derrière la place du marché, à côté de la poste.",
        ),
        (
            "Peux-tu me donner {n} idées pour un dîner sans viande ?",
            "Bien sûr, on peut préparer une soupe avec des légumes du jardin.",
        ),
        (
            "Quel temps fera-t-il demain matin dans les montagnes ?",
            "Je ne le sais pas, mais il vaut mieux prendre un manteau chaud.",
        ),
    ],
    "es": [
        (
            "¿Cuántos días necesito para visitar {n} pueblos de la costa?",
            "Con una semana puedes verlos todos sin ninguna prisa.",
        ),
        (
            "¿Por qué los gatos duermen tantas horas cada día?",
            "Porque son cazadores y necesitan guardar fuerzas para la noche.",
        ),
        (
            "¿Dónde puedo comprar pan fresco los domingos por la mañana?",
            "Hay una panadería abierta detrás de la iglesia del pueblo.",
        ),
        (
            "¿Me puedes recomendar {n} canciones para una fiesta?",
            "Claro que sí, pero primero dime qué música les gusta a tus amigos.",
        ),
        (
            "¿Cómo se prepara una buena tortilla de patatas?",
            "Primero hay que freír las patatas muy despacio con mucha cebolla.",
        ),
    ],
}
CODE = [
    (
        "Write a Python function that adds the numbers from 1 to {n}.",
        "def total(limit={n}):\n    result = 0\n    for i in range(1, limit + 1):\n        result "
        "+= i\n\n    return result",
    ),
    (
        "Show me a Makefile rule that runs {n} tests.",
        "test:\n\tfor i in $$(seq {n}); do \\\n\t\t./run-test $$i; \\\n\tdone",
    ),
    (
        "Give me YAML for a shop with {n} lamps.",
        "shop:\n  things:\n    - name: lamp\n      count: {n}\n  open: true",
    ),
    (
        "Write HTML for a heading that says {n}.",
        '```html\n<div class="head">\n  <h1>{n}</h1>\n</div>\n```',
    ),
    ("How do I compare a with {n} in C?", "if (a < {n} && b > 0) {\n    return a;\n}"),
]
ASKED = [
    "Write a friendly letter to {}.",
    "Please send the order to {}.",
    "Remind me that I can be reached at {}.",
    "Who answers at {}?",
    "Put {} into the address book.",
]
SAID = [
    "It is done.",
    "The letter is on its way.",
    "That is written down.",
    "Nobody has answered yet.",
]


def iban(rng: random.Random) -> str:
    """GB, two check digits by ISO 13616, the bank TEST, fourteen digits; in fours."""
    account = "TEST" + "".join(rng.choice("0123456789") for _ in range(14))
    digits = "".join(str(int(c, 36)) for c in account + "GB00")
    check = 98 - int(digits) % 97
    text = f"GB{check:02d}{account}"
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def _email(rng: random.Random) -> str:
    user = rng.choice(["ann", "info", "b.miller", "shop+news", "c_weaver"])
    number = rng.randint(1, 99)
    domain = rng.choice(["example.com", "mail.example.org", "example.net"])
    return f"{user}{number}@{domain}"


def _phone(rng: random.Random) -> str:
    american = f"+1 202-555-01{rng.randint(0, 99):02d}"
    british = f"+44 20 7946 0{rng.randint(0, 999):03d}"
    return rng.choice([american, british])


def _card(rng: random.Random) -> str:
    return rng.choice(["4111 1111 1111 1111", "4242-4242-4242-4242", "5555 5555 5555 4444"])


def _ip(rng: random.Random) -> str:
    network = rng.choice(["192.0.2.{}", "198.51.100.{}", "203.0.113.{}", "2001:db8::{}"])
    return network.format(rng.randint(1, 254))


def _key(rng: random.Random) -> str:
    return f"sk-example-NOTAREALKEY{rng.randint(10**11, 10**12 - 1)}"


PII = {"email": _email, "iban": iban, "phone": _phone, "card": _card, "ip": _ip, "key": _key}


def another_answer(rng: random.Random, row: dict, answers: Sequence[str]) -> str:
    """A wrong answer: that to another question of the row's family, whose `answers` these are."""
    return rng.choice([answer for answer in answers if answer != row["answer"]])


@dataclass(frozen=True)
class Recipe:
    """What a messy file is made of, beside the rows that are spoilt."""

    seed: str
    clean: int  # rows that are left as they are
    counts: Mapping[str, int]  # lines with each defect
    left_out: tuple[str, ...]  # families whose rows are not used
    asked: tuple[str, ...]  # questions with room for personal data
    said: tuple[str, ...]  # answers to those
    wrong: Callable[[random.Random, dict, Sequence[str]], str]  # (rng, row, answers of its family)


EMBEDDED = Recipe(
    f"{SEED}/messy",
    CLEAN,
    COUNTS,
    # The two answers of sentiment leave no choice of a wrong one, and "about" has no right answer.
    ("about", "sentiment"),
    tuple(ASKED),
    tuple(SAID),
    another_answer,
)


def chat(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def in_format(rng: random.Random, messages: list[dict]) -> tuple[dict, str]:
    """The conversation as a raw row, and the name of its format, drawn by chance: messages, Alpaca
    or ShareGPT.
    """
    question, answer = (m["content"] for m in messages)
    name = rng.choice(["messages", "alpaca", "sharegpt"])
    if name == "messages":
        return {"messages": messages}, name
    if name == "alpaca":
        return {"instruction": question, "input": "", "output": answer}, name
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"conversations": turns}, name


# --- one defect each: (question, answer), what the truth records beside the defect's name ---------
def near_copy(rng: random.Random, question: str, answer: str) -> tuple[str, str]:
    """The same question with a word or a sign more."""
    copies = [
        f"{question} Thanks.",
        f"Please: {question}",
        f"{question.rstrip('.?')}, please{question[-1]}",
        question.replace(" ", "  ", 1).upper(),
        f"{question} ",
    ]
    return rng.choice(copies), answer


def with_pii(rng: random.Random, recipe: Recipe = EMBEDDED) -> tuple[tuple[str, str], dict]:
    """One kind of personal data in the question, and sometimes a second one in the answer."""
    kinds = rng.sample(list(PII), rng.choice([1, 1, 2]))
    found = [{"kind": kind, "text": PII[kind](rng)} for kind in kinds]
    question = rng.choice(recipe.asked).format(found[0]["text"])
    answer = rng.choice(recipe.said)
    if len(found) == 2:
        answer = f"{answer} The other way is {found[1]['text']}."
    return (question, answer), {"pii": found}


def with_html(rng: random.Random, question: str, answer: str) -> tuple[str, str]:
    """The same texts in one of three sorts of markup."""
    question = html.escape(question)
    answer = html.escape(answer)
    return rng.choice(
        [
            (f"<p>{question}</p>", f'<div class="answer">{answer}</div>'),
            (question, f"<b>{answer}</b><br/>"),
            (question.replace(" ", "&nbsp;", 1), f"<span>{answer}</span>&nbsp;&amp; more"),
        ]
    )


def recased(rng: random.Random, question: str) -> str:
    """A golden prompt as a careless copy has it."""
    return rng.choice(
        [
            question,
            question.lower(),
            question.upper(),
            question.rstrip(".?") + " ...",
            f"  {question}",
        ]
    )


def broken(rng: random.Random, kind: str, messages: list[dict]) -> tuple[bytes, str]:
    """A line that no reader can use, and its format."""
    row, name = in_format(rng, messages)
    text = json.dumps(row, ensure_ascii=False)
    if kind == "invalid json":
        cut = text[: rng.randint(5, len(text) - 2)]
        line = rng.choice([cut, text.replace('"', "'"), text[:-1] + ",}", text + text])
        return line.encode(), name
    if kind == "missing key":
        return json.dumps(_without_keys(rng, messages[0]["content"])).encode(), "none"
    return text.encode().replace(b" ", b" \xe9\xff ", 1), name


def _without_keys(rng: random.Random, question: str):
    """Valid JSON that lacks what every format needs."""
    return rng.choice(
        [
            {"prompt_text": question},
            {"instruction": question},
            {},
            [1, 2],
            {"messages": []},
            {"conversations": None},
        ]
    )


@dataclass
class _Stock:
    """What the lines are made of. Each row of `pool` is used once, and then gone from it."""

    clean: list[dict]  # the rows that are left as they are
    long: list[int]  # numbers of the clean rows whose question is long enough for a near copy
    pool: list[dict]
    golden: list[dict]
    answers: dict[str, list[str]]  # every answer of a family
    seen: set[tuple[str, str]]  # the new texts so far: chance shall plant no duplicates
    recipe: Recipe


def _stock(rng: random.Random, train: list[dict], golden: list[dict], recipe: Recipe) -> _Stock:
    pool = [row for row in train if row["family"] not in recipe.left_out]
    rng.shuffle(pool)
    answers: dict[str, list[str]] = {}
    for row in pool:
        answers.setdefault(row["family"], []).append(row["answer"])
    clean = [pool.pop() for _ in range(recipe.clean)]
    long = [n for n, row in enumerate(clean) if len(row["messages"][0]["content"]) >= 45]
    return _Stock(clean, long, pool, golden, answers, set(), recipe)


def _foreign_or_code(rng: random.Random, kind: str) -> tuple[tuple[str, str], dict]:
    """A conversation in another language, or about code."""
    language = rng.choice(list(FOREIGN))
    number = str(rng.randint(2, 60))
    if kind == "language":
        question, answer = rng.choice(FOREIGN[language])
        more = {"language": language}
    else:
        question, answer = rng.choice(CODE)
        more = {}
    return (question.replace("{n}", number), answer.replace("{n}", number)), more


def _defective(rng: random.Random, kind: str, i: int, stock: _Stock) -> tuple[tuple, dict]:
    """((question, answer), what more the truth says) of one new row with a defect of this kind;
    `i` counts the kind's rows.
    """
    if kind == "pii":
        return with_pii(rng, stock.recipe)
    if kind in ("language", "code"):
        return _foreign_or_code(rng, kind)
    row = stock.pool.pop()
    question, answer = (m["content"] for m in row["messages"])
    if kind == "html":
        return with_html(rng, question, answer), {}
    if kind == "contamination":
        source = stock.golden[i % len(stock.golden)]
        copied = recased(rng, source["messages"][0]["content"])
        return (copied, source["answer"]), {"golden": source["key"]}
    if kind == "wrong answer":
        wrong = stock.recipe.wrong(rng, row, stock.answers[row["family"]])
        return (question, wrong), {"right": answer}
    empty = rng.choice(["", " ", "\n", "\u200b"])
    return (question, empty), {}


def _new(rng: random.Random, kind: str, i: int, stock: _Stock) -> tuple[tuple, dict]:
    """What `_defective` makes, made again until its texts are none of those seen."""
    while True:
        texts, more = _defective(rng, kind, i, stock)
        if texts not in stock.seen:
            stock.seen.add(texts)
            return texts, more


def _copy(rng: random.Random, kind: str, stock: _Stock) -> tuple[dict, str, dict]:
    """A clean row once more, in any format: word for word, or nearly."""
    source = rng.choice(stock.long if kind == "near duplicate" else range(len(stock.clean)))
    question, answer = (m["content"] for m in stock.clean[source]["messages"])
    if kind == "near duplicate":
        question, answer = near_copy(rng, question, answer)
    raw, name = in_format(rng, chat(question, answer))
    return raw, name, {"of": source}


def _defective_line(
    rng: random.Random, kind: str, i: int, stock: _Stock
) -> tuple[dict | bytes, str, dict]:
    """One line with a defect of this kind, its format, and what more the truth says of it."""
    if kind in ("duplicate", "near duplicate"):
        return _copy(rng, kind, stock)
    if kind in ("invalid json", "missing key", "not utf-8"):
        line, name = broken(rng, kind, stock.pool.pop()["messages"])
        return line, name, {}
    texts, more = _new(rng, kind, i, stock)
    raw, name = in_format(rng, chat(*texts))
    return raw, name, more


def messy_lines(
    train: list[dict], golden: list[dict], recipe: Recipe = EMBEDDED
) -> tuple[list[bytes], list[dict]]:
    """(the raw lines, the truth about each by line number from 1).

    The truth of a line: `line`, `format`, `defect` ("none", "code" for code that must survive as it
    is, or another of the recipe's counts), and what measures a find: `of` (the line that a
    duplicate copies), `pii`, `golden` (a key), `right`, `language`.
    """
    rng = random.Random(recipe.seed)
    stock = _stock(rng, train, golden, recipe)
    made = []
    for row in stock.clean:
        raw, name = in_format(rng, row["messages"])
        made.append((raw, name, {"defect": "none"}))
    for kind, count in recipe.counts.items():
        for i in range(count):
            raw, name, more = _defective_line(rng, kind, i, stock)
            made.append((raw, name, {"defect": kind, **more}))
    return in_order(rng, made)


def questions(lines: list[bytes]) -> set[str]:
    """The questions of the lines that can be read."""
    found = set()
    for line in lines:
        try:
            row = json.loads(line)
            found.add(convert(row)["messages"][0]["content"])
        except (UnicodeDecodeError, json.JSONDecodeError, DataError):
            continue  # a line that is broken on purpose
    return found


def in_order(rng: random.Random, made: list[tuple]) -> tuple[list[bytes], list[dict]]:
    """Shuffled, but a copy always after its original; the first of `made` are the originals, as
    `of` numbers them.
    """
    keys = [rng.random() for _ in made]
    for i, (_, _, about) in enumerate(made):
        if "of" in about:
            keys[i] = rng.uniform(keys[about["of"]], 1)
    order = sorted(range(len(made)), key=keys.__getitem__)
    line_of = {i: line for line, i in enumerate(order, 1)}
    lines = []
    truth = []
    for i in order:
        raw, name, about = made[i]
        if not isinstance(raw, bytes):
            raw = json.dumps(raw, ensure_ascii=False).encode()
        lines.append(raw)
        entry = {"line": line_of[i], "format": name, **about}
        if "of" in about:
            entry["of"] = line_of[about["of"]]
        truth.append(entry)
    return lines, truth
