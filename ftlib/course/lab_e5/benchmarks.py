"""The benchmarks that lab E5 scores at each scale, and how: before and after fine-tuning, and with
a student's own functions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch

from ftlib.adapters.io import load_adapter
from ftlib.core.profiles import Profile
from ftlib.course.lab_e5.questions import CHOICES, benchmark, known_questions
from ftlib.course.lab_e5.settings import settings_of
from ftlib.course.records.kit import rows_of
from ftlib.course.start import sft_adapter
from ftlib.data.hub import fetch
from ftlib.evaluation.benchmarks import arc_question, hellaswag_question, lettered, mmlu_question
from ftlib.evaluation.multiple_choice import (
    DELIMITER,
    ChoiceScores,
    encode_choice,
    score_choices,
    with_shots,
)
from ftlib.models.load import load_model

SHOTS = 5  # solved examples
OF_PUBLIC = "ARC-Challenge"  # whose choices are texts, and can be put under letters
NEIGHBOURS = 8  # questions to either side, whose answers are the wrong choices
PUBLIC = {  # Hub id, split, configuration, and what makes a question of a row
    "MMLU": ("cais/mmlu", "test", "all", mmlu_question),
    "ARC-Challenge": ("allenai/ai2_arc", "test", "ARC-Challenge", arc_question),
    "HellaSwag": ("Rowan/hellaswag", "validation", None, hellaswag_question),
}


# --- questions ------------------------------------------------------------------------------------
def _public_questions(name: str, count: int) -> list[dict]:
    """The first `count` questions of a benchmark of the Hub, in an order drawn once."""
    hub_id, split, config, make = PUBLIC[name]
    rows = fetch(hub_id, split, config).shuffle(seed=0).select(range(count))
    return [make(row, f"{name} {i}") for i, row in enumerate(rows)]


def knowledge_questions(rows: Sequence[dict]) -> list[dict]:
    """General questions with four choices: the wrong ones are answers to neighbouring questions,
    which ask for things of the same kind.
    """
    draw = random.Random("knowledge")
    found = []
    for i, row in enumerate(rows):
        near = [*rows[max(0, i - NEIGHBOURS) : i], *rows[i + 1 : i + 1 + NEIGHBOURS]]
        accepted = {answer.lower() for answer in row["accepted"]}
        others = {other["answer"] for other in near if other["answer"].lower() not in accepted}
        choices = [row["answer"], *draw.sample(sorted(others), CHOICES - 1)]
        draw.shuffle(choices)
        found.append(
            {
                "context": f"Question: {row['messages'][0]['content']}\nAnswer:",
                "choices": choices,
                "answer": choices.index(row["answer"]),
            }
        )
    return found


def _spread(questions: Sequence[dict], count: int) -> list[dict]:
    """`count` questions from the whole of a file, in its order."""
    step = max(1, len(questions) // count)
    return list(questions[::step][:count])


def questions_of(profile: Profile, name: str, count: int) -> list[dict]:
    """`count` questions of a benchmark by its name in `settings`."""
    if name in PUBLIC:
        return _public_questions(name, count)
    if name == "knowledge":
        return _spread(knowledge_questions(rows_of(profile, "knowledge")), count)
    if name == "world_strangers":
        return _spread(benchmark(), count)
    questions = _spread(known_questions(), count)
    if name == "world_letters":
        return [lettered(question) for question in questions]
    return questions


# --- scores ---------------------------------------------------------------------------------------
@torch.no_grad()
def sums_with(
    choice_loglikelihood: Callable, model, tokenizer, questions: Sequence[dict]
) -> list[list[float]]:
    """The log-likelihood of each choice by the function given, one text at a time: no batch, no
    padding, nothing to get wrong.
    """
    model.eval()
    sums = []
    for question in questions:
        text = question.get("description", "") + question["context"]
        of_question = []
        for choice in question["choices"]:
            context, continuation = encode_choice(tokenizer, text, DELIMITER + choice)
            ids = torch.tensor(context + continuation)
            logits = model(ids[None].to(model.device)).logits[0].cpu()
            of_question.append(float(choice_loglikelihood(logits, ids, len(context))))
        sums.append(of_question)
    return sums


def right_answers(scores: ChoiceScores) -> list[bool]:
    """Question by question whether the largest sum is the right choice's."""
    return [score.prediction == score.answer for score in scores]


def before_and_after(profile: Profile) -> dict[str, tuple[ChoiceScores, ChoiceScores]]:
    """{benchmark: scores of the profile's model, and of the same with lab 3.1.4's adapter}: from
    that lab's run, the shipped one, or one that is trained first.
    """
    settings = settings_of(profile)
    asked = {}
    for name in settings.benchmarks:
        asked[name] = questions_of(profile, name, settings.count)
    adapter = sft_adapter(profile)
    model, tokenizer = load_model(profile=profile)
    before = {name: score_choices(model, tokenizer, rows) for name, rows in asked.items()}
    load_adapter(model, adapter)
    after = {name: score_choices(model, tokenizer, rows) for name, rows in asked.items()}
    return {name: (before[name], after[name]) for name in asked}


# --- forms ----------------------------------------------------------------------------------------
def forms_of(profile: Profile) -> dict[str, list[dict]]:
    """The same questions in three forms: the choices' texts are scored; the letters over them; the
    letters after some solved examples.
    """
    settings = settings_of(profile)
    name = OF_PUBLIC if settings.benchmarks[0] in PUBLIC else settings.benchmarks[0]
    questions = questions_of(profile, name, settings.formed + SHOTS)
    questions = [question for question in questions if len(question["choices"]) == CHOICES]
    shots = [lettered(question) for question in questions[:SHOTS]]
    asked = questions[SHOTS:]
    under_letters = [lettered(question) for question in asked]
    return {
        "texts": asked,
        "letters": under_letters,
        f"letters after {SHOTS} solved": with_shots(under_letters, shots),
    }
