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
from benchmarks.harness import (
    alternate,
    common_name,
    provenance,
    ratio,
    table,
    table_row,
    write_section,
)
from ftlib.adapters.gated import factors_only
from ftlib.training.memory_meter import peak_bytes

R = 16
BATCH = 4
LENGTH = 256
SHAPES = {512: 1408, 1024: 2816}  # hidden -> intermediate
VARIANTS: dict[str, dict] = {
    "LoRA": {},
    "DoRA": {"use_dora": True},
    "DoRA, dropout 0.05": {"use_dora": True, "lora_dropout": 0.05},
}


HEAD = [
    "variant",
    "hidden",
    "dtype",
    "PEFT / floor",
    "ftlib / floor",
    "PEFT / ftlib",
    "ftlib / our LoRA",
    "masks alone / floor",
    "PEFT, MB above floor",
    "ftlib, MB",
    "ftlib / PEFT, memory",
]


def llama(hidden: int, dtype: torch.dtype, layers: int) -> LlamaForCausalLM:
    """A random Llama of this width, frozen, in training mode."""
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
    model = LlamaForCausalLM(config).to(device, dtype)
    return model.requires_grad_(False).train()


def fill(model) -> None:
    """Give LoRA's A and B numbers as after some training; B = 0 would leave half of the gradients
    at zero.
    """
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            values = torch.randn(parameter.shape, generator=generator)
            parameter.data.copy_(0.02 * values)


def ours(hidden, dtype, layers, options) -> LlamaForCausalLM:
    """The model with ftlib's adapter."""
    base = llama(hidden, dtype, layers)
    model = ft.add_lora(base, r=R, lora_alpha=2 * R, **options)
    fill(model)
    return model


def theirs(hidden, dtype, layers, options):
    """The model with PEFT's adapter."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = peft.LoraConfig(r=R, lora_alpha=2 * R, target_modules=targets, **options)
    model = peft.get_peft_model(llama(hidden, dtype, layers), config)
    fill(model)
    return model


def trained(model) -> dict[str, torch.Tensor]:
    """Trainable parameters by one name for both libraries."""
    return {common_name(name): p for name, p in model.named_parameters() if p.requires_grad}


def step_of(model, batch) -> Callable:
    """Forward, backward and AdamW: DoRA's norm must be computed again in each."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-6) if parameters else None
    embed = model.get_input_embeddings()

    def step():
        # The floor needs a leaf too: then dX flows through every layer.
        x = embed(batch).detach().requires_grad_()
        model(inputs_embeds=x, labels=batch).loss.backward()
        if optimizer:
            optimizer.step()
            optimizer.zero_grad()

    return step


def masks_of(model, p: float) -> Callable:
    """Draw the masks of a step alone: one for the input of every adapted layer, as both libraries
    must.
    """
    widths = [layer.lora_A.shape[1] for layer in ft.lora_layers(model).values()]

    def draw():
        for width in widths:
            torch.empty(BATCH * LENGTH, width, dtype=torch.bool).bernoulli_(1 - p)

    return draw


def assert_equal(a, b, batch, dtype) -> None:
    """Same loss and same gradients, before anything is timed."""
    losses = []
    for model in (a, b):
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        losses.append(loss.item())
    mine = trained(a)
    other = trained(b)
    assert mine.keys() == other.keys(), mine.keys() ^ other.keys()
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    my_loss, other_loss = losses
    assert abs(my_loss - other_loss) < tolerance * abs(other_loss), losses
    for name, parameter in mine.items():
        gradient = parameter.grad.float()
        expected = other[name].grad.float()
        gap = (gradient - expected).norm() / expected.norm().clamp_min(1e-20)
        assert gap < tolerance, f"{name}: gradients differ by {gap:.2g}"
        parameter.grad = None
        other[name].grad = None


def peaks_of(steps: dict[str, Callable]) -> dict[str, int]:
    """Bytes that each step holds at its peak, after one to warm up."""
    steps["floor"]()
    peaks = {}
    for name, step in steps.items():
        step()
        peaks[name] = peak_bytes(step)
    return peaks


def time_cells(steps: dict[str, Callable], rounds: int) -> list[str]:
    """The table's five columns of times."""
    times = alternate(steps, rounds)
    masks = ratio(times["masks"], times["floor"]) if "masks" in times else "–"
    return [
        ratio(times["PEFT"], times["floor"]),
        ratio(times["ftlib"], times["floor"]),
        ratio(times["PEFT"], times["ftlib"]),
        ratio(times["ftlib"], times["LoRA"]),
        masks,
    ]


def measure(
    variant: str, hidden: int, dtype: torch.dtype, layers: int, rounds: int, timed: bool
) -> list[str]:
    """One line of the table: times against the floor and against each other, and memory above the
    floor.
    """
    options = VARIANTS[variant]
    plain = {name: value for name, value in options.items() if name != "lora_dropout"}
    shape = (hidden, dtype, layers)
    frozen = llama(*shape)
    lora = ours(*shape, {})
    batch = torch.randint(0, 2048, (BATCH, LENGTH), device=frozen.device)
    assert_equal(ours(*shape, plain), theirs(*shape, plain), batch, dtype)
    models = {
        "floor": frozen,
        "PEFT": theirs(*shape, options),
        "ftlib": ours(*shape, options),
        "LoRA": lora,
    }
    steps = {name: step_of(model, batch) for name, model in models.items()}
    if "lora_dropout" in options:
        steps["masks"] = masks_of(lora, options["lora_dropout"])
    cells = [variant, str(hidden), str(dtype).removeprefix("torch.")]
    with factors_only(models["ftlib"]), factors_only(lora):  # as training does
        peaks = peaks_of({name: steps[name] for name in models})
        cells += time_cells(steps, rounds) if timed else ["–"] * 5
    above = {name: (peak - peaks["floor"]) / 1e6 for name, peak in peaks.items()}
    return [
        *cells,
        f"{above['PEFT']:.0f}",
        f"{above['ftlib']:.0f}",
        f"{above['ftlib'] / above['PEFT']:.2f}",
    ]


def parse() -> argparse.Namespace:
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
    return parser.parse_args()


def main() -> None:
    args = parse()
    dtype = getattr(torch, args.dtype)
    timed = not args.memory_only
    rows = []
    for hidden in args.hidden:
        for variant in VARIANTS:
            cells = measure(variant, hidden, dtype, args.layers, args.rounds, timed)
            rows.append(cells)
            print(table_row(cells), flush=True)
    what = "memory" if args.memory_only else "time and memory"
    setting = (
        f"{args.layers} layers, {BATCH} x {LENGTH} tokens, r={R}, all linear layers; "
        f"{args.rounds} alternating rounds."
    )
    where = provenance(("torch", "peft", "transformers"))
    write_section(
        f"LoRA and DoRA against PEFT, {args.dtype}, {what}",
        f"{setting} Floor: the frozen model with the input's gradient; it keeps SiLU(gate), which "
        f"ftlib's adapted blocks make again, so ftlib may lie below it. {where}\n\n"
        f"{table(HEAD, rows)}",
    )


if __name__ == "__main__":
    main()
