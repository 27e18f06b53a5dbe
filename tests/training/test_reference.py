"""The reference of preference training: cached, shared and refused; what a run leaves; a killed run
that goes on.
"""

import json
import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer, exit_code_of_a_child, llama, randomize
from preference_runs import F64, PAIRS, SETTINGS, adapted, adapter, equal, trainer_of
from safetensors.torch import load_file, save_file

import ftlib as ft
from ftlib.batches.collate import PairCollator
from ftlib.batches.preference import encode_binary, encode_pairs, mismatch
from ftlib.data.rows import fingerprint
from ftlib.training import folder as folder_module
from ftlib.training import identity
from ftlib.training import reference as reference_module
from ftlib.training.prefer import kto_order, prefer
from ftlib.training.preference_trainer import PreferenceTrainer
from ftlib.training.reference_logps import row_keys


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
    folder = tmp_path_factory.mktemp("run") / "whole"
    model = adapted()
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
    whole = adapted()
    part = adapted()
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
        encoded = kto_order(encode_binary(tokenizer, PAIRS), SETTINGS["batch_size"], 0)
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
        values = [[known[key] for key in row_keys(item)] for item in items]
        tensors[name] = torch.tensor(values, dtype=kept["logps"].dtype)
    save_file(tensors, run / "reference" / reference_module.LOGPS)
    recorded = json.loads((run / "reference" / reference_module.MANIFEST).read_text())
    recorded.pop("precision")
    recorded["tokens"] = {name: fingerprint(items) for name, items in parts.items()}
    (run / "reference" / reference_module.MANIFEST).write_text(json.dumps(recorded))
    settings = json.loads((run / "settings.json").read_text())
    for later in identity.LATER_SETTINGS:
        settings.pop(later, None)
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

    model = adapted()
    deep = copy.deepcopy
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
    whole = adapted()
    part = adapted()
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
