"""Measure that the science is real on the embedded world: `python -m data.validate` prints the
table and keeps it in `data/README.md` and `data/validation.json`. About an hour on two cores
without bf16 units.

Every comparison starts from the same base weights and rows and runs on the same seeds. Each part is
kept as soon as it is measured; a later call measures only the parts whose model, rows or settings
have changed since (`--fresh`: all).
"""

from __future__ import annotations

import argparse
import hashlib
import inspect
import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import ftlib as ft
from data.corpus import QUESTIONS
from data.world import SEED, World
from ftlib.core.profiles import get_profile
from ftlib.core.stats import bootstrap_interval, paired_difference
from ftlib.course.world import judge_style
from ftlib.evaluation.metrics import recall_base

SEEDS = (0, 1, 2, 3, 4)
P = get_profile("tiny")
HERE = Path(__file__).parent


def fresh(seed: int, **lora):
    """The base model, with a LoRA adapter of the given options (none: full fine-tuning)."""
    torch.manual_seed(seed)
    model, tokenizer = ft.load_model(profile=P)
    if lora:
        ft.add_lora(model, **lora)
    return model, tokenizer


LORA = {"r": P.rank, "lora_alpha": 2 * P.rank}


def tune(rows, seed: int, steps: int, lr: float | None = None, **lora):
    """One run; returns (model, tokenizer, run)."""
    model, tokenizer = fresh(seed, **lora)
    run = ft.finetune(
        model,
        tokenizer,
        rows,
        steps=steps,
        learning_rate=lr or (P.lr_lora if lora else P.lr_full),
        batch_size=P.batch_size,
        seed=seed,
        show=False,
    )
    return model, tokenizer, run


def correct(model, tokenizer, rows, shots=None) -> list[bool]:
    return ft.golden_accuracy(model, tokenizer, rows, P.max_new_tokens, shots).correct


def row(claim: str, measured: str, criterion: str, holds: bool) -> dict:
    line = {"claim": claim, "measured": measured, "criterion": criterion, "holds": bool(holds)}
    print(f"{'yes' if holds else 'NO ':3}  {claim}: {measured}  (wanted: {criterion})", flush=True)
    return line


def fact_pairs(world: World, count: int = 240) -> list[tuple[str, str]]:
    """Facts in the corpus's own wording: (text, continuation)."""
    facts = [f for kind in ("person", "place", "thing") for f in world.facts(kind)]
    random.Random(SEED).shuffle(facts)
    return [
        (f"Question: {QUESTIONS[rel][0].format(e=e.name)} Answer:", f" {value}")
        for e, rel, value in facts[:count]
    ]


def prompting() -> list[dict]:
    """The base without training: zero-shot, and three shots, mixed or of the question's family,
    five draws.
    """
    model, tokenizer = fresh(0)
    golden, pool = ft.load_rows("golden", P), ft.load_rows("train", P)
    zero = bootstrap_interval(correct(model, tokenizer, golden))
    draws = [
        random.Random(seed).sample(sorted({r["family"] for r in pool} - {"about"}), 3)
        for seed in SEEDS
    ]
    mixed, matched = [], []
    for seed, families in zip(SEEDS, draws, strict=True):
        random.Random(seed).shuffle(pool)
        shots = [next(r for r in pool if r["family"] == family) for family in families]
        mixed.append(correct(model, tokenizer, golden, lambda _, shots=shots: shots))
        matched.append(correct(model, tokenizer, golden, ft.shots_by_family(pool)))
    few = bootstrap_interval(np.array(mixed))
    return [
        row("base, zero-shot, golden set", zero.percent(), "at most 5%", zero.mean <= 0.05),
        row(
            "base, one prompt of three mixed examples",
            few.percent(),
            "10% to 60%",
            0.10 <= few.mean <= 0.60,
        ),
        row(
            "base, three examples of the question's own family",
            bootstrap_interval(np.array(matched)).percent(),
            "reported",
            True,
        ),
    ]


def methods() -> list[dict]:
    """LoRA and full fine-tuning on all instructions: accuracy, paraphrases, forgetting, style left
    open.
    """
    world = World(SEED)
    rows, parts = (
        ft.load_rows("train", P),
        {n: ft.load_rows(n, P) for n in ("golden", "validation", "paraphrase")},
    )
    text, facts = ft.load_base_text(P), fact_pairs(world)
    base, tokenizer = fresh(0)
    start, known = ft.perplexity(base, tokenizer, text), recall_base(base, tokenizer, facts)

    def measure(seed: int, lora: dict) -> dict:
        model, tokenizer, run = tune(rows, seed, P.steps, **lora)
        accuracy = {part: correct(model, tokenizer, parts[part]) for part in parts}
        return {
            **accuracy,
            "seconds": run.seconds,
            "forgot": ft.forgetting(start, ft.perplexity(model, tokenizer, text)),
            "recall": recall_base(model, tokenizer, facts),
            "style": styles(model, tokenizer),
        }

    seen = {
        name: ft.over_seeds(lambda seed, lora=lora: measure(seed, lora), SEEDS)
        for name, lora in (("LoRA", LORA), ("full", {}))
    }

    def pick(name, key):
        return np.array([s[key] for s in seen[name]], dtype=float)

    golden = {n: bootstrap_interval(pick(n, "golden")) for n in seen}
    gap = paired_difference(pick("LoRA", "validation").mean(1), pick("LoRA", "paraphrase").mean(1))
    forgot = {n: bootstrap_interval(pick(n, "forgot")) for n in seen}
    more = paired_difference(pick("full", "forgot"), pick("LoRA", "forgot"))
    recall = {n: bootstrap_interval(pick(n, "recall")) for n in seen}
    polite, rude = (
        bootstrap_interval([s["style"][m] for s in seen["LoRA"]]) for m in ("polite", "rude")
    )
    slowest = pick("LoRA", "seconds").max()
    return [
        row(
            f"LoRA r={P.rank}, {P.steps} steps, golden set",
            golden["LoRA"].percent(),
            "at least 90%",
            golden["LoRA"].mean >= 0.9,
        ),
        row("LoRA, seconds a run (slowest)", f"{slowest:.0f} s", "at most 60 s", slowest <= 60),
        row("full fine-tuning, golden set", golden["full"].percent(), "reported", True),
        row("seen phrasings minus held-out phrasings, LoRA", gap.percent(), "above 0", gap.low > 0),
        row(
            "rise of base-domain loss, LoRA / full (nats a token)",
            f"{forgot['LoRA']} / {forgot['full']}",
            "full higher",
            more.low > 0,
        ),
        row(
            f"base-domain facts recalled, base {100 * known:.0f}%: LoRA / full",
            f"{recall['LoRA'].percent()} / {recall['full'].percent()}",
            "reported",
            True,
        ),
        row(
            "style after SFT, sampled: polite / rude",
            f"{polite.percent()} / {rude.percent()}",
            "both above 20%",
            min(polite.mean, rude.mean) > 0.2,
        ),
    ]


def styles(model, tokenizer, seed: int = 0) -> dict[str, float]:
    """Share of each manner in answers sampled (temperature 1) to requests about unseen people."""
    torch.manual_seed(seed)
    prompts = [
        tokenizer.apply_chat_template(
            r["messages"][:1], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        for r in ft.load_rows("style", P)
    ]
    tokenizer.padding_side = "left"
    batch = tokenizer.pad({"input_ids": prompts}, return_tensors="pt")
    out = model.generate(
        **batch,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        max_new_tokens=12,
        pad_token_id=tokenizer.pad_token_id,
    )
    answers = [
        tokenizer.decode(o, skip_special_tokens=True).strip()
        for o in out[:, batch["input_ids"].shape[1] :]
    ]
    judged = [judge_style(a) for a in answers]
    return {manner: judged.count(manner) / len(judged) for manner in ("polite", "rude", "neither")}


# Nothing to preserve here but the new language: hotter than the profile's rate.
OLM_LR, OLM_STEPS = 2.5e-3, 240


def olm_accuracy(steps: int = OLM_STEPS, lr: float = OLM_LR, seeds=SEEDS, **lora) -> np.ndarray:
    """(seeds, examples) correctness on the invented language, which the base has never seen."""
    rows, test = ft.load_rows("olm_train", P), ft.load_rows("olm_test", P)
    return np.array(
        ft.over_seeds(lambda seed: correct(*tune(rows, seed, steps, lr, **lora)[:2], test), seeds),
        dtype=float,
    )


def ranks() -> list[dict]:
    """Rank, alpha, learning rate and target modules on the invented language."""
    by_rank = {r: olm_accuracy(r=r, lora_alpha=2 * r) for r in (1, 4, 16, 64)}
    shown = ", ".join(f"r={r} {bootstrap_interval(a).percent()}" for r, a in by_rank.items())
    low, high = bootstrap_interval(by_rank[1]), bootstrap_interval(by_rank[16])
    last = paired_difference(by_rank[64].mean(1), by_rank[16].mean(1))
    rates = {1: high} | {
        x: bootstrap_interval(olm_accuracy(lr=OLM_LR * x, **LORA)) for x in (0.1, 10)
    }
    alphas = {2 * P.rank: high, 1: bootstrap_interval(olm_accuracy(r=P.rank, lora_alpha=1))}
    targets = {"q,v": ("q_proj", "v_proj"), "MLP": ("gate_proj", "up_proj", "down_proj")}
    where = {
        n: bootstrap_interval(olm_accuracy(target_modules=t, **LORA)) for n, t in targets.items()
    } | {"all": high}

    def show(d):
        return ", ".join(f"{k} {v.percent()}" for k, v in d.items())

    return [
        row(
            "rank on the invented language",
            shown,
            "r=1 below r=16 beyond both intervals",
            low.high < high.low,
        ),
        row("r=64 minus r=16", last.percent(), "saturated: below 10 points", last.mean < 0.10),
        row(
            f"learning rate, as a multiple of {OLM_LR}",
            show(rates),
            "best at 1, worse at both ends",
            rates[1].low > max(rates[0.1].high, rates[10].high),
        ),
        row(
            f"alpha at r={P.rank}",
            show(alphas),
            "1 below 32",
            alphas[1].high < alphas[2 * P.rank].low,
        ),
        row("target modules", show(where), "all above q,v", where["all"].low > where["q,v"].high),
    ]


def too_hard() -> list[dict]:
    """Two-digit multiplication: neither method learns it here."""
    rows, test = ft.load_rows("hard_train", P), ft.load_rows("hard_test", P)
    out = {
        n: bootstrap_interval(
            ft.over_seeds(
                lambda s, lora=lora: correct(*tune(rows, s, 120, **lora)[:2], test), SEEDS
            )
        )
        for n, lora in (("LoRA", LORA), ("full", {}))
    }
    return [
        row(
            "two-digit multiplication, LoRA / full",
            f"{out['LoRA'].percent()} / {out['full'].percent()}",
            "both below 10%",
            max(v.mean for v in out.values()) < 0.10,
        )
    ]


@torch.no_grad()
def confidence(model, tokenizer, rows) -> tuple[list[bool], list[float]]:
    """Exact match of the greedy answer, and the probability of that whole answer."""
    result = ft.golden_accuracy(model, tokenizer, rows, P.max_new_tokens)
    sure = []
    for r, answer in zip(rows, result.answers, strict=True):
        prompt = tokenizer.apply_chat_template(
            r["messages"][:1], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        ids = prompt + tokenizer(answer + "<|end|>", add_special_tokens=False)["input_ids"]
        logps = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
        sure.append(
            float(torch.exp(sum(logps[i - 1, ids[i]] for i in range(len(prompt), len(ids)))))
        )
    return result.correct, sure


def unknown_facts() -> list[dict]:
    """Teach answers about known people, or about strangers: what happens to questions about known
    people?

    After Gekhman et al. 2024 (arXiv 2405.05904): fine-tuning on facts the base does not know makes
    it invent, once they are fitted; hence 400 steps, 16 passes over the 400 rows, where the loss is
    near zero for both.
    """
    strangers = ft.load_rows("strangers", P)
    known = [r for r in ft.load_rows("train", P) if r["family"] == "person"][: len(strangers)]
    test = [
        r
        for part in ("golden", "validation", "paraphrase")
        for r in ft.load_rows(part, P)
        if r["family"] == "person"
    ]
    right, wrong = {}, {}
    for name, rows in (("known", known), ("unknown", strangers)):
        scored = ft.over_seeds(
            lambda seed, rows=rows: confidence(*tune(rows, seed, 400, **LORA)[:2], test), SEEDS
        )
        right[name] = np.array([c for c, _ in scored], dtype=float)
        wrong[name] = np.array(
            [[not ok and p > 0.5 for ok, p in zip(c, s, strict=True)] for c, s in scored],
            dtype=float,
        )
    rise = paired_difference(wrong["unknown"].mean(1), wrong["known"].mean(1))

    def show(d):
        return " / ".join(bootstrap_interval(d[n]).percent() for n in ("known", "unknown"))

    return [
        row(
            "held-out known facts right, after SFT on known / unknown people",
            show(right),
            "reported",
            True,
        ),
        row(
            "confident (p > 0.5) wrong answers on known facts, same",
            show(wrong),
            "higher after unknown",
            rise.low > 0,
        ),
    ]


def messy(rows: list[dict], seed: int, share: float = 0.4) -> list[dict]:
    """The rows with a share of the answers swapped for another answer of the same family."""
    rng, out = random.Random(seed), []
    by_family = {
        f: [r["answer"] for r in rows if r["family"] == f] for f in {r["family"] for r in rows}
    }
    for r in rows:
        answer = rng.choice(by_family[r["family"]]) if rng.random() < share else r["answer"]
        out.append({**r, "messages": [r["messages"][0], {"role": "assistant", "content": answer}]})
    return out


def clean_against_messy(small: int = 800) -> list[dict]:
    """800 clean rows against all rows, 40% of them with a wrong answer, in as many steps."""
    rows, paraphrase = ft.load_rows("train", P), ft.load_rows("paraphrase", P)
    clean = np.array(
        ft.over_seeds(
            lambda s: correct(*tune(rows[:small], s, P.steps // 2, **LORA)[:2], paraphrase), SEEDS
        ),
        dtype=float,
    )
    dirty = np.array(
        ft.over_seeds(
            lambda s: correct(*tune(messy(rows, s), s, P.steps // 2, **LORA)[:2], paraphrase), SEEDS
        ),
        dtype=float,
    )
    gap = paired_difference(clean.mean(1), dirty.mean(1))
    return [
        row(
            f"{small} clean rows / {len(rows)} rows, 40% of them wrong",
            f"{bootstrap_interval(clean).percent()} / {bootstrap_interval(dirty).percent()}",
            "clean higher",
            gap.low > 0,
        )
    ]


PARTS: dict[str, Callable[[], list[dict]]] = {
    "prompting": prompting,
    "methods": methods,
    "ranks": ranks,
    "too_hard": too_hard,
    "unknown_facts": unknown_facts,
    "clean_against_messy": clean_against_messy,
}
READS = {
    "prompting": ("golden", "train"),
    "methods": ("train", "golden", "validation", "paraphrase", "style", "base_text"),
    "ranks": ("olm_train", "olm_test"),
    "too_hard": ("hard_train", "hard_test"),
    "clean_against_messy": ("train", "paraphrase"),
    "unknown_facts": ("strangers", "train", "golden", "validation", "paraphrase"),
}


def fingerprint(part: str) -> str:
    """Of the base model, the rows that a part reads, the settings and the part's own code. ftlib
    and this file's helpers do not count: after a change there that matters, measure with `--fresh`.
    """
    digest = hashlib.sha256((HERE / ft.core.paths.EMBEDDED / "model.safetensors").read_bytes())
    for name in READS[part]:
        digest.update((HERE / "rows" / f"{name}.jsonl").read_bytes())
    settings = (
        P.batch_size,
        P.steps,
        P.rank,
        P.lr_lora,
        P.lr_full,
        P.max_length,
        P.max_new_tokens,
        SEEDS,
        OLM_LR,
        OLM_STEPS,
    )
    digest.update(repr(settings).encode() + inspect.getsource(PARTS[part]).encode())
    return digest.hexdigest()


def write_card(kept: dict) -> None:
    """Keep what was measured, and put the table between the markers in data/README.md."""
    (HERE / "validation.json").write_text(
        json.dumps({"seeds": SEEDS, "parts": kept}, indent=1) + "\n", encoding="utf-8"
    )
    rows = [r for part in PARTS if part in kept for r in kept[part]["rows"]]
    card, table = HERE / "README.md", ["| claim | measured | wanted | holds |", "|---|---|---|---|"]
    table += [
        f"| {r['claim']} | {r['measured']} | {r['criterion']} | {'yes' if r['holds'] else 'no'} |"
        for r in rows
    ]
    new = re.sub(
        r"(<!-- validation -->\n).*?(<!-- end -->)",
        lambda m: m[1] + "\n".join(table) + "\n" + m[2],
        card.read_text(encoding="utf-8"),
        flags=re.S,
    )
    card.write_text(new, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=list(PARTS), help="measure this part alone")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="measure again what was measured with the same model, rows and settings",
    )
    args = parser.parse_args()
    before = json.loads((HERE / "validation.json").read_text(encoding="utf-8")).get("parts", {})
    kept = {
        part: result
        for part, result in before.items()
        if part in PARTS and result["fingerprint"] == fingerprint(part)
    }
    for part, measure in PARTS.items():
        if args.part in (None, part) and part in kept and not args.fresh:
            print(f"{part}: nothing has changed since it was measured; --fresh measures again")
        elif args.part in (None, part):
            kept[part] = {"fingerprint": fingerprint(part), "rows": measure()}
            write_card(kept)
    return 0 if all(r["holds"] for result in kept.values() for r in result["rows"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
