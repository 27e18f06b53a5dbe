"""A checkpoint folder made of a GGUF file: its weights dequantised, its tokenizer and its
configuration written as transformers reads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGUFReader, dequantize, get_tensor_name_map
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from tqdm.auto import tqdm

from ftlib.core.errors import LoadError
from ftlib.core.gguf import open_reader

ARCHITECTURE = "llama"
TENSORS_A_BLOCK = (
    "input_layernorm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "post_attention_layernorm",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)
TENSORS_OUTSIDE = ("model.embed_tokens", "model.norm", "lm_head")
CONTROL = 3  # gguf's type of a token that is a marker
PRE_TOKENIZERS = {"smollm": (pre_tokenizers.Digits(individual_digits=True),)}


def convert_gguf(file: str | Path, folder: str | Path) -> None:
    """Write a checkpoint folder (safetensors in bf16, tokenizer, configuration) from a GGUF file of
    the Llama architecture, one tensor at a time in fp32.

    What the file's type has rounded away does not come back: a Q4_1 weight in bf16 is still one of
    16 levels of its block. The rows of q and k, which GGUF keeps as rotary pairs of neighbours, go
    back to pairs of halves. LoadError for a damaged file, another architecture or another
    tokenizer. `folder` must not exist; whoever calls renames it when it is whole.
    """
    file = Path(file)
    folder = Path(folder)
    reader = open_reader(file, LoadError, "a GGUF file is needed", "download or copy it again")
    fields = {key: field.contents() for key, field in reader.fields.items()}
    if fields.get("general.architecture") != ARCHITECTURE:
        raise LoadError(
            f"{file} holds a model of {fields.get('general.architecture')!r}: only files of "
            f"{ARCHITECTURE!r} are converted; take the model's safetensors"
        )
    tokenizer = _tokenizer(file, fields)
    config = _config(fields, has_head="output.weight" in {t.name for t in reader.tensors})
    folder.mkdir(parents=True)
    save_file(_weights(file, reader, config), folder / "model.safetensors", {"format": "pt"})
    _write_json(folder / "config.json", config)
    tokens = ("bos_token_id", "eos_token_id", "pad_token_id")
    _write_json(folder / "generation_config.json", {name: config[name] for name in tokens})
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(fields: dict[str, Any], has_head: bool) -> dict[str, Any]:
    """What transformers calls the file's numbers."""

    def number(key: str) -> Any:
        return fields[f"{ARCHITECTURE}.{key}"]

    heads = number("attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": ARCHITECTURE,
        "dtype": "bfloat16",
        "hidden_size": number("embedding_length"),
        "intermediate_size": number("feed_forward_length"),
        "num_hidden_layers": number("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.get(f"{ARCHITECTURE}.attention.head_count_kv", heads),
        "head_dim": number("embedding_length") // heads,
        "max_position_embeddings": number("context_length"),
        "rms_norm_eps": float(f"{number('attention.layer_norm_rms_epsilon'):.1e}"),
        "rope_theta": number("rope.freq_base"),
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "vocab_size": len(fields["tokenizer.ggml.tokens"]),
        "tie_word_embeddings": not has_head,
        "bos_token_id": fields["tokenizer.ggml.bos_token_id"],
        "eos_token_id": fields["tokenizer.ggml.eos_token_id"],
        "pad_token_id": fields.get("tokenizer.ggml.padding_token_id"),
    }


# --- weights --------------------------------------------------------------------------------------
def _weights(file: Path, reader: GGUFReader, config: dict[str, Any]) -> dict[str, Tensor]:
    """{transformers' name: weight in bf16} of every tensor; LoadError for one without a name."""
    names = _names(config["num_hidden_layers"])
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }
    weights = {}
    for tensor in tqdm(reader.tensors, "dequantising", unit="tensor", disable=None):
        if tensor.name not in names:
            raise LoadError(f"{file} holds {tensor.name!r}, which {ARCHITECTURE} does not have")
        name = names[tensor.name]
        values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
        kind = name.split(".")[-2]
        if kind in heads:
            values = _in_halves(values, heads[kind])
        weights[name] = values.to(torch.bfloat16).contiguous()
    return weights


def _names(blocks: int) -> dict[str, str]:
    """{name in the file: transformers' name} of a Llama's tensors."""
    known = get_tensor_name_map(MODEL_ARCH.LLAMA, blocks)
    ours = list(TENSORS_OUTSIDE)
    for block in range(blocks):
        ours += [f"model.layers.{block}.{name}" for name in TENSORS_A_BLOCK]
    return {f"{known.get_name(name)}.weight": f"{name}.weight" for name in ours}


def _in_halves(weight: Tensor, heads: int) -> Tensor:
    """Rows of q or k, (heads·d, in): rotary pairs (2i, 2i + 1) go to (i, i + d/2)."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])  # (heads, d/2, 2, in)
    return pairs.transpose(1, 2).reshape(weight.shape)


# --- tokenizer ------------------------------------------------------------------------------------
def _tokenizer(file: Path, fields: dict[str, Any]):
    """The file's byte-level BPE tokenizer with its chat template."""
    from transformers import PreTrainedTokenizerFast

    kind = fields.get("tokenizer.ggml.model")
    pre = fields.get("tokenizer.ggml.pre")
    if kind != "gpt2" or pre not in PRE_TOKENIZERS:
        known = ", ".join(PRE_TOKENIZERS)
        raise LoadError(
            f"{file} has a tokenizer of {kind!r} that splits as {pre!r}: only byte-level BPE "
            f"(gpt2) that splits as {known} is converted; take the model's own tokenizer"
        )
    tokens = fields["tokenizer.ggml.tokens"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(pair.split(" ")) for pair in fields.get("tokenizer.ggml.merges", [])]
    backend = Tokenizer(models.BPE(vocabulary, merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*PRE_TOKENIZERS[pre], byte_level])
    backend.decoder = decoders.ByteLevel()
    types = fields["tokenizer.ggml.token_type"]
    markers = [token for token, given in zip(tokens, types, strict=True) if given == CONTROL]
    backend.add_special_tokens([AddedToken(token, special=True) for token in markers])
    named = {}
    for name, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items():
        token = fields.get(f"tokenizer.ggml.{key}_token_id")
        if token is not None:
            named[f"{name}_token"] = tokens[token]
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=fields.get("tokenizer.chat_template"),
        model_max_length=fields[f"{ARCHITECTURE}.context_length"],
        clean_up_tokenization_spaces=False,
        **named,
    )
