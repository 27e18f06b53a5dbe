"""Distillation: its loss by hand, on given and on own answers; learning, resuming, refusals."""

import json

import pytest
import torch
from conftest import assert_untouched, chat, llama, snapshot
from interrupted import interrupt_at
from preference_runs import SETTINGS, adapted, equal
from torch.nn.functional import kl_div, log_softmax

import ftlib as ft
from ftlib.batches.encode import encode_rows
from ftlib.training.distil import METRICS, answer_start
from ftlib.training.sampling import sample_ids


def teacher_model(seed=7):
    return llama(layers=2, seed=seed, initializer_range=0.3)


def learn(model, tokenizer, rows, teacher=None, **options):
    settings = {**SETTINGS, "max_new_tokens": 6, **options}
    return ft.distil(model, tokenizer, teacher or teacher_model(), rows, **settings)


def hand_loss(student, teacher, rows: list[tuple[list, list]]) -> float:
    """Mean over all answers' tokens of KL(teacher‖student), a row at a time, without padding."""
    total = 0.0
    count = 0
    for prompt, answer in rows:
        ids = torch.tensor([prompt + answer])
        span = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        with torch.no_grad():
            p = log_softmax(teacher(ids).logits[0, span].double(), -1)
            q = log_softmax(student(ids).logits[0, span].double(), -1)
        total += kl_div(q, p, log_target=True, reduction="sum").item()
        count += len(answer)
    return total / count


def split_rows(tokenizer, rows) -> list[tuple[list, list]]:
    parts = []
    for row in encode_rows(tokenizer, rows):
        start = answer_start(row["labels"])
        parts.append((row["input_ids"][:start], row["input_ids"][start:]))
    return parts


ROWS = [chat("a", "b"), chat("abcdef", "b" * 12), chat("k", "7 x"), chat("kk", "77")]
ONE_STEP = {"steps": 1, "learning_rate": 1e-9}


def test_the_first_loss_by_hand(tokenizer):
    """Rows of unequal length, padded; the evaluation is the loss of plain fine-tuning."""
    student = adapted(lora_dropout=0.0)
    want = hand_loss(student, teacher_model(), split_rows(tokenizer, ROWS))
    run = learn(student, tokenizer, ROWS, **ONE_STEP, eval_rows=ROWS)
    plain = ft.finetune(
        student, tokenizer, ROWS, batch_size=4, show=False, eval_rows=ROWS, **ONE_STEP
    )
    first = run.history[0]
    assert want > 0.1 and first["loss"] == pytest.approx(want, rel=1e-4)
    assert set(first) == {"step", "loss", "learning_rate", *METRICS}
    lengths = [len(answer) for _, answer in split_rows(tokenizer, ROWS)]
    assert (first["own_answers"], first["length"]) == (0, sum(lengths) / 4)
    assert run.eval_history[0]["eval_loss"] == pytest.approx(plain.eval_history[0]["eval_loss"])


def test_the_first_loss_on_own_answers(tokenizer, monkeypatch):
    """The prompts are the rows', the answers those that were drawn, the rows' own are not used."""
    drawn = []

    def watched(model, tok, prompts, **options):
        answers = sample_ids(model, tok, prompts, **options)
        drawn.extend(zip(prompts, answers, strict=True))
        return answers

    monkeypatch.setattr("ftlib.training.distil.sample_ids", watched)
    student = adapted(lora_dropout=0.0)
    run = learn(student, tokenizer, ROWS, **ONE_STEP, on_policy=1.0)
    given = split_rows(tokenizer, ROWS)
    assert sorted(prompt for prompt, _ in drawn) == sorted(prompt for prompt, _ in given)
    assert all(1 <= len(answer) <= 6 for _, answer in drawn)
    want = hand_loss(student, teacher_model(), drawn)
    assert run.history[0]["loss"] == pytest.approx(want, rel=1e-4)
    assert run.history[0]["own_answers"] == 1


def test_an_answer_starts_where_the_last_run_of_labels_does():
    """Of two turns the second's; what a template writes after it does not count."""
    assert answer_start([-100, 3, 4, -100, -100, 5, 6, -100]) == 5
    assert answer_start([-100, 5]) == 1


@pytest.mark.parametrize("divergence", ["forward_kl", "reverse_kl", "jsd"])
def test_it_learns_from_the_teacher(divergence, tokenizer, rows):
    teacher = teacher_model().train()
    before = snapshot(teacher)
    student = llama(layers=1, initializer_range=0.3).requires_grad_(True)
    run = learn(student, tokenizer, rows, teacher, divergence=divergence, steps=30, on_policy=0.5)
    losses = [entry["loss"] for entry in run.history]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert 0.2 < sum(entry["own_answers"] for entry in run.history) / 30 < 0.8
    assert_untouched(teacher, before)
    assert teacher.training


def test_a_resumed_run_equals_an_uninterrupted_one(tokenizer, rows, tmp_path, monkeypatch):
    options = {"on_policy": 0.5, "steps": 8, "divergence": "jsd"}
    model = adapted()
    run = learn(model, tokenizer, rows, **options, output_dir=tmp_path / "straight")
    assert {entry["own_answers"] for entry in run.history[:4]} == {0, 1}
    interrupt_at(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        learn(adapted(), tokenizer, rows, **options, output_dir=tmp_path / "run")
    monkeypatch.undo()
    again = adapted()
    resumed = learn(again, tokenizer, rows, **options, output_dir=tmp_path / "run")
    assert resumed.resumed_from == 4 and resumed.history == run.history
    assert equal(dict(model.named_parameters()), dict(again.named_parameters()))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["kind"] == "distil" and manifest["on_policy"] == 0.5
    with pytest.raises(ft.RunError, match=r"\(teacher: "):
        other = teacher_model(seed=8)
        learn(adapted(), tokenizer, rows, other, **options, output_dir=tmp_path / "run")


def test_a_loss_of_one_s_own(tokenizer, tmp_path):
    """It gets the logits of the scored positions and the temperature: made of them, the forward KL
    is ftlib's. It is in the manifest by its name.
    """
    seen = []

    def own(student, teacher, temperature):
        seen.append((student.shape, teacher.requires_grad, temperature))
        hot = (log_softmax(student / temperature, -1), log_softmax(teacher / temperature, -1))
        summed = kl_div(*hot, log_target=True, reduction="sum")
        return temperature**2 * summed / len(student)

    given = {**ONE_STEP, "temperature": 2.0}
    want = learn(adapted(lora_dropout=0.0), tokenizer, ROWS, **given)
    model = adapted(lora_dropout=0.0)
    run = learn(model, tokenizer, ROWS, **given, loss_function=own, output_dir=tmp_path)
    assert run.history[0]["loss"] == pytest.approx(want.history[0]["loss"], rel=1e-5)
    tokens = sum(len(answer) for _, answer in split_rows(tokenizer, ROWS))
    size = model.get_output_embeddings().weight.shape[0]
    assert seen == [((tokens, size), False, 2.0)]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["loss_function"].endswith("own")


def test_refusals(tokenizer, rows):
    model = adapted()
    with pytest.raises(ft.RunError, match="teacher is the model itself"):
        learn(model, tokenizer, rows, model)
    with pytest.raises(ft.RunError, match="teacher has 300 tokens, the model 280"):
        learn(model, tokenizer, rows, llama(vocab=300))
    with pytest.raises(ft.RunError, match=r"on_policy=1\.5"):
        learn(model, tokenizer, rows, on_policy=1.5)
    with pytest.raises(ft.RunError, match="divergence='kl'"):
        learn(model, tokenizer, rows, divergence="kl")
    with pytest.raises(ft.RunError, match="temperature=0"):
        learn(model, tokenizer, rows, temperature=0)


def test_batches_that_one_step_accumulates_draw_answers_of_their_own(tokenizer, monkeypatch):
    """With one stream for all of them, equal prompts would have equal answers."""
    seeds = []

    def watched(*args, seed, **options):
        seeds.append(seed)
        return sample_ids(*args, seed=seed, **options)

    monkeypatch.setattr("ftlib.training.distil.sample_ids", watched)
    rows = [chat("a", "b")] * 8
    options = {"steps": 2, "learning_rate": 1e-9, "batch_size": 4, "accumulate": 2}
    learn(adapted(), tokenizer, rows, **options, on_policy=1.0)
    assert len(set(seeds)) == 4
    apart = seeds[0], seeds[2]
    seeds.clear()
    learn(adapted(), tokenizer, rows, **{**options, "accumulate": 1}, on_policy=1.0)
    assert tuple(seeds) == apart
