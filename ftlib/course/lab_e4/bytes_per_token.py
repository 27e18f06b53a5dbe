"""Lab E4, distillation, exercise 6: what a generated token costs to serve."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_3_1_1.shapes import layer_shapes
from ftlib.training.model_sizes import MODELS


def bytes_per_token(
    config: dict, context: int, weight_bytes: float, cache_bytes: float = 2.0
) -> float:
    """Bytes read from memory for one generated token of one request: the matrices of all layers and
    the head, (vocabulary, hidden), once each, and the keys and values of `context` tokens. Norms
    and the one row of the embedding are left out.
    """
    layers = config["num_hidden_layers"]
    in_layer = 0
    for n_out, n_in in layer_shapes(config).values():
        in_layer += n_out * n_in
    head = config["vocab_size"] * config["hidden_size"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    cache = 2 * layers * kv * context
    return (layers * in_layer + head) * weight_bytes + cache * cache_bytes


SMALL = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 500,
}
# So few bytes that one of them is more than the tolerance.
MINUTE = {
    "hidden_size": 4,
    "intermediate_size": 6,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 2,
    "vocab_size": 7,
}
LLAMA_8B = MODELS["llama-3.1-8b"]
LLAMA_1B = MODELS["llama-3.2-1b"]


def _cases(g):
    yield MINUTE, 3, 2.0, 2.0
    yield SMALL, 10, 2.0, 2.0
    yield SMALL, 1000, 0.5, 2.0
    yield LLAMA_8B, 4096, 2.0, 2.0
    yield LLAMA_1B, 8192, 0.5, 1.0


def _weights(config: dict) -> int:
    """Numbers in all layers and the head."""
    return int(bytes_per_token(config, 0, 1.0))


def _cache(config: dict, context: int) -> int:
    """Numbers in the cache."""
    return int(bytes_per_token(config, context, 0.0, 1.0))


def _made(weights_of=_weights, cache_of=_cache):
    def cost(config, context, weight_bytes, cache_bytes=2.0):
        return weights_of(config) * weight_bytes + cache_of(config, context) * cache_bytes

    return cost


def _head(config: dict) -> int:
    return config["vocab_size"] * config["hidden_size"]


def _all_heads(config: dict, context: int) -> int:
    share = config["num_attention_heads"] // config["num_key_value_heads"]
    return share * _cache(config, context)


BYTES = Exercise(
    name="bytes_per_token",
    title="Bytes per generated token",
    minutes=8,
    difficulty=2,
    reference=bytes_per_token,
    cases=_cases,
    defaults=("cache_bytes",),
    hints=(
        "To generate one token, every matrix is used once, so it is read once. "
        "`layer_shapes(config)` has (out, in) of the seven in a layer.",
        "The head is (vocabulary, hidden). Only one row of the embedding is read: leave it out.",
        "The cache has a key and a value per token and layer, each of num_key_value_heads × "
        "head_dim numbers.",
        "(layers * in_layer + head) * weight_bytes + 2 * layers * kv * context * cache_bytes",
    ),
    wrong=(
        Wrong(
            "no cache",
            _made(cache_of=lambda config, context: 0),
            "The cache is missing: every token attends to all keys and values before it, and they "
            "are read too.",
        ),
        Wrong(
            "keys alone",
            _made(cache_of=lambda config, context: _cache(config, context) // 2),
            "The cache holds keys *and* values: twice what you count.",
        ),
        Wrong(
            "one layer's cache",
            _made(
                cache_of=lambda config, context: (
                    _cache(config, context) // config["num_hidden_layers"]
                )
            ),
            "That is the cache of one layer: each layer has its own.",
        ),
        Wrong(
            "all heads",
            _made(cache_of=_all_heads),
            "You count the cache by the query heads: grouped queries share keys and values, so "
            "only num_key_value_heads are kept.",
        ),
        Wrong(
            "no head",
            _made(lambda config: _weights(config) - _head(config)),
            "The head is missing: the logits of the whole vocabulary are a product with (V, d). "
            "In a small model that is a large part.",
        ),
        Wrong(
            "the embedding too",
            _made(lambda config: _weights(config) + _head(config)),
            "You count the embedding beside the head: only one row of it is read, not the whole "
            "matrix.",
        ),
        Wrong(
            "one layer",
            _made(
                lambda config: (
                    (_weights(config) - _head(config)) // config["num_hidden_layers"]
                    + _head(config)
                )
            ),
            "You count one layer's matrices: all layers are read.",
        ),
        Wrong(
            "cache as the weights",
            lambda config, context, weight_bytes, cache_bytes=2.0: bytes_per_token(
                config, context, weight_bytes, weight_bytes
            ),
            "You use the weights' bytes for the cache: a 4-bit file still has a 16-bit cache.",
        ),
    ),
)
