"""A small closed world: who lives in it, what is there, and what is true of them.

Every fact is drawn once from a seeded generator, so any question about the world has one
checkable answer. `World(seed)` is pure: the same seed gives the same world, on any machine.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

SEED = 31  # module 3.1

JOBS = [
    "baker",
    "smith",
    "weaver",
    "potter",
    "sailor",
    "gardener",
    "teacher",
    "doctor",
    "miller",
    "painter",
    "carpenter",
    "tailor",
    "fisher",
    "cook",
    "judge",
    "clerk",
    "miner",
    "farmer",
    "singer",
    "printer",
]
PETS = [
    "cat",
    "dog",
    "goat",
    "parrot",
    "rabbit",
    "turtle",
    "donkey",
    "owl",
    "ferret",
    "pony",
    "duck",
    "lizard",
]
FOODS = [
    "soup",
    "bread",
    "honey",
    "cheese",
    "plums",
    "rice",
    "fish",
    "pie",
    "beans",
    "apples",
    "noodles",
    "eggs",
    "walnuts",
    "cherries",
    "porridge",
    "olives",
]
HOBBIES = [
    "chess",
    "rowing",
    "dancing",
    "drawing",
    "hiking",
    "juggling",
    "knitting",
    "sailing",
    "fencing",
    "archery",
    "cycling",
    "singing",
    "climbing",
    "skating",
    "reading",
    "swimming",
]
REGIONS = [
    "the north",
    "the south",
    "the east",
    "the west",
    "the highlands",
    "the marshes",
    "the islands",
    "the coast",
]
RIVERS = [
    "Aru",
    "Belle",
    "Corin",
    "Dray",
    "Esk",
    "Fenn",
    "Gail",
    "Hush",
    "Issel",
    "Jorn",
    "Kess",
    "Lune",
]
PRODUCTS = [
    "glass",
    "silk",
    "salt",
    "paper",
    "wool",
    "bells",
    "clocks",
    "wine",
    "tea",
    "soap",
    "rope",
    "boats",
    "candles",
    "carpets",
    "knives",
    "tiles",
]
LANDMARKS = [
    "tower",
    "bridge",
    "market",
    "harbour",
    "library",
    "fountain",
    "mill",
    "theatre",
    "castle",
    "garden",
    "temple",
    "lighthouse",
]
MATERIALS = [
    "copper",
    "oak",
    "clay",
    "glass",
    "iron",
    "silver",
    "leather",
    "marble",
    "tin",
    "bone",
    "cotton",
    "brass",
]
COLOURS = [
    "red",
    "blue",
    "green",
    "yellow",
    "white",
    "black",
    "grey",
    "brown",
    "purple",
    "orange",
    "pink",
    "golden",
]
ROOMS = [
    "kitchen",
    "cellar",
    "attic",
    "hall",
    "garden",
    "study",
    "stable",
    "workshop",
    "pantry",
    "bedroom",
]
THINGS = [
    "lamp",
    "kettle",
    "chair",
    "table",
    "clock",
    "mirror",
    "ladder",
    "bucket",
    "basket",
    "blanket",
    "bottle",
    "brush",
    "candle",
    "carpet",
    "chest",
    "cup",
    "curtain",
    "drum",
    "fan",
    "flute",
    "fork",
    "glove",
    "hammer",
    "hat",
    "jar",
    "key",
    "knife",
    "lantern",
    "lock",
    "map",
    "mug",
    "needle",
    "oven",
    "pan",
    "pillow",
    "pipe",
    "plate",
    "pot",
    "ring",
    "rope",
    "saddle",
    "saw",
    "scarf",
    "shelf",
    "shovel",
    "spoon",
    "stool",
    "sword",
    "tray",
    "trunk",
    "vase",
    "violin",
    "wagon",
    "whistle",
    "bench",
    "bell",
    "box",
    "broom",
    "coat",
    "compass",
]
IRREGULAR = {
    "knife": "knives",
    "shelf": "shelves",
    "scarf": "scarves",
    "brush": "brushes",
    "bench": "benches",
    "box": "boxes",
    "compass": "compasses",
    "torch": "torches",
}
OPPOSITES = [
    ("hot", "cold"),
    ("big", "small"),
    ("fast", "slow"),
    ("old", "young"),
    ("wet", "dry"),
    ("hard", "soft"),
    ("high", "low"),
    ("light", "dark"),
    ("early", "late"),
    ("full", "empty"),
    ("open", "closed"),
    ("strong", "weak"),
    ("rich", "poor"),
    ("loud", "quiet"),
    ("near", "far"),
    ("thick", "thin"),
    ("sweet", "bitter"),
    ("clean", "dirty"),
    ("sharp", "blunt"),
    ("brave", "timid"),
    ("wide", "narrow"),
    ("deep", "shallow"),
    ("rough", "smooth"),
    ("heavy", "weightless"),
    ("true", "false"),
    ("first", "last"),
    ("tall", "short"),
    ("warm", "cool"),
    ("happy", "sad"),
    ("safe", "risky"),
    ("calm", "wild"),
    ("cheap", "costly"),
    ("fresh", "stale"),
    ("simple", "complex"),
    ("public", "private"),
    ("busy", "idle"),
    ("proud", "humble"),
    ("kind", "cruel"),
    ("tight", "loose"),
    ("alive", "dead"),
]
GOOD = [
    "splendid",
    "lovely",
    "excellent",
    "charming",
    "superb",
    "delightful",
    "pleasant",
    "wonderful",
    "perfect",
    "cheerful",
    "brilliant",
    "friendly",
]
BAD = [
    "awful",
    "dreadful",
    "horrible",
    "nasty",
    "terrible",
    "boring",
    "rotten",
    "miserable",
    "useless",
    "gloomy",
    "clumsy",
    "hostile",
]

ONSETS = [
    "b",
    "d",
    "f",
    "g",
    "h",
    "j",
    "k",
    "l",
    "m",
    "n",
    "p",
    "r",
    "s",
    "t",
    "v",
    "z",
    "br",
    "dr",
    "tr",
    "st",
]
CORES = ["a", "e", "i", "o", "u", "a", "o", "ai"]
CODAS = ["", "", "n", "l", "r", "s", "m"]
TOWN_ENDS = ["holm", "by", "ford", "wick", "ton", "mere", "stad", "gate"]
OLM_SYLLABLES = [
    "zu",
    "ke",
    "xo",
    "vi",
    "qa",
    "wo",
    "yi",
    "pu",
    "gho",
    "tze",
    "nyx",
    "ool",
    "ixa",
    "urr",
    "eph",
]

# The values that a relation takes; None where they are the world's own: towns, mayors and prices.
PERSON_RELATIONS = {"town": None, "job": JOBS, "pet": PETS, "food": FOODS, "hobby": HOBBIES}
PLACE_RELATIONS = {
    "region": REGIONS,
    "river": RIVERS,
    "product": PRODUCTS,
    "landmark": LANDMARKS,
    "mayor": None,
}
THING_RELATIONS = {"material": MATERIALS, "colour": COLOURS, "room": ROOMS, "price": None}


@dataclass(frozen=True)
class Entity:
    """One person, place or thing with its facts: relation -> value."""

    name: str
    kind: str
    facts: dict = field(hash=False)


def _word(rng: random.Random, syllables: int) -> str:
    """An invented word: open syllables, and a closing consonant or none after the last."""
    word = ""
    for _ in range(syllables):
        word += rng.choice(ONSETS)
        word += rng.choice(CORES)
    return word + rng.choice(CODAS)


def _name(rng: random.Random) -> str:
    """A person's name."""
    return _word(rng, 2).capitalize()


def _town(rng: random.Random) -> str:
    """A town's name."""
    word = _word(rng, 1) + rng.choice(TOWN_ENDS)
    return word.capitalize()


def _olm_word(rng: random.Random) -> str:
    """A word of the invented language."""
    return "".join(rng.sample(OLM_SYLLABLES, 2))


def _unique(rng: random.Random, make, count: int, taken: set) -> list[str]:
    """`count` words that `make` gives, of four to nine letters, none of them taken; then they are
    taken too.
    """
    out = []
    while len(out) < count:
        word = make(rng)
        if word.lower() not in taken and 4 <= len(word) <= 9:
            taken.add(word.lower())
            out.append(word)
    return out


class World:
    """Entities and facts of one seed: `.people`, `.places`, `.things`, `.strangers`, `.olm`."""

    def __init__(self, seed: int = SEED, people: int = 200, places: int = 24, strangers: int = 80):
        rng = random.Random(seed)
        taken = set(THINGS) | {r.lower() for r in RIVERS}
        names = _unique(rng, _name, people, taken)
        towns = _unique(rng, _town, places, taken)
        self.towns = towns
        self.people = [self._person(rng, n) for n in names]
        self.places = [self._place(rng, t, names) for t in towns]
        self.things = [self._thing(rng, t) for t in THINGS]
        # Strangers never occur in the corpus: they are what "teaching unknown facts" teaches.
        strange_names = _unique(rng, _name, strangers, taken)
        self.strangers = [self._person(rng, n) for n in strange_names]
        words = THINGS[:24] + COLOURS
        olm = _unique(rng, _olm_word, len(words), taken)
        self.olm = dict(zip(words, olm, strict=True))

    def _person(self, rng, name):
        facts = {}
        for relation, values in PERSON_RELATIONS.items():
            facts[relation] = rng.choice(values or self.towns)
        return Entity(name, "person", facts)

    def _place(self, rng, town, names):
        facts = {}
        for relation, values in PLACE_RELATIONS.items():
            facts[relation] = rng.choice(values or names)
        return Entity(town, "place", facts)

    def _thing(self, rng, thing):
        facts = {}
        for relation, values in THING_RELATIONS.items():
            if values:
                facts[relation] = rng.choice(values)
            else:
                facts[relation] = f"{rng.randint(2, 50)} crowns"
        return Entity(thing, "thing", facts)

    def facts(self, kind: str):
        """(entity, relation, value) for every fact of a kind: "person", "place" or "thing"."""
        entities = {"person": self.people, "place": self.places, "thing": self.things}[kind]
        facts = []
        for entity in entities:
            for relation, value in entity.facts.items():
                facts.append((entity, relation, value))
        return facts


def plural(noun: str) -> str:
    """English plural for the world's nouns."""
    return IRREGULAR.get(noun, noun + "s")


def article(noun: str) -> str:
    """The noun with its indefinite article."""
    if noun[0] in "aeiou":
        return f"an {noun}"
    return f"a {noun}"
