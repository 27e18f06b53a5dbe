"""A step of preference training, ftlib against TRL: `python -m benchmarks.preference
[--dtype float32]`. Losses and gradients are compared first.

Time of forward, backward and AdamW on one batch of pairs, and the most that a step holds beside the
weights. TRL computes DPO's log-probabilities by a kernel for GPUs, whose path on a CPU is untuned;
DPO over full logits is beside it. The floor is a step of the model without its head and loss: what
both libraries pay for.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse
import tempfile
from collections.abc import Callable

import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig

import ftlib as ft
from benchmarks.harness import alternate, common_name, provenance, ratio, table, write_section
from ftlib.adapters.gated import factors_only
from ftlib.batches.collate import PairCollator
from ftlib.training.loss_spec import LOSS_SPECS
from ftlib.training.memory_meter import peak_bytes
from ftlib.training.options import TrainOptions
from ftlib.training.preference_trainer import PreferenceTrainer, pair_logps

R = 16
PAD = 0
LAYERS_ALONE = "layers alone"
# How far a loss, and the gradient of a parameter, may lie from TRL's, as a share of TRL's. In bf16
# TRL means log-probabilities of about -8 in bf16 too, whose steps there are 1/32; SimPO doubles it.
LOSS_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
GRADIENT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.2}


def config(vocabulary: int, layers: int, dtype: torch.dtype) -> LlamaConfig:
    return LlamaConfig(
        dtype=dtype,
        vocab_size=vocabulary,
        hidden_size=512,
        intermediate_size=1408,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=64,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=PAD,
    )


def base(shape: LlamaConfig):
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(shape, dtype=shape.dtype)


def items(shape: LlamaConfig, pairs: int, length: int) -> list[dict]:
    """Random tokens, a prompt as long as each completion."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for _ in range(pairs):
        row = {}
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            ids = torch.randint(3, shape.vocab_size, (length,), generator=generator)
            row[name] = ids.tolist()
        rows.append(row)
    return rows


def ours(shape: LlamaConfig):
    """The base with ftlib's adapter, as after some training."""
    model = ft.add_lora(base(shape), r=R)
    with torch.no_grad():
        for layer in ft.lora_layers(model).values():
            layer.lora_B.normal_(std=0.02)
    return model.train()


def theirs(model, shape: LlamaConfig):
    """The same base and adapter in PEFT."""
    lora = LoraConfig(r=R, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(base(shape), lora)
    with torch.no_grad():
        for name, layer in ft.lora_layers(model).items():
            other = peft.get_submodule(f"base_model.model.{name}")
            other.lora_A["default"].weight.copy_(layer.lora_A)
            other.lora_B["default"].weight.copy_(layer.lora_B)
    return peft.train()


def trl_trainer(kind: str, peft, tokenizer, **options):
    """TRL's trainer of a kind: "dpo", "orpo" or "simpo"."""
    from trl import DPOConfig, DPOTrainer
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    kinds = {
        "dpo": (DPOTrainer, DPOConfig),
        "orpo": (ORPOTrainer, ORPOConfig),
        "simpo": (CPOTrainer, CPOConfig),
    }
    trainer_class, config_class = kinds[kind]
    rows = [{"prompt": "a", "chosen": "b", "rejected": "c"}] * 2
    settings = config_class(
        output_dir=tempfile.gettempdir(),
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        report_to=[],
        gradient_checkpointing=False,
        disable_tqdm=True,
        **options,
    )
    trainer = trainer_class(
        model=peft, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    # TRL's reference is a copy of the adapter: emptied, it is the base, as with the adapter off.
    with torch.no_grad():
        for name, parameter in trainer.model.named_parameters():
            if "lora_B.ref" in name:
                parameter.zero_()
    return trainer


def ftlib_loss(
    model, loss: str, rows: list[dict], share: bool = False, adapter_off: bool = False
) -> Callable[[], torch.Tensor]:
    """ftlib's loss of the rows, the prompt of a pair read once if `share`."""
    options = TrainOptions(
        steps=1, learning_rate=1e-6, batch_size=len(rows), warmup=0, precision="fp32"
    )
    args = options.trainer_arguments(model, evaluates=False)
    trainer = PreferenceTrainer(
        model, loss, LOSS_SPECS[loss].options, adapter_off, args=args, train_dataset=[]
    )
    batch = PairCollator(PAD, share)(rows)

    def compute():
        losses, *_ = trainer.row_losses(model, batch)
        return losses.mean()

    return compute


def layers_alone(model, rows: list[dict]) -> Callable[[], torch.Tensor]:
    """The mean of the hidden states in place of a loss: forward and backward run through the
    layers and nothing else.
    """
    batch = PairCollator(PAD, share_prefix=False)(rows)
    body = model.get_decoder()
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    def compute():
        return body(**inputs).last_hidden_state.float().mean()

    return compute


def trl_dpo_loss(trainer, rows: list[dict], cached: bool) -> Callable[[], torch.Tensor]:
    """TRL's DPO. `cached`: the reference's log-probabilities are given, not computed in a step."""
    plain_rows = []
    for row in rows:
        plain_rows.append({name: ids for name, ids in row.items() if name != "ref_logps"})
    batch = trainer.data_collator(plain_rows)
    reference = torch.tensor([row["ref_logps"] for row in rows])  # (pairs, 2)
    batch["ref_chosen_logps"] = reference[:, 0]
    batch["ref_rejected_logps"] = reference[:, 1]

    def compute():
        trainer.precompute_ref_logps = cached
        return trainer.compute_loss(trainer.model, dict(batch))

    return compute


def concatenated(rows: list[dict]) -> dict[str, torch.Tensor]:
    """The batch as TRL's ORPO and CPO collate it."""
    batch = PairCollator(PAD, share_prefix=False)(rows)
    out = {}
    for name in ("input_ids", "attention_mask", "labels"):
        chosen, rejected = batch[name].chunk(2)
        out[f"chosen_{name}"] = chosen
        out[f"rejected_{name}"] = rejected
    return out


def trl_free_loss(trainer, rows: list[dict]) -> Callable[[], torch.Tensor]:
    """ORPO's or SimPO's, with TRL's own metrics."""
    batch = concatenated(rows)

    def compute():
        loss, *_ = trainer.get_batch_loss_metrics(trainer.model, batch)
        return loss

    return compute


def full_logits_loss(peft, rows: list[dict]) -> Callable[[], torch.Tensor]:
    """DPO over PEFT's model in plain PyTorch, the reference with the adapter off."""
    batch = PairCollator(PAD, share_prefix=False)(rows)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    labels = batch["labels"][:, 1:]
    scored = labels != -100

    def logps():
        logits = peft(**inputs).logits[:, :-1].float()  # as transformers' own losses take them
        scores = logits.log_softmax(-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)
        return (scores * scored).sum(1).chunk(2)  # chosen, rejected

    def compute():
        with torch.no_grad(), peft.disable_adapter():
            reference = logps()
        losses, *_ = ft.dpo_loss(*logps(), *reference)
        return losses.mean()

    return compute


def step_of(model, loss: Callable[[], torch.Tensor]) -> Callable[[], None]:
    """Forward, backward and AdamW; ftlib's blocks keep what they keep in its training."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-7)

    def step():
        with factors_only(model):
            loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def gradient(model, loss: Callable[[], torch.Tensor]) -> tuple[float, dict]:
    """The loss, and its gradients by one name for both libraries."""
    with factors_only(model):
        value = loss()
        value.backward()
    gradients = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[common_name(name)] = parameter.grad
    model.zero_grad()
    return value.item(), gradients


def assert_equal(a: tuple, b: tuple, what: str, dtype: torch.dtype) -> None:
    """Same loss and gradients, to the rounding of the dtype."""
    loss, gradients = a
    other_loss, others = b
    loss_gap = abs(loss - other_loss) / abs(other_loss)
    assert loss_gap < LOSS_TOLERANCE[dtype], (what, loss, other_loss)
    assert gradients.keys() == others.keys(), what
    for name, values in gradients.items():
        other = others[name].float()
        gap = (values.float() - other).norm() / other.norm()
        assert gap < GRADIENT_TOLERANCE[dtype], f"{what}: {name}: gradients differ by {gap:.2g}"


def orpo_without_prompt(trainer, rows: list[dict]) -> Callable[[], torch.Tensor]:
    """TRL's own log-probabilities and odds ratio, with the NLL over the chosen answers alone."""
    batch = concatenated(rows)

    def compute():
        chosen, rejected, *_ = trainer.concatenated_forward(trainer.model, batch)
        odds_ratio, *_ = trainer.odds_ratio_loss(chosen, rejected)
        return -chosen.mean() - odds_ratio.mean()

    return compute


def with_reference(model, rows: list[dict]) -> list[dict]:
    """The rows with the log-probabilities of both answers by the model without its adapter."""
    with torch.no_grad(), ft.disable_adapter(model):
        reference, *_ = pair_logps(model, PairCollator(PAD)(rows))  # (pairs, 2)
    pairs = zip(rows, reference.tolist(), strict=True)
    return [{**row, "ref_logps": values} for row, values in pairs]


def losses(shape: LlamaConfig, pairs: int, length: int) -> dict[str, tuple]:
    """(model, loss) of everything that is compared, after proving that it is the same."""
    # For the rows that TRL's trainers want at their start; the batches are random tokens.
    _, tokenizer = ft.load_model()
    model = ours(shape)
    rows = with_reference(model, items(shape, pairs, length))
    dpo = trl_trainer("dpo", theirs(model, shape), tokenizer, beta=0.1)
    orpo = trl_trainer("orpo", theirs(model, shape), tokenizer, beta=0.1)
    simpo = trl_trainer(
        "simpo",
        theirs(model, shape),
        tokenizer,
        loss_type="simpo",
        cpo_alpha=0.0,
        beta=2.0,
        simpo_gamma=1.0,
    )
    plain = theirs(model, shape)
    out = {
        "DPO, TRL": (dpo.model, trl_dpo_loss(dpo, rows, cached=False)),
        "DPO, TRL cached": (dpo.model, trl_dpo_loss(dpo, rows, cached=True)),
        "DPO, full logits": (plain, full_logits_loss(plain, rows)),
        "DPO, ftlib": (model, ftlib_loss(model, "dpo", rows, adapter_off=True)),
        "DPO, ftlib cached": (model, ftlib_loss(model, "dpo", rows)),
        "DPO, ftlib cached, shared": (model, ftlib_loss(model, "dpo", rows, share=True)),
    }
    for name, trainer in (("ORPO", orpo), ("SimPO", simpo)):
        out[f"{name}, TRL"] = (trainer.model, trl_free_loss(trainer, rows))
        loss = name.lower()
        out[f"{name}, ftlib"] = (model, ftlib_loss(model, loss, rows))
        out[f"{name}, ftlib shared"] = (model, ftlib_loss(model, loss, rows, share=True))
    assert_all_equal(out, orpo, rows, shape.dtype)
    out[LAYERS_ALONE] = (model, layers_alone(model, rows))
    return out


def assert_all_equal(out: dict[str, tuple], orpo, rows: list[dict], dtype: torch.dtype) -> None:
    """Everything that is compared has TRL's loss and gradients; ORPO without its NLL of the
    prompt.
    """
    same = {"DPO": "DPO, TRL", "SimPO": "SimPO, TRL"}
    references = {kind: gradient(*out[name]) for kind, name in same.items()}
    references["ORPO"] = gradient(orpo.model, orpo_without_prompt(orpo, rows))
    for name, entry in out.items():
        if name != "ORPO, TRL":
            kind = name.split(",")[0]
            assert_equal(gradient(*entry), references[kind], name, dtype)


# What is compared, by the names that `losses` gives: the other, and ftlib's.
TABLE = [
    ("DPO, reference in every step", "DPO, TRL", "DPO, ftlib"),
    ("DPO, the same, TRL's kernel aside", "DPO, full logits", "DPO, ftlib"),
    ("DPO, reference cached in both", "DPO, TRL cached", "DPO, ftlib cached"),
    ("DPO, ftlib cached, prompt once", "DPO, TRL", "DPO, ftlib cached, shared"),
    ("the same against full logits", "DPO, full logits", "DPO, ftlib cached, shared"),
    ("ORPO", "ORPO, TRL", "ORPO, ftlib"),
    ("ORPO, prompt once", "ORPO, TRL", "ORPO, ftlib shared"),
    ("SimPO", "SimPO, TRL", "SimPO, ftlib"),
    ("SimPO, prompt once", "SimPO, TRL", "SimPO, ftlib shared"),
    ("floor of ORPO: the layers alone", "ORPO, TRL", LAYERS_ALONE),
    ("floor of SimPO: the layers alone", "SimPO, TRL", LAYERS_ALONE),
]


HEAD = ["loss", "other", "other / ftlib, time", "other, MB", "ftlib, MB", "ftlib / other, memory"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--pairs", type=int, default=4)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--rounds", type=int, default=7)
    return parser.parse_args()


def compared(steps: dict[str, Callable], rounds: int) -> str:
    """The table: times and peaks of ftlib beside the others."""
    peaks = {name: peak_bytes(step) / 1e6 for name, step in steps.items()}
    times = alternate(steps, rounds, warmup=0)  # a step of each was taken for the peaks
    rows = []
    for what, other, mine in TABLE:
        other_peak = peaks[other]
        my_peak = peaks[mine]
        cells = [what, other.split(", ")[1], ratio(times[other], times[mine])]
        memory = [f"{other_peak:,.0f}", f"{my_peak:,.0f}", f"{my_peak / other_peak:.2f}"]
        rows.append(cells + memory)
    return table(HEAD, rows)


def main() -> None:
    args = parse()
    shape = config(args.vocabulary, args.layers, getattr(torch, args.dtype))
    entries = losses(shape, args.pairs, args.length)
    steps = {name: step_of(*entry) for name, entry in entries.items()}
    written = compared(steps, args.rounds)
    print(written)
    setting = (
        f"Random Llama, hidden 512, {args.layers} layers, V={args.vocabulary:,}; "
        f"{args.pairs} pairs of {args.length} + {args.length} tokens; LoRA r={R}, all linear "
        f"layers; forward, backward, AdamW; {args.rounds} alternating rounds. "
    )
    equality = (
        f"Losses are within {LOSS_TOLERANCE[shape.dtype]:.2%} of TRL's and gradients within "
        f"{GRADIENT_TOLERANCE[shape.dtype]:.1%}, asserted first "
        "(ORPO: its NLL aside, which TRL takes over the prompt too). "
    )
    memory = (
        "MB: the most that a step holds beside the weights. "
        "TRL's kernel for DPO is made for GPUs and falls back to an untuned path on a CPU. "
    )
    where = provenance(("torch", "peft", "trl", "transformers"))
    write_section(
        f"A step of preference training against TRL, {args.dtype}",
        f"{setting}{equality}{memory}{where}\n\n{written}",
    )


if __name__ == "__main__":
    main()
