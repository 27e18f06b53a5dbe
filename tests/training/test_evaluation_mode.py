"""What an evaluation leaves behind: every module in the mode that it was in, and after a whole run
the model ready to answer.
"""

import pytest
from conftest import chat, llama
from preference_runs import PAIRS, trainer_of

import ftlib as ft
from ftlib.batches.collate import PairCollator, SFTCollator
from ftlib.batches.encode import encode_rows
from ftlib.batches.preference import encode_pairs
from ftlib.training import trainer as trainer_module
from ftlib.training.options import TrainOptions
from ftlib.training.preference_trainer import PreferenceTrainer
from ftlib.training.trainer import SFTTrainer

ROWS = [chat("a", "bc"), chat("d", "ef")]


def half_frozen():
    """A model that trains, but for its first block, which is kept in evaluation mode."""
    model = ft.add_lora(llama(layers=2), r=2, lora_dropout=0.5).train()
    model.model.layers[0].eval()
    return model


def modes(model) -> list[bool]:
    return [module.training for module in model.modules()]


def sft(tokenizer, model):
    """(a trainer, rows to evaluate on)"""
    options = TrainOptions(steps=1, learning_rate=1e-3, batch_size=4, precision="fp32")
    trainer = SFTTrainer(
        model=model,
        args=options.trainer_arguments(model, evaluates=False),
        data_collator=SFTCollator(tokenizer.pad_token_id),
    )
    return trainer, encode_rows(tokenizer, ROWS)


def dpo(tokenizer, model):
    trainer = trainer_of(model)
    trainer.data_collator = PairCollator(tokenizer.pad_token_id, share_prefix=False)
    return trainer, encode_pairs(tokenizer, PAIRS[:2])


@pytest.mark.parametrize("make", [sft, dpo])
def test_each_module_is_given_its_mode_back(make, tokenizer):
    model = half_frozen()
    trainer, rows = make(tokenizer, model)
    before = modes(model)
    first = trainer.evaluate(rows)["eval_loss"]
    assert modes(model) == before and True in before and False in before
    assert trainer.evaluate(rows)["eval_loss"] == first  # no dropout: twice the same


@pytest.mark.parametrize("make", [sft, dpo])
def test_also_where_the_evaluation_is_interrupted(make, tokenizer, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "answer_logps", interrupted)
    monkeypatch.setattr(PreferenceTrainer, "row_losses", interrupted)
    model = half_frozen()
    trainer, rows = make(tokenizer, model)
    before = modes(model)
    with pytest.raises(KeyboardInterrupt):
        trainer.evaluate(rows)
    assert modes(model) == before


def test_a_run_leaves_the_model_ready_to_answer(tokenizer):
    model = half_frozen()
    ft.finetune(model, tokenizer, ROWS, steps=1, learning_rate=1e-3, batch_size=2, show=False)
    assert not any(modes(model))
