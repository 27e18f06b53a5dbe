"""Lab E6, exercise: an adapter's settings in PEFT's words."""

from __future__ import annotations

import math
from typing import Any

from ftlib.course.exercise import Exercise, Wrong


def to_peft(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments for `peft.LoraConfig` from `rank`, `scale` (the number before BA in W + scale·BA),
    `rank_stabilized`, `layers` (names, or "all" for every linear layer but the head) and `dropout`.

    PEFT has no argument for the scale: it multiplies by lora_alpha/r, or with use_rslora by
    lora_alpha/√r (Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732).
    """
    rank = settings["rank"]
    divisor = math.sqrt(rank) if settings["rank_stabilized"] else rank
    layers = settings["layers"]
    return {
        "r": rank,
        "lora_alpha": settings["scale"] * divisor,
        "use_rslora": settings["rank_stabilized"],
        "target_modules": "all-linear" if layers == "all" else list(layers),
        "lora_dropout": settings["dropout"],
    }


def _cases(g):
    for rank, scale, stabilized, layers, dropout in (
        (8, 2.0, False, "all", 0.0),
        (16, 2.0, True, ["q_proj", "v_proj"], 0.05),
        (64, 0.25, False, ["q_proj", "k_proj", "v_proj", "o_proj"], 0.0),
        (4, 10.0, True, "all", 0.1),
    ):
        yield (
            {
                "rank": rank,
                "scale": scale,
                "rank_stabilized": stabilized,
                "layers": layers,
                "dropout": dropout,
            },
        )


def _with(alpha=None, layers=None, **names):
    """The right translation, but for a wrong alpha, wrong layers, or other values by name."""

    def to_other(settings):
        found = to_peft(settings)
        if alpha is not None:
            found["lora_alpha"] = alpha(settings["scale"], settings["rank"])
        if layers is not None:
            found["target_modules"] = layers(settings["layers"])
        for name, value in names.items():
            found[name] = value
        return found

    return to_other


def _alpha_over_rank(scale, rank):
    return scale * rank


def _their_names(settings):
    return {
        "r": settings["rank"],
        "lora_alpha": settings["scale"],
        "use_rslora": settings["rank_stabilized"],
        "target_modules": settings["layers"],
        "lora_dropout": settings["dropout"],
    }


TO_PEFT = Exercise(
    name="to_peft",
    title="The same adapter as a LoraConfig",
    minutes=8,
    difficulty=2,
    reference=to_peft,
    cases=_cases,
    hints=(
        "Five keys: r, lora_alpha, use_rslora, target_modules, lora_dropout. Two of the values are "
        "not simply copied.",
        "scale = lora_alpha / r, so lora_alpha = scale · r; with rank_stabilized the divisor is "
        "√r. PEFT's name for every linear layer except the head is 'all-linear'.",
        "divisor = math.sqrt(rank) if settings['rank_stabilized'] else rank; 'lora_alpha': "
        "settings['scale'] * divisor",
    ),
    wrong=(
        Wrong(
            "copied",
            _their_names,
            "You copied the values under new names: `scale` is not lora_alpha, PEFT divides that "
            'by r (or √r), and PEFT does not know the name "all".',
        ),
        Wrong(
            "scale as alpha",
            _with(alpha=lambda scale, rank: scale),
            "lora_alpha is not the scale: PEFT divides it by r, or by √r with use_rslora. Your "
            "adapter would be weaker by that factor.",
        ),
        Wrong(
            "always r",
            _with(alpha=_alpha_over_rank),
            "With rank_stabilized PEFT divides by √r, not by r: your update is √r times too large "
            "there.",
        ),
        Wrong(
            "always the root",
            _with(alpha=lambda scale, rank: scale * math.sqrt(rank)),
            "Without rank_stabilized PEFT divides by r: your update is √r times too small there.",
        ),
        Wrong(
            "divided",
            _with(alpha=lambda scale, rank: scale / rank),
            "You divided by r: PEFT does that itself, so lora_alpha must be r times the scale.",
        ),
        Wrong(
            "alpha is 2r",
            _with(alpha=lambda scale, rank: 2 * rank),
            "lora_alpha = 2r is a habit, not a translation: it always gives scale 2.",
        ),
        Wrong(
            "all",
            _with(layers=lambda layers: layers),
            'PEFT looks for layers whose name ends in "all" and finds none. Its name for them is '
            '"all-linear".',
        ),
        Wrong(
            "default layers",
            _with(target_modules=None),
            "With target_modules=None PEFT uses its default for the architecture, q_proj and "
            "v_proj for a Llama: a smaller adapter, without a warning.",
        ),
        Wrong(
            "rslora forgotten",
            _with(use_rslora=False),
            "use_rslora is always False: PEFT then divides by r where √r was meant.",
        ),
        Wrong(
            "dropout forgotten",
            _with(lora_dropout=0.0),
            "The dropout is not passed on.",
        ),
    ),
)
