"""What a decoder's configuration says of its size, without its weights: read in any form, checked,
its parameters counted by formula or from the architecture itself.

Decoders of Llama's form: Llama, Mistral, Qwen2 and Qwen3, and what transformers builds from the
same seven linear layers a block (Gemma, OLMo, SmolLM3, …), whose parameters are then counted from
the architecture. Others are refused by name.
"""

from __future__ import annotations

import json
from pathlib import Path

from ftlib.core.checks import check_positive_integer

# As published in each model's config.json on the Hub.
_LLAMA3 = {
    "vocab_size": 128256,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": False,
}
_LLAMA2 = {"vocab_size": 32000, "head_dim": 128, "tie_word_embeddings": False}
MODELS: dict[str, dict] = {
    "llama-3.2-1b": {
        **_LLAMA3,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "head_dim": 64,
        "tie_word_embeddings": True,
    },
    "llama-3.1-8b": {
        **_LLAMA3,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "llama-3.1-70b": {
        **_LLAMA3,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
    },
    "llama-2-7b": {
        **_LLAMA2,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
    },
    "llama-2-13b": {
        **_LLAMA2,
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 40,
    },
    "mistral-7b": {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
    },
}
NEEDED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
# Model types whose parameters are counted by formula; the rest are built without storage.
LLAMAS = ("llama", "mistral", "qwen2", "qwen3")
# What a configuration may leave out, since its type has a default for it.
DEFAULTED = ("num_key_value_heads", "head_dim", "tie_word_embeddings")
OTHERS = "parameters_of_norms_and_biases"  # where the count from the architecture is kept
MIXTURES = ("num_local_experts", "num_experts", "n_routed_experts")


class PlanError(ValueError):
    """A plan that cannot be made: what is unknown or missing, and the fix."""


def read_config(config) -> dict:
    """The fields of a configuration: from a dict, a transformers config, a folder or file, or a
    name in `MODELS`. PlanError.
    """
    if isinstance(config, (str, Path)):
        known = MODELS.get(str(config).lower())
        if known:
            return _complete(dict(known), str(config))
        path = Path(config).expanduser()
        file = path / "config.json" if path.is_dir() else path
        if not file.is_file():
            raise PlanError(
                f"model {str(config)!r} is neither a file or folder nor one of {', '.join(MODELS)}"
            )
        try:
            return _complete(json.loads(file.read_text(encoding="utf-8")), str(file))
        except json.JSONDecodeError as error:
            raise PlanError(f"{file} is not valid JSON ({error}): download it again") from None
    if isinstance(config, dict):
        return _complete(dict(config), "the configuration")
    if hasattr(config, "to_dict"):
        return _complete(config.to_dict(), "the configuration")
    raise PlanError(
        f"config is a {type(config).__name__}: pass a dict, a path, or one of {', '.join(MODELS)}"
    )


def _complete(config: dict, source: str) -> dict:
    """The configuration with what a Llama's may leave out; PlanError for one that is no Llama's."""
    kind = config.get("model_type")
    for name in MIXTURES:
        if config.get(name):
            of_kind = f" ({kind})" if kind else ""
            raise PlanError(
                f"{source}{of_kind} has {name}={config[name]}: mixtures of experts are not planned "
                "for"
            )
    described = None
    if kind is not None and (kind not in LLAMAS or any(config.get(n) is None for n in DEFAULTED)):
        described = _described(config, source)
    if described is not None and kind not in LLAMAS and OTHERS not in config:
        config.update(_counted(described, source))
    for name in NEEDED:
        check_positive_integer(f"{source} has {name}", config.get(name), PlanError)
    for name in DEFAULTED:
        if config.get(name) is None:
            config[name] = getattr(described, name, None)
    heads = config["num_attention_heads"]
    config["num_key_value_heads"] = config.get("num_key_value_heads") or heads
    config["head_dim"] = config.get("head_dim") or config["hidden_size"] // heads
    config["tie_word_embeddings"] = bool(config["tie_word_embeddings"])
    return config


def _described(config: dict, source: str):
    """transformers' configuration of these fields, with the defaults of its model type."""
    from ftlib.models.architecture import UNBUILDABLE, describe_type  # imports torch, which is slow

    left_out = ("model_type", "quantization_config", OTHERS)
    fields = {name: value for name, value in config.items() if name not in left_out}
    kind = config["model_type"]
    try:
        return describe_type(kind, fields)
    except UNBUILDABLE as error:
        raise _unbuildable(source, kind, error) from None


def _unbuildable(source: str, kind: str, error: Exception) -> PlanError:
    reason = " ".join(str(error).split())[:120]
    return PlanError(
        f"{source} has model_type={kind!r}, of which transformers builds no causal language model "
        f"({type(error).__name__}: {reason}): check its fields, or name one of {', '.join(MODELS)}"
    )


def _not_llamas(source: str, kind: str, why: str) -> PlanError:
    return PlanError(
        f"{source} has model_type={kind!r}, which is not of Llama's form ({why}): plans are made "
        f"for decoders whose blocks are {', '.join((*ATTENTION, *MLP))}, such as "
        f"{', '.join(LLAMAS)}"
    )


def _counted(described, source: str) -> dict:
    """Sizes of another architecture than `LLAMAS`, from the model itself without its storage.
    PlanError where its blocks have other matrices than a Llama's.
    """
    from ftlib.models.architecture import UNBUILDABLE, architecture_of

    kind = described.model_type
    try:
        real = architecture_of(described)
    except UNBUILDABLE as error:
        raise _unbuildable(source, kind, error) from None
    if set(real.linear) != {*ATTENTION, *MLP} or real.others:
        found = [*sorted(real.linear), *real.others[:1]]
        raise _not_llamas(source, kind, f"it has {', '.join(found)}")
    sizes: dict = {}
    for name in (*NEEDED, *DEFAULTED):
        try:
            sizes[name] = getattr(described, name, None)
        except RuntimeError:  # transformers refuses to give one number for layers that differ
            raise _not_llamas(source, kind, f"its layers differ in {name}") from None
    heads = sizes["num_attention_heads"]
    sizes["num_key_value_heads"] = sizes["num_key_value_heads"] or heads
    sizes["head_dim"] = sizes["head_dim"] or sizes["hidden_size"] // heads
    linear = 0
    for name, shape in linear_shapes(sizes).items():
        layers = real.linear[name]
        if layers != [shape] * sizes["num_hidden_layers"]:
            raise _not_llamas(source, kind, f"its {name} are not all {shape}")
        linear += sum(n_in * n_out for n_in, n_out in layers)
    return {**sizes, OTHERS: real.total - real.tables - linear}


def linear_shapes(config: dict) -> dict[str, tuple[int, int]]:
    """(in, out) of the linear layers of one block, by name."""
    H = config["hidden_size"]
    wide = config["intermediate_size"]
    q = config["num_attention_heads"] * config["head_dim"]
    kv = config["num_key_value_heads"] * config["head_dim"]
    return {
        "q_proj": (H, q),
        "k_proj": (H, kv),
        "v_proj": (H, kv),
        "o_proj": (q, H),
        "gate_proj": (H, wide),
        "up_proj": (H, wide),
        "down_proj": (wide, H),
    }


def count_config(config: dict) -> dict[str, int]:
    """Parameters by kind: the linear layers of all blocks, the embedding (with an untied head), the
    rest (norms and biases).
    """
    H = config["hidden_size"]
    L = config["num_hidden_layers"]
    shapes = linear_shapes(config)
    linear = L * sum(n_in * n_out for n_in, n_out in shapes.values())
    table = config["vocab_size"] * H
    rest = H + L * 2 * H  # the last norm, and two in each block
    if config.get("model_type") == "qwen3":
        rest += L * 2 * config["head_dim"]  # norms of queries and keys
    rest += L * sum(shapes[name][1] for name in _biased(config))
    rest = config.get(OTHERS, rest)
    return {
        "linear": linear,
        "embedding": table,
        "head": 0 if config["tie_word_embeddings"] else table,
        "rest": rest,
    }


def _biased(config: dict) -> tuple[str, ...]:
    """The linear layers of a block that have a bias."""
    if config.get("model_type") == "qwen2":
        return ATTENTION[:3]
    attention = ATTENTION if config.get("attention_bias") else ()
    mlp = MLP if config.get("mlp_bias") else ()
    return attention + mlp
