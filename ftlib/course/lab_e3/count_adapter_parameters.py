"""Lab E3, ReFT and its relatives, exercise 7: equal numbers of parameters."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.shapes import layer_shapes

METHODS = ("LoRA", "LoReFT", "(IA)³", "prefix", "bottleneck")


def count_adapter_parameters(
    config: dict, method: str, size: int, targets: tuple[str, ...] = ("q_proj", "v_proj")
) -> int:
    """Trained parameters of a method on every layer of a Llama: LoRA of rank `size` on `targets`,
    LoReFT of rank `size`, a prefix of `size` tokens, a bottleneck of width `size` after the MLP;
    (IA)³ has no size.
    """
    d = config["hidden_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    shapes = layer_shapes(config)
    of_layer = {
        "LoRA": size * sum(sum(shapes[target]) for target in targets),
        "LoReFT": size * (2 * d + 1),
        "(IA)³": 2 * kv + config["intermediate_size"],
        "prefix": size * 2 * kv,
        "bottleneck": 2 * size * d + d + size,
    }
    return config["num_hidden_layers"] * of_layer[method]


def nearest_size(config: dict, method: str, budget: int, targets: tuple[str, ...]) -> int:
    """The size, 1 at least, whose count is nearest to the budget; the smaller of two as near."""
    sizes = range(1, config["hidden_size"] + 1)

    def distance(size: int) -> int:
        return abs(count_adapter_parameters(config, method, size, targets) - budget)

    return min(sizes, key=distance)


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
LLAMA_8B = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


def _cases(g):
    for config in (SMALL, LLAMA_8B):
        for method in METHODS:
            for size in (1, 4):
                yield config, method, size, ("q_proj", "k_proj", "v_proj")


def _count_with(**formulas):
    """The count with another formula a layer for some methods."""

    def count(config, method, size, targets=("q_proj", "v_proj")):
        if method not in formulas:
            return count_adapter_parameters(config, method, size, targets)
        return config["num_hidden_layers"] * formulas[method](config, size)

    return count


def _kv(config):
    return config["num_key_value_heads"] * config["head_dim"]


def _all_heads(config, method, size, targets=("q_proj", "v_proj")):
    wide = {**config, "num_key_value_heads": config["num_attention_heads"]}
    return count_adapter_parameters(wide, method, size, targets)


def _one_layer(config, method, size, targets=("q_proj", "v_proj")):
    return count_adapter_parameters({**config, "num_hidden_layers": 1}, method, size, targets)


COUNT = Exercise(
    name="count_adapter_parameters",
    title="Counting an adapter's parameters",
    minutes=12,
    difficulty=2,
    reference=count_adapter_parameters,
    cases=_cases,
    defaults=("targets",),
    hints=(
        "Count one layer, then multiply by num_hidden_layers. `layer_shapes(config)` gives (out, "
        "in) of a layer's seven matrices.",
        "LoRA: r·(in + out) for each target. LoReFT: R and W (r, d), b (r,).",
        "(IA)³: a vector as long as the keys, one as long as the values, one as long as the MLP's "
        "intermediate size. A prefix: P keys and P values. Keys are num_key_value_heads·head_dim "
        "long.",
        "A bottleneck of width m after the MLP: down (m, d) and m biases, up (d, m) and d biases.",
    ),
    wrong=(
        Wrong(
            "b left out",
            _count_with(LoReFT=lambda c, r: 2 * r * c["hidden_size"]),
            "LoReFT comes out too small: R and W have r·d each, and b has r.",
        ),
        Wrong(
            "R not counted",
            _count_with(LoReFT=lambda c, r: r * (c["hidden_size"] + 1)),
            "LoReFT's R is trained too: count it beside W and b.",
        ),
        Wrong(
            "keys alone",
            _count_with(prefix=lambda c, p: p * _kv(c)),
            "The prefix comes out at half: it has keys *and* values in every layer.",
        ),
        Wrong(
            "prefix of embeddings",
            _count_with(prefix=lambda c, p: p * c["hidden_size"]),
            "You count p·d per layer for the prefix: that would be embeddings. Prefix tuning "
            "trains keys and values, num_key_value_heads·head_dim long each.",
        ),
        Wrong(
            "no biases",
            _count_with(bottleneck=lambda c, m: 2 * m * c["hidden_size"]),
            "The bottleneck's biases are missing: m below and d above.",
        ),
        Wrong(
            "two bottlenecks",
            _count_with(
                bottleneck=lambda c, m: 2 * (2 * m * c["hidden_size"] + c["hidden_size"] + m)
            ),
            "You count two bottlenecks per layer, as Houlsby does; here there is one, after the "
            "MLP.",
        ),
        Wrong(
            "(IA)³ on the output",
            _count_with(**{"(IA)³": lambda c, _: 2 * _kv(c) + c["hidden_size"]}),
            "(IA)³ scales the MLP's intermediate activations, which are intermediate_size wide, "
            "not its output.",
        ),
        Wrong(
            "no gqa",
            _all_heads,
            "Keys and values come out too wide: with grouped-query attention they have "
            "num_key_value_heads heads.",
        ),
        Wrong("one layer", _one_layer, "That is one layer: multiply by num_hidden_layers."),
    ),
)
