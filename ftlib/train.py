"""Supervised fine-tuning on `transformers.Trainer`: loss on the answer only, live, resumable.

A run with an `output_dir` checkpoints the adapter (not the base), resumes by itself after a kill, refuses to
resume with other settings or data, and ends with `adapter/` and `manifest.json`.
"""
from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import torch
from accelerate.utils import extract_model_from_parallel
from torch.utils.data import DataLoader, Sampler
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_pt_utils import get_length_grouped_indices

from ftlib.adapter_io import base_name, load_adapter, save_adapter
from ftlib.baselines import baseline_io
from ftlib.datasets import IGNORE, SFTCollator, encode_rows, fingerprint
from ftlib.logps import completion_logps
from ftlib.lora import adapter_config_dict, count_parameters, lora_layers
from ftlib.packing import PackedCollator, pack, real_tokens
from ftlib.profiles import get_profile
from ftlib.progress import LiveRun
from ftlib.training.neftune import neftune

log = logging.getLogger("ftlib")
COMPLETE, MANIFEST, SETTINGS = "complete", "manifest.json", "settings.json"
LATER_SETTINGS = ("precision", "dtype")  # that runs of version 0.1.0 did not record: there they are taken as they are now


class RunError(ValueError):
    """A training run that cannot start or resume, with the reason and the mend."""


@dataclass
class Run:
    """What a training run did. Losses are means per answer token, in nats."""
    history: list[dict] = field(default_factory=list)       # {"step", "loss", "learning_rate"}, and the metrics of `prefer`
    eval_history: list[dict] = field(default_factory=list)  # {"step", "eval_loss"}, and the metrics with eval_ before them
    seconds: float = 0.0                                     # since the last start
    tokens: int = 0                                          # real tokens seen, padding not counted
    session_tokens: int = 0                                  # of them since the last start
    state_bytes: dict = field(default_factory=dict)          # weights, gradients, optimizer: counted from the tensors
    resumed_from: int = 0
    output_dir: Path | None = None

    @property
    def tokens_per_second(self) -> float:
        return self.session_tokens / self.seconds if self.seconds else 0.0


class LengthGroupedSampler(Sampler):
    """Rows of like length in one batch. The order depends on seed and epoch alone: Trainer's own sampler draws from the
    global generator, so a run resumed in its second epoch would go on with the first epoch's order."""

    def __init__(self, lengths: list[int], batch_size: int, seed: int):
        self.lengths, self.batch_size, self.seed, self.epoch = lengths, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self):
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, generator=generator))


def adapter_of(model):
    """(options, save, load) of the model's adapter, LoRA or a baseline; None where the model itself trains."""
    if lora_layers(model):
        return adapter_config_dict(model), save_adapter, load_adapter
    return baseline_io(model)


class SFTTrainer(Trainer):
    """`Trainer` that checkpoints an adapter without its base, and records what the training state weighs."""
    metric_names: tuple[str, ...] = ()  # logged beside the loss

    def __init__(self, model, **options):
        # Trainer refuses a quantised model unless it sees PEFT's adapter on it; ftlib's is one as well.
        adapted = adapter_of(model) is not None and not getattr(model, "_hf_peft_config_loaded", False)
        if adapted:
            model._hf_peft_config_loaded = True
        try:
            super().__init__(model=model, **options)
        finally:
            if adapted:
                model._hf_peft_config_loaded = False

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        lengths = [len(row["input_ids"]) for row in (self.train_dataset if train_dataset is None else train_dataset)]
        together = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return LengthGroupedSampler(lengths, together, self.args.seed)

    def _track_num_input_tokens(self, inputs) -> None:
        if "attention_mask" not in inputs:  # packed rows have none, and Trainer would count their padding
            inputs = {**inputs, "attention_mask": real_tokens(inputs["position_ids"])}
        super()._track_num_input_tokens(inputs)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        if adapter := adapter_of(self.model):
            gathered = {} if state_dict is None else {"state_dict": state_dict}  # by FSDP, which calls on the first process alone
            adapter[1](self.model, output_dir or self.args.output_dir, **gathered)
        else:
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        model = model or self.model
        if adapter := adapter_of(model):
            adapter[2](model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def compute_loss(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Cross-entropy, the mean over the answer tokens of the whole step (accumulated batches, all processes),
        without full logits.

        Trainer averages gradients over processes: each one's share of the mean is multiplied by their number.
        """
        if isinstance(model, torch.nn.DataParallel):  # its replicas run in threads, and each would score all rows
            return super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        count = (inputs["labels"][:, 1:] != IGNORE).sum() if num_items_in_batch is None else num_items_in_batch
        shared = self.args.average_tokens_across_devices and num_items_in_batch is not None
        return (-completion_logps(model, **{"attention_mask": None, **inputs}).sum() / count
                * (self.accelerator.num_processes if shared else 1))

    def eval_batches(self, eval_dataset=None) -> Iterator[tuple[dict[str, torch.Tensor], bool]]:
        """This process's batches of the evaluation rows, and whether each counts.

        Processes run equally many batches, since sharded weights are gathered in step; one without rows left runs the first batch
        again, uncounted. (accelerate's own loader tops up with rows seen before, and a mean counts them twice.)
        """
        rows, size = self.eval_dataset if eval_dataset is None else eval_dataset, self.args.eval_batch_size
        batches = [range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]
        mine = batches[self.args.process_index:: self.args.world_size]
        idle = -(-len(batches) // self.args.world_size) - len(mine)
        loader = DataLoader(rows, batch_sampler=mine + batches[:1] * idle, collate_fn=self.data_collator)
        for turn, batch in enumerate(loader):
            yield self._prepare_inputs(batch), turn < len(mine)

    @torch.no_grad()
    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """Mean loss per answer token of the whole set; Trainer's is a mean of batch means, which favours short answers."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        self.model.eval()
        for batch, counts in self.eval_batches(eval_dataset):
            count = (batch["labels"][:, 1:] != IGNORE).sum()
            with self.accelerator.autocast():
                nll = -completion_logps(self.model, **{"attention_mask": None, **batch}).double().sum()
            sums += counts * torch.stack([nll, count.double()])
        loss, count = self.accelerator.gather(sums[None]).sum(0).tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def state_bytes(self) -> dict[str, int]:
        """Bytes held for weights, gradients and optimizer state."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        states = [t for s in self.optimizer.state.values() for t in s.values() if torch.is_tensor(t)] if self.optimizer else []
        size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
        return {"weights": size(self.model.parameters()), "gradients": size(trained), "optimizer": size(states)}


class MarkComplete(TrainerCallback):
    """Mark a checkpoint once every file of it is written, so that a half-written one is never resumed from."""

    def on_save(self, args, state, control, **_):
        if state.is_world_process_zero:
            (Path(args.output_dir) / f"checkpoint-{state.global_step}" / COMPLETE).touch()


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    done = [p.parent for p in output_dir.glob(f"checkpoint-*/{COMPLETE}")]
    return max(done, key=lambda p: int(p.name.rsplit("-", 1)[1]), default=None)


def _write_json(path: Path, content: dict) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def _settings(model, rows, eval_rows, **options) -> dict:
    adapter = adapter_of(model)
    settings = {"base": base_name(model), "dtype": str(model.dtype).removeprefix("torch."), "data": fingerprint(rows), "rows": len(rows), "adapter": adapter and adapter[0],
                "eval_data": fingerprint(eval_rows or []), **options}
    return json.loads(json.dumps(settings))  # tuples become lists, as they will on reading


def _prepare_dir(output_dir: Path, settings: dict, resume: bool) -> Path | None:
    """Create the run's folder or check that it holds this very run; returns the checkpoint to resume from."""
    recorded = output_dir / SETTINGS
    if recorded.is_file() and resume:
        try:
            before = json.loads(recorded.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{recorded} is damaged ({error}): choose another output_dir, or delete that one") from None
        changed = [k for k in settings if before.get(k) != settings[k] and (k in before or k not in LATER_SETTINGS)]
        if changed:
            k = changed[0]
            raise RunError(f"{output_dir} holds a run with other settings ({k}: {before.get(k)!r} there, {settings[k]!r} now): "
                           "choose another output_dir, or delete that one")
        return last_checkpoint(output_dir)
    if output_dir.exists() and any(output_dir.iterdir()):
        raise RunError(f"{output_dir} is not empty" + ("" if resume else " and resume=False") +
                       ": choose another output_dir, or delete that one")
    output_dir.mkdir(parents=True, exist_ok=True)
    _write_json(recorded, settings)
    return None


PRECISIONS = ("fp32", "bf16")


def check_precision(precision: str | None) -> str:
    """The precision asked for; None takes the profile's. RunError for another name, or for bf16 on a GPU without it."""
    if precision is None:
        precision = get_profile().precision
    if precision not in PRECISIONS:
        raise RunError(f"precision={precision!r}: use one of {', '.join(PRECISIONS)}, or None for the profile's")
    if precision == "bf16" and torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise RunError(f"precision='bf16': {torch.cuda.get_device_name()} has no bf16 units; use precision='fp32'")
    return precision


def uses_autocast(model, precision: str) -> bool:
    """Whether products of fp32 weights are taken in bf16. Weights of another dtype, be it bf16 or float64, compute in their own."""
    return precision == "bf16" and model.dtype == torch.float32


OPTIMIZERS = {"adamw": "adamw_torch_fused", "paged_adamw": "paged_adamw_32bit", "paged_adamw_8bit": "paged_adamw_8bit"}
LARGE = 7e9  # parameters from which activations are recomputed rather than kept, unless `checkpointing` says otherwise


def _optimizer(name: str) -> str:
    """Trainer's name of an optimizer; paged ones, whose states may move to the CPU's memory, are plain where there is no CUDA."""
    if name not in OPTIMIZERS:
        raise RunError(f"optimizer={name!r}: use one of {', '.join(OPTIMIZERS)}")
    if name != "adamw" and not torch.cuda.is_available():
        log.info("%s needs CUDA: training with plain AdamW", name)
        name = "adamw"
    return OPTIMIZERS[name]


def _arguments(output_dir, *, steps, learning_rate, batch_size, seed, schedule, warmup, weight_decay, accumulate,
               save_steps, eval_steps, log_steps, optimizer, autocast) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(output_dir or tempfile.gettempdir()), max_steps=steps, per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=accumulate, per_device_eval_batch_size=batch_size * 2, learning_rate=learning_rate,
        lr_scheduler_type=schedule, warmup_steps=round(warmup * steps), weight_decay=weight_decay, optim=_optimizer(optimizer),
        seed=seed, bf16=autocast, use_cpu=not cuda, logging_steps=log_steps, report_to=[], disable_tqdm=True,
        remove_unused_columns=False,
        save_strategy="steps" if output_dir else "no", save_steps=save_steps, save_total_limit=2,
        eval_strategy="steps" if eval_steps else "no", eval_steps=eval_steps, include_num_input_tokens_seen="non_padding",
        dataloader_pin_memory=cuda)


def finetune(model, tokenizer, rows, *, steps: int, learning_rate: float, batch_size: int = 32, seed: int = 0, eval_rows=None,
             eval_steps: int | None = None, output_dir=None, resume: bool = True, save_steps: int = 50, schedule: str = "cosine",
             warmup: float = 0.05, weight_decay: float = 0.0, accumulate: int = 1, checkpointing: bool | None = None,
             max_length: int = 1024, log_steps: int = 5, neftune_alpha: float = 0.0, optimizer: str = "adamw",
             packing: bool = False, precision: str | None = None, show: bool = True) -> Run:
    """Train what requires grad on the answers in `rows` for `steps` optimizer steps; returns a `Run`. Under `accelerate launch`
    or torchrun, `batch_size` is that of each process.

    `rows` are conversations (`datasets.check_row`) or what `encode_rows` made of them; batches hold rows of like length, AdamW
    with `schedule` after a `warmup` share of the steps. With `output_dir` the run checkpoints every `save_steps`, resumes after an
    interruption to the same result, and leaves `adapter/` and a manifest. `neftune_alpha` above 0 noises the
    embeddings (`ftlib.neftune`). `checkpointing` recomputes activations instead of keeping them; None: for models of 7 billion
    parameters and more. `optimizer`: "adamw" (fused), "paged_adamw" or "paged_adamw_8bit" (bitsandbytes; plain without CUDA).
    `packing` puts several conversations into each row of up to `max_length` tokens, none seeing another (`ftlib.packing`); a step
    then holds `batch_size` packed rows. `precision`: "fp32", or "bf16", which takes products of fp32 weights in bf16 (autocast; the
    weights, their gradients and the optimizer stay fp32); None: the profile's, whatever the processor has. A model whose weights have
    another dtype computes in that dtype. Raises RunError or DataError.
    """
    _check_start(model, steps, batch_size, learning_rate)
    if packing and neftune_alpha:
        raise RunError(f"packing=True and neftune_alpha={neftune_alpha}: "
                       "the noise goes by a conversation's own length, which a packed row does not have; choose one of them")
    precision = check_precision(precision)
    output_dir = Path(output_dir) if output_dir else None
    train_set = encode_rows(tokenizer, rows, max_length)
    eval_set = encode_rows(tokenizer, eval_rows, max_length) if eval_rows else None
    if packing:
        packed, eval_set = pack(train_set, max_length), eval_set and pack(eval_set, max_length).rows
        train_set = packed.rows
        log.info("%s", packed)
    args = _arguments(output_dir, steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed, schedule=schedule,
                      warmup=warmup, weight_decay=weight_decay, accumulate=accumulate,
                      save_steps=save_steps, eval_steps=(eval_steps or max(1, steps // 8)) if eval_set else None,
                      log_steps=log_steps, optimizer=optimizer, autocast=uses_autocast(model, precision))
    _recompute(model, checkpointing)
    checkpoint, settings = None, None
    if output_dir:
        settings = _settings(model, rows, eval_rows, steps=steps, learning_rate=learning_rate, batch_size=batch_size, seed=seed,
                             schedule=schedule, warmup=warmup, weight_decay=weight_decay, accumulate=accumulate,
                             max_length=max_length, neftune_alpha=neftune_alpha, optimizer=optimizer, precision=precision,
                             **({"packing": True} if packing else {}))
        checkpoint = _open_dir(output_dir, settings, resume, args)
    trainer = SFTTrainer(model=model, args=args, train_dataset=train_set, eval_dataset=eval_set,
                         data_collator=(PackedCollator if packing else SFTCollator)(tokenizer.pad_token_id),
                         callbacks=_callbacks(args, show))
    with neftune(model, neftune_alpha):
        run = _run(trainer, checkpoint, output_dir)
    if output_dir:
        _finish(run, model, output_dir, settings, args.process_index == 0)
    return run


def _check_start(model, steps: int, batch_size: int, learning_rate: float) -> None:
    if steps < 1 or batch_size < 1 or not learning_rate > 0:
        raise RunError(f"steps={steps}, batch_size={batch_size}, learning_rate={learning_rate}: all must be above 0")
    if not count_parameters(model)[0]:
        raise RunError("no parameter of the model requires grad: call add_lora, or model.requires_grad_(True)")


def _recompute(model, checkpointing: bool | None) -> None:
    """Recompute activations where asked for, or where the model is large."""
    if checkpointing if checkpointing is not None else model.num_parameters() >= LARGE:
        # Non-reentrant: gradients reach the adapters although the embedding output needs none.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})


def _open_dir(output_dir: Path, settings: dict, resume: bool, args: TrainingArguments) -> Path | None:
    """`_prepare_dir`, by the first process before the others."""
    if args.world_size > 1:
        settings["processes"] = args.world_size
    with args.main_process_first():
        return _prepare_dir(output_dir, settings, resume)


def _callbacks(args: TrainingArguments, show: bool) -> list[TrainerCallback]:
    return [MarkComplete(), LiveRun(args.max_steps, show and args.process_index == 0)]


def _steps_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.rsplit("-", 1)[1]) if checkpoint else 0


def _run(trainer: SFTTrainer, checkpoint: Path | None, output_dir: Path | None) -> Run:
    """Train from the checkpoint on, or take up a run that had come to its end."""
    for printer in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printer)
    done = _steps_of(checkpoint) >= trainer.args.max_steps
    return _reload(trainer, checkpoint, output_dir) if done else _train(trainer, checkpoint)


def _train(trainer: SFTTrainer, checkpoint: Path | None) -> Run:
    before = TrainerState.load_from_json(str(checkpoint / "trainer_state.json")).num_input_tokens_seen if checkpoint else 0
    start = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    extract_model_from_parallel(trainer.model, keep_fp32_wrapper=False)  # or bf16 autocast stays around forward for good
    return _summary(trainer, checkpoint, time.perf_counter() - start, int(trainer.state.num_input_tokens_seen - before))


def _reload(trainer: SFTTrainer, checkpoint: Path, output_dir: Path) -> Run:
    """A run that was finished before: its weights and record again, without a step (Trainer would take one more)."""
    trainer._load_from_checkpoint(str(checkpoint))
    trainer.create_optimizer_and_scheduler(trainer.args.max_steps)
    trainer._load_optimizer_and_scheduler(str(checkpoint))
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    manifest = output_dir / MANIFEST
    metrics = json.loads(manifest.read_text(encoding="utf-8"))["metrics"] if manifest.is_file() else {}
    return _summary(trainer, checkpoint, metrics.get("seconds", 0.0), metrics.get("session_tokens", 0))


def _summary(trainer: SFTTrainer, checkpoint: Path | None, seconds: float, session_tokens: int) -> Run:
    def pick(key, *more):
        return [{k: e[k] for k in ("step", key, *more) if k in e} for e in trainer.state.log_history if key in e]

    trainer.model.eval()
    metrics = trainer.metric_names
    return Run(pick("loss", "learning_rate", *metrics), pick("eval_loss", *(f"eval_{name}" for name in metrics)), seconds,
               int(trainer.state.num_input_tokens_seen), session_tokens, trainer.state_bytes(), resumed_from=_steps_of(checkpoint))


def _finish(run: Run, model, output_dir: Path, settings: dict, main: bool) -> None:
    """Leave the artifact: the adapter (or the model) and a manifest that says where it came from."""
    run.output_dir = output_dir
    if adapter := adapter_of(model):
        adapter[1](model, output_dir / "adapter")
    else:
        model.save_pretrained(output_dir / "model", is_main_process=main)
    if not main or run.resumed_from >= settings["steps"] and (output_dir / MANIFEST).is_file():
        return  # finished before: the manifest tells of the run that trained
    metrics = {"final_loss": run.history[-1]["loss"] if run.history else None, "seconds": round(run.seconds, 1),
               "tokens": run.tokens, "session_tokens": run.session_tokens, "resumed_from": run.resumed_from,
               "eval_loss": run.eval_history[-1]["eval_loss"] if run.eval_history else None}
    _write_json(output_dir / MANIFEST, {**settings, "metrics": metrics, "versions": {
        name: version(name) for name in ("torch", "transformers", "tokenizers", "ftlib")}})
