"""`transformers.Trainer` with ftlib's loss: on the answer only, without full logits, the adapter
checkpointed without its base.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer

from ftlib.adapters.active import adapter_of
from ftlib.batches.collate import real_tokens
from ftlib.batches.template import IGNORE
from ftlib.losses.logps import completion_logps
from ftlib.training.samplers import LengthGroupedSampler


class SFTTrainer(Trainer):
    """`Trainer` that checkpoints an adapter without its base, and records what the training state
    weighs.
    """

    metric_names: tuple[str, ...] = ()  # logged beside the loss

    def __init__(self, model, **options):
        # Trainer refuses a quantised model unless it sees PEFT's adapter on it; ftlib's is one as
        # well.
        adapted = adapter_of(model) is not None and not getattr(
            model, "_hf_peft_config_loaded", False
        )
        if adapted:
            model._hf_peft_config_loaded = True
        try:
            super().__init__(model=model, **options)
        finally:
            if adapted:
                model._hf_peft_config_loaded = False

    def _get_train_sampler(self, train_dataset=None) -> Sampler:
        lengths = [
            len(row["input_ids"])
            for row in (self.train_dataset if train_dataset is None else train_dataset)
        ]
        together = (
            self.args.train_batch_size
            * self.args.gradient_accumulation_steps
            * self.args.world_size
        )
        return LengthGroupedSampler(lengths, together, self.args.seed)

    def _track_num_input_tokens(self, inputs) -> None:
        if (
            "attention_mask" not in inputs
        ):  # packed rows have none, and Trainer would count their padding
            inputs = {**inputs, "attention_mask": real_tokens(inputs["position_ids"])}
        super()._track_num_input_tokens(inputs)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        if adapter := adapter_of(self.model):
            gathered = (
                {} if state_dict is None else {"state_dict": state_dict}
            )  # by FSDP, which calls on the first process alone
            adapter.save(self.model, output_dir or self.args.output_dir, **gathered)
        else:
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        model = model or self.model
        if adapter := adapter_of(model):
            adapter.load(model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def compute_loss(self, model, inputs, num_items_in_batch=None) -> torch.Tensor:
        """Cross-entropy, the mean over the answer tokens of the whole step (accumulated batches,
        all processes), without full logits.

        Trainer averages gradients over processes: each one's share of the mean is multiplied by
        their number.
        """
        if isinstance(
            model, torch.nn.DataParallel
        ):  # its replicas run in threads, and each would score all rows
            return super().compute_loss(model, inputs, num_items_in_batch=num_items_in_batch)
        count = (
            (inputs["labels"][:, 1:] != IGNORE).sum()
            if num_items_in_batch is None
            else num_items_in_batch
        )
        shared = self.args.average_tokens_across_devices and num_items_in_batch is not None
        return (
            -completion_logps(model, **{"attention_mask": None, **inputs}).sum()
            / count
            * (self.accelerator.num_processes if shared else 1)
        )

    def eval_batches(self, eval_dataset=None) -> Iterator[tuple[dict[str, torch.Tensor], bool]]:
        """This process's batches of the evaluation rows, and whether each counts.

        Processes run equally many batches, since sharded weights are gathered in step; one without
        rows left runs the first batch again, uncounted. (accelerate's own loader tops up with rows
        seen before, and a mean counts them twice.)
        """
        rows, size = (
            self.eval_dataset if eval_dataset is None else eval_dataset,
            self.args.eval_batch_size,
        )
        batches = [
            range(start, min(start + size, len(rows))) for start in range(0, len(rows), size)
        ]
        mine = batches[self.args.process_index :: self.args.world_size]
        idle = -(-len(batches) // self.args.world_size) - len(mine)
        loader = DataLoader(
            rows, batch_sampler=mine + batches[:1] * idle, collate_fn=self.data_collator
        )
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
        self.model.eval()
        for batch, counts in self.eval_batches(eval_dataset):
            count = (batch["labels"][:, 1:] != IGNORE).sum()
            with self.accelerator.autocast():
                nll = (
                    -completion_logps(self.model, **{"attention_mask": None, **batch})
                    .double()
                    .sum()
                )
            sums += counts * torch.stack([nll, count.double()])
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
        states = (
            [t for s in self.optimizer.state.values() for t in s.values() if torch.is_tensor(t)]
            if self.optimizer
            else []
        )
        size = lambda tensors: sum(t.numel() * t.element_size() for t in tensors)
        return {
            "weights": size(self.model.parameters()),
            "gradients": size(trained),
            "optimizer": size(states),
        }
