"""Lab 3.1.2, DoRA, exercise 6: counting."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.shapes import layer_shapes


def count_dora_parameters(config: dict, r: int, targets: tuple[str, ...]) -> int:
    """Σ r·(in + out) + out over the targets of a block, times the number of blocks."""
    shapes = layer_shapes(config)
    return config["num_hidden_layers"] * sum(
        r * (shapes[t][0] + shapes[t][1]) + shapes[t][0] for t in targets
    )


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
            (16, ("gate_proj", "up_proj", "down_proj")),
            (8, tuple(layer_shapes(config))),
        ]:
            yield config, r, targets


def _count_with(extra=lambda n_out, n_in, r: n_out, blocks=True, shapes=layer_shapes):
    def count(config, r, targets):
        sizes = [shapes(config)[t] for t in targets]
        lora = sum(r * (n_out + n_in) for n_out, n_in in sizes) * config["num_hidden_layers"]
        return lora + sum(extra(n_out, n_in, r) for n_out, n_in in sizes) * (
            config["num_hidden_layers"] if blocks else 1
        )

    return count


def _all_heads(config):
    return layer_shapes({**config, "num_key_value_heads": config["num_attention_heads"]})


COUNT_DORA = Exercise(
    name="count_dora_parameters",
    title="Counting",
    minutes=5,
    difficulty=1,
    reference=count_dora_parameters,
    cases=_count_cases,
    hints=(
        "Lab 1's count, r·(in + out) for each adapted layer, plus the magnitudes.",
        "One magnitude for each output row: out more numbers per layer. For k_proj and v_proj out "
        "is small "
        "(grouped-query attention).",
        "Sum r·(in + out) + out over the targets, then multiply by num_hidden_layers.",
    ),
    wrong=(
        Wrong(
            "LoRA's count",
            _count_with(lambda n_out, n_in, r: 0),
            "That is LoRA's count: the magnitudes are missing, out for each layer.",
        ),
        Wrong(
            "per input",
            _count_with(lambda n_out, n_in, r: n_in),
            "You added one magnitude for each input: DoRA has one for each output row.",
        ),
        Wrong(
            "per rank",
            _count_with(lambda n_out, n_in, r: r * n_out),
            "You multiplied the magnitudes by r: there is one m for each layer, whatever the rank.",
        ),
        Wrong(
            "one per layer",
            _count_with(lambda n_out, n_in, r: 1),
            "You added one number for each layer: each output row has its own magnitude.",
        ),
        Wrong(
            "one block's m",
            _count_with(blocks=False),
            "The magnitudes were counted for one block only: multiply them by num_hidden_layers "
            "too.",
        ),
        Wrong(
            "dense direction",
            _count_with(lambda n_out, n_in, r: n_out + n_out * n_in - r * (n_out + n_in)),
            "You counted the whole direction matrix V: it is frozen, A and B turn it.",
        ),
        Wrong(
            "no gqa",
            _count_with(shapes=_all_heads),
            "k_proj and v_proj come out too large: with grouped-query attention they have "
            "num_key_value_heads heads.",
        ),
    ),
)
