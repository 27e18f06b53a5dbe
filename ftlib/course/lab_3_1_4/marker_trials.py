"""The trials of lab 3.1.4 on the markers of a chat template: own or spare ones of the turns, own or
spare stop.
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
    ask,
    few_samples,
    fresh_base,
    golden_rows,
    train,
    train_rows,
)
from ftlib.course.records.kit import held_out_loss

TEMPLATE = (
    "{{ bos_token or '' }}{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}"
    "ASSISTANT{% generation %}{{ m['content'] + 'END' }}{% endgeneration %}"
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


def with_markers(model, tokenizer, user: str, assistant: str, end: str):
    """The same model and tokenizer under a template made of these three markers."""
    text = TEMPLATE.replace("USER", user).replace("ASSISTANT", assistant).replace("END", end)
    tokenizer.chat_template = text
    tokenizer.eos_token = end
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids(end)
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


def marker_trial(
    profile: Profile, seed: int, turns: str, stop: str, lr: float, head: str = "as it is"
) -> dict[str, Any]:
    """LoRA under a template whose markers of the turns and whose stop token are the model's "own"
    or "spare" ones. `head`: "as it is", or "own row" (untied, and the two stops' rows there are
    exchanged, so that the spare one has a trained row).
    """
    model, tokenizer = fresh_base(profile)
    user, assistant, end = own_markers(tokenizer, golden_rows(profile)[0])
    spare = profile.untrained_tokens
    own_end = end
    if turns == "spare":
        user, assistant = spare[:2]
    if stop == "spare":
        end = spare[2]
    if head == "own row":
        untie(model)
        swap_output_rows(model, tokenizer, end, own_end)
    model, tokenizer = with_markers(model, tokenizer, user, assistant, end)
    torch.manual_seed(seed)
    add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank)
    losses, _ = train(profile, model, tokenizer, train_rows(profile), seed, lr)
    asked = ask(profile, model, tokenizer, golden_rows(profile)[:ASKED])
    rows = golden_rows(profile)[:ASKED]
    return {
        **few_samples(asked),
        "loss": held_out_loss(model, tokenizer, rows, profile.max_length),
        "training_loss": float(np.mean(losses[-5:])),
    }
