"""Stand-ins for all that the profiles small and spark fetch: models of the real architectures with
random weights and few dimensions, and datasets with the real ones' columns and types.

    python tools/stand_in_hub.py FOLDER
    FTLIB_HUB=FOLDER ftlib labs --profile small --rehearse

A lab's whole path is walked so before its first hour on a GPU; what it prints means nothing.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
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
    "<think>",
    "</think>",
)
LLAMA_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|reserved_special_token_10|>",
    "<|reserved_special_token_11|>",
    "<|reserved_special_token_12|>",
)
MODELS = {
    "Qwen/Qwen3-0.6B": "qwen3",
    "Qwen/Qwen3-0.6B-Base": "qwen3",
    "meta-llama/Llama-3.2-1B-Instruct": "llama",
    "meta-llama/Llama-3.1-8B-Instruct": "llama",
    "meta-llama/Llama-3.1-8B": "llama",
    "unsloth/Meta-Llama-3.1-70B-bnb-4bit": "llama nf4",
}


def english(name: str) -> list[dict]:
    """The course's own English rows of this name, from which all texts are taken."""
    lines = (DATA / "english" / "rows" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


# --- tokenizers -----------------------------------------------------------------------------------
def english_texts() -> list[str]:
    """What the tokenizers are trained on."""
    texts = []
    for name in ("train", "sql_train", "open_train"):
        for row in english(name):
            texts.extend(message["content"] for message in row["messages"])
    return texts


def tokenizer(special: tuple[str, ...], pre: str, template: str, **roles: str):
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
    wrapped = PreTrainedTokenizerFast(tokenizer_object=bpe, **roles)
    wrapped.chat_template = (files("trl") / "chat_templates" / template).read_text(encoding="utf-8")
    return wrapped


def _regex(pattern: str):
    from tokenizers import Regex

    return Regex(pattern)


def qwen_tokenizer():
    return tokenizer(
        QWEN_TOKENS, "qwen2", "qwen3.jinja", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def llama_tokenizer():
    from tokenizers.processors import TemplateProcessing

    made = tokenizer(
        LLAMA_TOKENS,
        "llama-bpe",
        "llama3_1.jinja",
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
    )
    bos = (made.bos_token, made.bos_token_id)
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{made.bos_token} $A", special_tokens=[bos]
    )
    return made


# --- models ---------------------------------------------------------------------------------------
def config_of(kind: str, own):
    """The real architecture with few dimensions."""
    common: dict[str, Any] = {
        "vocab_size": len(own),
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 4096,
        "pad_token_id": own.pad_token_id,
    }
    if kind == "qwen3":
        return Qwen3Config(
            **common, tie_word_embeddings=True, eos_token_id=own.eos_token_id, bos_token_id=None
        )
    stops = own.convert_tokens_to_ids(["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"])
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
        tie_word_embeddings=False,
        eos_token_id=stops,
        bos_token_id=own.bos_token_id,
        rope_parameters=rope,
    )


def write_models(folder: Path) -> None:
    tokenizers = {"qwen3": qwen_tokenizer(), "llama": llama_tokenizer()}
    for hub_id, kind in MODELS.items():
        family, _, quantization = kind.partition(" ")
        own = copy.deepcopy(tokenizers[family])
        config = config_of(family, own)
        write_random_checkpoint(config, folder / hub_id, quantization or None, tokenizer=own)


# --- datasets -------------------------------------------------------------------------------------
def _write(folder: Path, hub_id: str, split: str, rows: list[dict]) -> None:
    place = folder / hub_id
    place.mkdir(parents=True, exist_ok=True)
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (place / f"{split}.jsonl").write_text(text + "\n", encoding="utf-8")


def _repeated(rows: list[dict], count: int) -> Iterator[tuple[int, dict]]:
    for i in range(count):
        yield i, rows[i % len(rows)]


def sql_rows(count: int) -> list[dict]:
    """question, context and answer, strings: some with JOIN, quotes and several tables."""
    made = []
    for i, row in _repeated(english("sql_train"), count):
        question = row["messages"][0]["content"].split("\n\n")[-1]
        answer = row["answer"]
        if i % 9 == 0:
            answer = f"SELECT T1.name FROM a AS T1 JOIN b AS T2 ON T1.id = T2.id WHERE T2.n = {i}"
        made.append({"answer": answer, "question": question, "context": row["schema"]})
    return made


def pair_rows(count: int) -> list[dict]:
    """chosen and rejected, whole conversations, with scores; some with equal answers, some with
    several turns.
    """
    made = []
    for i, row in _repeated(english("preferences"), count):
        prompt = [{"role": "user", "content": f"({i}) {row['prompt'][0]['content']}"}]
        if i % 7 == 0:
            prompt = [
                *prompt,
                {"role": "assistant", "content": "Which style?"},
                {"role": "user", "content": "The house's."},
            ]
        rejected = row["chosen"] if i % 50 == 0 else row["rejected"]
        made.append(
            {
                "chosen": [*prompt, *row["chosen"]],
                "rejected": [*prompt, *rejected],
                "score_chosen": float(5 + i % 6),
                "score_rejected": float(i % 5),
            }
        )
    return made


def alpaca_rows(count: int) -> list[dict]:
    """instruction, input (often empty), output and text; some answers too short to be open, some
    empty, some with mail addresses and duplicates.
    """
    made = []
    for i, row in _repeated(english("open_train"), count):
        instruction, _, given = row["messages"][0]["content"].partition("\n\n")
        output = row["answer"] if i % 5 else "Yes."
        if i % 97 == 0:
            output = ""
        if i % 40 == 0:
            given = f"{given}\nMail: kim{i}@example.org"
        made.append(
            {
                "instruction": f"{instruction} ({i % 300})",
                "input": given if i % 3 else "",
                "output": output,
                "text": f"### Instruction:\n{instruction}\n\n### Response:\n{output}",
            }
        )
    return made


def thumb_rows(count: int) -> list[dict]:
    """prompt and completion, lists of messages, and label."""
    made = []
    for i, row in _repeated(english("preferences"), count):
        liked = i % 2 == 0
        made.append(
            {
                "prompt": [{"role": "user", "content": f"({i}) {row['prompt'][0]['content']}"}],
                "completion": row["chosen"] if liked else row["rejected"],
                "label": liked,
            }
        )
    return made


WIKITEXT_CARD = """---
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - split: validation
    path: validation.jsonl
---
"""


def write_datasets(folder: Path) -> None:
    _write(folder, "b-mc2/sql-create-context", "train", sql_rows(4400))
    _write(folder, "trl-lib/ultrafeedback_binarized", "train", pair_rows(18_000))
    _write(folder, "trl-lib/ultrafeedback_binarized", "test", pair_rows(1000))
    _write(folder, "tatsu-lab/alpaca", "train", alpaca_rows(6000))
    _write(folder, "trl-lib/kto-mix-14k", "train", thumb_rows(4000))
    _write(folder, "trl-lib/kto-mix-14k", "test", thumb_rows(400))
    texts = english("base_text")
    long = [{"text": f" {row['text']} {row['text']}\n"} for row in texts]
    _write(folder, "Salesforce/wikitext", "validation", [{"text": ""}, {"text": " = A = "}, *long])
    (folder / "Salesforce" / "wikitext" / "README.md").write_text(WIKITEXT_CARD, encoding="utf-8")


def main(folder: str) -> None:
    place = Path(folder).resolve()
    write_datasets(place)
    write_models(place)
    print(f"FTLIB_HUB={place}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tools/stand_in_hub.py FOLDER")
    main(sys.argv[1])
