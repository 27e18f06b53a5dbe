"""ReFT: the formulas by hand, R orthonormal through training, the positions, padding, generating.
Saving and loading: test_hooked.py.
"""

import copy
import math

import pytest
import torch
import transformers
from conftest import assert_untouched, llama, snapshot

import ftlib as ft
from ftlib.adapters import reft
from ftlib.adapters.hooked import parts_of
from ftlib.batches.template import IGNORE
from ftlib.evaluation.metrics import mean_nll
from ftlib.losses.logps import completion_logps

SETTINGS = {"learning_rate": 3e-2, "batch_size": 4, "precision": "fp32", "show": False}


def filled(model, seed=0, scale=0.3):
    """The same random numbers in every trained weight."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad:
                p.copy_(scale * torch.randn(p.shape, generator=generator))
    return model


def edits(model) -> dict:
    return parts_of(model, reft.Intervention)


def layer_output(model, layer: int, **inputs) -> torch.Tensor:
    """What a layer returns, its edit included."""
    seen = []
    hook = model.model.layers[layer].register_forward_hook(lambda m, a, out: seen.append(out))
    try:
        model(**inputs)
    finally:
        hook.remove()
    return seen[0].detach()


def changed(one: torch.Tensor, other: torch.Tensor) -> list:
    return (one != other).any(-1).tolist()


# --- the formulas ---------------------------------------------------------------------------------
def test_loreft_by_hand():
    """d = 2, r = 1, R = [0.6, 0.8], W = [1, 2], b = −1, h = [3, 4]: R h = 1.8 + 3.2 = 5, W h + b =
    3 + 8 − 1 = 10, so the difference is 5 and h + 5·R = [6, 8]. Read along R: R·[6, 8] = 3.6 + 6.4
    = 10 = W h + b: the component along R is replaced. Across R, along [−0.8, 0.6]: −2.4 + 2.4 = 0
    before, −4.8 + 4.8 = 0 after.
    """
    h, R, W, b = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([3.0, 4.0], [[0.6, 0.8]], [[1.0, 2.0]], [-1.0])
    )
    assert torch.allclose(reft.loreft(h, R, W, b), torch.tensor([6.0, 8.0], dtype=torch.float64))


def test_direft_by_hand():
    """W₁ = [1, 2], b = −1, h = [3, 4]: W₁ h + b = 10; W₂ = [0.5, −1]: h + [5, −10] = [8, −6]."""
    h, up, down, b = (
        torch.tensor(values, dtype=torch.float64)
        for values in ([3.0, 4.0], [[0.5, -1.0]], [[1.0, 2.0]], [-1.0])
    )
    assert reft.direft(h, up, down, b).tolist() == [8, -6]


def test_the_paper_s_formula_with_matrices():
    """Equation 2 written out with outer sums, on many h at once; and its projection: within R's
    span h becomes W h + b, outside it stays.
    """
    generator = torch.Generator().manual_seed(1)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    R, W, b, h = reft.orthonormal_rows(draw(3, 7)), draw(3, 7), draw(3), draw(5, 7)
    out = reft.loreft(h, R, W, b)
    for n in range(5):
        want = h[n].clone()
        for k in range(3):
            want += R[k] * (sum(W[k, j] * h[n, j] - R[k, j] * h[n, j] for j in range(7)) + b[k])
        assert torch.allclose(out[n], want, rtol=1e-13, atol=1e-13)
    outside = torch.eye(7, dtype=torch.float64) - R.T @ R
    assert torch.allclose(out @ R.T, h @ W.T + b, rtol=1e-12)
    assert torch.allclose(out @ outside, h @ outside, atol=1e-13)


def test_orthonormal_rows():
    """X = [[3, 4]] has R = [[0.6, 0.8]]; twice the first and a second row, R's rows are Gram and
    Schmidt's: [[3, 4], [0, 5]]: [0, 5] less its part along the first, 4·[0.6, 0.8] = [2.4, 3.2],
    is [−2.4, 1.8], of length 3. R of R is R; the span is X's.
    """
    X = torch.tensor([[3.0, 4.0], [0.0, 5.0]], dtype=torch.float64)
    want = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    assert torch.allclose(reft.orthonormal_rows(X), want)
    assert torch.allclose(reft.orthonormal_rows(want), want)
    X = torch.randn(4, 9, dtype=torch.float64)
    R = reft.orthonormal_rows(X)
    assert torch.allclose(R @ R.T, torch.eye(4, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(X @ R.T @ R, X)


@pytest.mark.parametrize("variant", reft.VARIANTS)
def test_gradients_by_finite_differences(variant):
    """Of the whole edit with respect to h and every weight, R's construction included."""
    options = {"r": 2, "variant": variant}
    like = torch.zeros(1, dtype=torch.float64)
    edit = filled(reft.Intervention(options, reft.Positions(), 5, like), scale=1.0)
    h = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def run(h, *weights):
        names = [name for name, _ in edit.named_parameters()]
        return torch.func.functional_call(edit, dict(zip(names, weights, strict=True)), (h,))

    assert torch.autograd.gradcheck(run, (h, *edit.parameters()))


# --- start, count, training -----------------------------------------------------------------------
@pytest.mark.parametrize("variant", reft.VARIANTS)
def test_starts_as_the_base_and_learns(variant, ids):
    want = llama()(ids).logits
    model = ft.add_reft(llama(), r=3, variant=variant)
    assert torch.equal(model(ids).logits, want)
    model(ids, labels=ids).loss.backward()
    named = dict(model.named_parameters())
    assert all((p.grad is not None) == (".reft." in n) for n, p in named.items())
    moved = ".reft.directions" if variant == "direft" else ".reft.weight"
    assert all(p.grad.norm() > 0 for n, p in named.items() if n.endswith(moved))
    filled(model).zero_grad()
    model(ids, labels=ids).loss.backward()
    assert all(p.grad.norm() > 0 for n, p in named.items() if ".reft." in n)


@pytest.mark.parametrize("layers, count", [("all", 3), ([1], 1), ((2, 0), 2)], ids=str)
@pytest.mark.parametrize("variant", reft.VARIANTS)
def test_parameter_count_by_hand(layers, count, variant):
    """r·(2d + 1) a layer, r = 3, d = 32: 3·65 = 195."""
    model = ft.add_reft(llama(layers=3), r=3, layers=layers, variant=variant)
    assert ft.count_parameters(model)[0] == 195 * count
    assert len(edits(model)) == count


def test_rows_stay_orthonormal_through_training(tokenizer, rows):
    """AdamW with weight decay moves X away from orthonormal rows; R's stay so to rounding, and
    turn.
    """
    model = ft.add_reft(llama(), r=4)
    before = {name: edit.rotation.detach().clone() for name, edit in edits(model).items()}
    run = ft.finetune(model, tokenizer, rows, steps=12, weight_decay=0.1, log_steps=1, **SETTINGS)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    eye = torch.eye(4)
    for name, edit in edits(model).items():
        X, R = edit.directions.detach(), edit.rotation.detach()
        assert (X @ X.T - eye).abs().max() > 1e-3
        assert torch.allclose(R @ R.T, eye, atol=1e-5)
        assert (R - before[name]).abs().max() > 1e-2


def test_gradient_checkpointing_changes_nothing(ids):
    """Also where another pass, with other positions, comes before the backward pass."""
    labels = ids.clone()
    labels[:, :4] = IGNORE
    model = filled(ft.add_reft(llama(dtype=torch.float64))).train()
    model(ids, labels=labels).loss.backward()
    want = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = model(ids, labels=labels).loss
    model(ids[:, :3], labels=ids[:, :3])
    loss.backward()
    for n, p in model.named_parameters():
        if p.requires_grad:
            assert torch.allclose(p.grad, want[n], rtol=1e-10, atol=1e-14)


# --- positions ------------------------------------------------------------------------------------
def test_positions_by_hand():
    """Prompts of 5, 2 and 0 tokens in rows of 6; two first and one last: tokens 0, 1 and 4 of the
    first, both of the second, none.
    """
    prompt = torch.tensor([[1, 1, 1, 1, 1, 0], [0, 0, 0, 1, 1, 0], [0] * 6], dtype=torch.bool)
    want = [[1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0], [0] * 6]
    assert reft.first_and_last(prompt, 2, 1).int().tolist() == want
    assert reft.first_and_last(prompt, 0, 1).int().tolist()[0] == [0, 0, 0, 0, 1, 0]
    assert reft.first_and_last(prompt, 1, 0).int().tolist()[1] == [0, 0, 0, 1, 0, 0]


def test_where_a_prompt_ends_by_hand():
    """Labels score tokens 3 and 5 of the first row: its prompt is 0 to 2, the turn after the answer
    belongs to it no more. The second is padded left by two and scored whole, the label of its first
    token too: that one is predicted by nothing, so the prompt is it alone.
    """
    real = torch.tensor([[1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1]], dtype=torch.bool)
    labels = torch.full((2, 7), IGNORE)
    labels[0, [3, 5]] = 9
    labels[1, 2:] = 9
    want = [[1, 1, 1, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0, 0]]
    assert reft.prompt_of(real, labels).int().tolist() == want
    assert torch.equal(reft.prompt_of(real, None), real)


def test_only_the_named_positions_change(ids):
    """After the layer edited: prompt 0 to 4 of 7 tokens, first-1 and last-2 are 0, 3, 4. The next
    layer mixes them into what comes after, and into nothing before.
    """
    base = llama()
    model = filled(ft.add_reft(llama(), layers=[0], positions=("first-1", "last-2")))
    labels = ids.clone()
    labels[:, :5] = IGNORE
    here = changed(
        layer_output(base, 0, input_ids=ids),
        layer_output(model, 0, input_ids=ids, labels=labels),
    )
    assert here == [[True, False, False, True, True, False, False]] * 2
    last = ft.add_reft(llama(), layers=[0], positions=("last-2",))
    after = changed(
        layer_output(base, 1, input_ids=ids),
        layer_output(filled(last), 1, input_ids=ids, labels=labels),
    )
    assert after == [[False, False, False, True, True, True, True]] * 2


def test_the_edit_is_the_formula_on_the_base_s_stream(ids):
    """Layer 0's output at the positions chosen is `loreft` of the base's; in float64, exactly."""
    base = llama(dtype=torch.float64)
    model = filled(ft.add_reft(llama(dtype=torch.float64), layers=[0], positions=("first-2",)))
    (edit,) = edits(model).values()
    h = layer_output(base, 0, input_ids=ids)
    out = layer_output(model, 0, input_ids=ids)
    want = reft.loreft(h, edit.rotation, edit.weight, edit.bias)
    assert torch.allclose(out[:, :2], want[:, :2], rtol=1e-13, atol=1e-13)
    assert torch.equal(out[:, 2:], h[:, 2:])


def test_labels_through_the_losses_are_labels_through_the_model(ids):
    """`completion_logps` hands no labels to the model, and yet the prompt ends where they say."""
    model = filled(ft.add_reft(llama(dtype=torch.float64), positions=("last-2",)))
    labels = ids.clone()
    labels[:, :4] = IGNORE
    logps = completion_logps(model, ids, torch.ones_like(ids), labels)
    loss = model(ids, labels=labels).loss
    assert torch.allclose(-logps.sum() / 6, loss.double(), rtol=1e-6)
    whole = model(ids).logits.log_softmax(-1)[:, 3:-1].gather(-1, ids[:, 4:, None])
    assert not torch.allclose(whole.sum(), logps.sum(), rtol=1e-3)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_matter(side, ids):
    """Three pads on either side: the same log-probabilities of the answer."""
    model = filled(ft.add_reft(llama(dtype=torch.float64)))
    labels = ids.clone()
    labels[:, :4] = IGNORE
    mask = torch.ones_like(ids)
    want = completion_logps(model, ids, mask, labels).sum(1)
    parts = []
    for tensor, fill in ((ids, 2), (mask, 0), (labels, IGNORE)):
        pads = torch.full((2, 3), fill)
        parts.append(torch.cat([pads, tensor] if side == "left" else [tensor, pads], 1))
    places = (parts[1].cumsum(1) - 1).clamp(min=0)
    got = completion_logps(model, *parts, position_ids=places).sum(1)
    assert torch.allclose(got, want, rtol=1e-12)


def test_generating_equals_whole_forwards():
    """Each token is the best of a whole forward that is told where the prompt ends; alone, and in
    a batch padded on the left. The pass without labels would take the answer for the prompt.
    """
    options = {"tie_word_embeddings": False, "initializer_range": 0.3}
    model = filled(ft.add_reft(llama(dtype=torch.float64, **options), positions=("last-2",)))
    ids = torch.randint(8, 280, (1, 5), generator=torch.Generator().manual_seed(3))
    want = ids
    for _ in range(6):
        more = torch.cat([want, torch.zeros(1, 1, dtype=torch.long)], 1)
        labels = more.clone()
        labels[:, :5] = IGNORE
        best = model(more, labels=labels).logits[:, -2].argmax(-1)
        want = torch.cat([want, best[:, None]], 1)
    given = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    assert model.generate(ids, **given).tolist() == want.tolist()
    padded = torch.cat([torch.full((1, 3), 2), ids], 1)
    other = torch.randint(8, 280, (1, 8), generator=torch.Generator().manual_seed(4))
    batch = torch.cat([padded, other])
    mask = (batch != 2).long()
    both = model.generate(batch, attention_mask=mask, **given)
    assert both[0, 3:].tolist() == want[0].tolist()
    with ft.disable_adapter(model):
        assert model.generate(ids, **given).tolist() != want.tolist()


def test_a_text_s_loss_is_that_of_generating_it(tokenizer):
    """A text's prompt is its first token: −log p, token by token, each from a prefix of the text
    with the first token marked as the prompt.
    """
    model = filled(ft.add_reft(llama(dtype=torch.float64)))
    ids = tokenizer("a small text", return_tensors="pt")["input_ids"]
    total = 0.0
    for t in range(1, ids.shape[1]):
        logits = model(ids[:, : t + 1], labels=ids[:, : t + 1]).logits[0, t - 1]
        total -= logits.log_softmax(-1)[ids[0, t]].item()
    got = mean_nll(model, tokenizer, ["a small text"])
    assert math.isclose(got, total / (ids.shape[1] - 1), rel_tol=1e-6)


def family(name: str):
    """A tiny model of another family, randomly filled."""
    if name == "gpt2":
        config = transformers.GPT2Config(vocab_size=280, n_embd=32, n_layer=2, n_head=4)
    elif name == "opt":  # its head calls the decoder inside the base model
        config = transformers.OPTConfig(
            vocab_size=280,
            hidden_size=32,
            word_embed_proj_dim=32,
            ffn_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
        )
    else:
        config = transformers.MambaConfig(vocab_size=280, hidden_size=32, num_hidden_layers=2)
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_other_families(name, ids):
    """The edit acts, and generating equals the whole forward that is told the prompt's end."""
    model = family(name)
    base = model(ids).logits
    filled(ft.add_reft(model, positions=("last-2",)))
    acts = (model(ids).logits != base).any(-1)
    assert acts.tolist() == [[False] * 5 + [True] * 2] * 2
    out = model.generate(ids, max_new_tokens=3, do_sample=False, eos_token_id=None)
    labels = torch.cat([torch.full_like(ids, IGNORE), out[:, 7:]], 1)
    best = model(out, labels=labels).logits[:, 6:-1].argmax(-1)
    assert torch.equal(best, out[:, 7:])


def test_a_state_in_place_of_a_cache_is_refused():
    with pytest.raises(ValueError, match="KV cache"):
        ft.add_reft(family("mamba"))


# --- refusals -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "options",
    [
        {"r": 0},
        {"r": 33},
        {"r": True},
        {"layers": "first"},
        {"layers": []},
        {"layers": [2]},
        {"layers": [-1]},
        {"layers": [0, 0]},
        {"layers": [0.0]},
        {"positions": "first-4"},
        {"positions": ()},
        {"positions": ("middle-2",)},
        {"positions": ("first-0",)},
        {"positions": ("first",)},
        {"positions": ("first-1", "first-2")},
        {"positions": (4,)},
        {"variant": "reft"},
    ],
    ids=str,
)
def test_bad_values(options, model):
    before = snapshot(model)
    with pytest.raises(ValueError, match=next(iter(options))):
        ft.add_reft(model, **options)
    assert_untouched(model, before)


def test_passes_whose_prompt_is_not_known(ids, tokenizer, rows):
    model = filled(ft.add_reft(llama()))
    with pytest.raises(ValueError, match="use_cache=False"):
        model(ids, use_cache=False)
    with pytest.raises(ValueError, match="packing=False"):
        ft.finetune(model, tokenizer, rows, steps=1, packing=True, **SETTINGS)
    with pytest.raises(ValueError, match="attention_mask"):
        model(ids, attention_mask=torch.ones(2, 1, 7, 7, dtype=torch.bool))
    with pytest.raises(ValueError, match="labels"), reft.answers_marked(model, ids[:, :3]):
        model(ids)
    assert torch.isfinite(model(ids).logits).all()  # nothing is left of the failed passes


def test_preferences_run_the_prompt_twice(tokenizer, caplog):
    model = ft.add_reft(llama(layers=1))
    pairs = [{"prompt": "who", "chosen": "me", "rejected": "you"}] * 2
    ft.prefer(model, tokenizer, pairs, steps=1, **{**SETTINGS, "batch_size": 2})
    assert "prompts are run twice, for chosen and for rejected: ReFT" in caplog.text


def test_a_copied_model_trains_apart(ids):
    model = ft.add_reft(llama())
    other = filled(copy.deepcopy(model))
    assert torch.equal(model(ids).logits, llama()(ids).logits)
    assert not torch.equal(other(ids).logits, model(ids).logits)
    assert other.reft.positions is not model.reft.positions
