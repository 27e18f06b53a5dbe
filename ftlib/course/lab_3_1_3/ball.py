"""The noise ball: a token's embedding, its nearest neighbour in the vocabulary and NEFTune's noise,
with handles for alpha, length and hidden size (`ftlib.course.explorable`).
"""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from ftlib.course.explorable import Explorable, choice, slider

ALPHAS = (0.5, 1, 2, 5, 10, 15, 50, 150)
LENGTHS = (8, 16, 32, 54, 128, 512, 2048)
SIZES = (16, 64, 256, 1024, 4096)
DOTS = 250  # draws of the noise that are shown


def nearest_other(table: Tensor, token: int) -> tuple[int, float]:
    """(the token whose embedding is nearest, its distance), the token itself left out."""
    apart = (table - table[token]).norm(dim=1)
    apart[token] = math.inf
    other = int(apart.argmin())
    return other, float(apart[other])


def token_radius(alpha: float, length: int) -> float:
    """The norm of the noise on one token, α/√(3L), whatever d is."""
    return alpha / math.sqrt(3 * length)


def share_mistaken(alpha: float, length: int, d: int, apart: float) -> float:
    """The probability that the noised embedding is nearer to a neighbour at this distance than to
    itself: the noise along the line between both, about normal with α/√(3Ld), exceeds half of it.
    """
    spread = token_radius(alpha, length) / math.sqrt(d)
    if spread == 0:
        return 0.0
    return 0.5 * math.erfc(apart / 2 / spread / math.sqrt(2))


class NoiseBall(Explorable):
    """Handles for the token, alpha, L and d. Norm and neighbour are the token's in this model; d
    changes in how many directions the noise spreads.

    `table`: embeddings (V, d); `tokens`: {text: id} to choose from.
    """

    def __init__(self, table: Tensor, tokens: dict[str, int], names: list[str], length: int = 54):
        self.table = table.detach().float().cpu()
        self.tokens = tokens
        self.names = names  # of all tokens
        d = self.table.shape[1]
        super().__init__(
            self.draw,
            self.describe,
            token=choice("token", tokens, next(iter(tokens))),
            alpha=slider("alpha", ALPHAS, 5),
            length=slider("tokens L", LENGTHS, length),
            d=slider("hidden size d", SIZES, d),
        )

    def describe(self, token: str, alpha: float, length: int, d: int) -> str:
        """The sizes in a line."""
        own = self.tokens[token]
        other, apart = nearest_other(self.table, own)
        norm = float(self.table[own].norm())
        radius = token_radius(alpha, length)
        mistaken = share_mistaken(alpha, length, d, apart)
        return (
            f"noise {radius:.2f}, embedding {norm:.2f}, ratio {radius / norm:.2f}; nearest other "
            f"token {self.names[other]!r} at {apart:.2f}; across to it the noise reaches "
            f"{radius / math.sqrt(d):.3f} (one standard deviation): mistaken in {mistaken:.1%}"
        )

    def draw(self, token: str, alpha: float, length: int, d: int) -> Figure:
        """Left: norms, to scale. Right: the plane through the token, its neighbour and one
        direction of noise; closed, so that a cell shows it once.
        """
        own = self.tokens[token]
        other, apart = nearest_other(self.table, own)
        norm = float(self.table[own].norm())
        radius = token_radius(alpha, length)
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(8.6, 3.6), gridspec_kw={"width_ratios": [1, 2]}
        )
        self._draw_norms(left, norm, radius, apart)
        self._draw_plane(right, (repr(token), repr(self.names[other])), apart, radius, d)
        plt.close(figure)
        return figure

    def _draw_norms(self, ax: Axes, norm: float, radius: float, apart: float) -> None:
        values = {"embedding": norm, "noise": radius, "to the nearest": apart}
        hatches = ("", "////", "....")
        for i, (value, hatch) in enumerate(zip(values.values(), hatches, strict=True)):
            ax.bar(i, value, color="white", edgecolor="black", hatch=hatch)
            ax.annotate(f"{value:.2f}", (i, value), ha="center", va="bottom", fontsize=9)
        ax.set_xticks(range(len(values)), ["embedding", "noise", "neighbour"], fontsize=8)
        ax.set(title="Norms and distance", ylabel="length", ylim=(0, 1.2 * max(values.values())))

    def _draw_plane(
        self, ax: Axes, names: tuple[str, str], apart: float, radius: float, d: int
    ) -> None:
        """Across: along the line to the neighbour. Up: the distance in all other directions."""
        spread = radius / math.sqrt(d)
        generator = torch.Generator().manual_seed(0)
        across = (spread * torch.randn(DOTS, generator=generator)).numpy()
        others = torch.randn(DOTS, generator=generator).sign().numpy()
        rest = (max(radius**2 - spread**2, 0.0)) ** 0.5
        wobble = torch.randn(DOTS, generator=generator).numpy() * spread / 2**0.5
        ax.add_patch(Circle((0, 0), radius, fill=False, linestyle="--"))
        ax.plot(across, others * (rest + wobble), ".", color="0.4", markersize=3, label="draws")
        ax.plot(0, 0, "o", color="black", label=names[0])
        ax.plot(apart, 0, "s", color="black", markerfacecolor="white", label=names[1])
        ax.axvline(apart / 2, color="black", linestyle=":", label="as near to both")
        reach = 1.15 * max(radius, apart)
        ax.set(
            title="Noise goes where no other token is",
            xlabel="along the line to the neighbour",
            ylabel="in all other directions",
            xlim=(-reach, 1.25 * reach),
            ylim=(-reach, reach),
            aspect="equal",
        )
        ax.legend(fontsize="x-small", loc="upper right")
