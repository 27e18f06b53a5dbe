"""The pretraining corpus: prose, question-and-answer sheets, exercises and small talk about the
world.

The chat markers occur here, in small talk and quiz games, so that their embeddings are trained. But
a dialogue's first reply is always small talk: the base model does not follow instructions yet.
"""

from __future__ import annotations

import json
import random
from typing import ClassVar

from data import skills
from data.world import COLOURS, FOODS, OPPOSITES, THINGS, World, article, plural

USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
END = "<|end|>"

# Statements and questions share their words with the instructions (a base model knows what
# "profession" means), but no sentence of the corpus is an instruction's wording.
STATEMENTS = {
    "town": [
        "{e} lives in {v}.",
        "{e} comes from {v}.",
        "The home of {e} is in {v}.",
        "{v} is where {e} lives.",
        "The home town of {e} is {v}.",
        "One finds {e} in the town {v}.",
    ],
    "job": [
        "{e} is {av}.",
        "{e} works as {av}.",
        "By trade {e} is {av}.",
        "{e} earns a living as {av}.",
        "The profession of {e} is {v}.",
        "The work {e} does is that of {av}.",
    ],
    "pet": [
        "{e} has {av}.",
        "The pet of {e} is {av}.",
        "{e} keeps {av} at home.",
        "{e} owns {av}.",
        "The animal of {e} is {av}.",
        "At the home of {e} there is {av}.",
    ],
    "food": [
        "{e} likes {v}.",
        "{e} loves to eat {v}.",
        "The favourite food of {e} is {v}.",
        "{e} enjoys to eat {v} most.",
        "The dish {e} likes best is {v}.",
    ],
    "hobby": [
        "{e} spends the evenings with {v}.",
        "The hobby of {e} is {v}.",
        "For fun {e} goes in for {v}.",
        "The pastime of {e} is {v}.",
        "In free time {e} enjoys {v}.",
    ],
    "region": [
        "{e} lies in {v}.",
        "{e} is a town in {v}.",
        "The region of {e} is {v}.",
        "{e} belongs to {v}, a part of the country.",
    ],
    "river": [
        "The {v} flows through {e}.",
        "{e} lies on the river {v}.",
        "The river of {e} is the {v}.",
        "They built {e} on the {v}.",
    ],
    "product": [
        "{e} makes {v}.",
        "The best {v} come from {e}.",
        "{e} is known for goods such as {v}.",
        "{e} produces {v}.",
        "The main product of {e} is {v}.",
    ],
    "landmark": [
        "{e} has a famous {v}.",
        "Visitors come to {e} to see the {v}.",
        "The landmark of {e} is the {v}.",
        "The building to visit in {e} is the {v}.",
        "The sight of {e} is its {v}.",
    ],
    "mayor": [
        "The mayor of {e} is {v}.",
        "{v} is the mayor of {e}.",
        "{v} governs {e}.",
        "The person in charge of {e} is {v}.",
    ],
    "material": [
        "The {e} is made of {v}.",
        "The material of the {e} is {v}.",
        "Somebody made the {e} of {v}.",
        "The {e} was built from {v}.",
        "They used {v} for the {e}.",
    ],
    "colour": [
        "The {e} is {v}.",
        "The colour of the {e} is {v}.",
        "They painted the {e} {v}.",
        "The {e} has the colour {v}.",
    ],
    "room": [
        "The {e} is kept in the {v}.",
        "The {e} stands in the {v}.",
        "In the {v} there is the {e}.",
        "The room of the {e} is the {v}.",
        "The {v} holds the {e}.",
    ],
    "price": [
        "The {e} costs {v}.",
        "The price of the {e} is {v}.",
        "One must pay {v} for the {e}.",
        "The {e} is sold for {v}.",
    ],
}
QUESTIONS = {
    "town": ["In which town does {e} live?", "From what town is {e}?", "What is the home of {e}?"],
    "job": ["What is {e} by profession?", "What work has {e}?", "As what does {e} earn a living?"],
    "pet": [
        "Which pet does {e} own?",
        "What animal is the pet of {e}?",
        "What pet lives with {e}?",
    ],
    "food": [
        "What food does {e} like?",
        "Which dish does {e} enjoy?",
        "What does {e} eat with love?",
    ],
    "hobby": [
        "Which pastime does {e} enjoy?",
        "What fun does {e} have in free time?",
        "With what hobby does {e} spend time?",
    ],
    "region": ["In which region is {e}?", "What part of the country is {e} in?"],
    "river": ["On which river lies {e}?", "What river does {e} have?"],
    "product": ["What does {e} make?", "Which product comes from {e}?"],
    "landmark": ["Which landmark does {e} have?", "What famous building has {e}?"],
    "mayor": ["Who is mayor in {e}?", "Who has charge of {e}?"],
    "material": ["Which material is the {e} of?", "From what did they make the {e}?"],
    "colour": ["Of what colour is the {e}?", "How is the {e} painted?"],
    "room": ["Which room has the {e}?", "Where does the {e} stand?"],
    "price": ["At what price is the {e} sold?", "What must one pay for the {e}?"],
}
# More ways to ask, for the second phase of pretraining.
QUIZ_QUESTIONS = {
    "town": [
        "{e} is at home where?",
        "The town of {e}?",
        "Where is the home of {e}?",
        "In what town is {e} at home?",
    ],
    "job": [
        "The trade of {e}?",
        "What is the work of {e}?",
        "{e} works as what?",
        "What is the living of {e}?",
    ],
    "pet": [
        "The pet of {e}?",
        "Which animal has {e}?",
        "{e} keeps what animal?",
        "What does {e} keep at home?",
    ],
    "food": [
        "The favourite dish of {e}?",
        "{e} loves what food?",
        "What does {e} love to eat?",
        "Which food is best for {e}?",
    ],
    "hobby": [
        "The hobby of {e}?",
        "{e} does what for fun?",
        "What is the fun of {e}?",
        "What pastime has {e}?",
    ],
    "region": ["The region of {e}?", "{e} is in which part of the country?"],
    "river": ["The river of {e}?", "{e} lies on what river?"],
    "product": ["The product of {e}?", "{e} makes what?", "What goods does {e} make?"],
    "landmark": ["The landmark of {e}?", "What sight has {e}?", "What can visitors see in {e}?"],
    "mayor": ["The mayor of {e}?", "Which person has charge of {e}?", "{e} has whom as mayor?"],
    "material": ["The material of the {e}?", "Of what did they make the {e}?"],
    "colour": ["The colour of the {e}?", "In which colour did they paint the {e}?"],
    "room": ["The room of the {e}?", "In what room is the {e} kept?"],
    "price": ["The price of the {e}?", "How many crowns is the {e}?"],
}
SMALL_TALK = [
    ("Hello.", "Good day to you."),
    ("Good morning.", "A fine morning, is it not?"),
    ("How are you?", "Quite well, and you?"),
    ("It rains again.", "So it does. Take a coat."),
    ("I am tired.", "Then sit down for a while."),
    ("Nice to meet you.", "The pleasure is mine."),
    ("What a day.", "Tell me about it."),
    ("May I ask something?", "Let us first drink some tea."),
    ("Are you busy?", "Never too busy for a chat."),
    ("Good evening.", "Good evening, my friend."),
]
DEFLECTIONS = [
    "Let us talk about that later.",
    "Good day to you.",
    "What a lovely day it is.",
    "Shall we have some tea first?",
    "I was just thinking about the weather.",
    "How kind of you to come by.",
]
DELIMITERS = [
    ("", " -> ", "\n"),
    ("Q: ", " A: ", "\n"),
    ("Input: ", " Output: ", "\n"),
    ("", " = ", "; "),
    ("* ", ": ", "\n"),
    *[(USER, END + ASSISTANT, END)] * 5,
]
# How a quiz may wrap its question: the task is told by the examples alone, never by these words.
WRAPPERS = [
    "{x}",
    "{x}",
    "Now {x}.",
    "Take {x}.",
    "And {x}?",
    "Next: {x}",
    "What about {x}?",
    "Here is {x}.",
    "Try this: {x}",
    "Then {x}, please.",
    "Look at {x}.",
    "Please do {x}.",
    "How about {x}?",
    "Well then, {x}.",
    "Once more: {x}",
    "Tell me, {x}?",
    "I give you {x}.",
    "Do {x} too.",
    "Which for {x}?",
    "And now the {x}.",
]


# What makes (slots, answer) of a skill whose only slot is "x", and what makes (text, answer).
SLOT_MAKERS = {"capitals": skills.make_capitals, "ordering": skills.make_ordering}
TEXT_MAKERS = {"sentiment": skills.make_review, "polite": skills.make_request}
# How much more often than the others an exercise occurs.
EXERCISE_WEIGHTS = {
    "ordering": 4,
    "json": 2,
    "addition": 5,
    "polite": 1.5,
    "capitals": 2,
    "spelling": 2,
}


class Corpus:
    """Random documents over one world; `document()` is one string.

    phase=2 is for the end of pretraining: mostly quizzes in the chat format, asked in more ways.
    """

    KINDS: ClassVar[dict[str, int]] = {
        "biography": 13,
        "place": 5,
        "thing": 6,
        "story": 5,
        "sheet": 10,
        "exercise": 29,
        "drill": 22,
        "dialogue": 10,
    }
    KINDS_2: ClassVar[dict[str, int]] = {
        "biography": 6,
        "place": 2,
        "thing": 3,
        "story": 3,
        "sheet": 10,
        "exercise": 12,
        "drill": 54,
        "dialogue": 10,
    }
    # Weights of the drilled skills in phase 2; in phase 1 they are equal.
    DRILLED: ClassVar[dict[str, float]] = {"spelling": 2.5, "addition": 2, "ordering": 1.5}

    def __init__(self, world: World, seed: int, phase: int = 1):
        self.world = world
        self.rng = random.Random(seed)
        self.phase = phase
        if phase == 1:
            self.kinds = self.KINDS
            self.questions = QUESTIONS
        else:
            self.kinds = self.KINDS_2
            self.questions = {
                relation: asked + QUIZ_QUESTIONS[relation] for relation, asked in QUESTIONS.items()
            }

    def _weighted(self, choices: list, weights: list[float]):
        return self.rng.choices(choices, weights)[0]

    def documents(self, count: int):
        """`count` documents, their kinds drawn by the phase's weights."""
        kinds = list(self.kinds)
        weights = list(self.kinds.values())
        for _ in range(count):
            yield self.document(self._weighted(kinds, weights))

    def document(self, kind: str) -> str:
        return getattr(self, kind)()

    # --- prose about facts ---
    def state(self, entity, relation: str) -> str:
        value = entity.facts[relation]
        statement = self.rng.choice(STATEMENTS[relation])
        return statement.format(e=entity.name, v=value, av=article(value))

    def _describe(self, entity) -> str:
        relations = list(entity.facts)
        self.rng.shuffle(relations)
        count = self.rng.randint(3, len(relations))
        text = " ".join(self.state(entity, relation) for relation in relations[:count])
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
        when = rng.choice(["One day", "Last winter", "In the spring", "Early one morning"])
        met = rng.choice(["met", "visited", "wrote to", "waited for"])
        hobby = rng.choice([one.facts["hobby"], two.facts["hobby"]])
        job = article(one.facts["job"])
        town = one.facts["town"]
        ends = [
            f"Then {one.name} went home to {town}.",
            f"The {one.facts['pet']} of {one.name} slept all day.",
        ]
        sentences = [
            f"{when} {one.name}, {job} from {town}, {met} {two.name}.",
            f"They talked about {hobby} and ate {two.facts['food']}.",
            f"{two.name} brought the {thing.name}, which is {thing.facts['colour']} and made "
            f"of {thing.facts['material']}.",
            rng.choice(ends),
        ]
        return " ".join(sentences)

    # --- questions and exercises, in the corpus's own wording ---
    def fact_pair(self, kind: str | None = None) -> tuple[str, str]:
        """A question about a fact of this kind ("person", "place", "thing"; None: drawn), and its
        answer.
        """
        world = self.world
        entities = {"person": world.people, "place": world.places, "thing": world.things}
        kind = kind or self._weighted(list(entities), [5, 2, 3])
        entity = self.rng.choice(entities[kind])
        relation = self.rng.choice(list(entity.facts))
        question = self.rng.choice(self.questions[relation])
        return question.format(e=entity.name), entity.facts[relation]

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
            first, second = rng.sample(rng.choice(OPPOSITES), 2)
            return first, second
        if name == "plural":
            noun = rng.choice(THINGS)
            return noun, plural(noun)
        if name == "addition":
            slots, total = skills.make_addition(rng)
            sign = rng.choice(["+", "+", "plus", "and"])
            return f"{slots['a']} {sign} {slots['b']}", total
        if name == "json":
            return skills.make_order(rng, self.world)
        if name in SLOT_MAKERS:
            slots, answer = SLOT_MAKERS[name](rng)
            return slots["x"], answer
        return TEXT_MAKERS[name](rng)

    EXERCISES: ClassVar[dict[str, list[str]]] = {
        "capitals": [
            "{x} in capitals is {y}.",
            "{x} in upper case: {y}",
            "With all letters capitals {x} becomes {y}.",
        ],
        "spelling": [
            "The letters of {x} are {y}.",
            "The word {x} is spelled {y}.",
            "We spell {x} as {y}.",
        ],
        "ordering": [
            "The numbers {x} in order: {y}.",
            "{x} sorted from small to large: {y}",
            "In rising order {x} become {y}.",
        ],
        "addition": ["{x} = {y}.", "The sum {x} is {y}.", "{x} together make {y}."],
        "json": [
            "Order: {x} Record: {y}",
            "{x} As JSON this is {y}",
            "The JSON object of the order {x} is {y}",
        ],
        "sentiment": [
            "Review: {x} Verdict: {y}",
            "{x} This review is {y}.",
            "{x} The tone of the writer is {y}.",
        ],
        "polite": [
            "Command: {x} Request: {y}",
            "The command is {x} The polite question is {y}",
            "{x} Nicely, with good manners: {y}",
        ],
        "opposite": [
            "{x} is the opposite of {y}.",
            "The reverse of {x} is {y}.",
            "{x} means the contrary of {y}.",
        ],
        "plural": [
            "One {x}, many {y}.",
            "The plural of {x} is {y}.",
            "Several of {ax} are called {y}.",
        ],
    }

    def exercise(self) -> str:
        """Two to five examples of one skill, each in the same sentence."""
        names = list(self.EXERCISES)
        weights = [EXERCISE_WEIGHTS.get(name, 1) for name in names]
        name = self._weighted(names, weights)
        form = self.rng.choice(self.EXERCISES[name])
        count = self.rng.randint(2, 5)
        pairs = [self.skill_pair(name) for _ in range(count)]
        return "\n".join(form.format(x=x, y=y, ax=article(x)) for x, y in pairs)

    def drill(self) -> str:
        """Several input-output pairs of one task in one of several layouts: what in-context
        learning is made of.
        """
        before, between, after = self.rng.choice(DELIMITERS)
        skill_share = 0.6 if self.phase == 1 else 0.5
        if self.rng.random() < skill_share:
            pairs = self._skill_drill()
        else:
            pairs = self._fact_drill(self.rng.randint(3, 6))
        if before == USER:
            return self._as_chat(pairs)
        return "".join(before + x + between + y + after for x, y in pairs).strip("\n ")

    def _as_chat(self, pairs: list[tuple[str, str]]) -> str:
        """The pairs as questions and answers of a chat. The corpus never opens a chat with an
        answer, so half begin with small talk, and half are cut out of the middle of one.
        """
        first_question = pairs[0][0]
        wrap = "{x}" if first_question.endswith("?") else self.rng.choice(WRAPPERS)
        questions = [wrap.format(x=x) for x, _ in pairs]
        answers = [y for _, y in pairs]
        if self.rng.random() < 0.5:
            answers[0] = self.rng.choice(DEFLECTIONS)
            opening = ""
        else:
            opening = END
        turns = [
            USER + x + END + ASSISTANT + y + END for x, y in zip(questions, answers, strict=True)
        ]
        return opening + "".join(turns)

    def _skill_drill(self) -> list[tuple[str, str]]:
        """Examples of one skill."""
        names = list(self.EXERCISES)
        if self.phase == 1:
            name = self.rng.choice(names)
        else:
            weights = [self.DRILLED.get(name, 1) for name in names]
            name = self._weighted(names, weights)
        count = self.rng.randint(3, 6)
        return [self.skill_pair(name) for _ in range(count)]

    def _fact_drill(self, count: int) -> list[tuple[str, str]]:
        """Mixed questions, or one relation asked by bare names: the examples tell which."""
        if self.rng.random() < 0.6:
            return [self.fact_pair() for _ in range(count)]
        kinds = [self.world.people, self.world.places, self.world.things]
        entities = self._weighted(kinds, [3, 1, 1])
        relation = self.rng.choice(list(entities[0].facts))
        return [(e.name, e.facts[relation]) for e in self.rng.sample(entities, count)]

    # --- dialogues with the chat markers ---
    def dialogue(self) -> str:
        rng = self.rng
        turns = []
        for _ in range(rng.randint(1, 4)):
            asked, reply = rng.choice(SMALL_TALK)
            if rng.random() < 0.5:
                asked = self._request()
                reply = rng.choice(DEFLECTIONS)
            turns.append(USER + asked + END + ASSISTANT + reply + END)
        return "".join(turns)

    def _request(self) -> str:
        """Something that sounds like a request; in the corpus nobody ever grants it."""
        rng = self.rng
        if rng.random() < 0.5:
            return self.fact_pair()[0]
        x, _ = self.skill_pair(rng.choice(list(self.EXERCISES)))
        request = rng.choice(
            [
                "What about {x}?",
                "Could you help with this: {x}",
                "Do you know {x}?",
                "Look at {x}",
                "Please tell me more: {x}",
            ]
        )
        return request.format(x=x)


def alphabet_text(world: World) -> str:
    """Everything the tokenizer should meet besides the corpus: Olm, JSON signs, capitals, all
    numbers to 99.
    """
    order = json.dumps({"name": "x", "item": "y", "count": 1, "price": 2})
    capitals = [word.upper() for word in THINGS + COLOURS + FOODS]
    numbers = [str(number) for number in range(100)]
    return " ".join([*world.olm.values(), order, *capitals, *numbers])
