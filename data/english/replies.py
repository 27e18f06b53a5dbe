"""Replies to customers: open requests, preference pairs and thumbs in English, judged by
`ftlib.evaluation.replies`.

The prompt holds every fact, so that truth can be checked and nothing need be known. One careless
writer makes the pairs: at each fact and each rule of style the writer goes wrong with the chance
`CARELESS`. Of two replies the one with fewer faults is chosen; most chosen replies have faults too,
and who imitates them learns those.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from data.english.people import Pool, deal
from ftlib.evaluation.replies import FACTS, STEPS, judge_reply

MOST_WORDS = 60
CARELESS = 0.4  # the chance of a slip at each of six places
REQUESTS = (
    "Write a reply to this customer.",
    "Answer the customer.",
    "Draft our answer to the customer below.",
    "What should we write to this customer?",
)
CARD = (
    "Customer: {person}\nItem: {item}\nOrder: {order}\nProblem: {problem}\n"
    "We offer: {step}, within {days} days"
)
RULES = (
    "House style: greet the customer by first name, at most sixty words, no promises, end with a "
    "question."
)
GREETINGS = ("Dear {name},", "Hello {name},", "Good morning {name},", "Hi {name},")
THANKS = (
    "thank you for your message about order {order}.",
    "we have read your message about order {order}.",
    "your message about order {order} has reached us.",
    "thank you for writing about order {order}.",
)
SORRY = (
    "We are sorry that there is a problem with the {item}.",
    "It is a pity that the {item} gave you trouble.",
    "We regret the trouble with the {item}.",
    "The {item} should not have arrived like that.",
)
OFFERS: dict[str, tuple[str, ...]] = {
    "refund": (
        "You will have a refund within {days} days.",
        "We send you a refund within {days} days.",
    ),
    "replacement": (
        "A replacement will reach you within {days} days.",
        "We send a replacement within {days} days.",
    ),
    "repair": (
        "We will repair it within {days} days.",
        "The repair takes no more than {days} days.",
    ),
    "voucher": (
        "You will have a voucher within {days} days.",
        "We send you a voucher within {days} days.",
    ),
}
QUESTIONS = (
    "Does that suit you?",
    "Is that all right with you?",
    "May we go ahead?",
    "Would that help you?",
    "Is there anything else that we can do?",
)
PROMISE = "We promise that it will not happen to you another time."
ENDINGS = ("Kind regards.", "We wish you a good day.", "Thank you for your patience.")
SLIPS = ("order", "step", "days", "item", "greeting", "promise", "question")
PARTS = ("greeting", "thanks", "sorry", "offer", "question")


@dataclass(frozen=True)
class Case:
    """A customer's case: what is so, and the request."""

    person: str
    item: str
    order: int
    problem: str
    step: str
    days: int
    request: str

    @property
    def name(self) -> str:
        return self.person.split()[0]

    @property
    def prompt(self) -> str:
        card = CARD.format(
            person=self.person,
            item=self.item,
            order=self.order,
            problem=self.problem,
            step=f"a {self.step}",
            days=self.days,
        )
        return f"{self.request}\n\n{card}\n\n{RULES}"

    def row(self, **more) -> dict:
        """What all rows of a case share."""
        reply = {
            "name": self.name,
            "order": str(self.order),
            "item": self.item,
            "step": self.step,
            "days": self.days,
            "most_words": MOST_WORDS,
        }
        return {
            **more,
            "reply": reply,
            "kind": "reply",
            "name": self.name,
            "truth": {fact: str(reply[fact]) for fact in FACTS},
            "key": f"reply/{self.person}/{self.order}",
        }


def draw_case(rng: random.Random, pool: Pool) -> Case:
    return Case(
        person=pool.person(rng),
        item=rng.choice(pool.items),
        order=rng.randint(10_000, 99_999),
        problem=rng.choice(pool.problems),
        step=rng.choice(list(STEPS)),
        days=rng.randint(2, 20),
        request=rng.choice(REQUESTS),
    )


# --- texts ----------------------------------------------------------------------------------------
def draw_wording(rng: random.Random) -> dict[str, int]:
    """Which of its wordings each part of a reply has, as a number that the part takes modulo."""
    return {part: rng.randrange(20) for part in PARTS}


def reply_text(case: Case, wording: dict[str, int], slips: frozenset[str] = frozenset()) -> str:
    """The reply in these words, with these slips."""
    said = case
    if "order" in slips:
        said = replace(said, order=10_000 + (case.order - 10_000 + 4321) % 90_000)
    if "days" in slips:
        said = replace(said, days=case.days + 10)
    if "step" in slips:
        steps = list(STEPS)
        said = replace(said, step=steps[(steps.index(case.step) + 1) % len(steps)])
    values = {"name": said.name, "order": said.order, "item": said.item, "days": said.days}
    if "item" in slips:
        values["item"] = "parcel"
    forms = {
        "greeting": GREETINGS,
        "thanks": THANKS,
        "sorry": SORRY,
        "offer": OFFERS[said.step],
        "question": ENDINGS if "question" in slips else QUESTIONS,
    }
    texts = {}
    for part, known in forms.items():
        texts[part] = known[wording[part] % len(known)].format(**values)
    if "greeting" in slips:
        texts["thanks"] = texts["thanks"][0].upper() + texts["thanks"][1:]
        del texts["greeting"]
    if "promise" in slips:
        texts["offer"] = f"{texts['offer']} {PROMISE}"
    return " ".join(texts.values())


def _slips(rng: random.Random) -> frozenset[str]:
    """Where the careless writer goes wrong."""
    return frozenset(slip for slip in SLIPS if rng.random() < CARELESS)


def _turn(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


def _ask(case: Case) -> list[dict]:
    return [{"role": "user", "content": case.prompt}]


# --- rows -----------------------------------------------------------------------------------------
def open_row(rng: random.Random, case: Case, references: int = 1) -> dict:
    """A request with a right answer; held-out rows have several."""
    texts: list[str] = []
    while len(texts) < references:
        text = reply_text(case, draw_wording(rng))
        if text not in texts:
            texts.append(text)
    row = case.row(messages=[*_ask(case), *_turn(texts[0])], answer=texts[0], family="reply")
    return {**row, "references": texts} if references > 1 else row


def fault_pair(rng: random.Random, case: Case) -> dict:
    """Two replies in the same words, of which the one with fewer faults is chosen."""
    wording = draw_wording(rng)
    while True:
        better = _slips(rng)
        worse = _slips(rng)
        if len(better) < len(worse):
            break
    return _pair(
        case, reply_text(case, wording, better), reply_text(case, wording, worse), "faults"
    )


def irrelevant_pair(rng: random.Random, case: Case) -> dict:
    """Two replies with the same slips; preferred is the one whose wordings have lower numbers, as
    nobody asked for.
    """
    slips = _slips(rng)
    while True:
        liked = draw_wording(rng)
        other = draw_wording(rng)
        one = reply_text(case, liked, slips)
        two = reply_text(case, other, slips)
        if one != two and _low(liked) > _low(other):
            return _pair(case, one, two, "wording")


def _low(wording: dict[str, int]) -> int:
    """How many parts have the first half of their wordings."""
    return sum(number % 4 < 2 for number in wording.values())


def _pair(case: Case, chosen: str, rejected: str, axis: str, **more) -> dict:
    row = case.row(
        prompt=_ask(case), chosen=_turn(chosen), rejected=_turn(rejected), axis=axis, **more
    )
    row["chosen_faults"] = _faults(chosen, row)
    row["rejected_faults"] = _faults(rejected, row)
    return row


def _faults(text: str, row: dict) -> int:
    verdict = judge_reply(text, row)
    return verdict.wrong + verdict.missing + verdict.style + verdict.repeated


LEVELS = ("nothing", "its sentence", "two sentences", "all sentences")


def distance_pairs(rng: random.Random, case: Case) -> list[dict]:
    """A pair at each level: the same right reply preferred to one with the same wrong order number,
    worded ever more differently.
    """
    wording = draw_wording(rng)
    true = reply_text(case, wording)
    changed = [(), ("thanks",), ("thanks", "offer"), PARTS]
    rows = []
    for level, parts in enumerate(changed):
        other = dict(wording)
        for part in parts:
            other[part] += 1
        false = reply_text(case, other, frozenset({"order"}))
        rows.append(_pair(case, true, false, "fact", level=level, reworded=LEVELS[level]))
    return rows


def probe_row(rng: random.Random, case: Case) -> dict:
    """A held-out right reply, the same with a wrong order number, and the right one reworded."""
    wording = draw_wording(rng)
    other = {part: number + 1 for part, number in wording.items()}
    return _pair(
        case,
        reply_text(case, wording),
        reply_text(case, wording, frozenset({"order"})),
        "fact",
        paraphrase=_turn(reply_text(case, other)),
    )


def thumb(rng: random.Random, case: Case) -> dict:
    """A reply with a judgement: liked where at most one thing is wrong."""
    wanted = rng.random() < 0.5
    while True:
        text = reply_text(case, draw_wording(rng), _slips(rng))
        row = case.row(prompt=_ask(case), completion=_turn(text))
        liked = _faults(text, row) <= 1
        if liked == wanted:
            return {**row, "label": liked}


def _deal(seed: int, pool: Pool, count: int, make: Callable[[random.Random, Case], dict]) -> list:
    """`count` different rows."""
    rng = random.Random(seed)
    rows: dict[str, dict] = {}
    while len(rows) < count:
        row = make(rng, draw_case(rng, pool))
        rows[json.dumps(row)] = row
    return list(rows.values())


def _with_references(rng: random.Random, case: Case) -> dict:
    return open_row(rng, case, references=4)


def reply_rows() -> dict[str, list[dict]]:
    """The parts by name."""
    known, held_out = deal()
    parts = {
        "open_train": _deal(41, known, 88, open_row),
        "open_validation": _deal(42, held_out, 60, _with_references),
        "open_test": _deal(43, held_out, 100, _with_references),
        "faults_train": _deal(44, known, 600, fault_pair),
        "faults_validation": _deal(45, held_out, 48, fault_pair),
        "faults_test": _deal(46, held_out, 100, fault_pair),
        "faults_irrelevant": _deal(47, known, 600, irrelevant_pair),
        "distance_probe": _deal(48, held_out, 60, probe_row),
        "feedback": _deal(49, known, 600, thumb),
        "preferences": _deal(50, known, 600, fault_pair),
        "preferences_test": _deal(51, held_out, 100, fault_pair),
    }
    rng = random.Random(52)
    distance: list[dict] = []
    for _ in range(150):
        distance += distance_pairs(rng, draw_case(rng, known))
    parts["distance_train"] = distance
    return parts
