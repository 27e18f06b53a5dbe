"""Answers drawn from a model, in batches, as token ids and as texts: what reinforcement learning
and on-policy distillation learn from, and what evaluation looks at.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator

import torch
from transformers import GenerationConfig

from ftlib.batches.collate import mask_rows, pad_left
from ftlib.batches.control_tokens import ControlHandling, handling_of
from ftlib.batches.stops import configured_stops, learnt_stops, model_stops
from ftlib.batches.template import check_tokenizer, prompt_ids
from ftlib.batches.vocabulary import check_ids
from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import DataError
from ftlib.core.machine import return_freed_memory
from ftlib.core.modes import evaluation_mode
from ftlib.losses.isolation import (
    NEIGHBOUR,
    WATCHED,
    Shift,
    found_once,
    probe_rows,
    shift_between,
    shift_of_shapes,
    worst,
)

log = logging.getLogger("ftlib")

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


def answer_texts(model, tokenizer, answers: list[list[int]]) -> list[str]:
    """The texts of answers from `generate_ids`, without their stop tokens, special or not."""
    stops = set(model_stops(model, tokenizer))
    texts = []
    for ids in answers:
        said = [token for token in ids if token not in stops]
        texts.append(tokenizer.decode(said, skip_special_tokens=True).strip())
    return texts


def generate_ids(
    model,
    tokenizer,
    conversations: list[list[dict]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int,
    control_tokens: str = "text",
) -> tuple[list[list[int]], list[list[int]]]:
    """(prompts, answers) as token ids; an answer ends with its stop token where it came to one.
    `control_tokens` as in `prompt_ids`. DataError names a conversation that cannot be asked.
    """
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    prompts = _prompts(tokenizer, conversations, handling_of(tokenizer, control_tokens, stops))
    check_ids(model, tokenizer, prompts)
    answers = sample_ids(model, tokenizer, prompts, max_new_tokens, batch_size, temperature, seed)
    return prompts, answers


@torch.no_grad()
def sample_ids(
    model,
    tokenizer,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
    temperature: float,
    seed: int,
) -> list[list[int]]:
    """Answers to prompts that are token ids already; as `generate_ids` otherwise. Each is of one
    token at least: an empty answer is its stop token.
    """
    check_positive_integer("max_new_tokens", max_new_tokens)
    check_positive_integer("batch_size", batch_size)
    options = {
        "max_new_tokens": max_new_tokens,
        "pad_token_id": tokenizer.pad_token_id,
        **_sampling_options(temperature),
    }
    stops = model_stops(model, tokenizer)
    if stops:
        options["eos_token_id"] = stops
    answers: list[list[int]] = [[] for _ in prompts]
    with evaluation_mode(model), own_distribution(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        for part in _batches(model, prompts, batch_size, tokenizer.pad_token_id):
            rows = [prompts[i] for i in part]
            ids = pad_left(rows, tokenizer.pad_token_id).to(model.device)
            mask = pad_left(mask_rows(rows), 0).to(model.device)
            out = model.generate(input_ids=ids, attention_mask=mask, **options)
            new = out[:, ids.shape[1] :].tolist()
            for i, tokens in zip(part, new, strict=True):
                answers[i] = _up_to_stop(tokens, set(stops))
    if model.device.type == "cpu":
        return_freed_memory()
    return answers


def _prompts(
    tokenizer, conversations: list[list[dict]], handling: ControlHandling
) -> list[list[int]]:
    """Token ids of the conversations, each ready for the assistant's answer."""
    prompts = []
    for i, conversation in enumerate(conversations):
        try:
            prompts.append(prompt_ids(tokenizer, conversation, handling))
        except DataError as error:
            raise DataError(f"conversation {i}: {error}") from None
    return prompts


# How prompts may lie together in a batch.
ANY_LENGTHS = "any lengths"
ONE_LENGTH = "batches of one length"
ONE_BY_ONE = "batches of one"


def _batches(
    model, prompts: list[list[int]], batch_size: int, pad_token_id: int
) -> list[list[int]]:
    """Indices of the prompts in batches of like length, or as far apart as this model needs for its
    answers to be those to each prompt alone.
    """
    lengths = [len(prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lengths.__getitem__)
    if batch_size == 1 or len(prompts) == 1:
        return [[index] for index in order]
    together = _found_together(model, prompts, pad_token_id)
    if together == ONE_BY_ONE:
        return [[index] for index in order]
    if together == ONE_LENGTH:
        return _of_one_length(order, lengths, batch_size)
    batches = []
    for start in range(0, len(order), batch_size):
        batches.append(order[start : start + batch_size])
    return batches


def _of_one_length(order: list[int], lengths: list[int], batch_size: int) -> list[list[int]]:
    """Batches of at most `batch_size` indices whose lengths are equal, in the order given."""
    batches: list[list[int]] = []
    for index in order:
        last = batches[-1] if batches else []
        fits = last and len(last) < batch_size and lengths[last[0]] == lengths[index]
        if fits:
            last.append(index)
        else:
            batches.append([index])
    return batches


@found_once
def _found_together(model, prompts: list[list[int]], pad_token_id: int) -> str:
    return prompts_together(model, prompts, pad_token_id)


def prompts_together(model, prompts: list[list[int]], pad_token_id: int) -> str:
    """How prompts may lie together in a batch: with padding on the left, of one length, or not at
    all. `prompts`: token ids; the model is tried on a few rows drawn from them, and one line says
    what is not as usual.

    A layer with a state, or positions that are counted from the row's start, may take padding for
    text; and some models mix their rows' caches up.
    """
    padding = left_padding_shift(model, prompts, pad_token_id)
    if not padding.is_fault:
        return ANY_LENGTHS
    together = ONE_LENGTH
    shift = padding
    reason = "padding on the left"
    beside = beside_shift(model, prompts, pad_token_id)
    if beside.is_fault:
        together = ONE_BY_ONE
        shift = beside
        reason = "another prompt beside it"
    log.info(
        "prompts are answered in %s: %s changes the log-probabilities of %s (%s) by %.2g nats",
        together,
        reason,
        type(model).__name__,
        model.config.model_type,
        shift.nats,
    )
    return together


def left_padding_shift(model, prompts: list[list[int]], pad_token_id: int) -> Shift:
    """By how much the log-probabilities after a prompt change with padding on its left: with the
    tokens that are there, and against the prompt alone. `prompts`: token ids.
    """
    watched, longest, fill = probe_rows(prompts, (WATCHED, WATCHED + NEIGHBOUR, NEIGHBOUR))
    with evaluation_mode(model), own_distribution(model):
        return worst(_left_padding_shifts(model, watched, longest, fill, pad_token_id))


def _left_padding_shifts(
    model, watched: list[int], longest: list[int], fill: list[int], pad_token_id: int
) -> Iterator[Shift]:
    hidden = len(fill)
    forced = _not_a_stop(model, watched)
    padded = [pad_token_id] * hidden + watched
    before = _next_logps(model, [padded, longest], hidden, forced, pad_token_id)
    after = _next_logps(model, [fill + watched, longest], hidden, forced, pad_token_id)
    yield shift_between(before[0], after[0], (before[1], after[1]), model)

    alone = _next_logps(model, [watched], 0, forced, pad_token_id)
    filled = _next_logps(model, [longest], 0, forced, pad_token_id)
    yield shift_of_shapes(alone[0], before[0], (filled[0], before[1]), model)


def beside_shift(model, prompts: list[list[int]], pad_token_id: int) -> Shift:
    """By how much the log-probabilities after a prompt change with another of its length in the
    batch. `prompts`: token ids.
    """
    watched, other = probe_rows(prompts, (WATCHED, WATCHED))
    forced = _not_a_stop(model, watched)
    with evaluation_mode(model), own_distribution(model):
        alone = _next_logps(model, [watched], 0, forced, pad_token_id)
        beside = _next_logps(model, [watched, other], 0, forced, pad_token_id)
    return shift_of_shapes(alone[0], beside[0], (alone[0], alone[0]), model)


def _not_a_stop(model, tokens: list[int]) -> int:
    """The first of the tokens at which the model's answers do not end; else the first."""
    stops = configured_stops(model.generation_config, model.config)
    return next((token for token in tokens if token not in stops), tokens[0])


@torch.no_grad()
def _next_logps(
    model, rows: list[list[int]], hidden_tokens: int, forced: int, pad_token_id: int
) -> torch.Tensor:
    """(rows, 2V) log-probabilities of the two tokens after rows of one length, through `generate`,
    which makes the positions and keeps the cache; the first row's first `hidden_tokens` are masked,
    and the first of the two tokens is `forced`.
    """
    ids = torch.tensor(rows, device=model.device)
    mask = torch.ones_like(ids)
    mask[0, :hidden_tokens] = 0

    def the_same(row: int, before: torch.Tensor) -> list[int]:
        """One token for all rows, whatever is likely: the second step is then comparable."""
        return [forced]

    out = model.generate(
        input_ids=ids,
        attention_mask=mask,
        max_new_tokens=2,
        do_sample=False,
        pad_token_id=pad_token_id,
        prefix_allowed_tokens_fn=the_same,
        output_logits=True,
        return_dict_in_generate=True,
    )
    steps = torch.stack(out.logits, 1)  # (rows, steps, V)
    return steps.float().log_softmax(-1).flatten(1)


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
