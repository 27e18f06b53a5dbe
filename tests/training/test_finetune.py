"""Training: the loss by hand, kill -9 and go on, honest refusals, and what a run leaves behind."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer, chat, exit_code_of_a_child, llama, snapshot
from safetensors import safe_open
from torch.nn.functional import log_softmax

import ftlib as ft
from ftlib.adapters import active
from ftlib.adapters.lora_layer import LoRALinear
from ftlib.batches.encode import encode_rows
from ftlib.core.errors import DataError
from ftlib.data.rows import fingerprint
from ftlib.training import folder as folder_module
from ftlib.training import live, samplers
from ftlib.training import trainer as trainer_module

SETTINGS = {
    "steps": 10,
    "learning_rate": 1e-2,
    "batch_size": 4,
    "save_steps": 3,
    "log_steps": 1,
    "show": False,
}


def adapted(seed=0, **options):
    torch.manual_seed(seed)
    return ft.add_lora(llama(layers=1), **{"r": 2, "lora_dropout": 0.1, **options})


def adapter(model) -> dict:
    return {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" in n}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def tokens_in(rows, tokenizer) -> int:
    return sum(len(r["input_ids"]) for r in encode_rows(tokenizer, rows))


def uneven():
    """A model whose loss differs much from token to token."""
    return ft.add_lora(llama(layers=1, initializer_range=0.5), r=2)


# --- the loss -------------------------------------------------------------------------------------
def hand_loss(model, tokenizer, rows) -> torch.Tensor:
    """Mean of −log p(next token) over the answer tokens of all rows, one row at a time, without
    padding.
    """
    total = 0.0
    count = 0
    for row in encode_rows(tokenizer, rows):
        ids = torch.tensor([row["input_ids"]])
        labels = row["labels"]
        logp = log_softmax(model(ids).logits[0].double(), -1)
        for t in range(1, len(labels)):
            if labels[t] != -100:
                total = total - logp[t - 1, labels[t]]
                count += 1
    return total / count


def test_the_loss_is_the_mean_over_answer_tokens(tokenizer, rows):
    """Rows of unequal length, padded: the trainer's first loss, and its evaluation loss, equal the
    sum by hand.
    """
    rows = [chat("a", "b"), chat("abcdef", "b" * 20), chat("k", "7"), chat("k", "7")]
    model = uneven()
    want = hand_loss(model, tokenizer, rows).item()
    unweighted = sum(hand_loss(model, tokenizer, [r]).item() for r in rows) / 4
    assert abs(want / unweighted - 1) > 1e-2  # a mean of the rows' means would be seen
    run = ft.finetune(
        model, tokenizer, rows, **{**SETTINGS, "steps": 1, "learning_rate": 1e-9}, eval_rows=rows
    )
    assert [run.history[0]["loss"], run.eval_history[0]["eval_loss"]] == pytest.approx(
        [want, want], rel=1e-4
    )


def test_evaluation_loss_is_a_mean_over_tokens_also_across_batches(tokenizer):
    rows = [chat("a", "b")] * 9 + [chat("abcdef", "b" * 30)] * 3
    model = uneven()
    want = hand_loss(model, tokenizer, rows).item()
    run = ft.finetune(
        model,
        tokenizer,
        rows,
        **{**SETTINGS, "steps": 1, "learning_rate": 1e-9, "batch_size": 2},
        eval_rows=rows,
    )
    assert run.eval_history[0]["eval_loss"] == pytest.approx(want, rel=1e-4)


def test_accumulation_equals_one_large_batch(tokenizer):
    """Two batches of two are one of four: the mean is over all their answer tokens, not over the
    two means.
    """
    rows = [chat("a", "b"), chat("abcdef", "b" * 20), chat("xyz", "q"), chat("uv", "w" * 9)]
    runs = []
    models = []
    for options in ({"batch_size": 4}, {"batch_size": 2, "accumulate": 2}):
        models.append(adapted(lora_dropout=0.0))
        runs.append(
            ft.finetune(
                models[-1],
                tokenizer,
                rows,
                **{**SETTINGS, "steps": 1, "warmup": 0, "learning_rate": 1e-3, **options},
            )
        )
    assert runs[0].history[0]["loss"] == pytest.approx(runs[1].history[0]["loss"], rel=1e-5)
    a = adapter(models[0])
    b = adapter(models[1])
    assert all(torch.allclose(a[k], b[k], atol=2e-5) for k in a)


def test_one_step_by_hand(tokenizer, rows):
    """One AdamW step from zero state is lr·sign(gradient): B moves by lr wherever its gradient is
    not tiny.
    """
    model = adapted(lora_dropout=0.0)
    batch = rows[:4]
    hand_loss(model, tokenizer, batch).backward()
    name = "model.layers.0.mlp.up_proj.lora_B"
    gradient = dict(model.named_parameters())[name].grad.clone()
    model.zero_grad()
    ft.finetune(
        model, tokenizer, batch, **{**SETTINGS, "steps": 1, "warmup": 0, "learning_rate": 1e-3}
    )
    moved = dict(model.named_parameters())[name].detach()
    clear = gradient.abs() > 1e-4
    assert clear.sum() > 20 and torch.allclose(
        moved[clear], -1e-3 * gradient[clear].sign(), rtol=1e-2
    )


# --- what a run does ------------------------------------------------------------------------------
def test_it_learns_and_reports(tokenizer, rows):
    model = adapted(lora_dropout=0.0)
    run = ft.finetune(
        model, tokenizer, rows, **{**SETTINGS, "steps": 12}, eval_rows=rows[:4], eval_steps=6
    )
    assert run.history[-1]["loss"] < run.history[0]["loss"] - 0.1
    assert [e["step"] for e in run.history] == list(range(1, 13)) and [
        e["step"] for e in run.eval_history
    ] == [6, 12]
    assert run.tokens == 2 * tokens_in(
        rows, tokenizer
    )  # 12 steps of 4 are two passes over 24 rows; padding is not counted
    assert run.seconds > 0 and run.tokens_per_second == run.tokens / run.seconds
    trained = ft.count_parameters(model)[0]
    assert (
        run.state_bytes["gradients"] == 4 * trained
        and 8 * trained <= run.state_bytes["optimizer"] <= 8 * trained + 400
    )
    assert run.state_bytes["weights"] == sum(p.numel() * 4 for p in model.parameters())
    assert not model.training and run.output_dir is None and run.resumed_from == 0


@pytest.mark.parametrize("variant", ["lora", "dora"])
def test_the_base_is_unchanged_bit_for_bit(variant, tokenizer, rows):
    model = adapted(use_dora=variant == "dora")
    base = {n: p.detach().clone() for n, p in model.named_parameters() if "lora_" not in n}
    before = adapter(model)
    ft.finetune(model, tokenizer, rows, **{**SETTINGS, "steps": 3})
    assert (
        all(torch.equal(p, base[n]) for n, p in model.named_parameters() if n in base)
        and len(base) == 11
    )
    changed = [n for n, p in adapter(model).items() if not torch.equal(p, before[n])]
    assert len(changed) == (21 if variant == "dora" else 14)


def test_dora_uses_the_norm_of_its_present_weights(tokenizer, rows, monkeypatch):
    """Trainer's fused optimizer writes past PyTorch's version counters: a norm kept by them would
    stay that of step 0.

    The same training with the norm computed again in every pass ends in the same adapter.
    """
    results = []
    for kept in (True, False):
        if not kept:
            row_norm = LoRALinear._row_norm
            monkeypatch.setattr(
                "ftlib.adapters.lora_layer.LoRALinear._row_norm",
                lambda layer, row_norm=row_norm: layer.forget_norm() or row_norm(layer),
            )
        model = adapted(use_dora=True, lora_dropout=0.0)
        ft.finetune(model, tokenizer, rows, **{**SETTINGS, "steps": 4, "learning_rate": 5e-2})
        results.append(adapter(model))
        for layer in ft.lora_layers(model).values():
            V = layer.base_layer.weight + layer.scaling * layer.lora_B @ layer.lora_A
            assert torch.allclose(layer._row_norm(), V.norm(dim=1), rtol=1e-4)
    assert equal(*results)


def test_full_fine_tuning(tokenizer, rows, tmp_path):
    """Without an adapter every parameter trains, checkpoints hold the model, and the run resumes to
    the same end.
    """

    def fresh():
        return llama(layers=1).requires_grad_(True)

    whole = fresh()
    part = fresh()
    start = snapshot(whole)["weights"]
    run = ft.finetune(
        whole,
        tokenizer,
        rows,
        **{**SETTINGS, "steps": 4, "save_steps": 2, "learning_rate": 1e-3},
        output_dir=tmp_path / "a",
    )
    assert all(
        not torch.equal(v, start[k]) for k, v in whole.state_dict().items() if "inv_freq" not in k
    )
    assert (run.output_dir / "model" / "model.safetensors").is_file() and not (
        run.output_dir / "adapter"
    ).exists()
    assert json.loads((run.output_dir / "manifest.json").read_text())["adapter"] is None
    ft.finetune(
        part,
        tokenizer,
        rows,
        **{**SETTINGS, "steps": 4, "save_steps": 2, "learning_rate": 1e-3},
        output_dir=tmp_path / "b",
    )
    shutil.rmtree(tmp_path / "b" / "checkpoint-4")
    resumed = fresh()
    again = ft.finetune(
        resumed,
        tokenizer,
        rows,
        **{**SETTINGS, "steps": 4, "save_steps": 2, "learning_rate": 1e-3},
        output_dir=tmp_path / "b",
    )
    assert again.resumed_from == 2 and equal(dict(resumed.state_dict()), dict(whole.state_dict()))


def test_batches_hold_rows_of_like_length_in_an_order_of_seed_and_epoch():
    """Every row once an epoch; another epoch and another seed are another order; the global
    generator has no say.
    """
    lengths = [10 + i % 40 for i in range(200)]

    def order(seed, epoch):
        torch.rand(1)
        sampler = samplers.LengthGroupedSampler(lengths, 10, seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    one = order(0, 0)
    assert sorted(one) == list(range(200)) and one == order(0, 0)
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9
    spread = [
        max(part) - min(part)
        for part in ([lengths[i] for i in one[k : k + 10]] for k in range(0, 200, 10))
    ]
    assert sorted(spread)[10] <= 12  # of 39 at random


def test_same_seed_same_result_other_seed_another(tokenizer, rows):
    results = []
    for seed in (0, 0, 1):
        model = adapted(seed=7)
        ft.finetune(model, tokenizer, rows, **{**SETTINGS, "steps": 3}, seed=seed)
        results.append(adapter(model))
    assert equal(results[0], results[1]) and not equal(results[0], results[2])


def test_gradient_checkpointing_changes_nothing_but_memory(tokenizer, rows):
    results = []
    for checkpointing in (False, True):
        model = adapted(lora_dropout=0.0)
        ft.finetune(model, tokenizer, rows, **{**SETTINGS, "steps": 2}, checkpointing=checkpointing)
        results.append(adapter(model))
    assert all(torch.allclose(results[0][k], results[1][k], atol=1e-5) for k in results[0])


def test_long_rows_are_left_out_of_training(tokenizer, rows, capsys):
    run = ft.finetune(
        adapted(),
        tokenizer,
        [*rows[:4], chat("x", "y" * 200)],
        **{**SETTINGS, "steps": 1},
        max_length=100,
    )
    assert (
        run.tokens == tokens_in(rows[:4], tokenizer)
        and "left out 1 of 5" in capsys.readouterr().out
    )


# --- the artifact ---------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(folder, adapter, run) of one uninterrupted run of ten steps."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("run") / "whole"
    model = adapted()
    run = ft.finetune(
        model, byte_tokenizer(), ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=folder
    )
    return folder, adapter(model), run


ROWS = [chat(f"Say {w}{i}.", f"{w}{i}") for i, w in enumerate(["ab", "cde", "f", "gh"] * 6)]


def test_the_adapter_in_the_folder_is_the_trained_one(finished):
    folder, trained, run = finished
    assert (
        equal(adapter(ft.load_adapter(llama(layers=1), folder / "adapter")), trained)
        and run.output_dir == folder
    )


def test_manifest(finished):
    folder, _, run = finished
    manifest = json.loads((folder / "manifest.json").read_text())
    want = {
        "data": fingerprint(ROWS),
        "eval_data": fingerprint(ROWS[:4]),
        "rows": 24,
        "steps": 10,
        "learning_rate": 1e-2,
        "batch_size": 4,
        "seed": 0,
    }
    assert {k: manifest[k] for k in want} == want
    assert (
        manifest["adapter"]["r"] == 2
        and manifest["adapter"]["target_modules"] == "all-linear"
        and "base" in manifest
    )
    metrics = manifest["metrics"]
    assert (
        metrics["final_loss"] == run.final_loss
        and metrics["eval_loss"] == run.eval_history[-1]["eval_loss"]
    )
    assert metrics["tokens"] == run.tokens
    assert manifest["versions"]["torch"] == torch.__version__ or torch.__version__.startswith(
        manifest["versions"]["torch"]
    )
    assert set(manifest["versions"]) == {"torch", "transformers", "tokenizers", "ftlib"}


def test_checkpoints_hold_the_adapter_and_no_base_weight(finished):
    folder, trained, _ = finished
    checkpoints = sorted(p.name for p in folder.glob("checkpoint-*"))
    assert checkpoints == ["checkpoint-10", "checkpoint-9"]  # the last two are kept
    for name in checkpoints:
        names = {p.name for p in (folder / name).iterdir()}
        assert {
            "adapter_config.json",
            "adapter_model.safetensors",
            "optimizer.pt",
            "scheduler.pt",
            "complete",
        } <= names
        assert not {"model.safetensors", "pytorch_model.bin"} & names
        with safe_open(folder / name / "adapter_model.safetensors", "pt") as file:
            saved = list(file.keys())
        assert len(saved) == len(trained) and all("lora_" in k for k in saved)
    assert not list(folder.rglob("*.tmp"))


def test_finishing_twice_returns_at_once_with_the_same_adapter(finished, tokenizer, monkeypatch):
    folder, trained, run = finished
    manifest = json.loads((folder / "manifest.json").read_text())
    monkeypatch.setattr(
        trainer_module.SFTTrainer, "training_step", lambda *a, **k: pytest.fail("it trained again")
    )
    model = adapted()
    again = ft.finetune(model, tokenizer, ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=folder)
    assert (
        equal(adapter(model), trained) and again.resumed_from == 10 and again.history == run.history
    )
    assert equal(adapter(ft.load_adapter(llama(layers=1), folder / "adapter")), trained)
    after = json.loads((folder / "manifest.json").read_text())
    assert after == manifest  # the seconds of the real run, not those of coming back


# --- killed, and going on -------------------------------------------------------------------------
def train_until_killed(where: str, folder: Path) -> None:
    """For a process of its own: dies in step 8, or with its second checkpoint half written."""
    step = trainer_module.SFTTrainer.training_step
    save = active.save_adapter

    def kill_in_step(self, *args, **kwargs):
        if self.state.global_step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, *args, **kwargs)

    def kill_in_save(model, path):
        saved = save(model, path)
        if "checkpoint-6" in str(path):
            (saved / "adapter_model.safetensors").write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
        return saved

    if where == "step":
        trainer_module.SFTTrainer.training_step = kill_in_step
    else:
        active.save_adapter = kill_in_save
    ft.finetune(
        adapted(), byte_tokenizer(), ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=folder
    )


@pytest.mark.parametrize("where, newest", [("step", 6), ("save", 3)])
def test_kill_9_and_starting_again_ends_in_the_same_adapter_bit_for_bit(
    where, newest, finished, tokenizer, tmp_path
):
    """A process of its own dies from SIGKILL: between two steps, or with its second checkpoint half
    written.
    """
    folder = tmp_path / "run"
    assert exit_code_of_a_child(lambda: train_until_killed(where, folder)) == -signal.SIGKILL
    assert (
        not (folder / "adapter").exists()
        and (folder / "checkpoint-6").is_dir()
        and not (folder / "checkpoint-9").exists()
    )
    assert folder_module.last_checkpoint(folder).name == f"checkpoint-{newest}"
    model = adapted(seed=5)  # another start: all that matters comes from the checkpoint
    run = ft.finetune(model, tokenizer, ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=folder)
    _, trained, whole = finished
    assert run.resumed_from == newest and equal(adapter(model), trained)
    assert [e["loss"] for e in run.history] == [e["loss"] for e in whole.history]
    assert run.eval_history == whole.eval_history and run.tokens == whole.tokens
    assert (
        run.tokens_per_second < run.tokens / run.seconds
    )  # only the tokens of this session count for its speed
    assert equal(adapter(ft.load_adapter(llama(layers=1), folder / "adapter")), trained)


def test_a_half_written_newest_checkpoint_is_ignored(finished, tokenizer, tmp_path):
    """checkpoint-10 lost its mark and its weights: the run goes on from 9."""
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / "checkpoint-10" / "complete").unlink()
    (folder / "checkpoint-10" / "adapter_model.safetensors").write_bytes(b"")
    model = adapted()
    run = ft.finetune(model, tokenizer, ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=folder)
    assert run.resumed_from == 9 and equal(adapter(model), finished[1])


# --- refusals -------------------------------------------------------------------------------------
CHANGES = {
    "steps": {"steps": 11},
    "learning_rate": {"learning_rate": 1e-3},
    "batch_size": {"batch_size": 8},
    "seed": {"seed": 1},
    "schedule": {"schedule": "linear"},
    "warmup": {"warmup": 0.5},
    "weight_decay": {"weight_decay": 0.1},
    "accumulate": {"accumulate": 2},
    "max_length": {"max_length": 512},
    "neftune_alpha": {"neftune_alpha": 5.0},
    "eval_data": {"eval_rows": ROWS[:5]},
}


@pytest.mark.parametrize("key", [*CHANGES, "data", "adapter", "full"])
def test_other_settings_in_the_same_folder_are_refused_by_name(key, finished, tokenizer):
    folder = finished[0]
    before = sorted(p for p in finished[0].rglob("*"))
    model = (
        llama(layers=1).requires_grad_(True)
        if key == "full"
        else adapted(r=3 if key == "adapter" else 2)
    )
    data = [*ROWS[1:], ROWS[0]] if key == "data" else ROWS
    with pytest.raises(
        ft.RunError, match=f"{folder}.*{'adapter' if key == 'full' else key}: .*output_dir"
    ):
        ft.finetune(
            model,
            tokenizer,
            data,
            **{**SETTINGS, "eval_rows": ROWS[:4], **CHANGES.get(key, {})},
            output_dir=folder,
        )
    assert sorted(p for p in finished[0].rglob("*")) == before


def test_another_base_in_the_same_folder_is_refused(finished, tokenizer):
    model = adapted()
    model.config._name_or_path = "org/other"
    with pytest.raises(ft.RunError, match="base: '' there, 'org/other' now"):
        ft.finetune(model, tokenizer, ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=finished[0])


def test_what_may_change_between_two_sessions(finished, tokenizer):
    """How often one logs and saves is not part of the result."""
    ft.finetune(
        adapted(),
        tokenizer,
        ROWS,
        **{**SETTINGS, "save_steps": 5, "log_steps": 2},
        eval_rows=ROWS[:4],
        output_dir=finished[0],
    )


def test_a_folder_with_something_else_is_left_alone(finished, tokenizer, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ft.RunError, match="not empty"):
        ft.finetune(adapted(), tokenizer, ROWS, **SETTINGS, output_dir=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(ft.RunError, match="not empty and resume=False"):
        ft.finetune(
            adapted(),
            tokenizer,
            ROWS,
            **SETTINGS,
            eval_rows=ROWS[:4],
            output_dir=finished[0],
            resume=False,
        )


def test_damaged_settings_are_refused_in_words(finished, tokenizer, tmp_path):
    folder = shutil.copytree(finished[0], tmp_path / "run")
    (folder / "settings.json").write_text("{")
    with pytest.raises(ft.RunError, match=r"settings\.json"):
        ft.finetune(adapted(), tokenizer, ROWS, **SETTINGS, eval_rows=ROWS[:4], output_dir=folder)


def test_nothing_to_train(tokenizer, rows, model, tmp_path):
    with pytest.raises(ft.RunError, match="add_lora"):
        ft.finetune(
            model.requires_grad_(False), tokenizer, rows, **SETTINGS, output_dir=tmp_path / "x"
        )
    with pytest.raises(DataError, match="no rows"):
        ft.finetune(adapted(), tokenizer, [], **SETTINGS, output_dir=tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "option",
    [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"learning_rate": float("nan")}],
    ids=str,
)
def test_bad_settings(option, tokenizer, rows):
    with pytest.raises(ft.RunError, match=next(iter(option))):
        ft.finetune(adapted(), tokenizer, rows, **{**SETTINGS, **option})


def test_no_folder_is_written_without_output_dir(tokenizer, rows, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ft.finetune(adapted(), tokenizer, rows, **{**SETTINGS, "steps": 1})
    assert list(tmp_path.iterdir()) == []


def test_progress_in_a_terminal(tokenizer, rows, capsys):
    ft.finetune(adapted(), tokenizer, rows, **{**SETTINGS, "steps": 2, "show": True})
    err = capsys.readouterr().err
    assert "2/2" in err and "loss " in err and "tokens/s" in err


def test_progress_in_a_notebook_is_one_line_that_is_rewritten(tokenizer, rows, monkeypatch):
    import IPython.display

    shown = []

    class Handle:
        def update(self, html):
            shown.append(html.data)

    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(
        IPython.display, "display", lambda html, display_id: shown.append(html.data) or Handle()
    )
    run = ft.finetune(adapted(), tokenizer, rows, **{**SETTINGS, "steps": 4, "show": True})
    assert (
        shown[0] == "starting …"
        and "step 4/4" in shown[-1]
        and f"loss {run.final_loss:.3f}" in shown[-1]
    )
    assert "tokens/s" in shown[-1] and "<svg" in shown[-1] and len(shown) < 8
