"""The trials of lab 3.1.4 on the markers of a chat template: own or spare ones of the turns, own or
spare stop of the assistant's turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ftlib.adapters.lora import add_lora
from ftlib.core.profiles import Profile
from ftlib.course.lab_3_1_4.trials import (
    ASKED,
    SWEEP_SEED,
    ask,
    few_samples,
    fresh_base,
    golden_rows,
    train,
    train_rows,
    validation_rows,
)
from ftlib.course.records.kit import held_out_loss

TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}"
    "ASSISTANT{% generation %}{{ m['content'] + 'STOP' }}{% endgeneration %}"
    "{% else %}USER{{ m['content'] + 'END' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT{% endif %}"
)


def own_markers(tokenizer, row: dict) -> list[str]:
    """The template's own markers: of the user, of the assistant, of the end of a turn."""
    ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    added = tokenizer.get_added_vocab()
    used = dict.fromkeys(tokenizer.convert_ids_to_tokens(ids))
    markers = [token for token in used if token in added and token != tokenizer.bos_token]
    end = tokenizer.eos_token
    turns = [token for token in markers if token != end]
    return [turns[0], turns[-1], end]


def with_markers(model, tokenizer, user: str, assistant: str, end: str, stop: str):
    """The same model and tokenizer under a template made of these markers: `end` closes the user's
    turn, `stop` the assistant's.
    """
    text = TEMPLATE
    for name, marker in {"USER": user, "ASSISTANT": assistant, "END": end, "STOP": stop}.items():
        text = text.replace(name, marker)
    tokenizer.chat_template = text
    tokenizer.eos_token = stop
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(stop)
    return model, tokenizer


def untie(model: nn.Module) -> None:
    """Give the output layer a copy of the embedding of its own."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    model.config.tie_word_embeddings = False


def swap_output_rows(model: nn.Module, tokenizer, one: str, other: str) -> None:
    """Exchange two tokens' rows of the output layer. A copy would not do: two tokens with one row
    have the same score everywhere, and greedy decoding then says the first of them.
    """
    ids = tokenizer.convert_tokens_to_ids([one, other])
    weight = model.get_output_embeddings().weight
    with torch.no_grad():
        weight[ids] = weight[ids[::-1]]


def marked_model(profile: Profile, seed: int, turns: str, stop: str, head: str = "as it is"):
    """(model, tokenizer) with a LoRA, under a template whose markers of the turns and whose stop
    after the assistant are the model's "own" or "spare" ones. The user's turn always ends with the
    model's own end, so that a spare stop changes only what has to be said.

    `head`: "as it is", or "own row" (untied, and the two stops' rows there are exchanged, so that
    the spare one has a trained row).
    """
    model, tokenizer = fresh_base(profile)
    user, assistant, end = own_markers(tokenizer, golden_rows(profile)[0])
    spare = profile.untrained_tokens
    if turns == "spare":
        user, assistant = spare[:2]
    said = spare[2] if stop == "spare" else end
    if head == "own row":
        untie(model)
        swap_output_rows(model, tokenizer, said, end)
    model, tokenizer = with_markers(model, tokenizer, user, assistant, end, said)
    torch.manual_seed(seed)
    add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank)
    return model, tokenizer


def marker_rate_trial(profile: Profile, seed: int, lr: float) -> dict[str, Any]:
    """LoRA with all markers spare, and the loss on the validation rows. With the model's own
    markers the template is its own, and the rate is that of LoRA.
    """
    own_seed = SWEEP_SEED + seed
    model, tokenizer = marked_model(profile, own_seed, "spare", "spare")
    losses, _ = train(profile, model, tokenizer, train_rows(profile), own_seed, lr)
    rows = validation_rows(profile)
    return {
        "validation_loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "training_loss": float(np.mean(losses[-5:])),
    }


def marker_trial(
    profile: Profile, seed: int, turns: str, stop: str, lr: float, head: str = "as it is"
) -> dict[str, Any]:
    """LoRA under a template of own or spare markers, as `marked_model` makes it, and the golden
    questions.
    """
    model, tokenizer = marked_model(profile, seed, turns, stop, head)
    losses, _ = train(profile, model, tokenizer, train_rows(profile), seed, lr)
    rows = golden_rows(profile)[:ASKED]
    asked = ask(profile, model, tokenizer, rows)
    return {
        **few_samples(asked),
        "loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "training_loss": float(np.mean(losses[-5:])),
    }
