"""Stand-ins for the models that the profiles small and spark fetch: the real architectures with
random weights and few dimensions, and tokenizers with the real ones' special tokens and templates.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, PreTrainedTokenizerFast, Qwen3Config

from ftlib.core.paths import DATA
from ftlib.export.vocabulary import PRE_TOKENIZERS
from ftlib.models.random_checkpoint import write_random_checkpoint

LAYERS = 4
VOCABULARY = 4000
QWEN_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
)
QWEN_WORDS = ("<think>", "</think>")  # added to the vocabulary, but not special
LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|finetune_right_pad_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|reserved_special_token_10|>",
    "<|reserved_special_token_11|>",
    "<|reserved_special_token_12|>",
)


@dataclass(frozen=True)
class StandIn:
    """What a stand-in has of its model beside the architecture."""

    family: str  # "qwen3" or "llama"
    stop: str  # the tokenizer's EOS
    has_template: bool = True
    pad: str | None = None
    tied: bool = False  # are embedding and head one matrix?
    quantization: str | None = None


# Llama's base has no chat template and stops at the end of a text; Qwen3's base has a template.
MODELS = {
    "Qwen/Qwen3-0.6B": StandIn("qwen3", "<|im_end|>", pad="<|endoftext|>", tied=True),
    "Qwen/Qwen3-0.6B-Base": StandIn("qwen3", "<|endoftext|>", pad="<|endoftext|>", tied=True),
    "meta-llama/Llama-3.2-1B-Instruct": StandIn("llama", "<|eot_id|>", tied=True),
    "meta-llama/Llama-3.1-8B-Instruct": StandIn("llama", "<|eot_id|>"),
    "meta-llama/Llama-3.1-8B": StandIn("llama", "<|end_of_text|>", has_template=False),
    "unsloth/Meta-Llama-3.1-70B-Instruct-bnb-4bit": StandIn(
        "llama", "<|eot_id|>", pad="<|finetune_right_pad_id|>", quantization="nf4"
    ),
}


def english(name: str) -> list[dict]:
    """The course's own English rows of this name, from which all texts are taken."""
    lines = (DATA / "english" / "rows" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# --- tokenizers -----------------------------------------------------------------------------------
def english_texts() -> list[str]:
    """What the tokenizers are trained on."""
    texts: list[str] = []
    for name in ("train", "sql_train", "open_train"):
        for row in english(name):
            texts.extend(message["content"] for message in row["messages"])
    return texts


def tokenizer(special: tuple[str, ...], words: tuple[str, ...], pre: str, template: str):
    """A byte-level BPE with the named pre-tokenizer of llama.cpp and TRL's copy of a template."""
    pattern = next(text for text, name in PRE_TOKENIZERS.items() if name == pre)
    bpe = Tokenizer(models.BPE(ignore_merges=pre == "llama-bpe"))
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(_regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(english_texts(), trainer)
    bpe.add_special_tokens([AddedToken(token, special=True) for token in special])
    bpe.add_tokens([AddedToken(word, special=False) for word in words])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bpe)
    wrapped.chat_template = (files("trl") / "chat_templates" / template).read_text(encoding="utf-8")
    return wrapped


def _regex(pattern: str):
    from tokenizers import Regex

    return Regex(pattern)


def qwen_tokenizer():
    return tokenizer(QWEN_TOKENS, QWEN_WORDS, "qwen2", "qwen3.jinja")


def llama_tokenizer():
    from tokenizers.processors import TemplateProcessing

    made = tokenizer(LLAMA_TOKENS, (), "llama-bpe", "llama3_1.jinja")
    made.bos_token = "<|begin_of_text|>"
    bos = (made.bos_token, made.bos_token_id)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{made.bos_token} $A", special_tokens=[bos]
    )
    return made


def tokenizer_of(model: StandIn, family):
    """The family's tokenizer with the roles that this model's has."""
    own = copy.deepcopy(family)
    own.eos_token = model.stop
    if model.pad:
        own.pad_token = model.pad
    if not model.has_template:
        own.chat_template = None
    return own


# --- models ---------------------------------------------------------------------------------------
def config_of(model: StandIn, own):
    """The real architecture with few dimensions."""
    common: dict[str, Any] = {
        "vocab_size": len(own),
        # Rows of whole super-blocks, as the real ones have them, for the K quantisations.
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 4096,
        "pad_token_id": own.pad_token_id,
        "tie_word_embeddings": model.tied,
    }
    if model.family == "qwen3":
        return Qwen3Config(**common, eos_token_id=own.eos_token_id, bos_token_id=None)
    stops = ["<|end_of_text|>"]
    if model.has_template:
        stops += ["<|eom_id|>", "<|eot_id|>"]
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    }
    return LlamaConfig(
        **common,
        eos_token_id=own.convert_tokens_to_ids(stops),
        bos_token_id=own.bos_token_id,
        rope_parameters=rope,
    )


def write_models(folder: Path) -> None:
    families = {"qwen3": qwen_tokenizer(), "llama": llama_tokenizer()}
    for hub_id, model in MODELS.items():
        own = tokenizer_of(model, families[model.family])
        config = config_of(model, own)
        write_random_checkpoint(config, folder / hub_id, model.quantization, tokenizer=own)
