"""Whether what is served is the model that was trained: the log-probabilities that a server reports
of its answers, beside transformers' for the same tokens.

Equal answers prove little: a slightly wrong model answers most questions alike. A wrong template, a
start token too many or a matrix with its rows in another order moves the log-probabilities by far
more than lies between two programs with the same weights. Four bits may move them as far as a mild
fault does: prove the 16-bit file first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ftlib.batches.template import prompt_ids
from ftlib.export.errors import ServingError
from ftlib.export.server import Reply, Server

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class WireReport:
    """|ln p of the server − ln p of transformers| over the tokens of all answers (nats): its `mean`
    and `worst`. `tokens`: how many were compared; `other_tokens`: answers whose text the tokenizer
    cuts into another number of tokens than the server generated, which are left out.
    """

    mean: float
    worst: float
    tokens: int
    answers: int
    other_tokens: int

    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens of {self.answers} answers: log-probabilities differ by "
            f"{self.mean:.2g} on average, by {self.worst:.2g} at most"
        )


def compare_logprobs(
    model: torch.nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    server: Server,
    conversations: Sequence[list[dict]],
    max_tokens: int = 40,
) -> WireReport:
    """Ask the server each conversation greedily and compare the log-probabilities of what it wrote
    with those of `model` after the prompt that `tokenizer`'s chat template makes.

    `server`: of `serve(…, logprobs=True)`. ServingError where it gives none, or where no answer
    could be compared.
    """
    gaps: list[torch.Tensor] = []
    other_tokens = 0
    for messages in conversations:
        reply = server.chat(messages, logprobs=True, temperature=0.0, max_tokens=max_tokens)
        assert isinstance(reply, Reply)  # no stream was asked for
        theirs = torch.tensor(reply.logprobs, dtype=torch.float64)
        prompt = prompt_ids(tokenizer, messages)
        answer = _ids_of(tokenizer, reply, len(theirs))
        if answer is None:
            other_tokens += 1
            continue
        ours = _logprobs(model, prompt, answer)
        gaps.append((ours - theirs[: len(answer)]).abs())
    if not gaps:
        raise ServingError(
            f"none of {len(conversations)} answers could be compared: their texts become other "
            "tokens than were generated; is this the model's tokenizer?"
        )
    every = torch.cat(gaps)
    return WireReport(every.mean().item(), every.max().item(), len(every), len(gaps), other_tokens)


def _ids_of(tokenizer, reply: Reply, generated: int) -> list[int] | None:
    """The tokens of the answer; None where they are not as many as were generated. A server may
    count the stop token with them, which is not in the text.
    """
    ids = tokenizer(reply.text, add_special_tokens=False)["input_ids"]
    return ids if ids and len(ids) in (generated, generated - 1) else None


@torch.no_grad()
def _logprobs(model: torch.nn.Module, prompt: list[int], answer: list[int]) -> torch.Tensor:
    """ln p of each token of an answer after the prompt, float64."""
    device = next(model.parameters()).device
    ids = torch.tensor([[*prompt, *answer]], device=device)
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double().cpu()
    targets = torch.tensor(answer)[:, None]
    return logits.log_softmax(-1).gather(1, targets)[:, 0]
