"""A few steps of training that run alike in one process and in each of two: the model whole or cut,
the loss a mean over the tokens of all processes.

Plain PyTorch, so that every byte and every division can be seen; `ftlib sft` does the same with
transformers' Trainer.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from ftlib.adapters.lora import add_lora
from ftlib.adapters.lora_layer import lora_layers
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.core.profiles import Profile
from ftlib.data.load import load_rows
from ftlib.models.load import load_model
from ftlib.training.shards import local_bytes, shard_model

B_STD = 0.02  # of LoRA's B: at B = 0 the gradient of A is 0, and equal for no reason
TOKENS = "tokens"  # a mean over the tokens of all processes
MEANS = "means"  # a mean over processes of their means


@dataclass(frozen=True)
class Task:
    """What is trained: `method` and `shard` as `plan_memory` names them ("" where there is one
    process, or each for itself), dtype by its name, `seed` of the adapter.
    """

    method: str
    shard: str
    dtype: str
    rank: int
    lr: float
    eps: float
    seed: int
    average: str = TOKENS
    b_std: float = B_STD


# --- model and rows -------------------------------------------------------------------------------
@functools.cache
def _loaded(profile: Profile):
    return load_model(profile.model, None, profile, torch.float32)


def new_model(profile: Profile, task: Task) -> nn.Module:
    """The profile's model, adapted as the task says: the same numbers in every process, and in
    every dtype.
    """
    if task.method == "qlora":
        model, _ = load_model(profile.model, "nf4", profile, torch.float32)
    else:
        model = copy.deepcopy(_loaded(profile)[0])
    torch.set_num_threads(1)
    torch.manual_seed(task.seed)
    if task.method == "full":
        model.requires_grad_(True)
    else:
        add_lora(model, r=task.rank)
        for layer in lora_layers(model).values():
            nn.init.normal_(layer.lora_B, std=task.b_std)
    if task.dtype == "float64":
        in_float64(model)
    return model.train()


def _norm(module: nn.Module, hidden: Tensor) -> Tensor:
    """RMSNorm in the dtype of its input; transformers' own computes in fp32 whatever comes."""
    return F.rms_norm(hidden, hidden.shape[-1:], module.weight, module.variance_epsilon)


def in_float64(model) -> nn.Module:
    """Let the model compute in float64 throughout, in place; returns it."""
    model.double()
    model.set_attn_implementation("sdpa")  # "eager" has a softmax in fp32
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = functools.partial(_norm, module)
    return model


@functools.cache
def encoded(profile: Profile, split: str) -> tuple[dict, ...]:
    """The profile's rows of a split as tokens, in their order."""
    _, tokenizer = _loaded(profile)
    rows = load_rows(split, profile)
    return tuple(encode_rows(tokenizer, rows, profile.max_length))


def batch_of(profile: Profile, split: str, numbers: Sequence[int]) -> dict[str, Tensor]:
    """The rows of these numbers as one padded batch."""
    _, tokenizer = _loaded(profile)
    rows = encoded(profile, split)
    return SFTCollator(tokenizer.pad_token_id)([rows[number] for number in numbers])


# --- the group ------------------------------------------------------------------------------------
def processes() -> int:
    """How many processes train together: 1 outside of a group."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_processes(values: Sequence[float]) -> list[float]:
    """The values, each summed over the processes."""
    sums = torch.tensor(values, dtype=torch.float64)
    if processes() > 1:
        torch.distributed.all_reduce(sums)
    return sums.tolist()


def place(model: nn.Module, shard: str) -> nn.Module:
    """The model as the processes share it: whole with its gradients averaged ("ddp"), cut ("zero2",
    "full"), or as it is ("").
    """
    if not shard:
        return model
    if shard == "ddp":
        return DistributedDataParallel(model)
    return shard_model(model, reshard_after_forward=shard == "full")


def whole(tensor: Tensor) -> Tensor:
    """The tensor itself, put together where it is cut: all processes must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def vector(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers of the tensors in one row, float64."""
    return torch.cat([whole(tensor).detach().double().reshape(-1) for tensor in tensors])


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def gradient(model: nn.Module) -> Tensor:
    """Of all that trains, in one row; zeros where nothing has come."""
    found = []
    for parameter in trained(model):
        found.append(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad)
    return vector(found)


# --- a step ---------------------------------------------------------------------------------------
def loss_sum(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, int]:
    """The losses of all scored tokens, summed, nats; and how many these are."""
    labels = batch["labels"][:, 1:]
    output = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False
    )
    logits = output.logits[:, :-1].flatten(0, 1)
    total = F.cross_entropy(logits, labels.flatten(), ignore_index=-100, reduction="sum")
    return total, int((labels != -100).sum())


def backward(model: nn.Module, batch: dict[str, Tensor], average: str = TOKENS) -> float:
    """One process's part of a step; returns the loss of all processes' tokens, nats a token.

    DDP and FSDP average gradients over the n processes. So that the average is the gradient of the
    mean over all tokens, a process's loss is n times its sum, divided by the tokens of all.
    """
    own_sum, own_tokens = loss_sum(model, batch)
    total, tokens = sum_over_processes([own_sum.item(), own_tokens])
    scale = 1 / own_tokens if average == MEANS else processes() / tokens
    (own_sum * scale).backward()
    return total / tokens


@dataclass
class Course:
    """What a run gave: the loss before each step, what this process held after the last one, and on
    process 0 the first gradient and the trained weights, in one row each.
    """

    losses: list[float]
    held: dict[str, int]
    gradient: Tensor | None
    weights: Tensor | None
    held_out: float = float("nan")


def train(
    profile: Profile,
    task: Task,
    steps: Sequence[Sequence[int]],
    split: str,
    held_out: Sequence[int] = (),
) -> Course:
    """Train through `steps`, the numbers of this process's rows at each; then the loss on the rows
    `held_out` of the split "validation", nats a token.
    """
    model = place(new_model(profile, task), task.shard)
    optimizer = torch.optim.AdamW(trained(model), lr=task.lr, eps=task.eps)
    losses = []
    first = None
    for i, numbers in enumerate(steps):
        optimizer.zero_grad()
        losses.append(backward(model, batch_of(profile, split, numbers), task.average))
        if i == 0:
            first = gradient(model)
        optimizer.step()
    held = local_bytes(model, optimizer)
    weights = vector(trained(model))
    course = Course(losses, held, first, weights)
    if held_out:
        model.eval()
        with torch.no_grad():
            own, tokens = loss_sum(model, batch_of(profile, "validation", held_out))
        own_sum, all_tokens = sum_over_processes([own.item(), tokens])
        course.held_out = own_sum / all_tokens
    return course


# --- what each of two processes is asked to do ----------------------------------------------------
def train_one_of_two(
    rank: int,
    profile: Profile,
    task: Task,
    steps: Sequence[Sequence[Sequence[int]]],
    split: str,
    held_out: Sequence[int] = (),
) -> Course:
    """`train` on this process's rows, `steps[i][rank]`, and every second row that is held out;
    vectors come from process 0 alone.
    """
    own = [parts[rank] for parts in steps]
    course = train(profile, task, own, split, held_out[rank :: processes()])
    if rank:
        course.gradient = None
        course.weights = None
    return course


def own_gradient(
    rank: int, profile: Profile, task: Task, parts: Sequence[Sequence[int]], split: str
) -> dict[str, Any]:
    """This process's gradient of the mean over *its* tokens alone, and their number: nothing is
    averaged over processes.
    """
    model = new_model(profile, task)
    own_sum, tokens = loss_sum(model, batch_of(profile, split, parts[rank]))
    (own_sum / tokens).backward()
    return {"gradient": gradient(model), "tokens": tokens, "loss": own_sum.item() / tokens}
