"""The pretraining corpus: prose, question-and-answer sheets, exercises and small talk about the world.

The chat markers occur here, in small talk and quiz games, so that their embeddings are trained. But a
dialogue's first reply is always small talk: the base model does not follow instructions yet.
"""
from __future__ import annotations

import json
import random

from data import skills
from data.world import COLOURS, FOODS, OPPOSITES, THINGS, World, article, plural

USER, ASSISTANT, SYSTEM, END = "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"

STATEMENTS = {
    "town": ["{e} lives in {v}.", "{e} comes from {v}.", "The home of {e} is in {v}.", "{v} is where {e} lives."],
    "job": ["{e} is {av}.", "{e} works as {av}.", "By trade {e} is {av}.", "{e} earns a living as {av}."],
    "pet": ["{e} has {av}.", "The pet of {e} is {av}.", "{e} keeps {av} at home.", "{e} owns {av}."],
    "food": ["{e} likes {v}.", "{e} loves to eat {v}.", "The favourite food of {e} is {v}.", "{e} enjoys {v} most."],
    "hobby": ["{e} spends the evenings with {v}.", "The hobby of {e} is {v}.", "{e} enjoys {v}.", "For fun {e} goes in for {v}."],
    "region": ["{e} lies in {v}.", "{e} is a town in {v}.", "The region of {e} is {v}."],
    "river": ["The {v} flows through {e}.", "{e} lies on the river {v}.", "The river of {e} is the {v}."],
    "product": ["{e} makes {v}.", "The best {v} come from {e}.", "{e} is known for {v}."],
    "landmark": ["{e} has a famous {v}.", "Visitors come to {e} to see the {v}.", "The landmark of {e} is the {v}."],
    "mayor": ["The mayor of {e} is {v}.", "{v} is the mayor of {e}.", "{v} governs {e}."],
    "material": ["The {e} is made of {v}.", "The material of the {e} is {v}.", "Somebody made the {e} of {v}."],
    "colour": ["The {e} is {v}.", "The colour of the {e} is {v}.", "They painted the {e} {v}."],
    "room": ["The {e} is kept in the {v}.", "The {e} stands in the {v}.", "In the {v} there is the {e}."],
    "price": ["The {e} costs {v}.", "The price of the {e} is {v}.", "One pays {v} for the {e}."],
}
QUESTIONS = {
    "town": "In which town does {e} live?", "job": "What is {e} by profession?", "pet": "Which pet does {e} own?",
    "food": "What food does {e} like?", "hobby": "Which pastime does {e} enjoy?",
    "region": "In which region is {e}?", "river": "On which river lies {e}?", "product": "What does {e} make?",
    "landmark": "Which landmark does {e} have?", "mayor": "Who is mayor in {e}?",
    "material": "Which material is the {e} of?", "colour": "Of what colour is the {e}?", "room": "Which room has the {e}?",
    "price": "At what price is the {e} sold?",
}
SMALL_TALK = [("Hello.", "Good day to you."), ("Good morning.", "A fine morning, is it not?"),
              ("How are you?", "Quite well, and you?"), ("It rains again.", "So it does. Take a coat."),
              ("I am tired.", "Then sit down for a while."), ("Nice to meet you.", "The pleasure is mine."),
              ("What a day.", "Tell me about it."), ("May I ask something?", "Let us first drink some tea."),
              ("Are you busy?", "Never too busy for a chat."), ("Good evening.", "Good evening, my friend.")]
DEFLECTIONS = ["Let us talk about that later.", "Good day to you.", "What a lovely day it is.", "Shall we have some tea first?",
               "I was just thinking about the weather.", "How kind of you to come by."]
DELIMITERS = [("", " -> ", "\n"), ("Q: ", " A: ", "\n"), ("Input: ", " Output: ", "\n"), ("", " = ", "; "),
              ("* ", ": ", "\n"), ("[", "] ", "\n"), (USER, END + ASSISTANT, END), (USER, END + ASSISTANT, END)]


class Corpus:
    """Random documents over one world; `document()` is one string."""

    KINDS = {"biography": 20, "place": 7, "thing": 8, "story": 5, "sheet": 14, "exercise": 24, "drill": 12, "dialogue": 10}

    def __init__(self, world: World, seed: int):
        self.world, self.rng = world, random.Random(seed)

    def documents(self, count: int):
        kinds, weights = list(self.KINDS), list(self.KINDS.values())
        for _ in range(count):
            yield self.document(self.rng.choices(kinds, weights)[0])

    def document(self, kind: str) -> str:
        return getattr(self, kind)()

    # --- prose about facts ---
    def state(self, entity, relation: str) -> str:
        value = entity.facts[relation]
        return self.rng.choice(STATEMENTS[relation]).format(e=entity.name, v=value, av=article(value))

    def _describe(self, entity) -> str:
        relations = list(entity.facts)
        self.rng.shuffle(relations)
        text = " ".join(self.state(entity, r) for r in relations[: self.rng.randint(3, len(relations))])
        return text[0].upper() + text[1:]

    def biography(self) -> str:
        return self._describe(self.rng.choice(self.world.people))

    def place(self) -> str:
        return self._describe(self.rng.choice(self.world.places))

    def thing(self) -> str:
        return self._describe(self.rng.choice(self.world.things))

    def story(self) -> str:
        rng = self.rng
        one, two = rng.sample(self.world.people, 2)
        thing = rng.choice(self.world.things)
        return " ".join([
            rng.choice(["One day", "Last winter", "In the spring", "Early one morning"]),
            f"{one.name}, {article(one.facts['job'])} from {one.facts['town']}, "
            + rng.choice(["met", "visited", "wrote to", "waited for"]) + f" {two.name}.",
            f"They talked about {rng.choice([one.facts['hobby'], two.facts['hobby']])} and ate {two.facts['food']}.",
            f"{two.name} brought the {thing.name}, which is {thing.facts['colour']} and made of {thing.facts['material']}.",
            rng.choice([f"Then {one.name} went home to {one.facts['town']}.",
                        f"The {one.facts['pet']} of {one.name} slept all day."])])

    # --- questions and exercises, in the corpus's own wording ---
    def fact_pair(self, kind: str | None = None) -> tuple[str, str]:
        kind = kind or self.rng.choices(["person", "place", "thing"], [5, 2, 3])[0]
        entity = self.rng.choice({"person": self.world.people, "place": self.world.places, "thing": self.world.things}[kind])
        relation = self.rng.choice(list(entity.facts))
        return QUESTIONS[relation].format(e=entity.name), entity.facts[relation]

    def sheet(self) -> str:
        pairs = [self.fact_pair() for _ in range(self.rng.randint(3, 6))]
        return "\n".join(f"Question: {q} Answer: {a}" for q, a in pairs)

    def skill_pair(self, name: str) -> tuple[str, str]:
        """(input, output) of a skill, without any instruction."""
        rng = self.rng
        if name == "spelling":
            word = rng.choice(skills.spelling_words(self.world))
            return word, "-".join(word)
        if name == "opposite":
            return tuple(rng.sample(rng.choice(OPPOSITES), 2))
        if name == "plural":
            noun = rng.choice(THINGS)
            return noun, plural(noun)
        if name == "addition":
            slots, total = skills.make_addition(rng)
            return f"{slots['a']} + {slots['b']}", total
        if name in ("capitals", "ordering"):
            slots, out = {"capitals": skills.make_capitals, "ordering": skills.make_ordering}[name](rng)
            return slots["x"], out
        return {"json": lambda: skills.make_order(rng, self.world), "sentiment": lambda: skills.make_review(rng),
                "polite": lambda: skills.make_request(rng)}[name]()

    EXERCISES = {"capitals": "{x} in capitals is {y}.", "spelling": "The letters of {x} are {y}.",
                 "ordering": "The numbers {x} in order: {y}.", "addition": "{x} = {y}.", "json": "Order: {x} Record: {y}",
                 "sentiment": "Review: {x} Verdict: {y}", "polite": "Command: {x} Request: {y}",
                 "opposite": "{x} is the opposite of {y}.", "plural": "One {x}, many {y}."}

    def exercise(self) -> str:
        weights = {"ordering": 3, "json": 2, "addition": 3, "polite": 1.5, "capitals": 2}
        name = self.rng.choices(list(self.EXERCISES), [weights.get(n, 1) for n in self.EXERCISES])[0]
        count = self.rng.randint(2, 5)
        return "\n".join(self.EXERCISES[name].format(x=x, y=y) for x, y in (self.skill_pair(name) for _ in range(count)))

    def drill(self) -> str:
        """Several input-output pairs of one task in one of several layouts: what in-context learning is made of."""
        before, between, after = self.rng.choice(DELIMITERS)
        if self.rng.random() < 0.6:
            name = self.rng.choice(list(self.EXERCISES))
            pairs = [self.skill_pair(name) for _ in range(self.rng.randint(3, 6))]
        else:
            pairs = [self.fact_pair() for _ in range(self.rng.randint(3, 6))]
        if before == USER:  # a chat never opens with an answer
            pairs = [(pairs[0][0], self.rng.choice(DEFLECTIONS)), *pairs[1:]]
        return "".join(before + x + between + y + after for x, y in pairs).strip("\n ")

    # --- dialogues with the chat markers ---
    def dialogue(self) -> str:
        rng, turns = self.rng, []
        for i in range(rng.randint(1, 4)):
            asked, reply = rng.choice(SMALL_TALK)
            if rng.random() < 0.5:
                asked, reply = self._request(), rng.choice(DEFLECTIONS)
            turns.append(USER + asked + END + ASSISTANT + reply + END)
        return "".join(turns)

    def _request(self) -> str:
        """Something that sounds like a request; in the corpus nobody ever grants it."""
        rng = self.rng
        if rng.random() < 0.5:
            return self.fact_pair()[0]
        x, _ = self.skill_pair(rng.choice(list(self.EXERCISES)))
        return rng.choice(["What about {x}?", "Could you help with this: {x}", "Do you know {x}?", "Look at {x}",
                           "Please tell me more: {x}"]).format(x=x)


def alphabet_text(world: World) -> str:
    """Everything the tokenizer should meet besides the corpus: Olm, JSON signs, capitals, all numbers to 99."""
    return " ".join([*world.olm.values(), json.dumps({"name": "x", "item": "y", "count": 1, "price": 2}),
                     *(w.upper() for w in THINGS + COLOURS + FOODS), *map(str, range(100))])
