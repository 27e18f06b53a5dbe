"""`transformers.Trainer` with ftlib's loss: on the answer only, without full logits, the adapter
checkpointed without its base.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerControl

from ftlib.adapters.active import adapter_of
from ftlib.batches.collate import real_tokens
from ftlib.batches.template import IGNORE
from ftlib.core.modes import evaluation_mode
from ftlib.losses.logps import completion_logps
from ftlib.training.checkpoints import last_checkpoint
from ftlib.training.errors import RunError
from ftlib.training.samplers import LengthGroupedSampler


class SFTTrainer(Trainer):
    """`Trainer` that checkpoints an adapter without its base, and records what the training state
    weighs.
    """

    metric_names: tuple[str, ...] = ()  # logged beside the loss
    control: TrainerControl

    def __init__(self, model, penalty: Callable | None = None, **options):
        self.penalty = penalty
        self.penalties: list[torch.Tensor] = []  # of the batches since the last entry
        # Trainer refuses a quantised model unless it sees PEFT's adapter on it; ftlib's is one as
        # well.
        is_peft = getattr(model, "_hf_peft_config_loaded", False)
        pretend = adapter_of(model) is not None and not is_peft
        if pretend:
            model._hf_peft_config_loaded = True  # noqa: SLF001
        try:
            super().__init__(model=model, **options)
        finally:
            if pretend:
                model._hf_peft_config_loaded = False  # noqa: SLF001
        if penalty is not None:
            self.metric_names = (*self.metric_names, "penalty")

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        lengths = [len(row["input_ids"]) for row in rows]
        return LengthGroupedSampler(lengths, self.rows_of_a_step(), self.args.seed)

    def rows_of_a_step(self) -> int:
        """Of one optimizer step: of all accumulated batches, of all processes."""
        args = self.args
        return args.train_batch_size * args.gradient_accumulation_steps * args.world_size

    def _track_num_input_tokens(self, inputs) -> None:
        # Packed rows have no mask, and Trainer would count their padding.
        if "attention_mask" not in inputs:
            inputs = {**inputs, "attention_mask": real_tokens(inputs["position_ids"])}
        super()._track_num_input_tokens(inputs)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        adapter = adapter_of(self.model)
        if adapter is None:
            super()._save(output_dir, state_dict)
            return
        gathered = {}
        if state_dict is not None:  # by FSDP, which calls on the first process alone
            gathered["state_dict"] = state_dict
        adapter.save(self.model, output_dir or self.args.output_dir, **gathered)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        model = model or self.model
        adapter = adapter_of(model)
        if adapter is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            adapter.load(model, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _named_damage(checkpoint, ("optimizer.pt", "scheduler.pt")):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _named_damage(checkpoint, ("rng_state.pth", "rng_state_*.pth")):
            super()._load_rng_state(checkpoint)

    def _save_checkpoint(self, model, trial) -> None:
        """A checkpoint that cannot be written leaves nothing half-written and ends the run with the
        folder's name; the ones before are whole.
        """
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
        except torch.OutOfMemoryError:  # a RuntimeError, and no fault of the disk's
            raise
        except (OSError, RuntimeError, SafetensorError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            before = last_checkpoint(Path(self.args.output_dir))
            kept = f"the run goes on from {before.name}" if before else "there is none before it"
            hint = ""
            # PyTorch's writer has a RuntimeError for a full disk; a GPU's faults are some too.
            if not isinstance(error, RuntimeError) or "writ" in str(error):
                hint = ": is the disk full?"
            raise RunError(f"{folder} could not be written ({error}); {kept}{hint}") from error

    def load_finished(self, checkpoint: Path) -> None:
        """Weights, optimizer and schedule of a checkpoint with which a run came to its end."""
        self._load_from_checkpoint(str(checkpoint))
        self.create_optimizer_and_scheduler(self.args.max_steps)
        self._load_optimizer_and_scheduler(str(checkpoint))

    def compute_loss(
        self, model, inputs, return_outputs=False, num_items_in_batch=None
    ) -> torch.Tensor:
        """Cross-entropy, the mean over the answer tokens of the whole step (accumulated batches,
        all processes), without full logits; and the penalty, once a step.

        Trainer averages gradients over processes: each one's share of the mean is multiplied by
        their number.
        """
        # DataParallel's replicas run in threads, and each would score all rows.
        if isinstance(model, torch.nn.DataParallel):
            loss = super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
            share = 1.0
            if num_items_in_batch is not None:
                share = 1 / self.current_gradient_accumulation_steps
            return self._penalised(loss, share)
        nll = -answer_logps(model, inputs).sum()
        if num_items_in_batch is None:
            return self._penalised(nll / count_scored(inputs))
        processes = 1
        if self.args.average_tokens_across_devices:
            processes = self.accelerator.num_processes
        loss = nll / num_items_in_batch * processes
        return self._penalised(loss, 1 / self.current_gradient_accumulation_steps)

    def _penalised(self, loss: torch.Tensor, share: float = 1.0) -> torch.Tensor:
        """The loss with this batch's share of the penalty."""
        if self.penalty is None:
            return loss
        penalty = self.penalty(self.model)
        if not torch.is_tensor(penalty) or penalty.shape != ():
            found = tuple(penalty.shape) if torch.is_tensor(penalty) else type(penalty).__name__
            raise RunError(f"penalty returned {found}: a tensor of shape () is needed")
        self.penalties.append(penalty.detach())
        return loss + share * penalty

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs and self.penalties:
            logs = {**logs, "penalty": torch.stack(self.penalties).mean().item()}
            self.penalties = []
        super().log(logs, start_time)

    def eval_batches(self, eval_dataset=None) -> Iterator[tuple[dict[str, torch.Tensor], bool]]:
        """This process's batches of the evaluation rows, and whether each counts.

        Processes run equally many batches, since sharded weights are gathered in step; one without
        rows left runs the first batch again, uncounted. (accelerate's own loader tops up with rows
        seen before, and a mean counts them twice.)
        """
        rows = self.eval_dataset if eval_dataset is None else eval_dataset
        size = self.args.eval_batch_size
        batches = []
        for start in range(0, len(rows), size):
            batches.append(range(start, min(start + size, len(rows))))
        mine = batches[self.args.process_index :: self.args.world_size]
        turns = math.ceil(len(batches) / self.args.world_size)
        again = batches[:1] * (turns - len(mine))
        loader = DataLoader(rows, batch_sampler=mine + again, collate_fn=self.data_collator)
        for turn, batch in enumerate(loader):
            yield self._prepare_inputs(batch), turn < len(mine)

    @torch.no_grad()
    def evaluate(
        self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Mean loss per answer token of the whole set; Trainer's is a mean of batch means, which
        favours short answers.
        """
        sums = torch.zeros(2, dtype=torch.float64, device=self.args.device)
        with evaluation_mode(self.model):
            for batch, counts in self.eval_batches(eval_dataset):
                with self.accelerator.autocast():
                    nll = -answer_logps(self.model, batch).double().sum()
                sums += counts * torch.stack([nll, count_scored(batch).double()])
        loss, count = self.accelerator.gather(sums[None]).sum(0).tolist()
        metrics = {f"{metric_key_prefix}_loss": loss / count}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def state_bytes(self) -> dict[str, int]:
        """Bytes held for weights, gradients and optimizer state."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        states = []
        if self.optimizer:
            for state in self.optimizer.state.values():
                states += [value for value in state.values() if torch.is_tensor(value)]
        return {
            "weights": bytes_of(self.model.parameters()),
            "gradients": bytes_of(trained),
            "optimizer": bytes_of(states),
        }


@contextlib.contextmanager
def _named_damage(checkpoint: str | None, patterns: tuple[str, ...]) -> Iterator[None]:
    """RunError that names a checkpoint's files where reading them fails in the block."""
    try:
        yield
    except torch.OutOfMemoryError:  # the files may be whole: nobody is told to delete them
        raise
    except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError) as error:
        if checkpoint is None:
            raise
        folder = Path(checkpoint)
        files = [file.name for pattern in patterns for file in sorted(folder.glob(pattern))]
        raise RunError(
            f"{folder}: {' or '.join(files) or patterns[0]} is damaged or of another version "
            f"({type(error).__name__}: {error}): delete that checkpoint to go on from the one "
            "before it"
        ) from error


def answer_logps(model, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """(B, T - 1) log-probabilities of a batch's next tokens, 0 where they are not scored; a batch
    of packed rows has no attention mask.
    """
    return completion_logps(model, **{"attention_mask": None, **batch})


def count_scored(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """How many tokens of a batch are scored, ()."""
    return (batch["labels"][:, 1:] != IGNORE).sum()


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
