"""What a run may be asked for: every number is checked, by name, before anything is loaded; and the
loss that is reported is not that of one batch.
"""

import math

import pytest
import torch
from conftest import chat, llama

import ftlib as ft
from ftlib.training.live import recent_loss
from ftlib.training.options import TrainOptions

COUNTS = ("steps", "batch_size", "accumulate", "max_length", "save_steps", "log_steps")
BAD_COUNTS = (0, -1, 1.5, True, "3", math.nan, None)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", BAD_COUNTS)
def test_counts(name, value):
    with pytest.raises(ft.RunError, match=f"{name}={value!r}: must be a whole number"):
        TrainOptions(**{"steps": 3, "learning_rate": 1e-3, "batch_size": 2, name: value})


@pytest.mark.parametrize(
    "name, value",
    [
        ("learning_rate", 0),
        ("learning_rate", -1e-4),
        ("learning_rate", math.nan),
        ("learning_rate", math.inf),
        ("learning_rate", "1e-4"),
        ("weight_decay", -0.1),
        ("weight_decay", math.nan),
        ("eval_steps", 0),
        ("seed", -1),
        ("seed", 2**32),
        ("seed", 0.5),
        ("warmup", -0.1),
        ("warmup", "0.1"),
        ("warmup", math.nan),
        ("warmup", True),
        ("schedule", "cosin"),
        ("optimizer", "adam"),
        ("precision", "bf8"),
        ("control_tokens", "split"),
        ("control_tokens", None),
    ],
)
def test_other_options(name, value):
    given = {"steps": 3, "learning_rate": 1e-3, "batch_size": 2, name: value}
    with pytest.raises(ft.RunError, match=f"{name}={value!r}"):
        TrainOptions(**given)


def test_warmup_in_steps_is_told_what_to_pass():
    """A share is meant: 100 of 1,000 steps are 0.1. Taken as a share of 1 it would train on the
    smallest learning rates alone.
    """
    given = {"learning_rate": 1e-3, "batch_size": 2, "steps": 1000}
    with pytest.raises(ft.RunError, match=r"100 of 1000 steps pass warmup=0\.1"):
        TrainOptions(**given, warmup=100)
    with pytest.raises(ft.RunError, match="of at least 0 and below 1"):
        TrainOptions(**given, warmup=5000)
    assert TrainOptions(**given, warmup=0.1).warmup == 0.1


def test_bad_numbers_are_named_before_the_model_is_looked_at(tokenizer):
    for train in (ft.finetune, ft.prefer):
        with pytest.raises(ft.RunError, match="accumulate=0"):
            train(None, tokenizer, [], steps=1, learning_rate=1e-3, accumulate=0)


def entries(*losses, every=1):
    return [{"step": every * (i + 1), "loss": loss} for i, loss in enumerate(losses)]


def test_the_recent_loss_by_hand():
    """Of 8 steps the last quarter counts, two: (3 + 4)/2. Entries of five steps each, of which the
    window of 20/4 = 5 takes the last alone; a window that cuts an entry weighs its part: of 40
    steps the last 10 are 4 of the last entry (steps 37 to 40) and 6 of the one before.
    """
    assert recent_loss([], 8) is None
    assert recent_loss(entries(9, 9, 9, 9, 9, 9, 3, 4), 8) == 3.5
    assert recent_loss(entries(9, 8, 7, 6, every=5), 20) == 6
    uneven = [{"step": 30, "loss": 5.0}, {"step": 36, "loss": 2.0}, {"step": 40, "loss": 1.0}]
    assert recent_loss(uneven, 40) == pytest.approx((6 * 2.0 + 4 * 1.0) / 10)
    long = entries(*[1.0] * 350, *[2.0] * 50)
    assert recent_loss(long, 400) == 2  # never more than 50 steps


@pytest.mark.parametrize("steps, log_steps", [(1, 5), (3, 5), (7, 5), (10, 5)])
def test_the_last_step_is_always_in_the_history(tokenizer, steps, log_steps):
    """A run below the logging interval has a loss, and none has two of the last step."""
    torch.manual_seed(0)
    model = ft.add_lora(llama(layers=1), r=2)
    rows = [chat("what is that", "a house"), chat("and this", "a tree")]
    run = ft.finetune(
        model,
        tokenizer,
        rows,
        steps=steps,
        learning_rate=1e-3,
        batch_size=2,
        log_steps=log_steps,
        show=False,
    )
    logged = [entry["step"] for entry in run.history]
    assert logged == sorted({*range(log_steps, steps + 1, log_steps), steps})
    assert run.final_loss == run.history[-1]["loss"] or steps > 4


def test_a_generator_of_rows_is_as_good_as_a_list(tokenizer, tmp_path):
    """It is gone over for the tokens, the fingerprint and the count: the run is the list's."""
    rows = [chat("what is that", "a house"), chat("and this", "a tree")]
    given = {"steps": 2, "learning_rate": 1e-3, "batch_size": 2, "show": False}
    losses = []
    for number, some in enumerate((rows, (row for row in rows))):
        torch.manual_seed(0)
        model = ft.add_lora(llama(layers=1), r=2)
        folder = tmp_path / str(number)
        run = ft.finetune(model, tokenizer, some, **given, output_dir=folder)
        losses.append((run.final_loss, (folder / "settings.json").read_text()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("rows", ["a text", {"messages": []}, 3])
def test_what_is_no_rows(tokenizer, rows):
    model = ft.add_lora(llama(layers=1), r=2)
    for train in (ft.finetune, ft.prefer):
        with pytest.raises(ft.RunError, match=f"rows is a {type(rows).__name__}: pass a list"):
            train(model, tokenizer, rows, steps=1, learning_rate=1e-3)
