"""Preference training: losses and metrics by hand, a function in place of a loss, refusals."""

import json

import pytest
import torch
from conftest import llama, randomize
from preference_runs import F64, PAIRS, SETTINGS, adapted, adapter, equal, hand_logps, trainer_of

import ftlib as ft
from ftlib.batches.collate import KTOCollator
from ftlib.batches.preference import encode_binary, encode_pairs, mismatch
from ftlib.core.errors import DataError
from ftlib.training.loss_spec import LOSS_SPECS
from ftlib.training.prefer import prefer
from ftlib.training.preference_trainer import PreferenceTrainer


# --- losses and metrics ---------------------------------------------------------------------------
def test_the_first_dpo_loss_by_hand(tokenizer):
    """-ln σ(0.3·[(log π - log π_ref)(chosen) - (log π - log π_ref)(rejected)]), the mean over four
    rows; π_ref is the base.
    """
    model = randomize(adapted(lora_dropout=0.0), scale=0.3)
    rows = PAIRS[:4]
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


@pytest.mark.parametrize("loss", LOSS_SPECS)
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
    assert set(run.history[-1]) == {"step", "loss", "learning_rate", *LOSS_SPECS[loss].metrics}
    assert set(run.eval_history[-1]) == {
        "step",
        "eval_loss",
        *(f"eval_{name}" for name in LOSS_SPECS[loss].metrics),
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
    runs = []
    models = []
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


@pytest.mark.parametrize("loss", ["dpo", "simpo", "orpo", "kto"])
def test_a_function_in_place_of_a_loss(loss, tokenizer, tmp_path):
    """Called with the arguments and options of the one that it replaces: the same function,
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
