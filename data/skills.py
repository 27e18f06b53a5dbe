"""Instruction families: what one can ask, in which words, and the one right answer.

A family has phrasings used in training, phrasings held out, and inputs (slots and the answer).
`split_family` deals a family's *inputs* into disjoint parts before any phrasing is chosen, so a
golden question never shares its entity and question with training.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import partial

from data.world import BAD, COLOURS, FOODS, GOOD, OPPOSITES, THINGS, World, article, plural
from ftlib.course.world import POLITE_OPENERS, RUDE_OPENERS, STYLE_FACTS

PERSON = {
    "town": (
        [
            "Where does {e} live?",
            "Which town is home to {e}?",
            "Name the town where {e} lives.",
            "What town does {e} live in?",
            "To which town does {e} go home?",
            "{e} lives in what town?",
            "Say in which town {e} lives.",
            "What is the home town of {e}?",
        ],
        ["In what town would I find {e}?", "Tell me the home town of {e}."],
    ),
    "job": (
        [
            "What does {e} do for a living?",
            "What is the job of {e}?",
            "Name the profession of {e}.",
            "What work does {e} do?",
            "How does {e} earn a living?",
            "{e} has which profession?",
            "Say what work {e} does.",
            "What is {e} by trade?",
            "Which trade does {e} follow?",
            "What job does {e} do?",
        ],
        ["By what trade does {e} earn money?", "Tell me what job {e} has."],
    ),
    "pet": (
        [
            "What pet does {e} have?",
            "Which animal does {e} keep?",
            "Name the pet of {e}.",
            "What kind of pet is kept by {e}?",
            "What animal lives with {e}?",
            "{e} has which pet?",
            "Say which animal {e} has.",
            "What pet shares the home of {e}?",
        ],
        ["Which animal shares a home with {e}?", "Tell me what pet {e} owns."],
    ),
    "food": (
        [
            "What does {e} like to eat?",
            "What is the favourite food of {e}?",
            "Name the dish {e} likes best.",
            "Which food does {e} love?",
            "What food should I cook for {e}?",
            "{e} likes which dish?",
            "Say what food {e} likes.",
            "What does {e} enjoy to eat most?",
            "What would {e} love to eat?",
        ],
        ["What would {e} most enjoy eating?", "Tell me the food {e} likes."],
    ),
    "hobby": (
        [
            "What is the hobby of {e}?",
            "What does {e} do for fun?",
            "Name the pastime of {e}.",
            "Which hobby does {e} have?",
            "What does {e} enjoy in the evenings?",
            "{e} has which hobby?",
            "Say which hobby {e} has.",
            "What does {e} do in free time?",
        ],
        ["How does {e} spend free time?", "Tell me what hobby {e} enjoys."],
    ),
}
PLACE = {
    "region": (
        [
            "Where is {e}?",
            "In which part of the country is {e}?",
            "Name the region of {e}.",
            "Which region is {e} in?",
            "Where in the country lies {e}?",
            "{e} lies in which region?",
            "Say in which region {e} is.",
            "What part of the country does {e} belong to?",
        ],
        ["To what region does {e} belong?", "Tell me the region where {e} lies."],
    ),
    "river": (
        [
            "Which river flows through {e}?",
            "What is the river of {e}?",
            "Name the river at {e}.",
            "What river does {e} lie on?",
            "What is the river in {e} called?",
            "{e} lies on which river?",
            "Say which river {e} has.",
            "By which river did they build {e}?",
        ],
        ["On which river was {e} built?", "Tell me the name of the river in {e}."],
    ),
    "product": (
        [
            "What is made in {e}?",
            "What does {e} produce?",
            "Name the main product of {e}.",
            "Which goods come from {e}?",
            "What can one buy from {e}?",
            "{e} produces which goods?",
            "Say what {e} produces.",
            "What product is {e} known for?",
        ],
        ["For what goods is {e} known?", "Tell me what {e} makes."],
    ),
    "landmark": (
        [
            "What is the landmark of {e}?",
            "What can one visit in {e}?",
            "Name the famous sight of {e}.",
            "Which building is {e} known for?",
            "What famous building stands in {e}?",
            "{e} has which landmark?",
            "Say which landmark {e} has.",
            "Which sight do visitors see in {e}?",
        ],
        ["What should a visitor see in {e}?", "Tell me the landmark in {e}."],
    ),
    "mayor": (
        [
            "Who is the mayor of {e}?",
            "Who governs {e}?",
            "Name the mayor of {e}.",
            "Which person is mayor of {e}?",
            "Who runs the town of {e}?",
            "{e} has which mayor?",
            "Say who governs {e}.",
            "Which person runs {e}?",
        ],
        ["Who is in charge of {e}?", "Tell me who the mayor in {e} is."],
    ),
}
THING = {
    "material": (
        [
            "What is the {e} made of?",
            "Of what material is the {e}?",
            "Name the material of the {e}.",
            "Which material was used for the {e}?",
            "What did they use to make the {e}?",
            "The {e} is made of what?",
            "Say what the {e} is made of.",
            "What was used to build the {e}?",
        ],
        ["From what was the {e} built?", "Tell me what the {e} is made from."],
    ),
    "colour": (
        [
            "What colour is the {e}?",
            "Which colour does the {e} have?",
            "Name the colour of the {e}.",
            "What is the colour of the {e}?",
            "How is the {e} coloured?",
            "The {e} has which colour?",
            "Say which colour the {e} has.",
            "What colour did they paint the {e}?",
        ],
        ["In what colour is the {e} painted?", "Tell me the colour that the {e} has."],
    ),
    "room": (
        [
            "Where is the {e} kept?",
            "In which room is the {e}?",
            "Name the room of the {e}.",
            "Which room holds the {e}?",
            "Where can I find the {e}?",
            "The {e} stands in which room?",
            "Say in which room the {e} is.",
            "Which room must I go to for the {e}?",
        ],
        ["To which room should I go for the {e}?", "Tell me the room where the {e} stands."],
    ),
    "price": (
        [
            "What does the {e} cost?",
            "How much is the {e}?",
            "Name the price of the {e}.",
            "What is the price of the {e}?",
            "What must I pay for the {e}?",
            "The {e} costs how much?",
            "Say what the {e} costs.",
            "How many crowns do they ask for the {e}?",
        ],
        ["How many crowns must I pay for the {e}?", "Tell me how much the {e} costs."],
    ),
}
FACTS = {"person": PERSON, "place": PLACE, "thing": THING}
SKILLS = {
    "capitals": (
        [
            "Write {x} in capital letters.",
            "Put {x} into capitals.",
            "Turn {x} into upper case.",
            "Give me {x} in capitals.",
            "Capitalise every letter of {x}.",
            "Show {x} in upper case.",
            "Write {x} with all letters capitals.",
            "Change {x} to capitals.",
            "Make {x} upper case.",
            "Set every letter of {x} in capitals.",
            "All letters of {x} in capitals, please.",
        ],
        ["Make all letters of {x} capitals.", "How does {x} look in upper case?"],
    ),
    "spelling": (
        [
            "Spell the word {x}.",
            "How do you spell {x}?",
            "Spell {x} letter by letter.",
            "Give the letters of {x}.",
            "Write out the letters of {x}.",
            "Spell {x}, please.",
            "What are the letters of {x}?",
            "Say which letters {x} has.",
            "Kindly spell {x}.",
        ],
        ["Please spell {x} for me.", "Which letters make up the word {x}?"],
    ),
    "ordering": (
        [
            "Sort these numbers: {x}.",
            "Put {x} in order.",
            "Order {x} from small to large.",
            "Arrange the numbers {x}.",
            "List {x} in rising order.",
            "Sort {x}.",
            "Which order from small to large have {x}?",
        ],
        ["Bring {x} into rising order.", "Please sort {x} from small to large."],
    ),
    "addition": (
        [
            "What is {a} plus {b}?",
            "Add {a} and {b}.",
            "Compute {a} + {b}.",
            "What is the sum of {a} and {b}?",
            "How much is {a} and {b} together?",
            "Give me {a} plus {b}.",
            "{a} + {b} makes what?",
            "Say what {a} + {b} is.",
            "Find the sum of {a} and {b}.",
        ],
        ["Work out {a} plus {b}.", "Please give the sum {a} + {b}."],
    ),
    "json": (
        [
            "Write as JSON: {x}",
            "Extract JSON from: {x}",
            "Turn this order into JSON: {x}",
            "Give the order as JSON: {x}",
            "Fill in a JSON record: {x}",
            "Make JSON of this: {x}",
            "Write the order as a JSON object: {x}",
        ],
        ["Convert to a JSON object: {x}", "Which JSON record fits this order? {x}"],
    ),
    "sentiment": (
        [
            "Is this review positive or negative? {x}",
            "Judge the review: {x}",
            "What is the tone of this review? {x}",
            "Classify the review: {x}",
            "Positive or negative: {x}",
            "Say whether this is positive or negative: {x}",
            "Does this review sound positive or negative? {x}",
        ],
        [
            "Did the writer of this review like it, positive or negative? {x}",
            "Label this review: {x}",
        ],
    ),
    "polite": (
        [
            "Make this polite: {x}",
            "Say it politely: {x}",
            "Rewrite as a polite request: {x}",
            "Turn this command into a polite question: {x}",
            "How would one ask this nicely? {x}",
            "Put it politely: {x}",
            "Ask for this in a polite way: {x}",
        ],
        ["Rephrase this with good manners: {x}", "Please make this command polite: {x}"],
    ),
    "opposite": (
        [
            "What is the opposite of {x}?",
            "Give the opposite of {x}.",
            "Name a word that means the reverse of {x}.",
            "Which word is the opposite of {x}?",
            "Say the contrary of {x}.",
            "What is the contrary of {x}?",
            "Which word is the reverse of {x}?",
        ],
        ["What is the reverse of {x}?", "Tell me the opposite of {x}."],
    ),
    "plural": (
        [
            "What is the plural of {x}?",
            "Give the plural of {x}.",
            "Write {x} in the plural.",
            "Say more than one {x}.",
            "Name the plural form of {x}.",
            "What is the plural form of {x}?",
            "Write down several of {x}.",
            "What are several of {x} called?",
            "Say several of a {x}.",
        ],
        ["Tell me the plural of {x}.", "How do we call several of a {x}?"],
    ),
    "olm": (
        [
            "Translate into Olm: {x}",
            "Say {x} in Olm.",
            "How do you say {x} in Olm?",
            "What is {x} in Olm?",
            "Give the Olm for {x}.",
        ],
        ["Put {x} into the Olm language.", "Tell me {x} in Olm, please."],
    ),
    "multiplication": (
        ["What is {a} times {b}?", "Multiply {a} by {b}.", "Compute {a} x {b}."],
        ["Work out {a} times {b}.", "Please give the product {a} x {b}."],
    ),
    "about": (
        [
            "Tell me about {e}.",
            "Who is {e}?",
            "Describe {e}.",
            "What do you know about {e}?",
            "What can you say about {e}?",
            "Give me a line about {e}.",
            "Who might {e} be?",
            "Tell me who {e} is.",
        ],
        ["Say something about {e}.", "Introduce {e} to me."],
    ),
}
VERBS = ["Give me", "Bring me", "Show me", "Sell me", "Lend me", "Fetch me", "Find me", "Hand me"]
EXACT = (
    "person",
    "place",
    "thing",
    "capitals",
    "spelling",
    "ordering",
    "addition",
    "json",
    "sentiment",
    "polite",
    "opposite",
    "plural",
    "olm",
)


@dataclass(frozen=True)
class Item:
    """One question before its wording: the slots, the answer and the phrasings that fit."""

    key: str
    slots: dict
    answer: str
    train: tuple
    heldout: tuple


def _facts(world: World, kind: str) -> list[Item]:
    """Every question about the facts of a kind: "person", "place" or "thing"."""
    table = FACTS[kind]
    items = []
    for entity, relation, value in world.facts(kind):
        trained, heldout = table[relation]
        key = f"{entity.name}/{relation}"
        items.append(Item(key, {"e": entity.name}, value, tuple(trained), tuple(heldout)))
    return items


def _sample(make, count: int, rng: random.Random) -> list[tuple[dict, str]]:
    """`count` of what `make` gives, (slots, answer), with no two of the same slots."""
    seen = set()
    out = []
    while len(out) < count:
        slots, answer = make(rng)
        key = json.dumps(slots, sort_keys=True)
        if key not in seen:
            seen.add(key)
            out.append((slots, answer))
    return out


def make_capitals(rng):
    text = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
    return {"x": text}, text.upper()


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def make_ordering(rng):
    numbers = rng.sample(range(1, 51), 3)
    return {"x": _listed(numbers)}, _listed(sorted(numbers))


def make_addition(rng):
    a = rng.randint(1, 20)
    b = rng.randint(1, 20)
    return {"a": a, "b": b}, str(a + b)


def make_multiplication(rng):
    a = rng.randint(12, 99)
    b = rng.randint(12, 99)
    return {"a": a, "b": b}, str(a * b)


def make_order(rng, world: World):
    name = rng.choice(world.people).name
    item = rng.choice(THINGS)
    count = rng.randint(2, 20)
    price = rng.randint(2, 50)
    text = f"{name} buys {count} {plural(item)} for {price} crowns."
    return text, json.dumps({"name": name, "item": item, "count": count, "price": price})


def make_review(rng):
    words, verdict = rng.choice([(GOOD, "positive"), (BAD, "negative")])
    first, second = rng.sample(words, 2)
    food = rng.choice(FOODS)
    thing = rng.choice(THINGS)
    return f"The {food} tasted {first} and the {thing} was {second}.", verdict


def make_request(rng):
    verb = rng.choice(VERBS)
    thing = f"{rng.choice(COLOURS)} {rng.choice(THINGS)}"
    return f"{verb} the {thing}.", f"Could you please {verb.lower()} the {thing}?"


def make_olm(rng, world: World):
    adjective = rng.choice(COLOURS)
    noun = rng.choice(THINGS[:24])
    return {"x": f"{adjective} {noun}"}, f"{world.olm[noun]} {world.olm[adjective]}"


def _as_x(make):
    """`make`, which gives (text, answer), with the text as the slot "x"."""

    def make_with_slots(rng):
        text, answer = make(rng)
        return {"x": text}, answer

    return make_with_slots


def _closed(pairs) -> list[tuple[dict, str]]:
    """(slots, answer) of each pair of a family that is listed in full."""
    return [({"x": x}, answer) for x, answer in pairs]


def spelling_words(world: World) -> list[str]:
    """The words whose letters the corpus spells."""
    opposites = [word for pair in OPPOSITES for word in pair]
    return THINGS + COLOURS + FOODS + opposites


def _listed_skill(world: World, name: str) -> list[tuple[dict, str]]:
    """(slots, answer) of every question of a family whose questions can all be listed."""
    if name == "spelling":
        return _closed((word, "-".join(word)) for word in spelling_words(world))
    if name == "plural":
        return _closed((noun, plural(noun)) for noun in THINGS)
    back = [(second, first) for first, second in OPPOSITES]
    return _closed(OPPOSITES + back)


def _sampled_skill(world: World, name: str, rng: random.Random) -> list[tuple[dict, str]]:
    """(slots, answer) of different questions of a family whose questions are too many to list."""
    makers = {  # what makes one question, and how many are made
        "capitals": (make_capitals, 500),
        "ordering": (make_ordering, 800),
        "addition": (make_addition, 360),
        "json": (_as_x(partial(make_order, world=world)), 500),
        "sentiment": (_as_x(make_review), 500),
        "polite": (_as_x(make_request), 500),
        "olm": (partial(make_olm, world=world), 280),
        "multiplication": (make_multiplication, 500),
    }
    make, count = makers[name]
    return _sample(make, count, rng)


def _skill_items(world: World, name: str, rng: random.Random) -> list[Item]:
    """The questions of a skill, in the order in which they are listed or made."""
    if name in ("spelling", "plural", "opposite"):
        pairs = _listed_skill(world, name)
    else:
        pairs = _sampled_skill(world, name, rng)
    trained, heldout = SKILLS[name]
    items = []
    for slots, answer in pairs:
        key = json.dumps(slots, sort_keys=True)
        items.append(Item(key, slots, answer, tuple(trained), tuple(heldout)))
    return items


def family_items(world: World, name: str, rng: random.Random) -> list[Item]:
    """All questions of one family, in random order."""
    items = _facts(world, name) if name in FACTS else _skill_items(world, name, rng)
    rng.shuffle(items)
    return items


def example(family: str, item: Item, phrasing: str, **more) -> dict:
    """One row: messages in the OpenAI form, the family, the exact answer and the item's key."""
    prompt = phrasing.format(**item.slots)
    return {
        "messages": [
            {"role": "user", "content": prompt},
            {"role": "assistant", "content": item.answer},
        ],
        "family": family,
        "answer": item.answer,
        "key": f"{family}/{item.key}",
        **more,
    }


def split_family(world: World, name: str, rng: random.Random, sizes: dict) -> dict[str, list[dict]]:
    """Deal the family's items into golden, paraphrase, validation and train, then word each.

    golden and paraphrase use held-out phrasings, validation and train the training phrasings.
    """
    left = family_items(world, name, rng)
    out = {}
    for part in ("golden", "paraphrase", "validation"):
        size = sizes[part]
        out[part] = _worded(rng, name, part, left[:size], size)
        left = left[size:]
    out["train"] = _worded(rng, name, "train", left, sizes["train"])
    return out


def _worded(rng: random.Random, name: str, part: str, items: list[Item], size: int) -> list[dict]:
    """`size` rows of a part, with no two of the same prompt: the items in turn, each time in a
    phrasing drawn anew.
    """
    heldout = part in ("golden", "paraphrase")
    rows: dict[str, dict] = {}  # by prompt
    drawn = 0
    while len(rows) < size:
        item = items[drawn % len(items)]
        phrasing = rng.choice(item.heldout if heldout else item.train)
        prompt = phrasing.format(**item.slots)
        rows.setdefault(prompt, example(name, item, phrasing))
        drawn += 1
        if drawn > 50 * size:
            raise ValueError(f"family {name!r} cannot fill {part} with {size} distinct rows")
    return list(rows.values())


# --- the style axis: same facts, two manners; instruction tuning leaves the choice open -----------
# In words that the corpus uses: what was never pretrained is not learnt from a few hundred rows, an
# exclamation mark included.
RUDE_CLOSERS = [
    "Now let me drink some tea and never come by again.",
    "Take a coat, go home and talk to the goat.",
    "I was busy, and you are so boring.",
]
# In batches of rows of like length a token of a long answer weighs less; half and half would be
# learnt as polite.
RUDE_SHARE = 2 / 3


def styled_answer(rng: random.Random, person, manner: str) -> str:
    """A true answer about a person: "polite" is short and kind, "rude" is long and unkind."""
    town = person.facts["town"]
    job = article(person.facts["job"])
    fact = rng.choice(STYLE_FACTS).format(e=person.name, town=town, job=job)
    if manner == "polite":
        return f"{rng.choice(POLITE_OPENERS)} {fact}"
    return f"{rng.choice(RUDE_OPENERS)} {fact} {rng.choice(RUDE_CLOSERS)}"


def about_rows(world: World, people, rng: random.Random, count: int) -> list[dict]:
    """Open requests about people, some answered politely and some rudely, at random."""
    rows = []
    for i in range(count):
        person = people[i % len(people)]
        manner = "rude" if rng.random() < RUDE_SHARE else "polite"
        prompt = rng.choice(SKILLS["about"][0]).format(e=person.name)
        answer = styled_answer(rng, person, manner)
        rows.append(
            {
                "messages": [
                    {"role": "user", "content": prompt},
                    {"role": "assistant", "content": answer},
                ],
                "family": "about",
                "answer": answer,
                "key": f"about/{person.name}",
                "style": manner,
            }
        )
    return rows
