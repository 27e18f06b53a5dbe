"""Answers of a model, drawn in batches, and prompts with examples before them."""

from __future__ import annotations

import math

import torch

from ftlib.batches.collate import mask_rows, pad_left
from ftlib.batches.template import check_tokenizer, template_ids
from ftlib.batches.vocabulary import check_ids
from ftlib.core.modes import evaluation_mode


def few_shot_messages(shots: list[dict], prompt: str | list[dict]) -> list[dict]:
    """A conversation in which the shots were asked and answered before the prompt, a text or a list
    of messages.

    A system message of the prompt goes first; those of the shots are left out.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    messages = [m for m in asked if m["role"] == "system"]
    for shot in shots:
        messages += [m for m in shot["messages"] if m["role"] != "system"]
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

    Greedy at temperature 0, else sampled from softmax(logits / temperature), the whole vocabulary;
    the same for the same `seed` and batches, and the global generator goes on as if nothing had
    been drawn.
    """
    _, answers = generate_ids(
        model, tokenizer, conversations, max_new_tokens, batch_size, temperature, seed
    )
    return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in answers]


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
    """(prompts, answers) as token ids; an answer ends with its stop token where it came to one."""
    check_tokenizer(tokenizer)
    options = {
        "max_new_tokens": max_new_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        **_sampling_options(temperature),
    }
    stops = _stop_ids(model)
    prompts = [template_ids(tokenizer, c, add_generation_prompt=True) for c in conversations]
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
                answers[i] = _up_to_stop(tokens, stops)
    return prompts, answers


def _sampling_options(temperature: float) -> dict:
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature!r}: must be 0 (greedy) or above, and finite")
    if temperature == 0:
        return {"do_sample": False}
    return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}


def _stop_ids(model) -> set[int]:
    stops = model.generation_config.eos_token_id
    if isinstance(stops, int):
        return {stops}
    return set(stops or ())


def _up_to_stop(tokens: list[int], stops: set[int]) -> list[int]:
    """The tokens up to and with the first stop; all where there is none."""
    for position, token in enumerate(tokens):
        if token in stops:
            return tokens[: position + 1]
    return tokens
