"""The shapes of a Llama block's linear layers, for the exercises that count parameters."""

from __future__ import annotations


def layer_shapes(config: dict) -> dict[str, tuple[int, int]]:
    """(out, in) of the seven linear layers in one Llama block."""
    d = config["hidden_size"]
    ff = config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    return {
        "q_proj": (q, d),
        "k_proj": (kv, d),
        "v_proj": (kv, d),
        "o_proj": (d, q),
        "gate_proj": (ff, d),
        "up_proj": (ff, d),
        "down_proj": (d, ff),
    }
