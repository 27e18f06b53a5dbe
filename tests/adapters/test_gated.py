"""Gated blocks that keep their factors alone: bits equal, memory less, what is left alone."""

import contextlib
import copy
import io

import pytest
import torch
from conftest import llama, randomize
from torch import nn
from transformers.models.llama.modeling_llama import LlamaMLP

import ftlib as ft
from ftlib.adapters.functional import FusedLoRA
from ftlib.adapters.gated import factors_only, gated_blocks
from ftlib.adapters.lora_layer import AdapterConfig, LoRALinear
from ftlib.training.memory_meter import peak_bytes


def adapted(seed: int = 0, **options):
    """A small Llama with a LoRA adapter of random numbers, in training."""
    model = llama(layers=2, hidden=32, seed=seed)
    ft.add_lora(model, r=4, **options)
    return randomize(model).train()


def loss_and_gradients(model, ids, precision=None) -> list[torch.Tensor]:
    """Of one forward and backward pass, dropout from a fixed seed."""
    torch.manual_seed(3)
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.requires_grad]
    return [loss.detach(), *gradients]


# --- by hand --------------------------------------------------------------------------------------
def test_a_gated_input_by_hand():
    """x = [1, 2], gate = [3, 1] with act(g) = g², so the input is [9, 2]; W = [[1, 1]], A = [[1,
    0]], B = [[2]], s = 1.

    y = 9 + 2 + 2·9 = 29. With dy = 1 the input's gradient is W + BA = [3, 1], so dx = [3, 1]·act =
    [27, 1] and dgate = [3, 1]·x·2·gate = [3·1·6, 1·2·2] = [18, 4]; dA = B·[9, 2] = [18, 4]; dB = 9.
    """
    layer = LoRALinear(
        nn.Linear(2, 1, bias=False).requires_grad_(False), AdapterConfig(r=1, lora_alpha=1)
    )
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 1.0]]))
        layer.lora_A.copy_(torch.tensor([[1.0, 0.0]]))
        layer.lora_B.fill_(2)
    x = torch.tensor([[1.0, 2.0]], requires_grad=True)
    gate = torch.tensor([[3.0, 1.0]], requires_grad=True)
    y = layer(x, gate=gate, act=torch.square)
    y.sum().backward()
    assert y.item() == 29
    assert x.grad.tolist() == [[27, 1]] and gate.grad.tolist() == [[18, 4]]
    assert layer.lora_A.grad.tolist() == [[18, 4]] and layer.lora_B.grad.tolist() == [[9]]


@pytest.mark.parametrize("p", [0.0, 0.4], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("trained", ["both", "gate", "x"])
def test_a_gated_input_passes_gradcheck(dora, p, trained):
    """Numerical derivatives in float64, also where only one of the factors has a gradient."""
    g = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    W = draw(4, 3)
    scale = (draw(4).abs() + 0.5).requires_grad_() if dora else None
    x = draw(2, 5, 3).requires_grad_(trained != "gate")
    gate = draw(2, 5, 3).requires_grad_(trained != "x")
    A = draw(2, 3).requires_grad_()
    B = draw(4, 2).requires_grad_()

    def forward(x, gate, A, B, *scale):
        torch.manual_seed(7)
        g = scale[0] if scale else None
        return FusedLoRA.apply(x, W, None, None, A, B, g, 1.5, p, gate, nn.functional.silu)

    assert torch.autograd.gradcheck(forward, (x, gate, A, B, *([scale] if dora else [])))


# --- in a model -----------------------------------------------------------------------------------
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "options",
    [{}, {"use_dora": True}, {"lora_dropout": 0.3}, {"target_modules": ("gate_proj", "down_proj")}],
    ids=["lora", "dora", "dropout", "no up_proj"],
)
def test_loss_and_gradients_keep_every_bit(options, precision):
    model = adapted(**options)
    ids = torch.randint(8, 280, (3, 17))
    before = loss_and_gradients(model, ids, precision)
    with factors_only(model):
        within = loss_and_gradients(model, ids, precision)
    assert len(before) == len(within) > 4
    for a, b in zip(before, within, strict=True):
        assert a.abs().sum() > 0 and torch.equal(a, b)


def test_a_block_keeps_two_tensors_of_its_inner_width():
    """Without: both factors, the activation and the product; counted by their storage."""
    model = adapted()
    inner = model.config.intermediate_size
    ids = torch.randint(8, 280, (2, 9))

    def kept() -> int:
        seen = {}

        def note(tensor):
            if tensor.numel() == ids.numel() * inner:
                seen[tensor.data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(input_ids=ids, labels=ids)
        return len(seen)

    assert kept() == 4 * model.config.num_hidden_layers
    with factors_only(model):
        assert kept() == 2 * model.config.num_hidden_layers


def test_the_peak_of_a_step_falls():
    """8 layers of 2 × 256 tokens, inner width 512: two tensors of 1 MB a layer less, but for what
    one block multiplies out at a time.
    """
    model = llama(layers=8, hidden=128, intermediate_size=512)
    ft.add_lora(model, r=4)
    model.train()
    ids = torch.randint(8, 280, (2, 256))

    def step():
        loss_and_gradients(model, ids)

    before = peak_bytes(step)
    with factors_only(model):
        within = peak_bytes(step)
    a_tensor = 2 * 256 * 512 * 4
    assert before - within > (2 * 8 - 4) * a_tensor


def test_an_adapter_that_is_off_or_merged_leaves_the_base_model():
    model = adapted().eval()
    ids = torch.randint(8, 280, (2, 9))
    with torch.no_grad(), factors_only(model):
        with ft.disable_adapter(model):
            off = model(input_ids=ids).logits
        ft.merge_adapter(model)
        merged = model(input_ids=ids).logits
    with torch.no_grad():
        assert torch.equal(merged, model(input_ids=ids).logits)
        ft.unmerge_adapter(model)
        with ft.disable_adapter(model):
            torch.testing.assert_close(off, model(input_ids=ids).logits)


def gated_blocks_of(model) -> list[nn.Module]:
    return [layer.mlp for layer in model.model.layers]


def is_lean(block: nn.Module) -> bool:
    return type(block) is not LlamaMLP


def test_nothing_stays_behind_also_after_an_error():
    model = adapted()
    with pytest.raises(ZeroDivisionError), factors_only(model):
        assert all(is_lean(block) for block in gated_blocks_of(model))
        raise ZeroDivisionError
    assert not any(is_lean(block) for block in gated_blocks_of(model))


def test_copies_made_meanwhile_are_plain():
    """A deep copy can be merged and taken apart; a pickle names the model's own class."""
    model = adapted()
    ids = torch.randint(8, 280, (2, 9))
    with factors_only(model):
        twin = copy.deepcopy(model)
        stored = io.BytesIO()
        torch.save(model.model.layers[0].mlp, stored)
        assert is_lean(gated_blocks_of(model)[0])
    assert not any(is_lean(block) for block in gated_blocks_of(twin))
    plain = ft.merge_and_unload(twin).eval()
    torch.testing.assert_close(plain(input_ids=ids).logits, model.eval()(input_ids=ids).logits)
    stored.seek(0)
    assert type(torch.load(stored, weights_only=False)) is LlamaMLP


def test_a_replica_of_data_parallelism_runs_with_its_own_layers():
    model = adapted()
    block = gated_blocks_of(model)[0]
    with factors_only(model):
        replica = block._replicate_for_data_parallel()
        replica._modules = {**block._modules, "gate_proj": nn.Linear(32, 64)}
        x = torch.randn(2, 3, 32)
        expected = block.down_proj(block.act_fn(replica.gate_proj(x)) * block.up_proj(x))
        assert torch.equal(replica(x), expected)


def test_whoever_looks_at_down_proj_sees_the_product():
    """By hooks of every kind, also set in the midst of training."""
    model = adapted()
    down = gated_blocks_of(model)[0].down_proj
    ids = torch.randint(8, 280, (2, 9))
    seen = []
    ways = {
        "forward_hook": lambda module, args, out: seen.append(args[0]),
        "forward_pre_hook": lambda module, args: seen.append(args[0]),
        "full_backward_hook": lambda module, to_input, to_output: seen.append(to_input[0]),
    }
    for name, hook in ways.items():
        seen.clear()
        handle = getattr(down, f"register_{name}")(hook)
        loss_and_gradients(model, ids)
        handle.remove()
        with factors_only(model):
            handle = getattr(down, f"register_{name}")(hook)
            loss_and_gradients(model, ids)
            handle.remove()
        plain, within = seen
        assert torch.equal(plain, within), name


def test_an_activation_in_fp32_under_autocast():
    """`pow` computes in fp32 there: the product is made outside, and in backward as in forward."""

    class Cubed(nn.Module):
        def forward(self, x):
            return torch.pow(x, 3) * 0.1

    model = adapted()
    for block in gated_blocks_of(model):
        block.act_fn = Cubed()
    assert len(gated_blocks(model)) == 2
    ids = torch.randint(8, 280, (3, 17))
    before = loss_and_gradients(model, ids, "bf16")
    with factors_only(model):
        within = loss_and_gradients(model, ids, "bf16")
    for a, b in zip(before, within, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_with_recomputed_activations(use_reentrant):
    model = adapted()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    model.enable_input_require_grads()
    ids = torch.randint(8, 280, (3, 17))
    before = loss_and_gradients(model, ids)
    with factors_only(model):
        within = loss_and_gradients(model, ids)
    for a, b in zip(before, within, strict=True):
        assert torch.equal(a, b)


# --- what is left alone ---------------------------------------------------------------------------
def test_a_block_without_an_adapter_on_down_proj():
    assert gated_blocks(llama()) == []
    assert gated_blocks(adapted(target_modules=("q_proj", "up_proj"))) == []
    assert len(gated_blocks(adapted())) == 2


class Block(nn.Module):
    """A gated block with the layers of another."""

    def __init__(self, block):
        super().__init__()
        self.gate_proj = block.gate_proj
        self.up_proj = block.up_proj
        self.down_proj = block.down_proj
        self.act_fn = block.act_fn
        self.scale = 2

    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x))


class Scaled(Block):
    def forward(self, x):
        return super().forward(x) * getattr(self, "scale", 1)


class Limited(Block):
    def forward(self, x):
        return self.down_proj(self.act_fn(self.gate_proj(x).clamp(max=10.0)) * self.up_proj(x))


class WithResidual(Block):
    def forward(self, x, residual=None):
        return super().forward(x)


class Lacking(Block):
    def forward(self, x):
        return super().forward(x) + self.bias


@pytest.mark.parametrize("kind", [Scaled, Limited, WithResidual, Lacking])
def test_another_formula_by_the_same_names(kind):
    model = adapted()
    first = model.model.layers[0]
    first.mlp = kind(first.mlp)
    assert gated_blocks(model) == [model.model.layers[1].mlp]
    first.mlp = Block(first.mlp)
    assert len(gated_blocks(model)) == 2


def test_an_activation_that_has_parameters():
    model = adapted()
    model.model.layers[0].mlp.act_fn = nn.PReLU(dtype=torch.float64)
    assert gated_blocks(model) == [model.model.layers[1].mlp]


def test_a_block_with_a_forward_of_its_own():
    model = adapted()
    first, second = gated_blocks_of(model)
    second.forward = second.forward
    assert gated_blocks(model) == [first]


def test_a_compiled_block_is_traced_as_it_is():
    model = adapted()
    block = gated_blocks_of(model)[0]
    x = torch.randn(2, 3, 32)
    with factors_only(model):
        compiled = torch.compile(block, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x), block(x))


def test_other_families_have_the_same_block():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    )
    model = ft.add_lora(Qwen3ForCausalLM(config), r=2)
    assert len(gated_blocks(model)) == 1


def test_training_uses_it_and_leaves_the_model_as_it_was(tokenizer, rows, monkeypatch):
    """`finetune` trains with the blocks' lean forward, to the very adapter that it has without."""
    from ftlib.training import run as run_module

    trained = []
    for lean in (True, False):
        if not lean:
            monkeypatch.setattr(run_module, "factors_only", contextlib.nullcontext)
        model = ft.add_lora(llama(), r=4)
        block = gated_blocks_of(model)[0]
        seen = []

        def note(*_, block=block, seen=seen):
            seen.append(is_lean(block))

        block.act_fn.register_forward_hook(note)
        ft.finetune(model, tokenizer, rows, steps=2, batch_size=4, learning_rate=1e-3, show=False)
        assert any(seen) is lean and not is_lean(block)
        trained.append({name: p.detach().clone() for name, p in model.named_parameters()})
    for name, value in trained[0].items():
        assert torch.equal(value, trained[1][name]), name
