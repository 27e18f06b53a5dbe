"""The prompt once for both completions: exact where it is done, and two runs where it is not."""

import math

import pytest
import torch
from conftest import llama, randomize
from preference_runs import F64, PAIRS, SETTINGS, adapted, hand_logps, trainer_of

from ftlib.adapters import prefix as prefix_module
from ftlib.batches.collate import PairCollator, shared_mask
from ftlib.batches.preference import encode_pairs
from ftlib.batches.template import IGNORE
from ftlib.training.loss_spec import LOSS_SPECS
from ftlib.training.prefer import prefer, preference_collator
from ftlib.training.preference_trainer import pair_logps, why_unshared


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
    collator = preference_collator(make(), tokenizer, LOSS_SPECS["dpo"], True, [[3, 4, 5]])
    assert not collator.share_prefix and reason in caplog.text


def test_training_with_a_trained_prefix(tokenizer):
    run = prefer(with_prefix(), tokenizer, PAIRS, **{**SETTINGS, "steps": 2})
    assert run.history[0]["loss"] == pytest.approx(math.log(2), rel=1e-5)
