"""The losses and advantages of reward models, RLOO and GRPO against TRL's trainers on a tiny model:
their own code is run, on the same rows or log-probabilities.
"""

import pytest
import torch
from conftest import llama
from transformers import LlamaForSequenceClassification

import ftlib as ft

pytest.importorskip("trl")
from datasets import Dataset

OPTIONS = {
    "use_cpu": True,
    "bf16": False,
    "report_to": [],
    "disable_tqdm": True,
    "gradient_checkpointing": False,
    "save_strategy": "no",
    "per_device_train_batch_size": 4,
}
PROMPTS = Dataset.from_list([{"prompt": text} for text in ("Say a", "Say b")] * 4)
MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]])


def test_the_reward_trainers_loss(tokenizer, tmp_path):
    from trl import RewardConfig, RewardTrainer

    config = llama(layers=1).config
    config.num_labels = 1
    model = LlamaForSequenceClassification(config)
    texts = [("How many?", "Seven.", "I do not know"), ("Say b", "bb", "b")]
    rows = [{"prompt": p, "chosen": c, "rejected": r, "margin": 0.3} for p, c, r in texts]
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(output_dir=str(tmp_path), **OPTIONS),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    batch = trainer.data_collator([{**row, "margin": 0.3} for row in trainer.train_dataset])
    loss, out = trainer.compute_loss(model, dict(batch), return_outputs=True)
    chosen, rejected = out.logits.squeeze(-1).chunk(2)
    mine = ft.reward_loss(chosen, rejected, batch["margin"]).mean()
    assert (chosen - rejected).abs().min() > 1e-4
    torch.testing.assert_close(mine, loss, rtol=1e-6, atol=0)


def some_length(completions, **_):
    """A reward of few values, so that groups of equal and of unequal scores come up."""
    return [float(len(text) % 5) for text in completions]


def policy_trainer(kind: str, tokenizer, folder, **options):
    if kind == "rloo":
        from trl import RLOOConfig as Config
        from trl import RLOOTrainer as Trainer
    else:
        from trl import GRPOConfig as Config
        from trl import GRPOTrainer as Trainer
    args = Config(
        output_dir=str(folder),
        num_generations=4,
        max_completion_length=6,
        max_steps=1,
        beta=0.0,  # another value has the reference loaded by the model's name
        **{**OPTIONS, **options},
    )
    return Trainer(
        model=llama(initializer_range=0.3),
        reward_funcs=some_length,
        args=args,
        train_dataset=PROMPTS,
        processing_class=tokenizer,
    )


def batch_of(trainer) -> tuple[dict, torch.Tensor]:
    """Rows of random tokens as TRL's trainers collate them, and their log-probabilities there."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(8, 280, (4, 7), generator=generator)
    inputs = {
        "prompt_ids": ids[:, :3],
        "prompt_mask": torch.ones(4, 3, dtype=torch.long),
        "completion_ids": ids[:, 3:],
        "completion_mask": MASK,
        "num_items_in_batch": MASK.sum(),
    }
    whole = torch.cat([inputs["prompt_mask"], MASK], 1)
    logps = trainer._get_per_token_logps_and_entropies(trainer.model, ids, whole, 4)[0]
    return inputs, logps


def near(logps: torch.Tensor, seed: int) -> torch.Tensor:
    """Log-probabilities of a policy not far off, so that some ratios are clipped and some not."""
    noise = torch.randn(logps.shape, generator=torch.Generator().manual_seed(seed))
    return logps.detach() + 0.2 * noise


ADVANTAGES = torch.tensor([1.5, -0.5, -2.0, 1.0])


def test_rloos_loss(tokenizer, tmp_path):
    """Whole answers' log-probabilities, one position a row, in `ppo_policy_loss`."""
    trainer = policy_trainer("rloo", tokenizer, tmp_path)
    inputs, logps = batch_of(trainer)
    old = (near(logps, 2) * MASK).sum(1)
    inputs |= {"old_logps": old, "advantages": ADVANTAGES}
    theirs = trainer._compute_loss(trainer.model, inputs)
    summed = (logps * MASK).sum(1)
    ratio = (summed - old).exp()
    assert (ratio < 0.8).any() or (ratio > 1.2).any()
    ones = torch.ones(4, 1)
    mine = ft.ppo_policy_loss(summed[:, None], old[:, None], ADVANTAGES[:, None], ones)
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_grpos_loss(tokenizer, tmp_path):
    """TRL's "bnpo", the mean over all tokens, with the paper's penalty, β times `kl_penalty`: TRL's
    default multiplies that by the ratio.
    """
    options = {"loss_type": "bnpo", "use_bias_correction_kl": False}
    trainer = policy_trainer("grpo", tokenizer, tmp_path, **options)
    trainer.beta = 0.3
    inputs, logps = batch_of(trainer)
    old = near(logps, 2)
    ref = near(logps, 3)
    inputs |= {"old_per_token_logps": old, "advantages": ADVANTAGES, "ref_per_token_logps": ref}
    trainer.current_gradient_accumulation_steps = 1
    theirs = trainer._compute_loss(trainer.model, inputs)
    each = ADVANTAGES[:, None].expand(4, 4)
    penalty = ft.kl_penalty(logps, ref, MASK)
    assert penalty > 1e-3
    mine = ft.ppo_policy_loss(logps, old, each, MASK) + 0.3 * penalty
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind, ours", [("rloo", ft.leave_one_out_advantages), ("grpo", ft.group_advantages)]
)
def test_advantages(kind, ours, tokenizer, tmp_path):
    """Those of a step that TRL's trainer took, from the scores that it gave."""
    trainer = policy_trainer(kind, tokenizer, tmp_path, temperature=3.0)
    trainer.train()
    scores = torch.tensor(list(trainer._logs["rewards"]["some_length"]))
    theirs = torch.tensor(list(trainer._logs["advantages"]))
    assert len(set(scores.tolist())) > 1
    torch.testing.assert_close(ours(scores, 4), theirs, rtol=1e-5, atol=1e-5)
