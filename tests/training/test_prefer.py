"""Preference training: rows, prefix sharing, the cached reference, KTO's batches, resuming,
refusals.
"""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import (
    CHATML,
    LLAMA3,
    byte_tokenizer,
    exit_code_of_a_child,
    llama,
    randomize,
    unmarked,
)
from safetensors.torch import load_file, save_file
from torch.nn.functional import log_softmax

import ftlib as ft
from ftlib.adapters import prefix as prefix_module
from ftlib.batches.collate import KTOCollator, PairCollator, shared_mask
from ftlib.batches.preference import encode_binary, encode_pairs, mismatch, row_length
from ftlib.batches.template import IGNORE
from ftlib.core.errors import DataError
from ftlib.data.rows import fingerprint
from ftlib.training import folder as folder_module
from ftlib.training import options as options_module
from ftlib.training import prefer as prefer_module
from ftlib.training import reference as reference_module
from ftlib.training.prefer import OPTIONS, prefer
from ftlib.training.preference_trainer import METRICS, PreferenceTrainer, pair_logps, why_unshared
from ftlib.training.samplers import BlockSampler

F64 = torch.float64
PAIRS = [
    {"prompt": f"Say {w}{i}.", "chosen": f"{w}{i}", "rejected": f"no{w * (i % 3)}!"}
    for i, w in enumerate(["ab", "cde", "f", "gh"] * 5)
]
SETTINGS = {
    "steps": 6,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "save_steps": 2,
    "log_steps": 1,
    "show": False,
}


def adapted(seed=0, dtype=torch.float32, **options):
    torch.manual_seed(seed)
    return ft.add_lora(
        llama(layers=1, dtype=dtype, initializer_range=0.3),
        **{"r": 2, "lora_dropout": 0.1, **options},
    )


def adapter(model) -> dict:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def turns(role, text):
    return [{"role": role, "content": text}]


def hand_logps(model, item, side="chosen_ids") -> torch.Tensor:
    """log π(completion | prompt), one row at a time, without padding, from full logits."""
    prompt, completion = item["prompt_ids"], item[side]
    logp = log_softmax(model(torch.tensor([prompt + completion])).logits[0].double(), -1)
    return sum(logp[len(prompt) - 1 + t, token] for t, token in enumerate(completion))


def trainer_of(model, loss="dpo", adapter_off=True, **options):
    args = options_module.training_arguments(
        None,
        steps=1,
        learning_rate=1e-3,
        batch_size=4,
        seed=0,
        schedule="cosine",
        warmup=0,
        weight_decay=0,
        accumulate=1,
        save_steps=1,
        eval_steps=None,
        log_steps=1,
        optimizer="adamw",
        autocast=False,
    )
    return PreferenceTrainer(
        model, loss, OPTIONS[loss] | options, adapter_off, args=args, train_dataset=[]
    )


# --- rows -----------------------------------------------------------------------------------------
def test_rows_become_prompt_and_completions(tokenizer):
    """The byte tokenizer's ids can be read back: the completion is the answer with its stop token,
    the prompt all before it.
    """
    [item] = encode_pairs(tokenizer, [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    assert {k: tokenizer.decode(v) for k, v in item.items()} == {
        "prompt_ids": "<|bos|><|user|>Hi<|end|><|assistant|>",
        "chosen_ids": "yes<|end|>",
        "rejected_ids": "no<|end|>",
    }


def llama3_tokenizer():
    return byte_tokenizer(LLAMA3, pad_token="<|finetune_right_pad_id|>")


@pytest.mark.parametrize(
    "make", [lambda: byte_tokenizer(CHATML), llama3_tokenizer], ids=["chatml", "llama3"]
)
@pytest.mark.parametrize("marks", [True, False], ids=["marked", "bare"])
def test_strings_are_one_user_and_one_assistant_turn(make, marks):
    """And what a template writes after the stop token, such as ChatML's newline, is not part of the
    completion.
    """
    tok = make()
    tok.chat_template = tok.chat_template if marks else unmarked(tok.chat_template)
    messages = {
        "prompt": turns("user", "Hi"),
        "chosen": turns("assistant", "yes"),
        "rejected": turns("assistant", "no"),
    }
    [item] = encode_pairs(tok, [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}])
    assert encode_pairs(tok, [messages]) == [item]
    assert (
        tok.decode(item["chosen_ids"]) == "yes" + tok.eos_token
        and item["prompt_ids"][-1] != item["chosen_ids"][0]
    )


def test_only_the_last_turn_is_the_completion(tokenizer):
    prompt = [*turns("user", "Hi"), *turns("assistant", "Hello"), *turns("user", "Bye")]
    row = {
        "prompt": prompt,
        "chosen": turns("assistant", "bye"),
        "rejected": turns("assistant", "no"),
    }
    [item] = encode_pairs(tokenizer, [row])
    assert (
        "Hello" in tokenizer.decode(item["prompt_ids"])
        and tokenizer.decode(item["chosen_ids"]) == "bye<|end|>"
    )


def test_a_pair_is_two_binary_rows(tokenizer):
    thumbs = [
        {"prompt": "Hi", "completion": "yes", "label": True},
        {"prompt": "Hi", "completion": "no", "label": False},
    ]
    assert encode_binary(
        tokenizer, [{"prompt": "Hi", "chosen": "yes", "rejected": "no"}]
    ) == encode_binary(tokenizer, thumbs)


BAD_ROWS = {
    "chosen equals rejected": {"prompt": "a", "chosen": "b", "rejected": "b"},
    "rejected is empty": {"prompt": "a", "chosen": "b", "rejected": " "},
    r"chosen is \[\]": {"prompt": "a", "chosen": [], "rejected": "b"},
    "prompt is 3": {"prompt": 3, "chosen": "b", "rejected": "c"},
    "one message of the assistant is needed": {
        "prompt": turns("user", "a"),
        "chosen": turns("user", "b"),
        "rejected": turns("assistant", "c"),
    },
    "text, as the prompt is, is needed": {
        "prompt": "a",
        "chosen": turns("assistant", "b"),
        "rejected": "c",
    },
    "binary row .*loss='kto'": {"prompt": "a", "completion": "b", "label": True},
    "no 'prompt'": {"chosen": "b"},
    "'nothing'": "nothing",
}


@pytest.mark.parametrize("message", BAD_ROWS)
def test_bad_rows_are_named(message, tokenizer):
    with pytest.raises(DataError, match=f"row 1.*{message}"):
        encode_pairs(tokenizer, [PAIRS[0], BAD_ROWS[message]])


@pytest.mark.parametrize(
    "message, row",
    [
        ("label is 1", {"prompt": "a", "completion": "b", "label": 1}),
        ("completion is empty", {"prompt": "a", "completion": "", "label": True}),
        ("chosen equals rejected", {"prompt": "a", "chosen": "b", "rejected": "b"}),
    ],
)
def test_bad_binary_rows_are_named(message, row, tokenizer):
    with pytest.raises(DataError, match=f"row 1.*{message}"):
        encode_binary(tokenizer, [PAIRS[0], row])


def test_sides_that_only_the_template_makes_equal_are_refused():
    """Llama-3's template trims: the texts differ, the tokens do not."""
    with pytest.raises(DataError, match="become the same tokens"):
        encode_pairs(llama3_tokenizer(), [{"prompt": "a", "chosen": "b", "rejected": "b "}])


def test_long_rows_are_left_out_never_cut(tokenizer, capsys):
    """ "Hi" is 6 tokens with its markers: 6 + 9 + 1 fit 16, a tenth letter does not."""
    fits, long = ({"prompt": "Hi", "chosen": "a", "rejected": "b" * n} for n in (9, 11))
    assert encode_pairs(tokenizer, [fits, long], max_length=16) == encode_pairs(tokenizer, [fits])
    assert "left out 1 of 2 rows longer than max_length=16 (longest 18)" in capsys.readouterr().out
    with pytest.raises(DataError, match="all 1 rows are longer than max_length=16"):
        encode_pairs(tokenizer, [long], max_length=16)


# --- the prompt once for both ---------------------------------------------------------------------
def test_a_packed_row():
    """prompt[:-1] | prompt[-1] chosen | prompt[-1] rejected: 3 + 2·1 + 1 + 1 = 7 tokens in place of
    8.
    """
    batch = PairCollator(0)(
        [
            {"prompt_ids": [5, 6, 7], "chosen_ids": [8], "rejected_ids": [9, 10]},
            {"prompt_ids": [5], "chosen_ids": [8], "rejected_ids": [9]},
        ]
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 7, 9, 10], [5, 8, 5, 9, 0, 0, 0]]
    assert batch["labels"].tolist() == [
        [IGNORE] * 3 + [8, IGNORE, 9, 10],
        [IGNORE, 8, IGNORE, 9] + [IGNORE] * 3,
    ]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 4], [0, 1, 0, 1, 0, 0, 0]]
    assert batch["segments"].tolist() == [[0, 0, 1, 1, 2, 2, 2], [1, 1, 2, 2, -1, -1, -1]]
    mask = shared_mask(batch["segments"])[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0],
        [1, 1, 0, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 1, 1],
    ]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("loss", ["dpo", "simpo", "orpo"])
@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
def test_sharing_is_exact(loss, attention, recomputed, tokenizer):
    """Losses and gradients of uneven rows in float64 are those of prompts run twice. transformers'
    eager attention takes its softmax in fp32 whatever the dtype, so there it is fp32's rounding.
    """
    tolerance = 1e-9 if attention == "sdpa" else 1e-5
    items, seen = encode_pairs(tokenizer, PAIRS[:5]), []
    for share in (False, True):
        model = randomize(
            adapted(dtype=F64, lora_dropout=0.0, target_modules="all-linear"), scale=0.3
        ).train()
        model.set_attn_implementation(attention)
        if recomputed:
            model.activation_checkpointing_enable({"use_reentrant": False})
        losses, _ = trainer_of(model, loss).row_losses(
            model, PairCollator(tokenizer.pad_token_id, share)(items)
        )
        losses.mean().backward()
        seen.append(
            (losses.detach(), {n: p.grad for n, p in model.named_parameters() if "lora_" in n})
        )
    (losses, gradients), (shared_losses, shared_gradients) = seen
    torch.testing.assert_close(shared_losses, losses, rtol=tolerance, atol=tolerance / 100)
    assert max(g.abs().max() for g in gradients.values()) > 1e-3
    for name, gradient in gradients.items():
        torch.testing.assert_close(
            shared_gradients[name],
            gradient,
            rtol=tolerance,
            atol=tolerance * float(gradient.abs().max()),
        )


def test_log_probabilities_by_hand(tokenizer):
    model, items = adapted(dtype=F64), encode_pairs(tokenizer, PAIRS[:3])
    want = torch.stack(
        [
            torch.stack([hand_logps(model, i, side) for side in ("chosen_ids", "rejected_ids")])
            for i in items
        ]
    )
    for share in (False, True):
        logps, counts = pair_logps(model, PairCollator(tokenizer.pad_token_id, share)(items))
        torch.testing.assert_close(logps, want, rtol=1e-12, atol=0)
        assert counts.tolist() == [[len(i["chosen_ids"]), len(i["rejected_ids"])] for i in items]


def test_rejected_does_not_see_chosen(tokenizer):
    model, [item] = adapted(dtype=F64), encode_pairs(tokenizer, PAIRS[:1])
    other = {**item, "chosen_ids": [20] * len(item["chosen_ids"])}
    one, two = (
        pair_logps(model, PairCollator(tokenizer.pad_token_id)([i]))[0][0] for i in (item, other)
    )
    assert one[1] == two[1] and one[0] != two[0]


def test_a_model_with_a_biased_head(tokenizer):
    """Its logits are made whole; the numbers are right all the same."""
    model, items = (
        llama(layers=1, dtype=F64, tie_word_embeddings=False),
        encode_pairs(tokenizer, PAIRS[:2]),
    )
    model.lm_head.bias = torch.nn.Parameter(torch.linspace(-1, 1, 280, dtype=F64))
    logps, _ = pair_logps(model, PairCollator(tokenizer.pad_token_id)(items))
    torch.testing.assert_close(
        logps[:, 0], torch.stack([hand_logps(model, i) for i in items]), rtol=1e-12, atol=0
    )


def sliding():
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(
        MistralConfig(
            vocab_size=280,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=8,
        )
    )


def with_prefix():
    return prefix_module.add_prefix(llama(layers=1), 2)


def flash():
    model = llama(layers=1)
    model.config._attn_implementation = "flash_attention_2"
    return model


def test_where_sharing_is_exact():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    qwen = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=280,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    assert why_unshared(llama(layers=1)) is None and why_unshared(qwen) is None


@pytest.mark.parametrize(
    "make, reason",
    [(sliding, "everything before"), (with_prefix, "prefix"), (flash, "flash_attention_2")],
)
def test_where_it_is_not_prompts_run_twice_and_one_line_says_so(make, reason, tokenizer, caplog):
    collator = prefer_module._collator(make(), tokenizer, "dpo", True)
    assert not collator.share_prefix and reason in caplog.text


def test_training_with_a_trained_prefix(tokenizer):
    run = prefer(with_prefix(), tokenizer, PAIRS, **{**SETTINGS, "steps": 2})
    assert run.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)


# --- losses and metrics ---------------------------------------------------------------------------
def test_the_first_dpo_loss_by_hand(tokenizer):
    """-ln σ(0.3·[(log π - log π_ref)(chosen) - (log π - log π_ref)(rejected)]), the mean over four
    rows; π_ref is the base.
    """
    model, rows = randomize(adapted(lora_dropout=0.0), scale=0.3), PAIRS[:4]
    items = encode_pairs(tokenizer, rows)
    with torch.no_grad():
        policy = torch.tensor(
            [[hand_logps(model, i, s) for s in ("chosen_ids", "rejected_ids")] for i in items]
        )
        with ft.disable_adapter(model):
            base = torch.tensor(
                [[hand_logps(model, i, s) for s in ("chosen_ids", "rejected_ids")] for i in items]
            )
    ratio = policy - base
    want = -torch.nn.functional.logsigmoid(0.3 * (ratio[:, 0] - ratio[:, 1]))
    [entry] = prefer(
        model, tokenizer, rows, **{**SETTINGS, "steps": 1}, beta=0.3, reference="adapter_off"
    ).history
    assert entry["loss"] == pytest.approx(want.mean().item(), rel=1e-4)
    assert entry["rewards/chosen"] == pytest.approx(0.3 * ratio[:, 0].mean().item(), rel=1e-3)
    assert entry["rewards/margins"] == pytest.approx(
        0.3 * (ratio[:, 0] - ratio[:, 1]).mean().item(), rel=1e-3
    )
    assert entry["rewards/accuracies"] == (ratio[:, 0] > ratio[:, 1]).float().mean().item()
    assert entry["kl"] == pytest.approx(ratio[:, 0].mean().item(), rel=1e-3)
    assert [entry["logps/chosen"], entry["logps/rejected"]] == pytest.approx(
        policy.mean(0).tolist(), rel=1e-4
    )
    assert entry["lengths/chosen"] == sum(len(i["chosen_ids"]) for i in items) / 4


def test_ktos_loss_by_hand(tokenizer):
    """kto_loss of log-probabilities one row at a time; the mismatched ones of each prompt with the
    completion before it.
    """
    model = randomize(adapted(dtype=F64, lora_dropout=0.0), scale=0.3)
    rows = [
        {"prompt": p, "completion": c, "label": label}
        for p, c, label in (("a", "bcd", True), ("ef", "g", False), ("h", "ij", True))
    ]
    items = mismatch(encode_binary(tokenizer, rows), 4)
    with torch.no_grad():

        def both():
            return [
                torch.stack([hand_logps(model, i, side) for i in items])
                for side in ("completion_ids", "kl_completion_ids")
            ]

        own, other = both()
        with ft.disable_adapter(model):
            ref_own, ref_other = both()
    want, rewards = ft.kto_loss(
        own, ref_own, other, ref_other, torch.tensor([True, False, True]), 0.3
    )
    losses, values = trainer_of(model, "kto", beta=0.3).row_losses(
        model, KTOCollator(tokenizer.pad_token_id)(items)
    )
    torch.testing.assert_close(losses, want, rtol=1e-12, atol=0)
    torch.testing.assert_close(values["rewards/chosen"], rewards[[0, 2]])
    assert values["kl"].item() == pytest.approx(max(0.0, (other - ref_other).mean().item()))


@pytest.mark.parametrize("loss", OPTIONS)
def test_it_learns_what_is_preferred(loss, tokenizer):
    run = prefer(
        adapted(lora_dropout=0.0),
        tokenizer,
        PAIRS,
        loss=loss,
        **{**SETTINGS, "steps": 20, "log_steps": 5},
        eval_rows=PAIRS[:6],
        eval_steps=20,
    )
    assert (
        run.history[-1]["loss"] < run.history[0]["loss"]
        and run.eval_history[-1]["eval_rewards/margins"] > 0
    )
    assert set(run.history[-1]) == {"step", "loss", "learning_rate", *METRICS[loss]}
    assert set(run.eval_history[-1]) == {
        "step",
        "eval_loss",
        *(f"eval_{name}" for name in METRICS[loss]),
    }


def test_metrics_are_means_over_the_interval(tokenizer):
    every, second = (
        prefer(adapted(), tokenizer, PAIRS, **{**SETTINGS, "log_steps": n}).history for n in (1, 2)
    )
    for k in ("rewards/chosen", "logps/rejected", "lengths/chosen", "kl"):
        means = [(a[k] + b[k]) / 2 for a, b in zip(every[::2], every[1::2], strict=True)]
        assert [e[k] for e in second] == pytest.approx(means, rel=1e-5, abs=1e-7)


def test_evaluation_is_a_mean_over_rows_also_across_batches(tokenizer):
    """5 rows in batches of 2·1: the eval loss is that of one batch of all, not of three means."""
    results = []
    for size in (5, 1):
        model = randomize(adapted(lora_dropout=0.0), scale=0.3)
        results.append(
            prefer(
                model,
                tokenizer,
                PAIRS[:5],
                **{**SETTINGS, "steps": 1, "batch_size": size, "learning_rate": 1e-9},
                reference="adapter_off",
                eval_rows=PAIRS[:5],
            ).eval_history[0]
        )
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_accumulation_equals_one_large_batch(tokenizer):
    runs, models = [], []
    for options in ({"batch_size": 4}, {"batch_size": 2, "accumulate": 2}):
        models.append(adapted(lora_dropout=0.0))
        settings = {**SETTINGS, "steps": 1, "warmup": 0, "learning_rate": 1e-3, **options}
        runs.append(prefer(models[-1], tokenizer, PAIRS[:4], **settings))
    assert runs[0].history[0] == pytest.approx(runs[1].history[0], rel=1e-5, abs=1e-6)
    a, b = map(adapter, models)
    assert all(torch.allclose(a[k], b[k], atol=2e-5) for k in a)


def test_the_order_of_the_rows_depends_on_the_seed_alone(tokenizer, monkeypatch):
    seen = []
    compute = PreferenceTrainer.compute_loss
    monkeypatch.setattr(
        PreferenceTrainer,
        "compute_loss",
        lambda self, model, inputs, *a, **k: (
            seen[-1].append(sorted(inputs["labels"].flatten().tolist()))
            or compute(self, model, inputs, *a, **k)
        ),
    )
    for options in (
        {"loss": "dpo"},
        {"loss": "simpo", "learning_rate": 1e-3},
        {"loss": "orpo"},
        {"loss": "dpo", "seed": 1},
    ):
        seen.append([])
        torch.rand(1)
        prefer(adapted(), tokenizer, PAIRS, **{**SETTINGS, **options})
    assert seen[0] == seen[1] == seen[2] != seen[3]


# --- the reference --------------------------------------------------------------------------------
@pytest.mark.parametrize("loss", ["dpo", "simpo", "orpo", "kto"])
def test_a_function_in_place_of_a_loss(loss, tokenizer, tmp_path):
    """Called with the arguments and options of the one that it stands for: the same function,
    counted, ends in the same adapter; its name is in the manifest.
    """
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return getattr(ft, f"{loss}_loss")(*args, **options)

    runs = []
    for function in (None, counted):
        model = adapted(lora_dropout=0.0)
        folder = tmp_path / str(bool(function))
        runs.append(
            (
                prefer(
                    model,
                    tokenizer,
                    PAIRS,
                    loss=loss,
                    beta=0.7,
                    loss_function=function,
                    output_dir=folder,
                    **SETTINGS,
                ).history,
                adapter(model),
            )
        )
        assert json.loads((folder / "manifest.json").read_text())["loss_function"] == (
            function and "counted"
        )
    (one, a), (two, b) = runs
    assert equal(a, b) and [h["loss"] for h in one] == [h["loss"] for h in two]
    assert len(calls) == SETTINGS["steps"] and all(c["beta"] == 0.7 for c in calls)


def test_another_loss_function_trains_otherwise(tokenizer):
    """SFT on the chosen answers as a function in SimPO's place: the mean negative log-likelihood
    falls and is the loss.
    """
    run = prefer(
        adapted(lora_dropout=0.0),
        tokenizer,
        PAIRS,
        loss="simpo",
        loss_function=lambda c, r, **_: (-c, c, r),
        **SETTINGS,
    )
    for entry in (h for h in run.history if "loss" in h):
        assert entry["loss"] == pytest.approx(-entry["logps/chosen"], rel=1e-3)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_cached_equals_on_the_fly(loss, tokenizer, monkeypatch):
    """With a new adapter (B = 0) the start is the base: log-probabilities kept before training are
    those of the adapter off in every step, although the adapter trains with dropout.
    """
    results = []
    for kind in ("cached", "adapter_off"):
        model = adapted(dtype=F64)
        run = prefer(
            model, tokenizer, PAIRS, loss=loss, reference=kind, eval_rows=PAIRS[:5], **SETTINGS
        )
        results.append((adapter(model), run))
    for name, weight in results[0][0].items():
        torch.testing.assert_close(results[1][0][name], weight, rtol=1e-7, atol=1e-9)
    for a, b in zip(
        results[0][1].history + results[0][1].eval_history,
        results[1][1].history + results[1][1].eval_history,
        strict=True,
    ):
        assert a == pytest.approx(b, rel=1e-7, abs=1e-9)


def test_cached_log_probabilities_are_those_of_the_base_to_rounding(tokenizer):
    trainer = trainer_of(adapted(dtype=F64).train())
    trainer.data_collator, items = (
        PairCollator(tokenizer.pad_token_id),
        encode_pairs(tokenizer, PAIRS),
    )
    cached = trainer.reference_logps(items, show=False)
    assert trainer.model.training
    for item, row in zip(items, cached, strict=True):
        on_the_fly = trainer._reference(PairCollator(tokenizer.pad_token_id)([item]), cached)[0]
        torch.testing.assert_close(row, on_the_fly, rtol=1e-12, atol=0)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_the_default_reference_is_the_model_at_the_call_its_adapter_included(loss, tokenizer):
    """So the first loss is that of a policy that has not moved: ln 2 for DPO, 1/2 for KTO; against
    the base it is another.
    """

    def first_entry(kind):
        model = randomize(adapted(lora_dropout=0.0), scale=0.3)
        return prefer(
            model, tokenizer, PAIRS, loss=loss, **{**SETTINGS, "steps": 1}, reference=kind
        ).history[0]

    first = [first_entry(kind) for kind in (None, "cached", "adapter_off")]
    assert first[0] == first[1] and first[0]["loss"] == pytest.approx(
        {"dpo": math.log(2), "kto": 0.5}[loss], abs=1e-5
    )
    assert abs(first[2]["loss"] - first[0]["loss"]) > 1e-2


def test_full_fine_tuning_has_a_cached_reference(tokenizer):
    run = prefer(
        llama(layers=1).requires_grad_(True),
        tokenizer,
        PAIRS,
        **{**SETTINGS, "steps": 4, "learning_rate": 1e-3},
    )
    assert (
        run.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
        and run.history[-1]["loss"] < run.history[0]["loss"]
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, adapter, run) of an uninterrupted DPO run."""
    torch.set_num_threads(1)
    folder, model = tmp_path_factory.mktemp("run") / "whole", adapted()
    run = prefer(model, byte_tokenizer(), PAIRS, **SETTINGS, eval_rows=PAIRS[:4], output_dir=folder)
    return folder, adapter(model), run


def test_what_a_run_leaves(finished):
    folder, trained, _run = finished
    assert {p.name for p in folder.iterdir()} == {
        "adapter",
        "manifest.json",
        "settings.json",
        "reference",
        "checkpoint-4",
        "checkpoint-6",
    }
    assert {p.name for p in (folder / "reference").iterdir()} == {
        "reference.safetensors",
        "reference.json",
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {
        k: manifest[k] for k in ("loss", "beta", "label_smoothing", "reference", "share_prefix")
    } == {
        "loss": "dpo",
        "beta": 0.1,
        "label_smoothing": 0.0,
        "reference": "cached",
        "share_prefix": True,
    }
    logps = load_file(folder / "reference" / "reference.safetensors")
    assert {k: tuple(v.shape) for k, v in logps.items()} == {
        "keys": (40, 16),
        "logps": (40,),
    }  # 20 pairs; the 4 to evaluate are of them
    assert set(json.loads((folder / "reference" / "reference.json").read_text())) == {
        "base",
        "base_weights",
        "adapter",
        "precision",
    }
    assert equal(
        adapter(ft.load_adapter(llama(layers=1, initializer_range=0.3), folder / "adapter")),
        trained,
    )


def test_finishing_twice_returns_at_once(finished, tokenizer, monkeypatch):
    folder, trained, run = finished
    for name in ("training_step", "reference_logps"):
        monkeypatch.setattr(
            PreferenceTrainer, name, lambda *a, **k: pytest.fail("it computed again")
        )
    model = adapted(seed=3)
    again = prefer(model, tokenizer, PAIRS, **SETTINGS, eval_rows=PAIRS[:4], output_dir=folder)
    assert (
        equal(adapter(model), trained)
        and again.history == run.history
        and again.eval_history == run.eval_history
    )


def test_one_cache_for_many_runs(tokenizer, tmp_path, monkeypatch):
    """A sweep over beta shares the reference's log-probabilities; the second run computes none and
    starts at ln 2 as well.
    """
    prefer(
        adapted(), tokenizer, PAIRS, **{**SETTINGS, "steps": 1}, reference=tmp_path / "reference"
    )
    monkeypatch.setattr(
        PreferenceTrainer, "reference_logps", lambda *a, **k: pytest.fail("it computed again")
    )
    run = prefer(
        adapted(lora_dropout=0.0),
        tokenizer,
        PAIRS,
        **{**SETTINGS, "steps": 1},
        beta=0.5,
        reference=tmp_path / "reference",
    )
    assert run.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)


def another_base():
    torch.manual_seed(0)
    return ft.add_lora(llama(layers=1, seed=1, initializer_range=0.3), r=2, lora_dropout=0.1)


def renamed():
    model = adapted()
    model.config._name_or_path = "org/other"
    return model


def dora(seed=0):
    return adapted(seed=seed, use_dora=True)


MISMATCHES = {
    "base": {"make": renamed},
    "base_weights": {"make": another_base},
    "precision": {"precision": "bf16"},
    "adapter": {"make": lambda: randomize(adapted())},
}


@pytest.mark.parametrize("key", MISMATCHES)
def test_a_cache_of_another_policy_is_refused_by_name(key, finished, tokenizer):
    change = {"make": adapted, "precision": "fp32", **MISMATCHES[key]}
    with pytest.raises(ft.RunError, match=rf"another reference \({key}: "):
        prefer(
            change["make"](),
            tokenizer,
            PAIRS,
            **SETTINGS,
            precision=change["precision"],
            reference=finished[0] / "reference",
        )


def test_a_cache_of_dora_is_not_that_of_lora(finished, tokenizer):
    """Its m has another name; where B = 0 the two functions are one but for the last digit."""
    with pytest.raises(ft.RunError, match=r"another reference \(adapter: "):
        prefer(dora(), tokenizer, PAIRS, **SETTINGS, reference=finished[0] / "reference")


def computed_sequences(monkeypatch) -> list[int]:
    """How many rows each call of `reference_logps` is asked for, from now on."""
    asked = []
    original = PreferenceTrainer.reference_logps

    def counted(self, items, show):
        asked.append(len(items))
        return original(self, items, show)

    monkeypatch.setattr(PreferenceTrainer, "reference_logps", counted)
    return asked


@pytest.mark.parametrize("make", [adapted, dora])
def test_whatever_a_was_drawn_beside_a_b_of_zeros_the_reference_is_the_same(
    make, tokenizer, tmp_path, monkeypatch
):
    asked = computed_sequences(monkeypatch)
    one = {**SETTINGS, "steps": 1, "reference": tmp_path / "r"}
    prefer(make(), tokenizer, PAIRS, **one)
    run = prefer(make(seed=7), tokenizer, PAIRS, **one)
    assert asked == [20] and run.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)


def test_a_shared_cache_grows_by_the_rows_it_lacks(tokenizer, tmp_path, monkeypatch):
    """Sides exchanged are the same sequences, in another order; one new pair is computed alone; the
    values are those of the row.
    """
    asked = computed_sequences(monkeypatch)
    one = {**SETTINGS, "steps": 1, "reference": tmp_path / "r"}
    exchanged = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in PAIRS[:8]]
    prefer(adapted(), tokenizer, PAIRS[:8], **one)
    run = prefer(adapted(lora_dropout=0.0), tokenizer, exchanged, **one)
    assert asked == [8] and run.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
    prefer(adapted(), tokenizer, PAIRS[:9], **one)
    assert asked == [8, 1]
    assert len(load_file(tmp_path / "r" / reference_module.LOGPS)["logps"]) == 18


def test_ktos_own_rows_are_found_again_with_another_seed(tokenizer, tmp_path, monkeypatch):
    """40 own sequences and at most 40 mismatched ones; with another seed at most the 40 new
    mismatched ones are computed. The first loss is 1/2, so the values found are those of the row.
    """
    asked = computed_sequences(monkeypatch)
    one = {**SETTINGS, "steps": 1, "reference": tmp_path / "r"}
    prefer(adapted(), tokenizer, PAIRS, loss="kto", **one)
    run = prefer(adapted(lora_dropout=0.0), tokenizer, PAIRS, loss="kto", seed=1, **one)
    assert 40 < asked[0] <= 80 and 0 < asked[1] <= 40
    assert run.history[0]["loss"] == pytest.approx(0.5, abs=1e-5)


@pytest.mark.parametrize("loss", ["dpo", "kto"])
def test_a_run_that_version_0_1_0_began_finds_its_reference(loss, tokenizer, tmp_path):
    """It kept (rows, 2) in the order of the rows, and a fingerprint of their tokens."""
    settings = {**SETTINGS, "loss": loss, "eval_rows": PAIRS[:4], "output_dir": tmp_path / "run"}
    whole, part = adapted(), adapted()
    first = prefer(whole, tokenizer, PAIRS, **settings)
    shutil.rmtree(tmp_path / "run" / "checkpoint-6")
    as_version_0_1_0_left_it(tmp_path / "run", loss, tokenizer)
    again = prefer(part, tokenizer, PAIRS, **settings)
    assert (
        again.resumed_from == 4
        and equal(adapter(whole), adapter(part))
        and again.history == first.history
    )


def as_version_0_1_0_left_it(run: Path, loss: str, tokenizer) -> None:
    """Rewrite a run's reference by row, and its settings without what was recorded later."""
    if loss == "kto":
        encoded = prefer_module._kto_order(
            encode_binary(tokenizer, PAIRS), SETTINGS["batch_size"], 0
        )
        parts = {
            "train": encoded,
            "eval": mismatch(encode_binary(tokenizer, PAIRS[:4]), 2 * SETTINGS["batch_size"]),
        }
    else:
        parts = {
            "train": encode_pairs(tokenizer, PAIRS),
            "eval": encode_pairs(tokenizer, PAIRS[:4]),
        }
    kept = load_file(run / "reference" / reference_module.LOGPS)
    known = dict(zip(map(bytes, kept["keys"].tolist()), kept["logps"].tolist(), strict=True))
    tensors = {}
    for name, items in parts.items():
        values = [[known[key] for key in prefer_module._keys(item)] for item in items]
        tensors[name] = torch.tensor(values, dtype=kept["logps"].dtype)
    save_file(tensors, run / "reference" / reference_module.LOGPS)
    recorded = json.loads((run / "reference" / reference_module.MANIFEST).read_text())
    recorded.pop("precision")
    recorded["tokens"] = {name: fingerprint(items) for name, items in parts.items()}
    (run / "reference" / reference_module.MANIFEST).write_text(json.dumps(recorded))
    settings = json.loads((run / "settings.json").read_text())
    for later in folder_module.LATER_SETTINGS:
        settings.pop(later)
    (run / "settings.json").write_text(json.dumps(settings))


def test_two_processes_share_a_cache_without_computing_twice(tokenizer, tmp_path, monkeypatch):
    """The second waits for the first, and finds all of it."""
    asked = computed_sequences(monkeypatch)
    one = {**SETTINGS, "steps": 1, "reference": tmp_path / "r"}
    monkeypatch.setenv("FTLIB_WORKERS", "2")

    def train_and_count(seed: int) -> int:
        prefer(adapted(seed=seed), tokenizer, PAIRS, **one)
        return sum(asked)

    assert sorted(ft.over_seeds(train_and_count, [0, 1])) == [0, 20]


def test_a_damaged_cache_is_refused(finished, tokenizer, tmp_path):
    folder = shutil.copytree(finished[0] / "reference", tmp_path / "reference")
    (folder / reference_module.LOGPS).write_bytes(b"half")
    with pytest.raises(ft.RunError, match="damaged"):
        prefer(adapted(), tokenizer, PAIRS, **SETTINGS, eval_rows=PAIRS[:4], reference=folder)


def test_an_interrupted_cache_leaves_nothing(tokenizer, tmp_path, monkeypatch):
    calls = []

    def stop(self, batch, logps_of=None):
        calls.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(PreferenceTrainer, "frozen_logps", stop)
    with pytest.raises(KeyboardInterrupt):
        prefer(adapted(), tokenizer, PAIRS, **SETTINGS, output_dir=tmp_path / "run")
    assert calls == [1] and [p.name for p in (tmp_path / "run").iterdir()] == ["settings.json"]


def test_no_second_model(tokenizer, monkeypatch):
    """Nothing is deep-copied, and the adapter's layers are the same objects after the run."""
    import copy

    model, deep = adapted(), copy.deepcopy
    before = ft.lora_layers(model)
    monkeypatch.setattr(
        copy,
        "deepcopy",
        lambda x, *a: (
            pytest.fail("a copy of the model") if isinstance(x, torch.nn.Module) else deep(x, *a)
        ),
    )
    prefer(model, tokenizer, PAIRS, **{**SETTINGS, "steps": 1})
    assert all(before[n] is layer for n, layer in ft.lora_layers(model).items())


# --- KTO's batches --------------------------------------------------------------------------------
def thumbs(n, prompts=None):
    return [
        {
            "prompt_ids": [i if prompts is None else prompts[i]],
            "completion_ids": [100 + i] * (1 + i % 3),
            "label": i % 2 == 0,
        }
        for i in range(n)
    ]


def partners(items):
    return [item["kl_completion_ids"][0] - 100 for item in items]


def test_completions_are_rotated_by_one_within_the_batch():
    assert partners(mismatch(thumbs(6), 3)) == [2, 0, 1, 5, 3, 4]


def test_a_last_batch_of_one_takes_from_the_batch_before():
    assert partners(mismatch(thumbs(4), 3)) == [2, 0, 1, 2]


def test_the_two_sides_of_a_pair_are_no_mismatch():
    """Rows 0 and 1 share a prompt: row 1 goes on, backwards around the batch, to row 2's
    completion. A batch of one prompt keeps the rotation.
    """
    assert partners(mismatch(thumbs(3, prompts=[7, 7, 8]), 3)) == [2, 2, 1]
    assert partners(mismatch(thumbs(2, prompts=[7, 7]), 2)) == [1, 0]


def test_every_row_once_and_the_last_batch_topped_up():
    order = prefer_module._kto_order(thumbs(10), 4, seed=0)
    rows = [item["prompt_ids"][0] for item in order]
    assert len(order) == 12 and set(rows[:10]) == set(range(10)) and rows[10:] == rows[:2]
    assert all(
        partner in rows[i // 4 * 4 : i // 4 * 4 + 4] and partner != rows[i]
        for i, partner in enumerate(partners(order))
    )


def test_batches_stay_together_in_another_order_every_epoch():
    sampler, orders = BlockSampler(24, 4, seed=0), []
    for epoch in range(4):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert len({tuple(o) for o in orders}) > 1 and all(sorted(o) == list(range(24)) for o in orders)
    assert all(
        o[k] % 4 == 0 and o[k : k + 4] == list(range(o[k], o[k] + 4))
        for o in orders
        for k in range(0, 24, 4)
    )


def test_an_unbalanced_set_is_said(tokenizer, caplog):
    rows = [{"prompt": f"a{i}", "completion": "b", "label": i > 1} for i in range(8)]
    prefer(adapted(), tokenizer, rows, loss="kto", **{**SETTINGS, "steps": 1})
    assert (
        "6 desirable and 2 undesirable rows: weights times numbers are in the ratio 3.00"
        in caplog.text
    )
    caplog.clear()
    prefer(
        adapted(), tokenizer, rows, loss="kto", **{**SETTINGS, "steps": 1}, undesirable_weight=3.0
    )
    assert "ratio" not in caplog.text


# --- killed, and going on -------------------------------------------------------------------------
def prefer_until_killed(folder: Path) -> None:
    """For a process of its own: dies in step 4."""
    step = PreferenceTrainer.training_step

    def kill(self, *args, **kwargs):
        if self.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    PreferenceTrainer.training_step = kill
    prefer(adapted(), byte_tokenizer(), PAIRS, **SETTINGS, eval_rows=PAIRS[:4], output_dir=folder)


def test_kill_9_and_starting_again_ends_in_the_same_adapter_bit_for_bit(
    finished, tokenizer, tmp_path
):
    """The reference stays that of the start, although the model at hand may be another by now: it
    comes from the checkpoint.
    """
    folder = tmp_path / "run"
    assert exit_code_of_a_child(lambda: prefer_until_killed(folder)) == -signal.SIGKILL
    assert (
        folder_module.last_checkpoint(folder).name == "checkpoint-2"
        and not (folder / "adapter").exists()
    )
    model = adapted(seed=5)
    run = prefer(model, tokenizer, PAIRS, **SETTINGS, eval_rows=PAIRS[:4], output_dir=folder)
    _, trained, whole = finished
    assert run.resumed_from == 2 and equal(adapter(model), trained)
    assert (
        run.history == whole.history
        and run.eval_history == whole.eval_history
        and run.tokens == whole.tokens
    )


@pytest.mark.parametrize("loss", ["kto", "simpo"])
def test_the_last_checkpoint_lost(loss, tokenizer, tmp_path):
    """In its second epoch (20 rows, KTO 40; batches of 8): the order goes on where it was."""
    settings = {**SETTINGS, "batch_size": 8, "loss": loss}
    whole, part = adapted(), adapted()
    first = prefer(whole, tokenizer, PAIRS, **settings, output_dir=tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "checkpoint-6")
    again = prefer(part, tokenizer, PAIRS, **settings, output_dir=tmp_path / "a")
    assert (
        again.resumed_from == 4
        and equal(adapter(whole), adapter(part))
        and again.history == first.history
    )


def test_a_run_that_had_begun_without_its_reference_is_refused(finished, tokenizer, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoint-6")
    shutil.rmtree(folder / "reference")
    with pytest.raises(ft.RunError, match="holds no reference"):
        prefer(adapted(), tokenizer, PAIRS, **SETTINGS, eval_rows=PAIRS[:4], output_dir=folder)


# --- refusals -------------------------------------------------------------------------------------
REFUSED = {
    "loss='ipo': use one of dpo, simpo, orpo, kto": {"loss": "ipo"},
    "gamma_beta_ratio=0.5: loss='dpo' takes no such option": {"gamma_beta_ratio": 0.5},
    "label_smoothing=0.1: loss='kto'": {"loss": "kto", "label_smoothing": 0.1},
    "desirable_weight=1.0: loss='orpo'": {"loss": "orpo", "desirable_weight": 1.0},
    "beta=0": {"beta": 0},
    "label_smoothing=0.7": {"label_smoothing": 0.7},
    "reference='cached': loss='simpo' has no reference": {"loss": "simpo", "reference": "cached"},
    "reference='base': use 'cached'": {"reference": "base"},
    "batch_size=1: KTO": {"loss": "kto", "batch_size": 1},
    "batch_size=64 is more than the 40 rows": {"loss": "kto", "batch_size": 64},
    "steps=0": {"steps": 0},
}


@pytest.mark.parametrize("message", REFUSED)
def test_refused_before_anything_is_written(message, tokenizer, tmp_path):
    with pytest.raises(ValueError, match=message):
        prefer(
            adapted(),
            tokenizer,
            PAIRS,
            **{**SETTINGS, **REFUSED[message]},
            output_dir=tmp_path / "x",
        )
    assert not (tmp_path / "x").exists()


def test_adapter_off_needs_an_adapter(tokenizer):
    with pytest.raises(ft.RunError, match="no LoRA adapter"):
        prefer(
            llama(layers=1).requires_grad_(True),
            tokenizer,
            PAIRS,
            **SETTINGS,
            reference="adapter_off",
        )


def test_one_row_has_no_mismatch(tokenizer):
    with pytest.raises(DataError, match="two or more"):
        prefer(
            adapted(),
            tokenizer,
            PAIRS,
            loss="kto",
            **SETTINGS,
            eval_rows=[{"prompt": "a", "completion": "b", "label": True}],
        )


@pytest.mark.parametrize(
    "change",
    [{"loss": "orpo"}, {"beta": 0.2}, {"reference": "adapter_off"}, {"share_prefix": False}],
    ids=str,
)
def test_other_settings_in_the_same_folder_are_refused(change, finished, tokenizer):
    key = next(iter(change))
    with pytest.raises(ft.RunError, match="other settings"):
        prefer(
            adapted(),
            tokenizer,
            PAIRS,
            **SETTINGS,
            eval_rows=PAIRS[:4],
            output_dir=finished[0],
            **change,
        )
    assert key in json.loads((finished[0] / "settings.json").read_text())


def test_length_counts_the_prompt_once():
    assert row_length({"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6]}) == 6
