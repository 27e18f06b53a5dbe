"""A deliberately messy raw file and the truth about every line: what lab 3.1.6 cleans, and what its
cleaning is measured by.

Personal data is made up in ranges kept for that: example.com, addresses of RFC 5737 and RFC 3849,
telephone numbers for fiction, card numbers published for tests, IBANs of a bank called TEST with
right check digits, keys that say that they are none.
"""

from __future__ import annotations

import html
import json
import random

from data.world import SEED

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
    text = f"GB{98 - int(digits) % 97:02d}{account}"
    return " ".join(text[i : i + 4] for i in range(0, len(text), 4))


def _email(rng: random.Random) -> str:
    user, number = (
        rng.choice(["ann", "info", "b.miller", "shop+news", "c_weaver"]),
        rng.randint(1, 99),
    )
    return f"{user}{number}@{rng.choice(['example.com', 'mail.example.org', 'example.net'])}"


PII = {
    "email": _email,
    "iban": iban,
    "phone": lambda rng: rng.choice(
        [f"+1 202-555-01{rng.randint(0, 99):02d}", f"+44 20 7946 0{rng.randint(0, 999):03d}"]
    ),
    "card": lambda rng: rng.choice(
        ["4111 1111 1111 1111", "4242-4242-4242-4242", "5555 5555 5555 4444"]
    ),
    "ip": lambda rng: rng.choice(
        ["192.0.2.{}", "198.51.100.{}", "203.0.113.{}", "2001:db8::{}"]
    ).format(rng.randint(1, 254)),
    "key": lambda rng: f"sk-example-NOTAREALKEY{rng.randint(10**11, 10**12 - 1)}",
}


def chat(question: str, answer: str) -> list[dict]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def in_format(rng: random.Random, messages: list[dict]) -> tuple[dict, str]:
    """The conversation as a raw row, and the format's name: messages, Alpaca, ShareGPT in turn by
    chance.
    """
    question, answer = (m["content"] for m in messages)
    name = rng.choice(["messages", "alpaca", "sharegpt"])
    return {
        "messages": {"messages": messages},
        "alpaca": {"instruction": question, "input": "", "output": answer},
        "sharegpt": {
            "conversations": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": answer},
            ]
        },
    }[name], name


# --- one defect each: (question, answer), what the truth records beside the defect's name ---------
def near_copy(rng: random.Random, question: str, answer: str) -> tuple[str, str]:
    """The same question with a word or a sign more."""
    return rng.choice(
        [
            f"{question} Thanks.",
            f"Please: {question}",
            f"{question.rstrip('.?')}, please{question[-1]}",
            question.replace(" ", "  ", 1).upper(),
            f"{question} ",
        ]
    ), answer


def with_pii(rng: random.Random) -> tuple[tuple[str, str], dict]:
    kinds = rng.sample(list(PII), rng.choice([1, 1, 2]))
    found = [{"kind": kind, "text": PII[kind](rng)} for kind in kinds]
    question, answer = rng.choice(ASKED).format(found[0]["text"]), rng.choice(SAID)
    return (
        question,
        answer if len(found) == 1 else f"{answer} The other way is {found[1]['text']}.",
    ), {"pii": found}


def with_html(rng: random.Random, question: str, answer: str) -> tuple[str, str]:
    question, answer = html.escape(question), html.escape(answer)
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
        return rng.choice(
            [cut, text.replace('"', "'"), text[:-1] + ",}", text + text]
        ).encode(), name
    if kind == "missing key":
        return json.dumps(
            rng.choice(
                [
                    {"prompt_text": messages[0]["content"]},
                    {"instruction": messages[0]["content"]},
                    {},
                    [1, 2],
                    {"messages": []},
                    {"conversations": None},
                ]
            )
        ).encode(), "none"
    return text.encode().replace(b" ", b" \xe9\xff ", 1), name


def _defective(
    rng: random.Random, kind: str, i: int, pool: list[dict], golden: list[dict], answers: dict
):
    """((question, answer), what more the truth says) of one new row with a defect of this kind."""
    if kind == "pii":
        return with_pii(rng)
    if kind in ("language", "code"):
        language, number = rng.choice(list(FOREIGN)), str(rng.randint(2, 60))
        texts = rng.choice(FOREIGN[language] if kind == "language" else CODE)
        return tuple(text.replace("{n}", number) for text in texts), {
            "language": language
        } if kind == "language" else {}
    row = pool.pop()
    question, answer = (m["content"] for m in row["messages"])
    if kind == "html":
        return with_html(rng, question, answer), {}
    if kind == "contamination":
        source = golden[i % len(golden)]
        return (recased(rng, source["messages"][0]["content"]), source["answer"]), {
            "golden": source["key"]
        }
    if kind == "wrong answer":
        wrong = rng.choice([a for a in answers[row["family"]] if a != answer])
        return (question, wrong), {"right": answer}
    if kind == "empty answer":
        return (question, rng.choice(["", " ", "\n", "\u200b"])), {}  # an empty answer


def messy_lines(train: list[dict], golden: list[dict]) -> tuple[list[bytes], list[dict]]:
    """(the raw lines, the truth about each by line number from 1).

    The truth of a line: `line`, `format`, `defect` ("none", "code" for code that must survive as it
    is, or a key of `COUNTS`), and what measures a find: `of` (the line that a duplicate copies),
    `pii`, `golden` (a key), `right`, `language`.
    """
    rng = random.Random(f"{SEED}/messy")
    pool = [
        r for r in train if r["family"] not in ("about", "sentiment")
    ]  # two wrong answers of sentiment are no choice
    rng.shuffle(pool)
    answers: dict[str, list[str]] = {}
    for row in pool:
        answers.setdefault(row["family"], []).append(row["answer"])
    clean, seen = [pool.pop() for _ in range(CLEAN)], set()
    made = [(*in_format(rng, row["messages"]), {"defect": "none"}) for row in clean]
    long = [n for n, row in enumerate(clean) if len(row["messages"][0]["content"]) >= 45]
    for kind, count in COUNTS.items():
        for i in range(count):
            if kind in ("duplicate", "near duplicate"):
                source = rng.choice(long if kind == "near duplicate" else range(CLEAN))
                texts = [m["content"] for m in clean[source]["messages"]]
                raw, name = in_format(
                    rng, chat(*(texts if kind == "duplicate" else near_copy(rng, *texts)))
                )
                more = {"of": source}
            elif kind in ("invalid json", "missing key", "not utf-8"):
                (raw, name), more = broken(rng, kind, pool.pop()["messages"]), {}
            else:
                texts, more = _new(
                    seen, lambda kind=kind, i=i: _defective(rng, kind, i, pool, golden, answers)
                )
                raw, name = in_format(rng, chat(*texts))
            made.append((raw, name, {"defect": kind, **more}))
    return _in_order(rng, made)


def _new(seen: set, make):
    """What `make` gives, made again until its texts are none of those seen: chance shall plant no
    duplicates.
    """
    while True:
        texts, more = make()
        if texts not in seen:
            seen.add(texts)
            return texts, more


def _in_order(rng: random.Random, made: list[tuple]) -> tuple[list[bytes], list[dict]]:
    """Shuffled, but a copy always after its original; the first CLEAN of `made` are the originals,
    as `of` numbers them.
    """
    keys = [rng.random() for _ in made]
    for i, (_, _, about) in enumerate(made):
        if "of" in about:
            keys[i] = rng.uniform(keys[about["of"]], 1)
    order = sorted(range(len(made)), key=keys.__getitem__)
    number, lines, truth = {i: n for n, i in enumerate(order, 1)}, [], []
    for i in order:
        raw, name, about = made[i]
        lines.append(
            raw if isinstance(raw, bytes) else json.dumps(raw, ensure_ascii=False).encode()
        )
        truth.append(
            {
                "line": number[i],
                "format": name,
                **about,
                **({"of": number[about["of"]]} if "of" in about else {}),
            }
        )
    return lines, truth
