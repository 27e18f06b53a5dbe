"""A reward model: its first loss and its scores by hand, learning, resuming, refusals."""

import json
import math

import pytest
import torch
from conftest import llama
from interrupted import interrupt_at
from preference_runs import PAIRS, SETTINGS, adapted, adapter, equal

import ftlib as ft
from ftlib.batches.preference import encode_pairs
from ftlib.core.errors import DataError
from ftlib.training.measured import HEAD_FILE, load_head, scalar_head
from ftlib.training.reward_model import METRICS


def train(model, tokenizer, pairs=PAIRS, **options):
    return ft.train_reward_model(model, tokenizer, pairs, **{**SETTINGS, **options})


def random_head(model):
    head = scalar_head(model)
    with torch.no_grad():
        head.weight.normal_(generator=torch.Generator().manual_seed(5))
        head.bias.fill_(0.5)
    return head


def hand_score(model, head, ids: list[int]) -> float:
    """w·h + b of the last token of one row, without padding."""
    hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
    return (head.weight[0] @ hidden + head.bias[0]).item()


def test_scores_by_hand(tokenizer):
    """Rows of several lengths in one batch; both forms of a row; the order is the rows' own."""
    model = adapted(lora_dropout=0.5).train()  # scored without dropout all the same
    head = random_head(model)
    rows = [{"prompt": p["prompt"], "completion": p["chosen"]} for p in PAIRS[:5]]
    have = ft.reward_scores(model, head, tokenizer, rows, batch_size=2)
    assert model.training
    model.eval()
    items = encode_pairs(tokenizer, PAIRS[:5])
    want = [hand_score(model, head, item["prompt_ids"] + item["chosen_ids"]) for item in items]
    assert len(set(want)) == 5
    assert have.tolist() == pytest.approx(want, rel=1e-4, abs=1e-5)
    talks = []
    for row in rows:
        user = {"role": "user", "content": row["prompt"]}
        talks.append({"messages": [user, {"role": "assistant", "content": row["completion"]}]})
    assert torch.equal(ft.reward_scores(model, head, tokenizer, talks, batch_size=2), have)


def test_an_empty_answer_is_scored_at_the_turns_end(tokenizer):
    model = adapted()
    head = random_head(model)
    prompt = encode_pairs(tokenizer, PAIRS[:1])[0]["prompt_ids"]
    row = {"prompt": PAIRS[0]["prompt"], "completion": " "}
    end = tokenizer.eos_token_id
    want = hand_score(model, head, [*prompt, end])
    assert ft.reward_scores(model, head, tokenizer, [row]).item() == pytest.approx(want, rel=1e-4)


def test_the_first_loss_is_ln_2_and_it_learns(tokenizer):
    """The head starts at zero: all rewards are equal, and half of the ties count as right."""
    model = adapted(lora_dropout=0.0)
    head, run = train(model, tokenizer, steps=25, eval_rows=PAIRS[:7], eval_steps=25)
    first = run.history[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4) and first["accuracy"] == 0.5
    assert set(first) == {"step", "loss", "learning_rate", *METRICS}
    last = run.eval_history[-1]
    assert last["eval_loss"] < 0.6 and last["eval_accuracy"] > 0.7
    scores = []
    for side in ("chosen", "rejected"):
        rows = [{"prompt": p["prompt"], "completion": p[side]} for p in PAIRS[:7]]
        scores.append(ft.reward_scores(model, head, tokenizer, rows))
    loss = ft.reward_loss(*scores).mean().item()
    assert last["eval_loss"] == pytest.approx(loss, rel=1e-4)
    margin = (scores[0] - scores[1]).mean().item()
    assert last["eval_margin"] == pytest.approx(margin, rel=1e-3)


@pytest.mark.parametrize("whole", [False, True], ids=["adapter", "whole model"])
def test_a_resumed_run_equals_an_uninterrupted_one(whole, tokenizer, tmp_path, monkeypatch):
    def fresh():
        if whole:
            return llama(layers=1).requires_grad_(True)
        return adapted()

    model = fresh()
    head, run = train(model, tokenizer, output_dir=tmp_path / "straight")
    broken = fresh()
    interrupt_at(4, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        train(broken, tokenizer, output_dir=tmp_path / "run")
    monkeypatch.undo()
    again = fresh()
    resumed_head, resumed = train(again, tokenizer, output_dir=tmp_path / "run")
    assert resumed.resumed_from == 4 and resumed.history == run.history
    assert equal(dict(model.named_parameters()), dict(again.named_parameters()))
    assert equal(head.state_dict(), resumed_head.state_dict())
    done = fresh()
    done_head, _ = train(done, tokenizer, output_dir=tmp_path / "run")  # it was finished
    assert equal(head.state_dict(), done_head.state_dict())
    assert equal(dict(model.named_parameters()), dict(done.named_parameters()))


def test_what_a_run_leaves(tokenizer, tmp_path):
    model = adapted()
    head, _ = train(model, tokenizer, output_dir=tmp_path / "run")
    assert not hasattr(model, "scalar_head")  # it is the model's while it trains
    assert equal(load_head(model, tmp_path / "run").state_dict(), head.state_dict())
    other = adapted(seed=1)
    ft.load_adapter(other, tmp_path / "run" / "adapter")
    assert equal(adapter(other), adapter(model))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["kind"] == "reward model" and manifest["margin"] == 0.0


def test_refusals(tokenizer, tmp_path):
    with pytest.raises(ft.RunError, match="margin=-1"):
        train(adapted(), tokenizer, margin=-1)
    with pytest.raises(ft.RunError, match="step=3: no such option; there are steps"):
        train(adapted(), tokenizer, step=3)
    with pytest.raises(ft.RunError, match="no parameter of the model requires grad"):
        train(llama(layers=1).requires_grad_(False), tokenizer)
    with pytest.raises(ft.RunError, match=HEAD_FILE):
        load_head(adapted(), tmp_path)
    with pytest.raises(DataError, match="row 1"):
        rows = [{"prompt": "a", "completion": "b"}, {"messages": []}]
        ft.reward_scores(adapted(), random_head(adapted()), tokenizer, rows)
    train(adapted(), tokenizer, output_dir=tmp_path / "run")
    with pytest.raises(ft.RunError, match=r"margin: 0\.0 there, 1\.0 now"):
        train(adapted(), tokenizer, output_dir=tmp_path / "run", margin=1.0)


def test_another_loss(tokenizer, tmp_path):
    """A loss that is 0 whatever it is given leaves adapter and head where they were; it gets the
    margin, and the manifest its name.
    """
    margins = []

    def nothing(chosen, rejected, margin):
        margins.append(margin)
        return 0 * (chosen - rejected)

    model = adapted()
    head, _ = train(model, tokenizer, margin=0.5, loss_function=nothing, output_dir=tmp_path)
    assert equal(adapter(model), adapter(adapted()))
    assert not head.weight.any() and set(margins) == {0.5}
    assert json.loads((tmp_path / "manifest.json").read_text())["loss_function"] == "nothing"
