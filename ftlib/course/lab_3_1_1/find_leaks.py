"""Lab 3.1.1, LoRA, exercise 8: leaks."""

from __future__ import annotations

import torch
from torch import nn

from ftlib.course.exercise import Exercise, Wrong


def find_leaks(model: nn.Module) -> list[str]:
    """Names of the parameters that require grad and are not an adapter's."""
    return [name for name, p in model.named_parameters() if p.requires_grad and "lora_" not in name]


class _Block(nn.Module):
    """Two linear layers, a norm and an embedding, some of them trainable: a model to look for leaks
    in.
    """

    def __init__(self, adapted=("q_proj",), trainable=()):
        super().__init__()
        self.embed = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.q_proj = nn.Linear(4, 4)
        self.up_proj = nn.Linear(4, 4, bias=False)
        for name in adapted:
            layer = getattr(self, name)
            layer.lora_A = nn.Parameter(torch.ones(2, 4))
            layer.lora_B = nn.Parameter(torch.zeros(4, 2))
        for name, p in self.named_parameters():
            p.requires_grad_("lora_" in name or any(t in name for t in trainable))


def _leak_cases(g):
    for adapted, trainable in [
        (("q_proj",), ()),
        (("q_proj",), ("up_proj",)),
        (("q_proj", "up_proj"), ("norm",)),
        (("up_proj",), ("embed", "q_proj.bias")),
        (("q_proj",), ("q_proj", "up_proj", "embed", "norm")),
    ]:
        yield (_Block(adapted, trainable),)


def _linear_leaks(model):
    linear = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    return [n for n in find_leaks(model) if n.rpartition(".")[0] in linear]


LEAKS = Exercise(
    name="find_leaks",
    title="Ask the model what trains",
    minutes=10,
    difficulty=2,
    reference=find_leaks,
    cases=_leak_cases,
    any_order=True,
    hints=(
        "Do not reason about what you froze: ask. `model.named_parameters()` yields (name, "
        "parameter).",
        "A leak is a parameter with `requires_grad` that does not belong to the adapter.",
        "The adapter's own parameters have `lora_` in their name, by PEFT's convention and ours.",
        'return [n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n]',
    ),
    wrong=(
        Wrong(
            "all trainable",
            lambda m: [n for n, p in m.named_parameters() if p.requires_grad],
            "The adapter's own parameters are in your list: they are meant to train.",
        ),
        Wrong(
            "not asked",
            lambda m: [n for n, p in m.named_parameters() if "lora_" not in n],
            "You list everything that is not the adapter's, frozen or not: ask `requires_grad`.",
        ),
        Wrong(
            "frozen",
            lambda m: [n for n, p in m.named_parameters() if not p.requires_grad],
            "These are the frozen ones: the leak is what is not frozen.",
        ),
        Wrong(
            "linear only",
            _linear_leaks,
            "You look at linear layers only: norms and embeddings leak as well.",
        ),
        Wrong(
            "weights only",
            lambda m: [n for n in find_leaks(m) if n.endswith("weight")],
            "You look at weights only: biases leak as well.",
        ),
        Wrong(
            "by gradient",
            lambda m: [
                n for n, p in m.named_parameters() if p.grad is not None and "lora_" not in n
            ],
            "You find nothing in any model. If you ask for `.grad`: it is None before the first "
            "backward pass. Ask `requires_grad`.",
        ),
        Wrong(
            "no path",
            lambda m: [n.rpartition(".")[2] for n in find_leaks(m)],
            'The names have lost their path: "weight" says nothing, '
            "give the full name from `named_parameters`.",
        ),
    ),
)
