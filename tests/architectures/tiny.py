"""Every causal language model of transformers, built tiny: one generic recipe of sizes, a table of
what some architectures need besides, and the reasons of those that are left out.
"""

import dataclasses

import torch
import transformers
from transformers import CONFIG_MAPPING

VOCABULARY = 99
PAD = 0
# Every name that a size has in some config; a config takes those that it has.
SIZES = {
    "vocab_size": VOCABULARY,
    "vocab_size_per_layer_input": VOCABULARY,
    "pad_token_id": PAD,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size": 32,
    "embedding_size": 32,
    "hidden_size_per_layer_input": 8,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "global_head_dim": 8,
    "max_position_embeddings": 256,
    "sliding_window": 32,
    "attention_chunk_size": 64,
    # GPT-2's, and those of its time
    "n_embd": 32,
    "n_layer": 2,
    "n_layers": 2,
    "n_head": 4,
    "n_heads": 4,
    "n_positions": 256,
    "n_ctx": 256,
    "n_inner": 64,
    "d_model": 32,
    "d_inner": 64,
    "emb_dim": 32,
    "dff": 64,
    "rotary_dim": 4,
    # decoders of encoder-decoders
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "num_encoder_layers": 2,
    "num_decoder_layers": 2,
    "num_encoder_attention_heads": 4,
    "num_decoder_attention_heads": 4,
    "ffn_dim": 64,
    "word_embed_proj_dim": 32,
    "ffn_hidden_size": 64,
    "max_seq_len": 256,
    # mixtures of experts
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "moe_num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_k": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "moe_ffn_hidden_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    # latent and indexed attention
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "index_topk": 64,
    "index_head_dim": 8,
    "index_n_heads": 2,
    # state-space layers and linear attention
    "state_size": 8,
    "mamba_n_heads": 8,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_d_ssm": 64,
    "mamba_num_heads": 8,
    "mamba_head_dim": 8,
    "mamba_n_groups": 1,
    "mamba_chunk_size": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "lru_width": 32,
    "attention_window_size": 32,
    "conv_dim": 32,
}
MORE = {
    "bamba": {"attn_layer_indices": [1]},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 0,
        "intermediate_size": 64,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "longcat_flash": {"num_layers": 2, "zero_expert_num": 2, "moe_topk": 2},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 16},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"block_types": ["recurrent", "attention"]},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "lsh"]},
    "roc_bert": {"enable_pronunciation": False, "enable_shape": False},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 4, "layer_types": ["mamba", "hybrid"] * 2},
    "zaya": {"num_experts_per_tok": 1},
}


def tiny_config(model_type: str):
    """A config of the model type with the sizes above: one layer of each kind that its layers are
    of, else two layers.
    """
    cls = CONFIG_MAPPING[model_type]
    names = {field.name for field in dataclasses.fields(cls)}
    renamed = cls.attribute_map
    options = {}
    for name, size in SIZES.items():
        if renamed.get(name, name) in names:
            options[renamed.get(name, name)] = size
    if "kv_lora_rank" in names:  # latent attention has as many heads of keys as of queries
        options["num_key_value_heads"] = options["num_attention_heads"]
    more = MORE.get(model_type, {})
    if "layer_types" in names and "layer_types" not in more:
        kinds = list(dict.fromkeys(cls().layer_types or ()))
        if len(kinds) > 1:
            options["layer_types"] = kinds
            options[renamed.get("num_hidden_layers", "num_hidden_layers")] = len(kinds)
    return cls(**{**options, **more})


def tiny_model(model_type: str, dtype=torch.float32):
    """A random model of the type, its weights large enough that a fault moves its numbers."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(tiny_config(model_type))
    generator = torch.Generator().manual_seed(1)
    for weight in model.parameters():
        if weight.ndim > 1 and weight.is_floating_point():
            noise = torch.randn(weight.shape, generator=generator)
            weight.data.add_(0.1 * noise.to(weight.dtype))
    return model.to(dtype).eval()
