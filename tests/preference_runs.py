"""What the tests of preference training share: pairs, settings, a small adapted model, and its
log-probabilities by hand.
"""

import torch
from conftest import llama
from torch.nn.functional import log_softmax

import ftlib as ft
from ftlib.training.loss_spec import LOSS_SPECS
from ftlib.training.options import TrainOptions
from ftlib.training.preference_trainer import PreferenceTrainer

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
    prompt = item["prompt_ids"]
    completion = item[side]
    logp = log_softmax(model(torch.tensor([prompt + completion])).logits[0].double(), -1)
    return sum(logp[len(prompt) - 1 + t, token] for t, token in enumerate(completion))


def trainer_of(model, loss="dpo", adapter_off=True, **options):
    args = TrainOptions(
        steps=1, learning_rate=1e-3, batch_size=4, warmup=0, precision="fp32"
    ).trainer_arguments(model, evaluates=False)
    return PreferenceTrainer(
        model, loss, LOSS_SPECS[loss].options | options, adapter_off, args=args, train_dataset=[]
    )
