"""Every preference loss against TRL's trainers, on the same tiny model and rows in float64: tokens,
loss and adapter gradients.
"""

import os

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import pytest
import torch
from conftest import llama, randomize
from datasets import Dataset
from peft import LoraConfig, get_peft_model

import ftlib as ft
from ftlib.batches.collate import KTOCollator, PairCollator
from ftlib.batches.preference import encode_binary, encode_pairs, mismatch
from ftlib.training.loss_spec import LOSS_SPECS
from ftlib.training.options import TrainOptions
from ftlib.training.preference_trainer import PreferenceTrainer


def turns(role: str, text: str) -> list[dict]:
    return [{"role": role, "content": text}]


PAIRS = [
    {"prompt": turns("user", p), "chosen": turns("assistant", c), "rejected": turns("assistant", r)}
    for p, c, r in (
        ("How many?", "Seven.", "I do not know"),
        ("Who is it then?", "Ada", "Nobody at all."),
        ("Say b", "bb", "b"),
        ("Why", "So that it works", "Eh"),
    )
]
THUMBS = [
    {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
    for row, side in zip(PAIRS, ("chosen", "rejected", "chosen", "rejected"), strict=True)
]


def ours():
    """A float64 Llama with a random adapter."""
    torch.manual_seed(0)
    model = llama(dtype=torch.float64, tie_word_embeddings=False, initializer_range=0.3)
    return randomize(ft.add_lora(model, r=2), scale=0.3)


def theirs(model):
    """The same model with the same adapter in PEFT."""
    base = llama(dtype=torch.float64, tie_word_embeddings=False, initializer_range=0.3)
    config = LoraConfig(r=2, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(base, config, autocast_adapter_dtype=False).double()
    with torch.no_grad():
        for name, layer in ft.lora_layers(model).items():
            other = peft.get_submodule(f"base_model.model.{name}")
            other.lora_A["default"].weight.copy_(layer.lora_A)
            other.lora_B["default"].weight.copy_(layer.lora_B)
    return peft


def trl_trainer(kind: str, peft, tokenizer, rows, tmp_path, **options):
    if kind == "dpo":
        from trl import DPOConfig as Config
        from trl import DPOTrainer as Trainer
    elif kind == "kto":
        from trl import KTOConfig as Config
        from trl import KTOTrainer as Trainer
    elif kind == "orpo":
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer
    else:
        from trl.experimental.cpo import CPOConfig as Config
        from trl.experimental.cpo import CPOTrainer as Trainer
    config = Config(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        per_device_train_batch_size=len(rows),
        gradient_checkpointing=False,
        disable_tqdm=True,
        **options,
    )
    return Trainer(
        model=peft, args=config, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


def reference_is_base(trainer) -> None:
    """TRL keeps a copy "ref" of the adapter that a model comes with; an empty one is the base
    model.
    """
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if "lora_B.ref" in name:
                p.zero_()


def our_loss(loss: str, model, batch, adapter_off: bool = False, **options) -> torch.Tensor:
    args = TrainOptions(
        steps=1, learning_rate=1e-3, batch_size=4, warmup=0, precision="fp32"
    ).trainer_arguments(model, evaluates=False)
    trainer = PreferenceTrainer(
        model, loss, LOSS_SPECS[loss].options | options, adapter_off, args=args, train_dataset=[]
    )
    return trainer.row_losses(model, batch)[0].mean()


def assert_same(model, peft, mine, other, tolerance=5e-6) -> None:
    """TRL's fused head and its KTO compute in fp32, whatever the model's dtype: that is what the
    tolerance is for. Processors differ in the order of their sums: 3e-6 of the largest gradient was
    seen on one with AMX.
    """
    mine.backward()
    other.backward()
    assert mine.item() == pytest.approx(other.item(), rel=tolerance)
    for name, layer in ft.lora_layers(model).items():
        twin = peft.get_submodule(f"base_model.model.{name}")
        for part in ("lora_A", "lora_B"):
            a = getattr(layer, part).grad
            b = getattr(twin, part)["default"].weight.grad
            assert a.abs().max() > 1e-4
            torch.testing.assert_close(
                a, b.to(a.dtype), rtol=tolerance, atol=2 * tolerance * float(b.abs().max())
            )


def concatenated(items, tokenizer) -> dict:
    """What TRL's ORPO and CPO collate, of our tokens."""
    batch = PairCollator(tokenizer.pad_token_id, share_prefix=False)(items)
    return {
        f"{side}_{name}": part
        for name in ("input_ids", "attention_mask", "labels")
        for side, part in zip(("chosen", "rejected"), batch[name].chunk(2), strict=True)
    }


@pytest.mark.parametrize("share", [False, True], ids=["twice", "shared"])
def test_dpo(share, tokenizer, tmp_path):
    """The reference is the adapter off, in both."""
    model = ours()
    items = encode_pairs(tokenizer, PAIRS)
    trainer = trl_trainer("dpo", theirs(model), tokenizer, PAIRS, tmp_path, beta=0.3)
    assert [{k: row[k] for k in items[0]} for row in trainer.train_dataset] == items
    reference_is_base(trainer)
    other = trainer.compute_loss(
        trainer.model, trainer.data_collator([dict(item) for item in items])
    )
    mine = our_loss(
        "dpo", model, PairCollator(tokenizer.pad_token_id, share)(items), adapter_off=True, beta=0.3
    )
    assert_same(model, trainer.model, mine, other)


def test_kto(tokenizer, tmp_path):
    """z0 is above 0 here, so that it is seen."""
    model = ours()
    items = mismatch(encode_binary(tokenizer, THUMBS), 4)
    options = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    trainer = trl_trainer("kto", theirs(model), tokenizer, THUMBS, tmp_path, **options)
    rows = [
        {("KL_completion_ids" if k == "kl_completion_ids" else k): v for k, v in item.items()}
        for item in items
    ]
    assert [{k: row[k] for k in rows[0]} for row in trainer.train_dataset] == rows
    reference_is_base(trainer)
    other = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    mine = our_loss(
        "kto", model, KTOCollator(tokenizer.pad_token_id)(items), adapter_off=True, **options
    )
    assert trainer._metrics["train"]["kl"][0] > 0
    assert_same(model, trainer.model, mine, other)


@pytest.mark.parametrize("share", [False, True], ids=["twice", "shared"])
def test_simpo(share, tokenizer, tmp_path):
    """TRL's γ is β times ftlib's ratio; cpo_alpha=0 leaves out the NLL that CPO adds."""
    model = ours()
    items = encode_pairs(tokenizer, PAIRS)
    trainer = trl_trainer(
        "simpo",
        theirs(model),
        tokenizer,
        PAIRS,
        tmp_path,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=2.5,
        simpo_gamma=1.0,
    )
    other, _ = trainer.get_batch_loss_metrics(trainer.model, concatenated(items, tokenizer))
    mine = our_loss(
        "simpo",
        model,
        PairCollator(tokenizer.pad_token_id, share)(items),
        beta=2.5,
        gamma_beta_ratio=0.4,
    )
    assert_same(model, trainer.model, mine, other)


@pytest.mark.parametrize("share", [False, True], ids=["twice", "shared"])
def test_orpo(share, tokenizer, tmp_path):
    """TRL's NLL covers the prompt, and is a mean over the tokens of the batch. Its own
    log-probabilities and odds ratio, with the mean over each chosen answer in the place of that
    NLL, are ftlib's loss.
    """
    model = ours()
    items = encode_pairs(tokenizer, PAIRS)
    trainer = trl_trainer("orpo", theirs(model), tokenizer, PAIRS, tmp_path, beta=0.5)
    chosen, rejected, *_, nll = trainer.concatenated_forward(
        trainer.model, concatenated(items, tokenizer)
    )
    ratio = trainer.odds_ratio_loss(chosen, rejected)[0]
    other = -chosen.mean() - ratio.mean()
    mine = our_loss("orpo", model, PairCollator(tokenizer.pad_token_id, share)(items), beta=0.5)
    assert (
        abs(nll.item() + chosen.mean().item()) > 1e-2
    )  # the two NLLs differ, so that swapping them would be seen
    assert_same(model, trainer.model, mine, other)
