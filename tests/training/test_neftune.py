"""NEFTune: the noise's size by hand, only in training, real lengths, parity with transformers,
nothing left behind.
"""

import math

import pytest
import torch

import ftlib as ft
from ftlib.training.neftune import neftune_noise


def hooks(model):
    modules = (model, model.get_input_embeddings())
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)


def embed(model, ids, mask=None):
    """The input embeddings that the first layer sees."""
    seen = {}
    handle = model.model.layers[0].register_forward_pre_hook(
        lambda m, a, k: seen.update(x=a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    model(input_ids=ids, attention_mask=mask)
    handle.remove()
    return seen["x"]


def test_size_by_hand():
    """L = 4 real tokens, d = 100, alpha = 5: bound 5/sqrt(400) = 0.25, std 0.25/sqrt 3, norm of the
    sequence near 5/sqrt 3.
    """
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]]).repeat(500, 1)
    noise = neftune_noise(torch.zeros(500, 6, 100), 5.0, mask)
    assert noise.abs().max() <= 0.25 and noise.abs().max() > 0.249
    assert noise[:, :4].std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.01)
    assert noise.flatten(1).norm(dim=1).mean().item() == pytest.approx(5 / math.sqrt(3), rel=0.01)
    assert torch.equal(noise[:, 4:], torch.zeros(500, 2, 100))


def test_padding_does_not_weaken_it():
    """The same row with and without padding: the real form's bound is the same, the stock form's
    shrinks by sqrt(L/T).
    """
    torch.manual_seed(0)
    x = torch.zeros(64, 20, 32)
    short = torch.ones(64, 20)
    long = torch.cat([torch.ones(64, 5), torch.zeros(64, 15)], 1)
    assert neftune_noise(x, 5.0, long)[:, :5].std() / neftune_noise(
        x, 5.0, short
    ).std() == pytest.approx(2.0, rel=0.05)
    stock = neftune_noise(x, 5.0, long, length="padded")
    assert stock[:, :5].std() / neftune_noise(x, 5.0, short).std() == pytest.approx(1.0, rel=0.05)
    assert stock[:, 5:].abs().max() > 0


def test_only_in_training_mode_and_removed(model):
    ids = torch.arange(12).reshape(2, 6)
    before = hooks(model)
    clean = embed(model.eval(), ids)
    with ft.neftune(model, 5.0):
        assert torch.equal(embed(model.eval(), ids), clean)
        assert not torch.equal(embed(model.train(), ids), clean)
    assert torch.equal(embed(model.train(), ids), clean) and hooks(model) == before


def test_padding_gets_no_noise_in_a_model(model):
    ids = torch.arange(12).reshape(2, 6)
    model.train()
    mask = torch.tensor([[1] * 6, [1, 1, 1, 0, 0, 0]])
    clean = embed(model, ids, mask)
    with ft.neftune(model, 5.0):
        moved = embed(model, ids, mask) - clean
    assert moved[1, 3:].abs().max() == 0 and moved[1, :3].abs().max() > 0


def test_nothing_left_after_an_exception(model):
    before = hooks(model)
    with pytest.raises(RuntimeError, match="boom"), ft.neftune(model, 5.0):
        raise RuntimeError("boom")
    assert hooks(model) == before


def test_stock_form_equals_transformers(model):
    """The library's hook and ours, from the same random state, add the same noise bit for bit."""
    integration = pytest.importorskip("transformers.integrations.neftune")
    ids = torch.arange(12).reshape(2, 6)
    model.train()
    torch.manual_seed(3)
    with ft.neftune(model, 7.0, length="padded"):
        ours = embed(model, ids)
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 7.0
    handle = embedding.register_forward_hook(integration.neftune_post_forward_hook)
    torch.manual_seed(3)
    theirs = embed(model, ids)
    handle.remove()
    assert torch.equal(ours, theirs)


def test_zero_alpha_is_the_plain_model(model):
    ids = torch.arange(12).reshape(2, 6)
    model.train()
    clean = embed(model, ids)
    with ft.neftune(model, 0.0):
        assert torch.equal(embed(model, ids), clean)


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_bad_alpha(model, alpha):
    with pytest.raises(ValueError, match="noise_alpha"), ft.neftune(model, alpha):
        pass


def test_bad_length(model):
    with (
        pytest.raises(ValueError, match="length='tokens'"),
        ft.neftune(model, 5.0, length="tokens"),
    ):
        pass
