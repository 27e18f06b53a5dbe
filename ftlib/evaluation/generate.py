"""Answers of a model, drawn in batches, and prompts with examples before them."""

from __future__ import annotations

import math

import torch

from ftlib.batches.template import check_tokenizer, template_ids


def few_shot_messages(shots: list[dict], prompt: str | list[dict]) -> list[dict]:
    """A conversation in which the shots were asked and answered before the prompt, a text or a list
    of messages.

    A system message of the prompt goes first; those of the shots are left out.
    """
    asked = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    first = [m for m in asked if m["role"] == "system"]
    return (
        first
        + [m for shot in shots for m in shot["messages"] if m["role"] != "system"]
        + [m for m in asked if m not in first]
    )


@torch.no_grad()
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
    return [
        tokenizer.decode(ids, skip_special_tokens=True).strip()
        for ids in _generate(
            model, tokenizer, conversations, max_new_tokens, batch_size, temperature, seed
        )[1]
    ]


@torch.no_grad()
def _generate(
    model, tokenizer, conversations, max_new_tokens, batch_size, temperature, seed
) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, answers) as token ids; an answer ends with its stop token where it came to one."""
    check_tokenizer(tokenizer)
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ValueError(f"temperature={temperature!r}: must be 0 (greedy) or above, and finite")
    sampling = (
        {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        if temperature
        else {"do_sample": False}
    )
    stops = model.generation_config.eos_token_id
    stops = {stops} if isinstance(stops, int) else set(stops or ())
    encoded = [template_ids(tokenizer, c, add_generation_prompt=True) for c in conversations]
    order, answers = sorted(range(len(encoded)), key=lambda i: len(encoded[i])), [[]] * len(encoded)
    was_training = model.training
    model.eval()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            width = max(len(encoded[i]) for i in part)
            ids = torch.tensor(
                [[tokenizer.pad_token_id] * (width - len(encoded[i])) + encoded[i] for i in part],
                device=model.device,
            )
            mask = torch.tensor(
                [[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in part],
                device=model.device,
            )
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
                **sampling,
            )
            for i, row in zip(part, out[:, width:].tolist()):
                end = next((k + 1 for k, token in enumerate(row) if token in stops), len(row))
                answers[i] = row[:end]
    model.train(was_training)
    return encoded, answers
