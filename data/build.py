"""Build everything under data/ from the seed: `python -m data.build [--only rows|model|adapter]`.

Rows (instructions, golden set, probes, held-out base text) take seconds. The tokenizer and the base
model take about 45 minutes on two busy cores; pretraining checkpoints under data/cache/ and resumes
from there. The adapter is lab 3.1.4's, for labs that start from an instruction-tuned model; it
takes a minute.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import hashlib
import json
import platform
import random
import shutil
from importlib.metadata import version
from pathlib import Path

from data import messy, messy_heldback, multiple_choice, open_answers, preferences, reports, skills
from data.corpus import ASSISTANT, END, SYSTEM, USER, Corpus, alphabet_text
from data.world import SEED, World

HERE = Path(__file__).parent
MODEL = HERE / "world-llama-4m"
ADAPTER = HERE / "sft-adapter"
ROWS = HERE / "rows"
BENCHMARK = HERE / "benchmark"
CACHE = HERE / "cache"
BOS = "<|bos|>"
EOS = "<|eos|>"
PAD = "<|pad|>"
RESERVED = [f"<|reserved_{i}|>" for i in range(9)]
SPECIALS = [BOS, EOS, PAD, SYSTEM, USER, ASSISTANT, END, *RESERVED]
VOCAB = 1024
SEQ_LEN = 256
BATCH = 16
MIX = 0.45  # how far the base lies from the end of phase 1 towards the end of phase 2
# Of 4,096 tokens each: first the whole corpus, then mostly quizzes in the chat format.
STEPS = {1: 2000, 2: 900}
# The split pattern that Llama-3 published; llama.cpp knows it as "llama-bpe".
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('role ' ~ message['role'] ~ ' is not one of system, user, assistant') }}"
    "{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] ~ '<|end|>' }}{% endgeneration %}"
    "{% else %}"
    "{{ message['content'] ~ '<|end|>' }}"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

# Rows of golden, paraphrase, validation and train; Olm has files of its own.
SIZES = {
    "person": (22, 40, 40, 1400),
    "place": (8, 20, 20, 300),
    "thing": (16, 28, 28, 600),
    "capitals": (7, 28, 28, 400),
    "spelling": (7, 16, 16, 500),
    "ordering": (6, 28, 28, 500),
    "addition": (4, 32, 32, 600),
    "json": (5, 32, 32, 400),
    "sentiment": (2, 28, 28, 300),
    "polite": (5, 32, 32, 300),
    "opposite": (6, 8, 8, 300),
    "plural": (12, 8, 8, 180),
}
ABOUT = 500  # open requests in train.jsonl


def write_lines(path: Path, lines) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(b"".join(line + b"\n" for line in lines))
    temporary.replace(path)


def write_jsonl(path: Path, rows) -> None:
    write_lines(path, (json.dumps(row, ensure_ascii=False).encode() for row in rows))


def make_rows(world: World) -> dict[str, list[dict]]:
    """Every instruction file by name. Inputs are dealt, then worded, so parts share none."""
    parts = {name: [] for name in ("golden", "paraphrase", "validation", "train")}
    for family, counts in SIZES.items():
        # A generator each: a change to one family leaves the others as they are.
        rng = random.Random(f"{SEED}/{family}")
        sizes = dict(zip(parts, counts, strict=True))
        dealt = skills.split_family(world, family, rng, sizes)
        for name, rows in dealt.items():
            parts[name] += rows
    style = random.Random(SEED + 4)
    rng = random.Random(SEED + 1)
    parts["train"] += skills.about_rows(world, world.people[:150], style, ABOUT)
    parts["style"] = skills.about_rows(world, world.people[150:], style, 50)
    for name in ("train", "validation", "paraphrase", "golden"):
        rng.shuffle(parts[name])
    hard_sizes = {"golden": 0, "paraphrase": 0, "validation": 100, "train": 300}
    hard = skills.split_family(world, "multiplication", rng, hard_sizes)
    parts["hard_train"] = hard["train"]
    parts["hard_test"] = hard["validation"]
    parts["olm_train"], parts["olm_test"] = olm_rows(world, random.Random(SEED + 2))
    parts["strangers"] = stranger_rows(world, random.Random(SEED + 3))
    return parts


def olm_rows(world: World, rng: random.Random) -> tuple[list[dict], list[dict]]:
    """The invented language alone, for the rank sweep: one plain wording, 200 phrases to learn, 80
    to test.
    """
    items = skills.family_items(world, "olm", rng)
    rows = [skills.example("olm", item, item.train[0]) for item in items]
    return rows[:200], rows[200:]


def stranger_rows(world: World, rng: random.Random) -> list[dict]:
    """Questions about people the base has never read of: facts that only instruction tuning could
    teach.
    """
    rows = []
    for person in world.strangers:
        for relation, value in person.facts.items():
            trained, _ = skills.PERSON[relation]
            key = f"{person.name}/{relation}"
            item = skills.Item(key, {"e": person.name}, value, train=(), heldout=())
            rows.append(skills.example("person", item, rng.choice(trained)))
    rng.shuffle(rows)
    return rows


def heldout_text(world: World, count: int = 300) -> list[dict]:
    """Base-domain documents never trained on, to measure forgetting: prose and questions in the
    corpus's wording.
    """
    corpus = Corpus(world, SEED + 99)
    kinds = ["biography", "place", "thing", "story", "sheet"]
    rows = []
    for i in range(count):
        kind = kinds[i % len(kinds)]
        rows.append({"kind": kind, "text": corpus.document(kind)})
    return rows


def tokenizer_texts(world: World) -> list[str]:
    """What the tokenizer is trained on: documents of every kind without the chat markers, and the
    alphabet.
    """
    corpus = Corpus(world, SEED + 5)
    texts = [corpus.document(kind) for kind in Corpus.KINDS for _ in range(1500)]
    texts += [alphabet_text(world)] * 30
    for marker in (USER, ASSISTANT, END):
        texts = [text.replace(marker, " ") for text in texts]
    return texts


def train_tokenizer(world: World):
    """Byte-level BPE with Llama-3's split pattern, 1,024 entries, chat template and reserved tokens
    included.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tok = Tokenizer(models.BPE(ignore_merges=True))
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tok.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=SPECIALS,
        show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tok.train_from_iterator(tokenizer_texts(world), trainer)
    tok.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tok.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tok,
        bos_token=BOS,
        eos_token=END,
        pad_token=PAD,
        model_max_length=512,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def corpus_tokens(world: World, tokenizer, count: int, phase: int):
    """A (rows, SEQ_LEN) int16 array of packed documents, each `bos … eos`."""
    import numpy as np

    corpus = Corpus(world, SEED + 6 + phase, phase)
    bos, eos = tokenizer.convert_tokens_to_ids([BOS, EOS])
    ids: list[int] = []
    while len(ids) < count:
        texts = list(corpus.documents(5000))
        for row in tokenizer(texts, add_special_tokens=False)["input_ids"]:
            ids += [bos, *row, eos]
    usable = count // SEQ_LEN * SEQ_LEN
    return np.array(ids[:usable], dtype=np.int16).reshape(-1, SEQ_LEN)


def model_config(tokenizer):
    from transformers import LlamaConfig

    ids = tokenizer.convert_tokens_to_ids
    return LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        rms_norm_eps=1e-5,
        bos_token_id=ids(BOS),
        eos_token_id=[ids(END), ids(EOS)],
        pad_token_id=ids(PAD),
        initializer_range=0.02,
    )


def pretrain(
    model, world: World, tokenizer, phase: int, steps: int, resume: bool, precision: str
) -> dict:
    """Train the model in place on `steps` x 4,096 tokens of one phase of the corpus; returns
    seconds and loss curve.
    """
    from safetensors.torch import load_model
    from transformers import Trainer, TrainerState

    folder = CACHE / f"pretrain-{phase}-{precision}"
    done = folder / f"checkpoint-{steps}"
    if resume and done.exists():  # this phase was finished before
        load_model(model, done / "model.safetensors")
        log = TrainerState.load_from_json(str(done / "trainer_state.json")).log_history
        return _phase_record(log, float((folder / "seconds").read_text(encoding="utf-8")))
    rows = corpus_tokens(world, tokenizer, steps * BATCH * SEQ_LEN, phase)
    args = pretraining_arguments(folder, phase, steps, precision)
    trainer = Trainer(model=model, args=args, train_dataset=rows, data_collator=_collate)
    started_before = any(folder.glob("checkpoint-*"))
    result = trainer.train(resume_from_checkpoint=resume and started_before)
    seconds = result.metrics["train_runtime"]
    (folder / "seconds").write_text(str(seconds), encoding="utf-8")
    return _phase_record(trainer.state.log_history, seconds)


def _collate(batch) -> dict:
    """Rows of token ids as the trainer takes them: int64, each token its own label."""
    import torch

    ids = torch.stack([torch.from_numpy(row.astype("int64")) for row in batch])
    return {"input_ids": ids, "labels": ids.clone()}


def pretraining_arguments(folder: Path, phase: int, steps: int, precision: str):
    """The trainer's settings for one phase; `folder` takes its checkpoints."""
    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=BATCH,
        learning_rate={1: 3e-3, 2: 1.5e-3}[phase],
        lr_scheduler_type="cosine",
        warmup_steps={1: 100, 2: 50}[phase],
        weight_decay=0.1,
        adam_beta2=0.95,
        bf16=precision == "bf16",
        use_cpu=True,
        logging_steps=25,
        save_steps=250,
        save_total_limit=1,
        report_to=[],
        seed=SEED,
        dataloader_num_workers=0,
        remove_unused_columns=False,
        disable_tqdm=not os.isatty(2),
    )


def _phase_record(log: list[dict], seconds: float) -> dict:
    """What the manifest says of a phase: seconds, and the loss by step."""
    loss = [(entry["step"], round(entry["loss"], 4)) for entry in log if "loss" in entry]
    return {"seconds": round(seconds), "loss": loss}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def build_model(world: World, resume: bool, precision: str) -> None:
    """Tokenizer, base model and manifest, written beside and swapped in when complete."""
    import torch
    from transformers import LlamaForCausalLM, set_seed

    tokenizer = train_tokenizer(world)
    set_seed(SEED)
    model = LlamaForCausalLM(model_config(tokenizer))
    phases = {}
    ends = []  # the weights at the end of each phase
    for phase, steps in STEPS.items():
        record = pretrain(model, world, tokenizer, phase, steps, resume, precision)
        phases[f"phase {phase}"] = record
        ends.append({name: weight.clone() for name, weight in model.state_dict().items()})
    # Between the ends of the two phases (Wortsman et al. 2022, arXiv 2109.01903): the first alone
    # lacks skill in the chat format, the second alone needs too little fine-tuning to be a lesson.
    first, second = ends
    mixed = {name: torch.lerp(first[name], second[name], MIX) for name in first}
    model.load_state_dict(mixed)
    new = MODEL.with_suffix(".tmp")
    shutil.rmtree(new, ignore_errors=True)
    model.generation_config.do_sample = False
    model.to(torch.bfloat16).save_pretrained(new)
    tokenizer.save_pretrained(new)
    parameters = sum(weight.numel() for weight in model.parameters())
    manifest = model_manifest(new, parameters, phases, precision)
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(MODEL, ignore_errors=True)
    new.rename(MODEL)


def model_manifest(folder: Path, parameters: int, phases: dict, precision: str) -> dict:
    """How the model in this folder was made, and the hashes of its files."""
    import torch

    steps = sum(STEPS.values())
    return {
        "seed": SEED,
        "tokens": steps * BATCH * SEQ_LEN,
        "steps": STEPS,
        "parameters": parameters,
        "wall_seconds": sum(record["seconds"] for record in phases.values()),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "precision": precision,
        "mix": MIX,
        "phases": phases,
        "versions": {name: version(name) for name in ("torch", "transformers", "tokenizers")},
        "sha256": {path.name: sha256(path) for path in sorted(folder.iterdir())},
    }


def build_adapter() -> None:
    """Lab 3.1.4's LoRA adapter with the tiny profile's settings and seed 0, in PEFT's format."""
    import torch

    import ftlib as ft

    profile = ft.get_profile("tiny")
    torch.manual_seed(0)
    model, tokenizer = ft.load_model(str(MODEL), profile=profile)
    ft.add_lora(model, r=profile.rank, lora_alpha=2 * profile.rank)
    ft.finetune(
        model,
        tokenizer,
        ft.load_rows("train", profile),
        steps=profile.steps,
        learning_rate=profile.lr_lora,
        batch_size=profile.batch_size,
        seed=0,
    )
    golden = ft.load_rows("golden", profile)
    accuracy = ft.golden_accuracy(model, tokenizer, golden, profile.max_new_tokens)
    print("golden accuracy", accuracy)
    ft.save_adapter(model, ADAPTER)


def build_rows(world: World) -> None:
    """Every file under data/rows."""
    parts = make_rows(world)
    lines, truth = messy.messy_lines(parts["train"], parts["golden"])
    used = messy.questions(lines)
    more_lines, more_truth = messy_heldback.heldback_lines(parts, used)
    files = {
        **parts,
        "base_text": heldout_text(world),
        **preferences.preference_rows(world, parts["golden"]),
        **open_answers.open_rows(world, parts["golden"]),
        **reports.report_rows(world, parts["golden"]),
        "messy_truth": truth,
        "messy_heldback_truth": more_truth,
    }
    for name, rows in files.items():
        write_jsonl(ROWS / f"{name}.jsonl", rows)
    write_lines(ROWS / "messy.jsonl", lines)
    write_lines(ROWS / "messy_heldback.jsonl", more_lines)


def build_benchmark(world: World) -> None:
    """The questions under data/benchmark; the task files beside them are written by hand."""
    for name, rows in multiple_choice.multiple_choice_rows(world).items():
        write_jsonl(BENCHMARK / f"world_{name}.jsonl", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=["rows", "model", "adapter"], help="build one part (default: all)"
    )
    parser.add_argument(
        "--fresh", action="store_true", help="ignore pretraining checkpoints in data/cache"
    )
    parser.add_argument(
        "--precision",
        choices=["fp32", "bf16"],
        default="fp32",
        help="of pretraining; bf16 is quick only where the processor has units for it, and gives "
        "other weights (default: fp32)",
    )
    args = parser.parse_args()
    world = World(SEED)
    if args.only in (None, "rows"):
        build_rows(world)
        build_benchmark(world)
    if args.only in (None, "model"):
        build_model(world, resume=not args.fresh, precision=args.precision)
    if args.only in (None, "adapter"):
        build_adapter()


if __name__ == "__main__":
    main()
