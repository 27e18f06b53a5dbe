"""The planner against measured peaks, on the CPU: `python -m benchmarks.memory`. Also the table of
7B, 13B and 70B.

Each run builds the model, adapts it, and takes two steps of AdamW; measured is what its tensors
hold (weights, constants, adapter) and the most that the steps held beside them, to the byte. It
needs about 12 GB.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import gc
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen3Config

import ftlib as ft
from benchmarks.harness import provenance, table, table_row, write_section
from ftlib.adapters.gated import factors_only
from ftlib.models.random_checkpoint import write_random_checkpoint
from ftlib.training.memory_meter import peak_bytes
from ftlib.training.memory_plan import MODELS

SMALL = LlamaConfig(
    vocab_size=32000,
    hidden_size=512,
    intermediate_size=1408,
    num_hidden_layers=8,
    num_attention_heads=8,
    num_key_value_heads=4,
    head_dim=64,
    tie_word_embeddings=False,
)
BILLION = LlamaConfig(**MODELS["llama-3.2-1b"])
QWEN_FIELDS = {name: value for name, value in MODELS["qwen3-0.6b"].items() if name != "model_type"}
QWEN = Qwen3Config(**QWEN_FIELDS)
SMALL_METHODS = (
    ("full", "sft"),
    ("lora", "sft"),
    ("dora", "sft"),
    ("qlora", "sft"),
    ("lora", "dpo"),
)
# Name, shape, method, loss, whether activations are recomputed, rows, tokens, full logits.
RUNS = [
    ("56M Llama", SMALL, method, loss, recomputed, 4, 256, False)
    for method, loss in SMALL_METHODS
    for recomputed in (False, True)
]
RUNS += [
    ("56M Llama", SMALL, "lora", "sft", False, 4, 256, True),
    ("56M Llama", SMALL, "lora", "sft", True, 4, 256, True),
    ("56M Llama", SMALL, "lora", "dpo", False, 4, 256, True),
    ("56M Llama", SMALL, "lora", "dpo", True, 4, 256, True),
    ("0.6B Qwen3", QWEN, "lora", "sft", False, 1, 256, False),
    ("0.6B Qwen3", QWEN, "qlora", "sft", True, 1, 256, False),
    ("1.2B Llama", BILLION, "lora", "sft", False, 1, 256, False),
    ("1.2B Llama", BILLION, "lora", "sft", True, 1, 256, False),
    ("1.2B Llama", BILLION, "qlora", "sft", True, 1, 256, False),
]
COMPARED = [
    "model",
    "method",
    "loss",
    "activations",
    "logits",
    "rows × tokens",
    "planned, MB",
    "measured, MB",
    "planned / measured",
]
PLANNED = [
    "model",
    "method",
    "weights and constants, GB",
    "peak, GB",
    "a common claim, and what it leaves out",
]


def build(config, method: str):
    """A random model in fp32, its linear layers in NF4 for "qlora", ready to train."""
    if method == "qlora":
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model"
            checkpoint = write_random_checkpoint(config, path, "nf4", torch.float32)
            model, _ = ft.load_model(checkpoint, dtype=torch.float32)
    else:
        model = AutoModelForCausalLM.from_config(config)
    model.train()
    if method == "full":
        return model.requires_grad_(True)
    return ft.add_lora(model, r=16, use_dora=method == "dora")


def held_bytes(model) -> int:
    """What the model's tensors take before any step: parameters, and the constants of 4-bit
    weights.
    """
    tensors = list(model.parameters())
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state:
            tensors += [state.absmax, state.state2.absmax, state.offset]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def loss_of(model, ids: torch.Tensor, loss: str, full_logits: bool) -> torch.Tensor:
    """The loss as `finetune` and `prefer` compute it, or over full logits. DPO: the first half of
    the rows chosen, the second rejected; the reference is the model without its adapter.
    """

    def logps():
        if not full_logits:
            return ft.sequence_logps(model, ids, torch.ones_like(ids), ids)
        logits = model(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
        return logits.gather(-1, ids[:, 1:, None]).squeeze(-1).sum(1)

    if loss == "sft" and full_logits:
        return model(input_ids=ids, labels=ids).loss
    if loss == "sft":
        return -logps().mean()
    with torch.no_grad(), ft.disable_adapter(model):
        reference = logps()
    chosen, rejected = (logps() - reference).chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected)).mean()


def measure(
    config, method: str, loss: str, recomputed: bool, batch: int, length: int, full_logits: bool
) -> int:
    """Bytes at the peak of two steps, the model's own included. DPO takes twice the rows: pairs."""
    torch.manual_seed(0)
    model = build(config, method)
    if recomputed:
        model.activation_checkpointing_enable({"use_reentrant": False})
    rows = 2 * batch if loss == "dpo" else batch
    ids = torch.randint(8, 1000, (rows, length))

    def steps():
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
        with factors_only(model):  # as training does
            for _ in range(2):
                loss_of(model, ids, loss, full_logits).backward()
                optimizer.step()
                optimizer.zero_grad()

    held = held_bytes(model)
    return held + peak_bytes(steps)


def comparison() -> str:
    """The table of what was planned and what was measured."""
    rows = []
    for name, config, method, loss, recomputed, batch, length, full_logits in RUNS:
        peak = measure(config, method, loss, recomputed, batch, length, full_logits)
        gc.collect()
        plan = ft.plan_memory(
            config,
            method,
            r=16,
            batch_size=batch,
            seq_len=length,
            gradient_checkpointing=recomputed,
            loss=loss,
            full_logits=full_logits,
            dtype="float32",
            device="cpu",
        )
        kept = "recomputed" if recomputed else "kept"
        logits = "full" if full_logits else "tiles"
        sizes = [f"{plan.total / 1e6:,.0f}", f"{peak / 1e6:,.0f}", f"{plan.total / peak:.3f}"]
        rows.append([name, method, loss, kept, logits, f"{batch} × {length}", *sizes])
        print(table_row(rows[-1]), flush=True)
    return table(COMPARED, rows)


# What is said of these models' needs.
CIRCULATE = {
    ("llama-2-7b", "full"): "28 GB: weights and gradients in 16 bits, no optimizer",
    ("llama-3.1-70b", "qlora"): "24 GB: less than the 4-bit weights alone; "
    "45 GB: true of one batch, length and checkpointing",
}


def real_models() -> str:
    """The table of what real models need, planned and not measured."""
    rows = []
    for name in ("llama-2-7b", "llama-2-13b", "llama-3.1-8b", "llama-3.1-70b"):
        for method in ("full", "lora", "qlora"):
            plan = ft.plan_memory(name, method)
            constants = plan.parts.get("quantisation constants", 0)
            weights = plan.parts["weights"] + constants
            said = CIRCULATE.get((name, method), "")
            sizes = [f"{weights / 1e9:.1f}", f"{plan.total / 1e9:.1f}"]
            rows.append([name, method, *sizes, said])
    return table(PLANNED, rows)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    where = provenance(("torch", "transformers", "bitsandbytes"))
    setting = f"fp32 on the CPU, r=16, all linear layers, AdamW, two steps. {where}"
    write_section("Planned against measured memory", f"{setting}\n\n{comparison()}")
    setting = (
        "1 row of 1,024 tokens, activations recomputed, r=16, bf16 (full: fp32 weights), AdamW "
        "with fp32 states; computed by `ft.plan_memory`, not measured."
    )
    write_section("Planned memory of real models", f"{setting}\n\n{real_models()}")


if __name__ == "__main__":
    main()
