"""Section 7 of lab 3.1.4: what the embedding rows of a template's markers say, and what the model
makes of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ftlib.batches.encode import encode_rows
from ftlib.core.stats import mean_interval

ALIKE = 0.9  # cosine above which two rows count as nearly parallel
LITTLE = 0.05  # of the loss: a rise below this share counts as small


def markers_in_use(tokenizer, row: dict) -> list[str]:
    """The markers with which the template writes a conversation, the end of a turn as the last. The
    BOS is one of them only where it opens every turn, as in ChatML.
    """
    ids = tokenizer.apply_chat_template(row["messages"], return_dict=True)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    added = tokenizer.get_added_vocab()
    end = tokenizer.eos_token
    turns = []
    for token in dict.fromkeys(tokens):
        once = token == tokenizer.bos_token and tokens.count(token) == 1
        if token in added and token != end and not once:
            turns.append(token)
    return [*turns, end]


def cosines(rows: Tensor) -> Tensor:
    """The cosine of every two rows, (rows, rows)."""
    return torch.nn.functional.cosine_similarity(rows[:, None], rows[None], dim=-1)


def off_diagonal(square: Tensor) -> Tensor:
    """The entries of a square matrix but for its diagonal."""
    return square[~torch.eye(len(square), dtype=torch.bool)]


def lengths(rows: Tensor) -> str:
    """The shortest and the longest of some rows."""
    norms = rows.norm(dim=-1)
    return f"{norms.min():.1f} to {norms.max():.1f}"


def distances(own: Tensor, spare: Tensor) -> tuple[Tensor, Tensor]:
    """How far every own and every spare row lies from the mean of the spare rows, as a share of
    that mean's length.
    """
    middle = spare.mean(0)
    size = middle.norm()
    return (own - middle).norm(dim=-1) / size, (spare - middle).norm(dim=-1) / size


def rows_line(own: Tensor, spare: Tensor, tied: bool) -> str:
    """Cosines, lengths and distances of the own and the spare markers' rows."""
    between_own = off_diagonal(cosines(own))
    between_spare = off_diagonal(cosines(spare))
    return (
        f"Between the template's own markers the cosine is at most {between_own.max():.2f}; "
        f"between the spare ones at least {between_spare.min():.2f}. Their lengths: own "
        f"{lengths(own)}, spare {lengths(spare)}. Input and output embeddings of this model are "
        f"**{'tied' if tied else 'not tied'}**."
    )


def distance_line(own: Tensor, spare: Tensor) -> str:
    """How far the rows lie from the spare ones, and what follows for the cosine as a sign."""
    far, near = distances(own, spare)
    line = (
        "Distance from the mean of the spare rows, as a share of its length: own markers "
        f"{far.min():.2g} to {far.max():.2g}, spare ones at most {near.max():.1g}."
    )
    alike = off_diagonal(cosines(torch.cat([own, spare]))).min() > ALIKE
    if alike and far.min() > 2 * near.max():
        return (
            f"{line} Here the own markers are nearly parallel too, to each other and to the spare "
            "ones: all share a large part, and whatever training wrote into the own ones can only "
            "be in the small rest. The cosine does not see it; the distance does."
        )
    if far.min() > 2 * near.max():
        return f"{line} Both signs agree here: the spare rows are one bundle, the own ones are not."
    return f"{line} By this measure the spare rows of this model are no bundle of their own."


@torch.no_grad()
def answer_losses(model: nn.Module, rows: Sequence[dict], instead: dict[int, int]) -> Tensor:
    """The mean loss per answer token of every encoded row, (rows,), with each token id of `instead`
    replaced by another one where it is only read, outside of what is trained on.
    """
    losses = []
    for row in rows:
        labels = torch.tensor([row["labels"]], device=model.device)
        ids = torch.tensor([row["input_ids"]], device=model.device)
        read = ids.clone()
        for old, new in instead.items():
            read[(ids == old) & (labels == -100)] = new
        losses.append(model(input_ids=read, labels=labels).loss.float())
    return torch.stack(losses)


def swap_line(model: nn.Module, tokenizer, rows: Sequence[dict], spare: Sequence[str]) -> str:
    """What the untrained model's loss on the answers becomes when the turns are marked by spare
    tokens; the end of a turn stays.
    """
    *turns, _ = markers_in_use(tokenizer, rows[0])
    taken = list(spare[: len(turns)])
    old = tokenizer.convert_tokens_to_ids(turns)
    new = tokenizer.convert_tokens_to_ids(taken)
    encoded = encode_rows(tokenizer, list(rows))
    with_own = answer_losses(model, encoded, {})
    with_spare = answer_losses(model, encoded, dict(zip(old, new, strict=True)))
    rise = mean_interval((with_spare - with_own).cpu().numpy())
    reading = "So the model reads them."
    if rise.mean < LITTLE * with_own.mean():
        reading = (
            "That is little or nothing: these answers hardly depend on which token opens a turn. "
            "The template's words, or the place, can say who speaks."
        )
    return (
        f"Going in, before any training: the loss of the ideal answers to {len(rows)} golden "
        f"questions is {with_own.mean():.2f} nats per token with {_listed(turns)}, and "
        f"{with_spare.mean():.2f} with {_listed(taken)} in their place: a rise of {rise} (95% "
        f"interval over the questions). {reading}"
    )


def _listed(tokens: Sequence[str]) -> str:
    return ", ".join(f"`{token}`" for token in tokens)


@torch.no_grad()
def stop_logits(model: nn.Module, rows: Sequence[dict], stops: Sequence[int]) -> Tensor:
    """The logit of each of `stops` where the answer of every encoded row ends, (rows, stops)."""
    found = []
    for row in rows:
        last = max(i for i, label in enumerate(row["labels"]) if label != -100)
        ids = torch.tensor([row["input_ids"][:last]], device=model.device)
        found.append(model(input_ids=ids).logits[0, -1, list(stops)].float())
    return torch.stack(found)


def stop_line(model: nn.Module, tokenizer, rows: Sequence[dict], spare: Sequence[str]) -> str:
    """By how much the untrained model prefers its own end of a turn to a spare token there."""
    end = tokenizer.eos_token
    ids = tokenizer.convert_tokens_to_ids([end, *spare])
    logits = stop_logits(model, encode_rows(tokenizer, list(rows)), ids)
    ahead = mean_interval((logits[:, 0] - logits[:, 1:].amax(1)).cpu().numpy())
    return (
        f"Coming out: after these answers the logit of `{end}` lies {ahead} above the highest one "
        "of a spare token (95% interval over the questions); where it is below 0, the spare one "
        "would be said first."
    )
