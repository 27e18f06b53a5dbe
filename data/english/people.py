"""Names, places and things that the English rows speak of, dealt so that held-out rows speak of
others than those to learn from.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

_FIRST_NAMES = (
    "Ada Alan Amina Anders Aisha Ben Bruno Carla Chen Clara Daniel Dina Elena Emil Esra Farid "
    "Fiona Gabriel Grace Hana Hugo Ines Irene Ivan Jamal Jonas Julia Kai Karin Kofi Laila Lars "
    "Lena Leo Lucia Maja Marco Mia Milan Nadia Nina Noah Olga Omar Oscar Paula Pedro Petra Priya "
    "Rafael Rosa Ruth Samir Sara Simon Sofia Tariq Tessa Theo Tom Uma Vera Victor Wanda Yara "
    "Yusuf Zoe Zoran"
)
FIRST_NAMES = tuple(_FIRST_NAMES.split())
_LAST_NAMES = (
    "Abbott Adeyemi Baker Barros Becker Bell Carter Castillo Chaudhry Cole Costa Dahl Diaz Dubois "
    "Eklund Farah Ferrari Fischer Fraser Garcia Grant Haddad Hansen Hayes Ito Jansen Jensen Kaya "
    "Keller Khan Kim Kovacs Lane Larsen Lopez Mahmoud Marsh Meyer Moreau Murphy Nakamura Novak "
    "Okafor Olsen Ortiz Park Patel Pereira Quinn Reyes Rossi Sato Schmidt Silva Singh Stone "
    "Tanaka Torres Vogel Walsh Weber West Wolf Yilmaz Young Zhang"
)
LAST_NAMES = tuple(_LAST_NAMES.split())
_CITIES = (
    "Lisbon Oslo Vienna Dublin Athens Warsaw Prague Madrid Bergen Geneva Zurich Krakow Porto "
    "Bristol Leeds Malmo Ghent Lyon Turin Basel Hamburg Seville Utrecht Cork Tampere Aarhus Graz "
    "Nantes Bologna Split Riga Vilnius Tallinn Bremen Dresden Granada Genoa Linz Brno Gdansk"
)
CITIES = tuple(_CITIES.split())
ITEMS = (
    "desk lamps",
    "office chairs",
    "notebooks",
    "headsets",
    "monitors",
    "keyboards",
    "whiteboards",
    "water bottles",
    "coffee mugs",
    "backpacks",
    "bookshelves",
    "printers",
    "phone cases",
    "umbrellas",
    "candles",
    "blankets",
    "garden tools",
    "bicycle pumps",
    "wall clocks",
    "picture frames",
    "tea kettles",
    "door mats",
    "travel adapters",
    "flower pots",
)
TOPICS = (
    "the budget",
    "the new website",
    "the autumn catalogue",
    "hiring",
    "the office move",
    "data security",
    "the spring sale",
    "the annual report",
    "the training plan",
    "customer feedback",
    "the product launch",
    "travel costs",
    "the partner contract",
    "the summer fair",
    "energy saving",
    "the team survey",
    "the delivery delays",
    "the price list",
    "the new software",
    "the safety audit",
)
PROBLEMS = (
    "the box was empty",
    "the screen is cracked",
    "a cable is missing",
    "it does not switch on",
    "the colour is wrong",
    "it arrived two weeks late",
    "the lid is broken",
    "the size is wrong",
    "the instructions are missing",
    "the battery does not charge",
    "one leg is bent",
    "it makes a loud noise",
    "the invoice is wrong",
    "the zip is stuck",
    "it was charged twice",
    "the handle came off",
)
MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


@dataclass(frozen=True)
class Pool:
    """What rows of one part may speak of."""

    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    cities: tuple[str, ...]
    items: tuple[str, ...]
    topics: tuple[str, ...]
    problems: tuple[str, ...]

    def person(self, rng: random.Random) -> str:
        return f"{rng.choice(self.first_names)} {rng.choice(self.last_names)}"


def deal(held_out: float = 0.25, seed: int = 11) -> tuple[Pool, Pool]:
    """(to learn from, held out): every list cut in two, nothing in both."""
    rng = random.Random(seed)
    lists: tuple[Sequence[str], ...] = (
        FIRST_NAMES,
        LAST_NAMES,
        CITIES,
        ITEMS,
        TOPICS,
        PROBLEMS,
    )
    known = []
    kept_back = []
    for values in lists:
        order = list(values)
        rng.shuffle(order)
        cut = round(held_out * len(order))
        known.append(tuple(order[cut:]))
        kept_back.append(tuple(order[:cut]))
    assert len(known) == len(fields(Pool))
    return Pool(*known), Pool(*kept_back)
