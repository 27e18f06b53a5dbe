"""Answers of a model, drawn in batches, and prompts with examples before them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import torch
from transformers import GenerationConfig

from ftlib.batches.template import check_tokenizer, template_ids
from ftlib.core.modes import evaluation_mode

# What a generation config says of the model rather than of a way to draw from it.
OF_THE_MODEL = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "decoder_start_token_id",
    "use_cache",
    "cache_implementation",
    "cache_config",
)


@contextlib.contextmanager
def own_distribution(model) -> Iterator[None]:
    """Within the block `model.generate` draws from the model's own distribution, softmax(logits),
    with the arguments that it is called with and nothing else.

    A checkpoint's generation_config.json may hold a repetition penalty, top_k, top_p, a
    temperature, beams, suppressed or forced tokens, a least length, …, and `generate` takes from
    there what a call leaves open: answers are then not the greedy ones, and samples not the
    model's, so that a mean over them estimates no KL divergence. Its special tokens and its cache
    stay. Afterwards, also after an error, the model has its generation config again.
    """
    given = model.generation_config
    kept = {name: getattr(given, name, None) for name in OF_THE_MODEL}
    model.generation_config = GenerationConfig(**kept)
    try:
        yield
    finally:
        model.generation_config = given


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

    Greedy at temperature 0, else sampled from softmax(logits / temperature), the whole vocabulary,
    whatever the model's generation config asks for; the same for the same `seed` and batches, and
    the global generator goes on as if nothing had been drawn.
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
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    answers: list[list[int]] = [[] for _ in prompts]
    with evaluation_mode(model), own_distribution(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            rows = [prompts[i] for i in part]
            ids, mask = _pad_left(rows, tokenizer.pad_token_id, model.device)
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


def _pad_left(
    rows: list[list[int]], pad_token_id: int, device
) -> tuple[torch.Tensor, torch.Tensor]:
    """(ids, attention mask), each (rows, longest row)."""
    width = max(map(len, rows))
    ids = [[pad_token_id] * (width - len(row)) + row for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _up_to_stop(tokens: list[int], stops: set[int]) -> list[int]:
    """The tokens up to and with the first stop; all where there is none."""
    for position, token in enumerate(tokens):
        if token in stops:
            return tokens[: position + 1]
    return tokens
