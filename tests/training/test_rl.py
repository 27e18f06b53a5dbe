"""PPO, RLOO and GRPO on prompts: a step by hand, learning, resuming, what is recorded, refusals."""

import json
import math

import pytest
import torch
from conftest import llama, randomize
from interrupted import interrupt_at
from preference_runs import adapted, adapter, equal
from torch.nn.functional import log_softmax

import ftlib as ft
from ftlib.core.errors import DataError
from ftlib.training.measured import load_head, scalar_head
from ftlib.training.options import TrainOptions
from ftlib.training.policy_trainer import (
    METHODS,
    METRICS,
    Objective,
    PolicyMaths,
    PolicyTrainer,
)
from ftlib.training.samplers import RolloutSampler

PROMPTS = [{"prompt": f"Say {letter}", "letter": letter} for letter in "abcdefgh"]
SETTINGS = {
    "steps": 6,
    "learning_rate": 1e-2,
    "batch_size": 8,
    "group_size": 4,
    "epochs": 2,
    "max_new_tokens": 5,
    "save_steps": 1,  # rounded up to 2, a rollout
    "log_steps": 1,
    "show": False,
}


def small_letters(rows, answers):
    """How many small letters an answer has."""
    return [sum("a" <= letter <= "z" for letter in answer) for answer in answers]


def letters_of_row(rows, answers):
    return [answer.count(row["letter"]) for row, answer in zip(rows, answers, strict=True)]


def learn(model, tokenizer, reward=small_letters, **options):
    return ft.reinforce(model, tokenizer, PROMPTS, reward, **{**SETTINGS, **options})


# --- a step by hand -------------------------------------------------------------------------------
def trainer_of(model, tokenizer, method: str, **options) -> PolicyTrainer:
    """A trainer before its first step, with 4 answers to each of 2 prompts."""
    args = TrainOptions(
        steps=1, learning_rate=1e-3, batch_size=8, warmup=0, precision="fp32"
    ).trainer_arguments(model, evaluates=False)
    items = []
    for i, row in enumerate(PROMPTS[:2]):
        messages = [{"role": "user", "content": row["prompt"]}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        items.append({"index": i, "row": row, "prompt_ids": ids})
    settings = {"method": method, "max_new_tokens": 5, **options}
    return PolicyTrainer(
        model,
        objective=Objective(small_letters, **settings),
        tokenizer=tokenizer,
        watch={},
        head=random_head(model) if method == "ppo" else None,
        args=args,
        train_dataset=items,
    )


def random_head(model):
    head = scalar_head(model)
    with torch.no_grad():
        head.weight.normal_(std=0.3, generator=torch.Generator().manual_seed(5))
    return head


def hand_logps(model, batch, row: int) -> torch.Tensor:
    """Log-probabilities of one answer's tokens, by itself, without padding."""
    length = int(batch["attention_mask"][row].sum())
    ids = batch["input_ids"][row, :length]
    scored = batch["labels"][row, 1:length] != -100
    logps = log_softmax(model(ids[None]).logits[0, :-1].double(), -1)
    return logps.gather(1, ids[1:, None])[:, 0][scored]


def gradients(model) -> list[torch.Tensor]:
    found = [p.grad.clone() for n, p in model.named_parameters() if "lora_" in n]
    model.zero_grad()
    return found


INDICES = {"index": torch.tensor([0] * 4 + [1] * 4)}


@pytest.mark.parametrize("method", METHODS)
def test_the_first_gradient_is_the_policy_gradient(method, tokenizer):
    """Of answers just drawn the ratio is 1: the gradient is that of -Σ A·log π over the tokens (PPO
    and GRPO: their mean; RLOO: the mean over answers of their sums), with advantages from the
    scores and the log-ratios to the base by hand. GRPO's penalty adds kl_coef·(1 - e^d)·∇log π, the
    mean over the tokens. Llama's norms round to fp32, hence the tolerance.
    """
    model = randomize(adapted(lora_dropout=0.4, dtype=torch.float64), scale=0.3).train()
    options = {"kl_coef": 0.3, "gamma": 0.9, "lam": 0.8}
    trainer = trainer_of(model, tokenizer, method, **options)
    trainer.compute_loss(model, INDICES).backward()
    have = gradients(model)
    rollout = trainer.rollout
    model.eval()
    texts = [
        tokenizer.decode(ids[rollout.mask[i].roll(1)], skip_special_tokens=True)
        for i, ids in enumerate(rollout.batch["input_ids"])
    ]
    scores = torch.tensor(small_letters(None, texts), dtype=torch.float64)
    assert len(set(scores.tolist())) > 1
    logps = [hand_logps(model, rollout.batch, row) for row in range(8)]
    with torch.no_grad(), ft.disable_adapter(model):
        refs = [hand_logps(model, rollout.batch, row) for row in range(8)]
    ratios = [(a - b).detach() for a, b in zip(logps, refs, strict=True)]
    tokens = sum(len(part) for part in logps)
    if method == "rloo":
        shaped = scores - 0.3 * torch.stack([part.sum() for part in ratios])
        gains = ft.leave_one_out_advantages(shaped, 4)
        loss = -sum(gain * part.sum() for gain, part in zip(gains, logps, strict=True)) / 8
    elif method == "grpo":
        gains = ft.group_advantages(scores, 4)
        loss = 0
        for gain, part, ratio in zip(gains, logps, ratios, strict=True):
            pull = 0.3 * (1 - (-ratio).exp())
            loss = loss + ((pull - gain) * part).sum() / tokens
    else:
        gains = by_hand_gae(rollout, scores, ratios, trainer.head, model)
        gains = torch.cat(gains)
        gains = (gains - gains.mean()) / gains.std()
        loss = -(gains * torch.cat(logps)).sum() / tokens
    loss.backward()
    for mine, want in zip(have, gradients(model), strict=True):
        torch.testing.assert_close(mine, want, rtol=1e-5, atol=1e-7)


def by_hand_gae(rollout, scores, ratios, head, model) -> list[torch.Tensor]:
    """Each answer's advantages by the sum of its discounted errors; kl 0.3, γ 0.9, λ 0.8."""
    gains = []
    for row, ratio in enumerate(ratios):
        length = int(rollout.batch["attention_mask"][row].sum())
        hidden = model.model(rollout.batch["input_ids"][row : row + 1, :length]).last_hidden_state
        values = head(hidden)[0, :, 0].detach().double()[length - 1 - len(ratio) : length - 1]
        rewards = -0.3 * ratio
        rewards[-1] += scores[row]
        following = torch.cat([values[1:], torch.zeros(1, dtype=torch.float64)])
        errors = rewards + 0.9 * following - values
        size = len(errors)
        gains.append(
            torch.stack(
                [sum(0.72 ** (k - t) * errors[k] for k in range(t, size)) for t in range(size)]
            )
        )
    return gains


def test_the_value_head_does_not_move_the_policy(tokenizer):
    model = randomize(adapted(lora_dropout=0.0), scale=0.3)
    trainer = trainer_of(model, tokenizer, "ppo")
    trainer.compute_loss(model, INDICES)
    rollout = trainer.rollout
    logps, values = trainer._logps(rollout.batch)
    values.sum().backward()
    assert trainer.head.weight.grad.any() and logps.requires_grad
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" in n)


# --- runs -----------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS)
def test_it_learns_what_is_rewarded(method, tokenizer):
    run = learn(
        adapted(r=8),
        tokenizer,
        method=method,
        steps=40,
        batch_size=32,
        learning_rate=3e-2,
        kl_coef=0.0,
    )
    rewards = [entry["reward"] for entry in run.history[::2]]
    assert sum(rewards[-3:]) > sum(rewards[:3]) + 1.5
    assert run.history[-2]["kl"] > 0.5 and run.history[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_the_penalty_keeps_it_near(tokenizer):
    far = []
    for kl_coef in (0.0, 5.0):
        run = learn(
            adapted(r=8), tokenizer, kl_coef=kl_coef, steps=30, batch_size=32, learning_rate=3e-2
        )
        far.append(run.history[-2]["kl"])
    assert far[1] < far[0] / 2


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_equals_an_uninterrupted_one(method, tokenizer, tmp_path, monkeypatch):
    """Prompts go round after 4 rollouts of 2; the interruption is in the second round."""
    options = {"method": method, "steps": 12, "watch": {"own": letters_of_row}}
    model = adapted()
    run = learn(model, tokenizer, **options, output_dir=tmp_path / "straight")
    interrupt_at(10, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        learn(adapted(), tokenizer, **options, output_dir=tmp_path / "run")
    monkeypatch.undo()
    again = adapted()
    resumed = learn(again, tokenizer, **options, output_dir=tmp_path / "run")
    assert resumed.resumed_from == 10 and resumed.history == run.history
    assert resumed.tokens == run.tokens > 0
    assert equal(dict(model.named_parameters()), dict(again.named_parameters()))
    if method == "ppo":
        heads = [load_head(model, tmp_path / name).state_dict() for name in ("straight", "run")]
        assert equal(*heads) and heads[0]["weight"].any()


def test_a_whole_model_trains_without_a_penalty(tokenizer):
    model = llama(layers=1).requires_grad_(True)
    before = model.lm_head.weight.clone()
    run = learn(model, tokenizer, kl_coef=0.0, steps=2)
    assert not torch.equal(before, model.lm_head.weight) and "kl" not in run.history[0]


def test_what_is_recorded(tokenizer, tmp_path):
    """Of one rollout: means over its answers, as the functions that were called saw them."""
    seen = []

    def reward(rows, answers):
        seen.append((rows, answers))
        return torch.tensor(small_letters(rows, answers))

    model = ft.add_lora(llama(layers=1), r=2)  # nearly uniform
    run = learn(
        model, tokenizer, reward, steps=2, watch={"own": letters_of_row}, output_dir=tmp_path
    )
    [(rows, answers)] = seen
    assert [row["letter"] for row in rows[::4]] == [row["letter"] for row in rows[3::4]]
    first = run.history[0]
    assert set(first) == {"step", "loss", "learning_rate", "own", *METRICS}
    assert first["reward"] == pytest.approx(sum(small_letters(rows, answers)) / 8)
    assert first["own"] == pytest.approx(sum(letters_of_row(rows, answers)) / 8)
    assert first["distinct"] == len(set(answers)) / 8
    assert 1 <= first["length"] <= 5 and first["ratio_clipped"] == 0
    assert first["entropy"] == pytest.approx(math.log(280), rel=0.1)
    assert set(run.history[1]) == {
        "step",
        "loss",
        "learning_rate",
        "ratio_clipped",
        "value_loss",
    }  # the second step learns from the same answers
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["kind"], manifest["reward"]) == ("reinforce", "reward")


def test_own_maths_are_called_and_named(tokenizer, tmp_path):
    """The same functions under another name train the same; the manifest has the name of what was
    handed in and nothing of what was not. Rewards that are all 0 give advantages of 0 to RLOO, and
    an adapter that does not move.
    """
    called = []

    def shaped(scores, logps, ref_logps, mask, kl_coef):
        called.append("shaped")
        return ft.kl_shaped_rewards(scores, logps, ref_logps, mask, kl_coef)

    def nothing(scores, group_size):
        called.append("group")
        return torch.zeros_like(scores)

    models = [adapted(), adapted()]
    learn(models[0], tokenizer, steps=2)
    learn(
        models[1],
        tokenizer,
        steps=2,
        maths=PolicyMaths(shaped_rewards=shaped),
        output_dir=tmp_path,
    )
    assert equal(adapter(models[0]), adapter(models[1]))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["shaped_rewards"] == "shaped"
    assert "maths" not in manifest and "policy_loss" not in manifest
    still = adapted()
    learn(still, tokenizer, method="rloo", maths=PolicyMaths(leave_one_out=nothing))
    assert equal(adapter(still), adapter(adapted()))
    assert called == ["shaped", "group", "group", "group"]


def test_the_sampler_repeats_prompts_and_batches():
    """5 prompts, 2 at a time, 2 answers each, 3 steps a rollout: 2 rollouts, one prompt left."""
    sampler = RolloutSampler(5, 4, 2, 3, seed=0)
    order = list(sampler)
    steps = [order[start : start + 4] for start in range(0, len(order), 4)]
    assert len(order) == len(sampler) == 24 and len(steps) == 6
    assert steps[0] == steps[1] == steps[2] and steps[3] == steps[4] == steps[5]
    assert all(step[0] == step[1] and step[2] == step[3] for step in steps)
    assert len(set(order)) == 4
    sampler.set_epoch(1)
    assert list(sampler) != order


@pytest.mark.parametrize(
    "options, words",
    [
        ({"method": "dpo"}, "method='dpo': use one of ppo"),
        ({"group_size": 1, "method": "grpo"}, "group_size=1"),
        ({"group_size": 3}, "batch_size=8 is no multiple of group_size=3"),
        ({"batch_size": 64}, "asks 16 prompts at a time, there are 8"),
        ({"kl_coef": -1}, "kl_coef=-1"),
        ({"lam": 2}, "lam=2"),
        ({"accumulate": 2}, "accumulate=2"),
        ({"max_length": 10}, "row 0: a prompt of"),
        ({"step": 1}, "step=1: no such option"),
    ],
)
def test_refusals(options, words, tokenizer):
    with pytest.raises(ft.RunError, match=words):
        learn(adapted(), tokenizer, **options)


def test_other_refusals(tokenizer):
    with pytest.raises(ft.RunError, match="with its LoRA adapter off, and it has none"):
        learn(llama(layers=1).requires_grad_(True), tokenizer)
    with pytest.raises(ft.RunError, match=r"reward gave .* for 8 answers"):
        learn(adapted(), tokenizer, lambda rows, answers: [1.0])
    with pytest.raises(ft.RunError, match=r"own gave .* one finite number"):
        learn(adapted(), tokenizer, watch={"own": lambda rows, answers: [math.nan] * len(rows)})
    with pytest.raises(DataError, match="row 0: prompt is None"):
        ft.reinforce(adapted(), tokenizer, [{"text": "a"}], small_letters, **SETTINGS)
