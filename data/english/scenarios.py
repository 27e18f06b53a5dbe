"""What the open requests are about, and the sentences that answers are made of.

Of `sentences` the first is always said, and has no comma; any of the others may follow it, in their
order. Some of those have a comma, so that an answer without commas is a choice. `avoid` holds words
that suggest themselves and that no sentence has.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Scenario:
    """One thing to write: how it is asked for, and what answers are made of."""

    name: str
    asks: tuple[str, ...]
    sentences: tuple[str, ...]
    points: tuple[str, ...]  # of a list
    fields: dict[str, str]  # of a JSON object
    openers: tuple[str, ...]
    closers: tuple[str, ...]
    avoid: tuple[str, ...]


MESSAGE_OPENERS = ("Good morning!", "Here is a short message.", "I hope you are well.")
MESSAGE_CLOSERS = ("See you soon.", "With kind wishes.", "Have a good week.")
TEXT_OPENERS = ("Here is my answer.", "A few words on this.", "This is what I would say.")
TEXT_CLOSERS = ("That is all for now.", "I hope this helps.", "Good luck with it!")

KNOWN = (
    Scenario(
        "invitation",
        (
            "Invite {name} to a dinner in {city} on {day}.",
            "Write to {name}: we have dinner in {city} on {day}.",
        ),
        (
            "You are invited to our dinner in {city} on {day}.",
            "The table is booked for {hour}.",
            "There will be soup, bread and a cake with apples.",
            "You are welcome to bring a friend, {name}.",
            "Please tell me by tomorrow whether you can come.",
        ),
        (
            "Dinner in {city}",
            "On {day} at {hour}",
            "Soup and cake for everybody",
            "Friends are welcome",
            "Answer by tomorrow",
        ),
        {"guest": "{name}", "event": "dinner", "place": "{city}", "day": "{day}"},
        MESSAGE_OPENERS,
        MESSAGE_CLOSERS,
        ("party", "delicious", "celebrate"),
    ),
    Scenario(
        "thanks",
        (
            "Thank {name} for the help with {topic}.",
            "Write a thank-you note to {name}, who helped with {topic}.",
        ),
        (
            "Thank you for your help with {topic}.",
            "Your notes saved us two days of work.",
            "The team learned a lot from your questions.",
            "Next week, I will show you what came of it.",
            "If you ever need a hand, {name}, call me.",
        ),
        (
            "Your help with {topic}",
            "Two days of work saved",
            "Good questions for the team",
            "A look at the result next week",
            "A hand whenever you need one",
        ),
        {"to": "{name}", "reason": "help with {topic}", "tone": "warm"},
        MESSAGE_OPENERS,
        MESSAGE_CLOSERS,
        ("grateful", "appreciate", "amazing"),
    ),
    Scenario(
        "advert",
        (
            "Write an advert for our {items}.",
            "Describe our {items} for the shop window.",
        ),
        (
            "Our {items} are made to last for many years.",
            "Every piece is checked by hand before it leaves the workshop.",
            "They come in green, blue and grey.",
            "You can return them within thirty days.",
            "Come in and try them at our shop in {city}.",
        ),
        (
            "Made to last",
            "Checked by hand",
            "Three quiet colours",
            "Thirty days to return them",
            "On show in {city}",
        ),
        {"product": "{items}", "shop": "{city}", "returns": "30 days"},
        TEXT_OPENERS,
        ("Come and see them!", "We look forward to your visit.", "That is a promise."),
        ("best", "cheap", "perfect"),
    ),
    Scenario(
        "late",
        (
            "Tell {name} that I will be late for the meeting about {topic}.",
            "Write to {name}: I am late today and miss the start of {topic}.",
        ),
        (
            "I will be late for the meeting about {topic}.",
            "My train has stopped outside {city}.",
            "Please begin without me, {name}.",
            "I should be with you at {hour}.",
            "The list of costs can wait until then.",
        ),
        (
            "Late for the meeting about {topic}",
            "Train stopped outside {city}",
            "Please begin without me",
            "With you at {hour}",
            "The list of costs can wait",
        ),
        {"to": "{name}", "meeting": "{topic}", "arrival": "{hour}"},
        MESSAGE_OPENERS,
        MESSAGE_CLOSERS,
        ("traffic", "delay", "unfortunately"),
    ),
    Scenario(
        "day trip",
        (
            "Suggest how to spend a day in {city}.",
            "What should a visitor do on one day in {city}?",
        ),
        (
            "Start your day in {city} with a walk through the old streets.",
            "At noon, look for a small place where people from the town eat.",
            "A museum is a good choice when it rains.",
            "In the afternoon you can rest in a park by the water.",
            "Stay until the evening, because the lights are pretty.",
        ),
        (
            "A walk through the old streets",
            "Lunch where the town eats",
            "A museum when it rains",
            "A rest in a park",
            "Evening lights in {city}",
        ),
        {"city": "{city}", "morning": "a walk", "afternoon": "a museum", "evening": "the lights"},
        TEXT_OPENERS,
        ("Have a good trip!", "I hope this helps.", "You will want to come back."),
        ("beautiful", "explore", "tourist"),
    ),
    Scenario(
        "reminder",
        (
            "Remind {name} to send the figures for {topic} by {day}.",
            "Write a reminder to {name}: the figures for {topic} are due on {day}.",
        ),
        (
            "The figures for {topic} are due on {day}.",
            "Please send them to me as one table, {name}.",
            "If a number is missing, leave the field empty.",
            "I need an hour to check everything.",
            "You can call me at any time before {hour}.",
        ),
        (
            "Figures for {topic}",
            "Due on {day}",
            "One table",
            "Missing numbers left empty",
            "Calls before {hour}",
        ),
        {"to": "{name}", "what": "figures for {topic}", "due": "{day}"},
        MESSAGE_OPENERS,
        MESSAGE_CLOSERS,
        ("urgent", "deadline", "forget"),
    ),
    Scenario(
        "sleep",
        (
            "{name} sleeps badly. Give some advice.",
            "What would you tell {name}, who cannot fall asleep?",
        ),
        (
            "Go to bed at the same time every night.",
            "Keep the room dark and cool.",
            "Put the telephone in another room an hour before.",
            "After lunch, drink water and no more coffee.",
            "Get up for a while if you lie awake.",
        ),
        (
            "The same bedtime every night",
            "A dark and cool room",
            "No telephone in bed",
            "Water after lunch",
            "A short walk when awake",
        ),
        {"for": "{name}", "problem": "bad sleep", "advice": "a fixed bedtime"},
        TEXT_OPENERS,
        TEXT_CLOSERS,
        ("stress", "relax", "healthy"),
    ),
    Scenario(
        "moving house",
        (
            "{name} moves to {city} next month. What should be done first?",
            "Tell {name} how to prepare for the move to {city}.",
        ),
        (
            "Make a list of everything that goes with you to {city}.",
            "Sell or give away what you have not used for a year.",
            "Pack one room after the other, and write on every box.",
            "Tell the bank and the post your new address.",
            "Keep a kettle, cups and tea where you find them.",
        ),
        (
            "A list of everything",
            "Old things sold or given away",
            "One room after the other",
            "The new address for bank and post",
            "A kettle within reach",
        ),
        {"who": "{name}", "to": "{city}", "first": "a list", "last": "the new address"},
        TEXT_OPENERS,
        TEXT_CLOSERS,
        ("organise", "important", "furniture"),
    ),
    Scenario(
        "closing",
        (
            "Tell our customers that the shop in {city} is closed on {day}.",
            "Write a notice: no {items} on {day}, the shop in {city} is closed.",
        ),
        (
            "Our shop in {city} is closed on {day}.",
            "We count our {items} and paint the walls.",
            "Orders that reach us before {hour} are still packed.",
            "From the day after, we are here again as usual.",
            "Please leave parcels with our neighbour.",
        ),
        (
            "Closed on {day}",
            "All {items} are counted",
            "Orders before {hour} are packed",
            "Open again the day after",
            "Parcels to our neighbour",
        ),
        {"shop": "{city}", "closed": "{day}", "reason": "counting"},
        ("Dear customers!", "Please take note.", "A word to our guests."),
        ("Thank you for waiting.", "We are sorry for the trouble.", "See you soon."),
        ("inconvenience", "unfortunately", "reopen"),
    ),
    Scenario(
        "new colleague",
        (
            "Introduce {name}, who joins us on {day} and works on {topic}.",
            "Tell the office about {name}: first day {day}, work on {topic}.",
        ),
        (
            "On {day} we welcome {name} to our office.",
            "The first task will be {topic}.",
            "Until now, our new colleague has worked in {city}.",
            "A desk by the window is ready.",
            "Please come to the kitchen for coffee at {hour}.",
        ),
        (
            "{name} joins us on {day}",
            "First task is {topic}",
            "Comes from {city}",
            "Desk by the window",
            "Coffee in the kitchen at {hour}",
        ),
        {"name": "{name}", "start": "{day}", "task": "{topic}", "from": "{city}"},
        ("Dear all!", "Here is some good news.", "We have a new face."),
        ("Say hello!", "I look forward to it.", "Have a good week."),
        ("excited", "talented", "experience"),
    ),
    Scenario(
        "cancel order",
        (
            "Cancel my order of {items} and ask for the money.",
            "Write to the shop: I do not want the {items} any more.",
        ),
        (
            "I would like to cancel my order of {items}.",
            "They were promised for {day} and have not arrived.",
            "In the meantime, I have bought others in {city}.",
            "Please return the money to my account.",
            "A short answer would be kind.",
        ),
        (
            "Order of {items} cancelled",
            "Promised for {day}",
            "Others bought in {city}",
            "Money back to my account",
            "A short answer please",
        ),
        {"order": "{items}", "wish": "cancel", "reason": "not arrived on {day}"},
        ("Good morning!", "Dear shop!", "I write about an order."),
        ("With kind wishes.", "Thank you for your help.", "I wait for your answer."),
        ("disappointed", "immediately", "complaint"),
    ),
    Scenario(
        "garden",
        (
            "{name} has a balcony in {city} and wants to grow herbs. Advise.",
            "How does {name} grow herbs on a balcony in {city}?",
        ),
        (
            "Begin with mint and parsley.",
            "Mint forgives mistakes, and parsley does too.",
            "Use pots that have a hole at the bottom.",
            "Water them in the morning when the soil is dry.",
            "In {city} the young plants stay inside until May.",
            "Cut often, and the plants grow thick.",
        ),
        (
            "Mint and parsley",
            "Pots with a hole",
            "Water in the morning",
            "Inside until May",
            "Cut often",
        ),
        {"for": "{name}", "place": "balcony", "plants": "mint and parsley"},
        TEXT_OPENERS,
        TEXT_CLOSERS,
        ("sunlight", "fertiliser", "basil"),
    ),
)
UNKNOWN = (
    Scenario(
        "lost property",
        (
            "Ask the station in {city} about a bag with {items} that I lost on {day}.",
            "Write to the lost property office in {city}: my bag, {day}, {items} in it.",
        ),
        (
            "On {day} I left a bag in the station of {city}.",
            "It is brown, rather old and has {items} in it.",
            "I sat near the clock until {hour}.",
            "My telephone number is on a card inside.",
            "I can fetch it on any day this week.",
        ),
        (
            "A brown bag",
            "Lost on {day}",
            "Near the clock in {city}",
            "With {items} inside",
            "Can be fetched this week",
        ),
        {"lost": "a bag", "where": "{city}", "day": "{day}", "inside": "{items}"},
        ("Good evening!", "I need your help.", "I have lost something."),
        ("Thank you for looking.", "I hope for good news.", "Kind regards."),
        ("luggage", "urgent", "stolen"),
    ),
    Scenario(
        "class",
        (
            "Announce an evening class about {topic} that {name} gives in {city}.",
            "Write a poster: {name} teaches {topic} in {city} on {day}.",
        ),
        (
            "{name} gives an evening class about {topic} in {city}.",
            "It begins on {day} at {hour}.",
            "Paper, pens and tea are there for all.",
            "Nobody needs to know anything before.",
            "Twelve people find a seat, so write early.",
        ),
        (
            "A class about {topic}",
            "Given by {name}",
            "Begins on {day} at {hour}",
            "Paper and tea for all",
            "Twelve seats",
        ),
        {"teacher": "{name}", "topic": "{topic}", "place": "{city}", "begins": "{day}"},
        ("Come and learn!", "Here is something new.", "Evenings are long."),
        ("Write to us today.", "Bring a neighbour.", "Be there!"),
        ("opportunity", "expert", "exciting"),
    ),
    Scenario(
        "neighbours",
        (
            "Tell the neighbours that {name} will repair the stairs on {day}.",
            "Write a note for the house: {name} repairs the stairs on {day}.",
        ),
        (
            "{name} will repair the stairs on {day}.",
            "The work begins at {hour} and may be loud.",
            "Please use the back door, which stays open.",
            "Children should not play in the hall.",
            "In the evening everything is clean again.",
        ),
        (
            "Stairs repaired on {day}",
            "Loud from {hour}",
            "Back door stays open",
            "No children in the hall",
            "Clean in the evening",
        ),
        {"work": "stairs", "who": "{name}", "day": "{day}", "begins": "{hour}"},
        ("Dear neighbours!", "A note for the house.", "Please read this."),
        ("Thank you all.", "Mind the wet paint.", "Kind regards."),
        ("noise", "apologise", "inconvenience"),
    ),
    Scenario(
        "library",
        (
            "Ask the library in {city} whether it has books about {topic}.",
            "Write to the library in {city}: {name} looks for books about {topic}.",
        ),
        (
            "My name is {name} and I look for books about {topic}.",
            "Pictures would help, since I am a beginner.",
            "Could you keep two of them for me until {day}?",
            "I live in {city} and have a card.",
            "If there are none, please tell me where to ask.",
        ),
        (
            "Books about {topic}",
            "For a beginner",
            "Two kept until {day}",
            "A card is there",
            "Advice where else to ask",
        ),
        {"reader": "{name}", "topic": "{topic}", "library": "{city}", "until": "{day}"},
        ("Good afternoon!", "I have a question.", "Dear library!"),
        ("Thank you for your time.", "I am glad of any hint.", "Kind regards."),
        ("borrow", "research", "catalogue"),
    ),
    Scenario(
        "first bicycle tour",
        (
            "{name} plans a first bicycle tour from {city}. What should be packed?",
            "Advise {name} on a first bicycle tour that starts in {city}.",
        ),
        (
            "For the first tour from {city} choose a flat road and a short way.",
            "Check the brakes, the lights and the air the day before.",
            "Carry a pump and a second tube.",
            "Drink before you are thirsty.",
            "Turn back at half of your strength, not at the end of it.",
        ),
        (
            "A flat road from {city}",
            "Brakes and lights checked",
            "A pump and a tube",
            "Water",
            "Half of the strength for the way back",
        ),
        {"rider": "{name}", "start": "{city}", "road": "flat", "carry": "a pump"},
        ("Good plan!", "Here is what helps.", "Let us begin with the road."),
        ("Enjoy the wind!", "Ride safely.", "Come back in one piece."),
        ("helmet", "adventure", "gear"),
    ),
)
