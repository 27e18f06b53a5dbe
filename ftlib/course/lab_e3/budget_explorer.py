"""How many numbers each method trains and how many multiply-adds a request then costs, with handles
for the model, LoReFT's rank and positions, and the lengths of prompt and answer. Arithmetic alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ftlib.course.explorable import Explorable, choice, slider
from ftlib.course.lab_e3.costs import extra_products
from ftlib.course.lab_e3.count_adapter_parameters import (
    METHODS,
    count_adapter_parameters,
    nearest_size,
)
from ftlib.course.plots import style

RANKS = (1, 2, 4, 8, 16, 32)
PROMPTS = (16, 64, 256, 1024, 4096)  # tokens
ANSWERS = (1, 16, 64, 256, 1024)
ENDS = (1, 2, 4, 8, 16)  # positions at each end of the prompt
MERGED = ("LoRA", "(IA)³")  # cost nothing once they are merged


class BudgetExplorer(Explorable):
    """`configs`: {name: the fields of a Llama's configuration}; `targets`: where LoRA stands."""

    def __init__(self, configs: Mapping[str, dict], targets: Sequence[str]):
        self.configs = configs
        self.targets = tuple(targets)
        super().__init__(
            self.draw,
            self.describe,
            model=choice("model", configs, next(iter(configs))),
            rank=slider("LoReFT's rank", RANKS, 2),
            ends=slider("positions at each end", ENDS, 4),
            prompt=slider("prompt (tokens)", PROMPTS, 64),
            answer=slider("answer (tokens)", ANSWERS, 64),
        )

    def sizes(self, model: str, rank: int) -> dict[str, int]:
        """{method: its size}: each as near to LoReFT's number of parameters as it can come."""
        config = self.configs[model]
        budget = count_adapter_parameters(config, "LoReFT", rank)
        found = {"LoReFT": rank, "(IA)³": 1}
        for method in ("LoRA", "prefix", "bottleneck"):
            found[method] = nearest_size(config, method, budget, self.targets)
        return {method: found[method] for method in METHODS}

    def counts(self, model: str, rank: int) -> dict[str, int]:
        """{method: trained parameters}."""
        config = self.configs[model]
        return {
            method: count_adapter_parameters(config, method, size, self.targets)
            for method, size in self.sizes(model, rank).items()
        }

    def products(self, model: str, rank: int, ends: int, prompt: int, answer: int) -> dict:
        """{method: multiply-adds more than the base's for one request}, unmerged."""
        config = self.configs[model]
        tokens = prompt + answer - 1  # the last token is not read
        edited = min(2 * ends, prompt)
        return {
            method: extra_products(config, method, size, self.targets, tokens, edited)
            for method, size in self.sizes(model, rank).items()
        }

    def describe(self, model: str, rank: int, ends: int, prompt: int, answer: int) -> str:
        """The sizes, and what LoReFT edits."""
        sizes = self.sizes(model, rank)
        share = min(2 * ends, prompt) / (prompt + answer - 1)
        return (
            f"LoRA r = {sizes['LoRA']}, LoReFT r = {rank}, prefix of {sizes['prefix']}, "
            f"bottleneck of {sizes['bottleneck']}; LoReFT edits {share:.1%} of the tokens read"
        )

    def draw(self, model: str, rank: int, ends: int, prompt: int, answer: int) -> Figure:
        """Parameters on the left, multiply-adds of a request on the right; closed, so that a cell
        shows it once.
        """
        figure, (left, right) = plt.subplots(1, 2, figsize=(9.2, 3.4))
        _bars(left, self.counts(model, rank), "Trained parameters", "numbers")
        products = self.products(model, rank, ends, prompt, answer)
        _bars(right, products, "More than the base, per request", "multiply-adds, unmerged")
        right.set_yscale("log")
        right.set_ylim(0.3 * min(products.values()), 3 * max(products.values()))
        plt.close(figure)
        return figure


def _bars(ax: Axes, values: Mapping[str, int], title: str, label: str) -> None:
    """A bar a method; those that can be merged are hollow."""
    for i, (method, value) in enumerate(values.items()):
        hollow = method in MERGED
        ax.bar(
            i,
            value,
            color="white" if hollow else style(i)["color"],
            edgecolor=style(i)["color"],
            hatch="///" if hollow else "",
        )
    ax.set_xticks(np.arange(len(values)), list(values), rotation=15)
    ax.set(title=title, ylabel=label)
