"""Small models and tokenizers for the tests of the export: every architecture that the writer
knows.
"""

from __future__ import annotations

import json
import random

import torch
from conftest import EMBEDDED, llama

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def small_llama(seed: int = 0, **more):
    """Two layers with rows of 256, as k-quants need; weights large enough that logits differ
    clearly.
    """
    return llama(
        hidden=256, vocab=1024, seed=seed, **{"head_dim": 64, "initializer_range": 0.08, **more}
    )


def small_qwen(kind: str, **more):
    """A random Qwen2 (with biases on q, k and v) or Qwen3 (with norms of q and k), its biases and
    norms random too.

    The vocabulary has room for the tokens that transformers' Qwen2 tokenizer adds when it is
    loaded.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        vocab_size=1032,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.08,
        eos_token_id=6,
        pad_token_id=2,
        bos_token_id=0,
        **({"head_dim": 128} if kind == "qwen3" else {}),
        **more,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn(p.shape))
    return model


def world_tokenizer(**changes):
    """The embedded tokenizer; `changes` are put into the JSON of its backend, by dotted path."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    if not changes:
        return tokenizer
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    for path, value in changes.items():
        *way, last = path.split("__")
        target = content
        for step in way:
            target = target[int(step) if step.isdigit() else step]
        target[last] = value
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)),
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        chat_template=tokenizer.chat_template,
    )


def qwen_tokenizer():
    """The embedded vocabulary under Qwen2's pattern: single digits, merges always applied, NFC."""
    from ftlib.export.vocabulary import PRE_TOKENIZERS

    pattern = next(p for p, name in PRE_TOKENIZERS.items() if name == "qwen2")
    return world_tokenizer(
        pre_tokenizer__pretokenizers__0__pattern={"Regex": pattern},
        model__ignore_merges=False,
        normalizer={"type": "NFC"},
    )


def odd_strings(count: int) -> list[str]:
    """Text from many scripts, runs of white space, digits, emoji, contractions and special tokens,
    in random order.
    """
    pick = random.Random(0)
    parts = [
        "the capital of Olm",
        " is",
        "I'll",
        "WE'RE",
        "don't",
        "  ",
        "   \n",
        "\n\n\n",
        "\t\t",
        "\r\n",
        " \n x",
        "1234567",
        "3.14159",
        "٣٤٥",
        "½²",
        "日本語",
        "한국어",
        "العربية",
        "हिन्दी",
        "ไทย",
        "Ünïcödé",
        "e\u0301",
        "ß",
        "Ǆ",
        "😀",
        "👩‍👩‍👧",
        "🏳️‍🌈",
        "\u200b",
        "\u00a0",
        "\u2028",
        "…",
        "—",
        "<|user|>",
        "<|end|>",
        "<|bos|>",
        "<|nope|>",
        "def f(x):\n    return x**2",
        "http://a.b/c?d=e&f",
        "'s",
        "_",
        "$%&/()=",
        "\x00",
        "\x7f",
        "a" * 40,
        "ﬁ",
        "\U0001d4b3",
        "\u202e",
    ]
    return [
        "".join(pick.choices(parts, k=pick.randint(1, 9)))
        + chr(pick.choice([32, 97, 0x4E00, 0x1F600]) + pick.randrange(60))
        for _ in range(count)
    ]
