"""LoRA and DoRA: ftlib against PEFT, step by step in one process: `python -m benchmarks.adapters
[--dtype float32]`.

A random Llama with all linear layers adapted, r=16, 4 x 256 tokens. The floor is the frozen model
with the gradient of its input flowing: what any adapter pays. Equality of loss and gradients is
asserted before anything is timed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
from collections.abc import Callable

import peft
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ftlib as ft
from benchmarks.harness import alternate, provenance, ratio, write_section
from ftlib.training.memory_meter import peak_bytes

R, BATCH, LENGTH = 16, 4, 256
SHAPES = {512: 1408, 1024: 2816}  # hidden -> intermediate
VARIANTS = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "DoRA, dropout 0.05": {"use_dora": True, "lora_dropout": 0.05},
}


def llama(hidden: int, dtype: torch.dtype, layers: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=SHAPES[hidden],
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        vocab_size=2048,
        tie_word_embeddings=False,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return LlamaForCausalLM(config).to(device, dtype).requires_grad_(False).train()


def fill(parameters) -> None:
    """Numbers as after some training; B = 0 would leave half of the gradients at zero."""
    g = torch.Generator().manual_seed(1)
    for p in parameters:
        p.data.copy_(0.02 * torch.randn(p.shape, generator=g))


def ours(hidden, dtype, layers, options) -> LlamaForCausalLM:
    model = ft.add_lora(llama(hidden, dtype, layers), r=R, lora_alpha=2 * R, **options)
    fill(p for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name)
    return model


def theirs(hidden, dtype, layers, options):
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(
        llama(hidden, dtype, layers),
        peft.LoraConfig(r=R, lora_alpha=2 * R, target_modules=targets, **options),
    )
    fill(p for name, p in model.named_parameters() if "lora_A" in name or "lora_B" in name)
    return model


def trained(model) -> dict[str, torch.Tensor]:
    """Trainable parameters by one name for both libraries."""

    def strip(n):
        return n.replace("base_model.model.", "").replace(".default", "").replace(".weight", "")

    return {strip(n): p for n, p in model.named_parameters() if p.requires_grad}


def step_of(model, batch) -> Callable:
    """Forward, backward and AdamW: DoRA's norm must be computed again in each."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6) if parameters else None
    embed = model.get_input_embeddings()

    def step():
        x = (
            embed(batch).detach().requires_grad_()
        )  # the floor needs a leaf too: then dX flows through every layer
        model(inputs_embeds=x, labels=batch).loss.backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()

    return step


def assert_equal(a, b, batch, dtype) -> None:
    """Same loss and same gradients, before anything is timed."""
    losses = []
    for model in (a, b):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        losses.append(loss.item())
    mine, other = trained(a), trained(b)
    assert mine.keys() == other.keys(), mine.keys() ^ other.keys()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    assert abs(losses[0] - losses[1]) < tolerance * abs(losses[1]), losses
    for name, p in mine.items():
        gap = (p.grad.float() - other[name].grad.float()).norm() / other[
            name
        ].grad.float().norm().clamp_min(1e-20)
        assert gap < tolerance, f"{name}: gradients differ by {gap:.2g}"
        p.grad = other[name].grad = None


def measure(
    variant: str, hidden: int, dtype: torch.dtype, layers: int, rounds: int, timed: bool
) -> list[str]:
    """One line of the table: times against the floor and against each other, and memory above the
    floor.
    """
    options, plain = (
        VARIANTS[variant],
        {k: v for k, v in VARIANTS[variant].items() if k != "lora_dropout"},
    )
    frozen, lora = llama(hidden, dtype, layers), ours(hidden, dtype, layers, {})
    batch = torch.randint(0, 2048, (BATCH, LENGTH), device=frozen.device)
    assert_equal(
        ours(hidden, dtype, layers, plain), theirs(hidden, dtype, layers, plain), batch, dtype
    )
    models = {
        "floor": frozen,
        "PEFT": theirs(hidden, dtype, layers, options),
        "ftlib": ours(hidden, dtype, layers, options),
        "LoRA": lora,
    }
    steps = {name: step_of(model, batch) for name, model in models.items()}
    steps["floor"]()
    peaks = {name: (step(), peak_bytes(step))[1] for name, step in steps.items()}
    above = {name: (peak - peaks["floor"]) / 1e6 for name, peak in peaks.items()}
    cells = [variant, str(hidden), str(dtype).removeprefix("torch.")]
    if timed:
        t = alternate(steps, rounds)
        cells += [
            ratio(t["PEFT"], t["floor"]),
            ratio(t["ftlib"], t["floor"]),
            ratio(t["PEFT"], t["ftlib"]),
            ratio(t["ftlib"], t["LoRA"]),
        ]
    else:
        cells += ["–"] * 4
    return [
        *cells,
        f"{above['PEFT']:.0f}",
        f"{above['ftlib']:.0f}",
        f"{above['ftlib'] / above['PEFT']:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--hidden", type=int, nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument(
        "--memory-only",
        action="store_true",
        help="no times (bf16 on a processor without bf16 units)",
    )
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    head = [
        "variant",
        "hidden",
        "dtype",
        "PEFT / floor",
        "ftlib / floor",
        "PEFT / ftlib",
        "ftlib / our LoRA",
        "PEFT, MB above floor",
        "ftlib, MB",
        "ftlib / PEFT, memory",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for hidden in args.hidden:
        for variant in VARIANTS:
            lines.append(
                "| "
                + " | ".join(
                    measure(variant, hidden, dtype, args.layers, args.rounds, not args.memory_only)
                )
                + " |"
            )
            print(lines[-1], flush=True)
    what = "memory" if args.memory_only else "time and memory"
    setting = (
        f"{args.layers} layers, {BATCH} x {LENGTH} tokens, r={R}, all linear layers; "
        f"{args.rounds} alternating rounds."
    )
    write_section(
        f"LoRA and DoRA against PEFT, {args.dtype}, {what}",
        f"{setting} Floor: the frozen model with the input's gradient. "
        f"{provenance(('torch', 'peft', 'transformers'))}\n\n" + "\n".join(lines),
    )


if __name__ == "__main__":
    main()
