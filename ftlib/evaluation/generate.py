"""Answers of a model, drawn in batches, and prompts with examples before them."""

from __future__ import annotations

import math

import torch

from ftlib.batches.collate import mask_rows, pad_left
from ftlib.batches.stops import model_stops
from ftlib.batches.template import check_tokenizer, prompt_ids
from ftlib.batches.vocabulary import check_ids
from ftlib.core.errors import DataError
from ftlib.core.modes import evaluation_mode


def few_shot_messages(shots: list[dict], prompt: str | list[dict]) -> list[dict]:
    """A conversation in which the shots were asked and answered before the prompt, a text or a list
    of messages.

    A system message of the prompt goes first; those of the shots are left out. A shot that ends
    with the question has its answer under `answer`.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [m for m in asked if m["role"] == "system"]
    for shot in shots:
        messages += [m for m in shot["messages"] if m["role"] != "system"]
        if messages[-1]["role"] != "assistant":
            messages.append({"role": "assistant", "content": shot["answer"]})
    messages += [m for m in asked if m["role"] != "system"]
    return messages


def generate_answers(
    model,
    tokenizer,
    conversations: list[list[dict]],
    max_new_tokens: int = 40,
    batch_size: int = 100,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Answers to conversations that end with the user's turn; sorted by length and padded on the
    left.

    An answer ends where its turn does: at the token that the chat template writes after an answer,
    the tokenizer's `eos_token`, or an end of the model's generation_config
    (`ftlib.batches.stops`). Greedy at temperature 0, else sampled from softmax(logits /
    temperature), the whole vocabulary; the same for the same `seed` and batches, and the global
    generator goes on as if nothing had been drawn.
    """
    _, answers = generate_ids(
        model, tokenizer, conversations, max_new_tokens, batch_size, temperature, seed
    )
    return answer_texts(model, tokenizer, answers)


def answer_texts(model, tokenizer, answers: list[list[int]]) -> list[str]:
    """The texts of answers from `generate_ids`, without their stop tokens, special or not."""
    stops = set(model_stops(model, tokenizer))
    texts = []
    for ids in answers:
        said = [token for token in ids if token not in stops]
        texts.append(tokenizer.decode(said, skip_special_tokens=True).strip())
    return texts


@torch.no_grad()
def generate_ids(
    model,
    tokenizer,
    conversations: list[list[dict]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int,
) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, answers) as token ids; an answer ends with its stop token where it came to one.
    DataError names a conversation that cannot be asked.
    """
    check_tokenizer(tokenizer)
    options = {
        "max_new_tokens": max_new_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        **_sampling_options(temperature),
    }
    stops = model_stops(model, tokenizer)
    if stops:
        options["eos_token_id"] = stops
    prompts = _prompts(tokenizer, conversations)
    check_ids(model, tokenizer, prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    with evaluation_mode(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            rows = [prompts[i] for i in part]
            ids = pad_left(rows, tokenizer.pad_token_id).to(model.device)
            mask = pad_left(mask_rows(rows), 0).to(model.device)
            out = model.generate(input_ids=ids, attention_mask=mask, **options)
            new = out[:, ids.shape[1] :].tolist()
            for i, tokens in zip(part, new, strict=True):
                answers[i] = _up_to_stop(tokens, set(stops))
    return prompts, answers


def _prompts(tokenizer, conversations: list[list[dict]]) -> list[list[int]]:
    """Token ids of the conversations, each ready for the assistant's answer."""
    prompts = []
    for i, conversation in enumerate(conversations):
        try:
            prompts.append(prompt_ids(tokenizer, conversation))
        except DataError as error:
            raise DataError(f"conversation {i}: {error}") from None
    return prompts


def _sampling_options(temperature: float) -> dict:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature!r}: must be 0 (greedy) or above, and finite")
    if temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def _up_to_stop(tokens: list[int], stops: set[int]) -> list[int]:
    """The tokens up to and with the first stop; all where there is none."""
    for position, token in enumerate(tokens):
        if token in stops:
            return tokens[: position + 1]
    return tokens
