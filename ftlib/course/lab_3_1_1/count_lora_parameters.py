"""Lab 3.1.1, LoRA, exercise 6: counting."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.shapes import layer_shapes


def count_lora_parameters(config: dict, r: int, targets: tuple[str, ...]) -> int:
    """Σ r·(in + out) over the targets of a block, times the number of blocks."""
    shapes = layer_shapes(config)
    return config["num_hidden_layers"] * sum(r * (shapes[t][0] + shapes[t][1]) for t in targets)


def _count_cases(g):
    small = {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
    }
    llama = {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    }
    for config in (small, llama):
        for r, targets in [
            (4, ("q_proj", "v_proj")),
            (16, ("q_proj", "k_proj", "v_proj", "o_proj")),
            (8, ("gate_proj", "up_proj", "down_proj")),
            (1, tuple(layer_shapes(config))),
        ]:
            yield config, r, targets


def _count_with(
    per_layer=lambda n_out, n_in, r: r * (n_in + n_out), shapes=layer_shapes, blocks=True
):
    def count(config, r, targets):
        total = sum(per_layer(*shapes(config)[t], r) for t in targets)
        return total * config["num_hidden_layers"] if blocks else total

    return count


def _without_gqa(config):
    return layer_shapes({**config, "num_key_value_heads": config["num_attention_heads"]})


def _square_q(config):
    return layer_shapes(
        {**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]}
    )


def _square_mlp(config):
    return layer_shapes({**config, "intermediate_size": config["hidden_size"]})


COUNT = Exercise(
    name="count_lora_parameters",
    title="Counting",
    minutes=10,
    difficulty=2,
    reference=count_lora_parameters,
    cases=_count_cases,
    hints=(
        "One adapted layer (out, in) costs A and B: r·in + out·r. The rest is knowing each "
        "layer's out and in.",
        "q_proj maps hidden → heads·head_dim, o_proj maps back. "
        "gate_proj and up_proj map hidden → intermediate, down_proj maps back.",
        "k_proj and v_proj have num_key_value_heads heads: 8 instead of 32 in Llama-3.1-8B. That "
        "is grouped-query attention.",
        "Sum r·(in + out) over the targets, then multiply by num_hidden_layers.",
    ),
    wrong=(
        Wrong(
            "no gqa",
            _count_with(shapes=_without_gqa),
            "k_proj and v_proj come out too large: with grouped-query attention they have "
            "num_key_value_heads heads.",
        ),
        Wrong(
            "one block",
            _count_with(blocks=False),
            "You counted one block: multiply by num_hidden_layers.",
        ),
        Wrong(
            "A only",
            _count_with(lambda n_out, n_in, r: r * n_in),
            "You counted A only: B holds out × r more.",
        ),
        Wrong(
            "dense",
            _count_with(lambda n_out, n_in, r: n_in * n_out),
            "That is the full layer, in·out: LoRA trains r·(in + out).",
        ),
        Wrong(
            "r times dense",
            _count_with(lambda n_out, n_in, r: r * n_in * n_out),
            "You multiplied in by out: A is r × in and B is out × r, so the sizes add up, r·(in + "
            "out).",
        ),
        Wrong(
            "square mlp",
            _count_with(shapes=_square_mlp),
            "The MLP's layers are not square: gate and up map hidden → intermediate, down maps "
            "back.",
        ),
        Wrong(
            "head_dim ignored",
            _count_with(shapes=_square_q),
            "Read head_dim from the config: heads · head_dim need not be hidden_size (Qwen3 is "
            "such a model).",
        ),
        Wrong(
            "2dr",
            _count_with(lambda n_out, n_in, r: 2 * r * n_in),
            "2·r·in is right for square layers only: use r·(in + out).",
        ),
    ),
)
