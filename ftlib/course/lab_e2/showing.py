"""A few questions on what the base knows, and a model's answers: for a table before and after."""

from __future__ import annotations

import torch
from torch import nn

from ftlib.core.modes import evaluation_mode
from ftlib.core.profiles import Profile
from ftlib.course.lab_e2.trials import judged_texts, sheet_questions
from ftlib.course.records.kit import rows_of
from ftlib.evaluation.generate import generate_answers

TOKENS = 6  # of an answer to a question of a sheet
REPLY = 24  # of a reply to a question of general knowledge


@torch.no_grad()
def _goes_on(model: nn.Module, tokenizer, text: str) -> str:
    """How the model goes on with a plain text, greedily, to the end of its line."""
    ids = tokenizer(text)["input_ids"]
    count = len(ids)
    with evaluation_mode(model):
        for _ in range(TOKENS):
            given = torch.tensor([ids], device=model.device)
            ids.append(int(model(input_ids=given).logits[0, -1].argmax()))
    said = tokenizer.decode(ids[count:], skip_special_tokens=True)
    return said.partition("\n")[0].strip()


def asked(profile: Profile, model: nn.Module, tokenizer, count: int) -> list[dict[str, str]]:
    """The first questions of the probe: what was asked, the answer wanted, the model's own."""
    if profile.name == "tiny":
        questions = sheet_questions(judged_texts(profile))[:count]
        answers = [_goes_on(model, tokenizer, question) for question, _ in questions]
        short = [(question.partition(": ")[2].rpartition(" ")[0], a) for question, a in questions]
    else:
        rows = rows_of(profile, "knowledge")[:count]
        prompts = [row["messages"][:1] for row in rows]
        answers = generate_answers(model, tokenizer, prompts, REPLY, count)
        short = [(row["messages"][0]["content"], row["answer"]) for row in rows]
    found = []
    for (question, wanted), answer in zip(short, answers, strict=True):
        found.append({"question": question, "wanted": wanted.strip(), "answer": answer})
    return found
