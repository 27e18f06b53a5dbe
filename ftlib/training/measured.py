"""What the trainers beyond SFT and preferences share: measures beside the loss, a scalar head that
is trained and checkpointed with the model, and the steps from arguments to a `Run`.

In one process: a scalar head reads the hidden states past the wrapper that would average its
gradients.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ftlib.adapters.active import adapter_of
from ftlib.batches.stops import name_turn_end
from ftlib.batches.vocabulary import check_ids, warn_of_frozen_rows
from ftlib.core.atomic import replacing
from ftlib.core.dtypes import master_like
from ftlib.training.errors import RunError
from ftlib.training.folder import open_folder
from ftlib.training.identity import run_settings
from ftlib.training.options import TrainOptions, recompute_activations
from ftlib.training.row_checks import as_in_training, check_later_tokens
from ftlib.training.run import Run, run_callbacks, run_training
from ftlib.training.trainer import SFTTrainer

if TYPE_CHECKING:
    from ftlib.training.folder import RunFolder

HEAD = "scalar_head"  # its name within the model while it trains
HEAD_FILE = "scalar_head.safetensors"


# --- a scalar head --------------------------------------------------------------------------------
def scalar_head(model: nn.Module) -> nn.Linear:
    """``w·h + b`` of a hidden state h, (…, H) -> (…, 1): zeros at the start, so that every run
    starts from the same head. In fp32 or wider, on the model's device.
    """
    weight = model.get_input_embeddings().weight
    width = model.config.get_text_config(decoder=True).hidden_size
    head = nn.Linear(width, 1, **master_like(weight))
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def save_head(head: nn.Linear, path: Path) -> Path:
    """A head as safetensors, written beside and renamed."""
    weights = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    with replacing(path) as temporary:
        save_file(weights, temporary)
    return path


def load_head(model: nn.Module, path: str | Path) -> nn.Linear:
    """The head that a run left in `path`, its folder or the file. RunError where it is missing,
    damaged, or of another width than the model's.
    """
    file = Path(path)
    if file.is_dir():
        file = file / HEAD_FILE
    head = scalar_head(model)
    try:
        head.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise RunError(
            f"{file} is missing, damaged, or of another model ({error}): pass the folder of the "
            "run that trained it, or delete that checkpoint"
        ) from error
    return head


def hidden_states(model, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """(B, T, H): what the language model's head would read, without that head's products."""
    inner = getattr(model, "module", model)
    out = inner.base_model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
    return out.last_hidden_state


def scalars(head: nn.Linear, hidden: Tensor) -> Tensor:
    """(…,) of hidden states (…, H), in the head's dtype whatever autocast says: rewards of nearby
    answers differ in digits that 16 bits do not have.
    """
    with torch.autocast(hidden.device.type, enabled=False):
        return head(hidden.to(head.weight.dtype)).squeeze(-1)


# --- the trainer ----------------------------------------------------------------------------------
class MeasuredTrainer(SFTTrainer):
    """`SFTTrainer` that logs, beside the loss, means over the steps since the last entry of what
    `note` was told; with a `head` in the model while it trains, and in every checkpoint.
    """

    def __init__(self, model, head: nn.Linear | None = None, **trainer):
        super().__init__(model, **trainer)
        self.model_accepts_loss_kwargs = False  # the loss is a mean over the batch's rows
        self.head = head
        self.noted: dict[str, list[float]] = {}
        if self.args.world_size > 1 or self.args.n_gpu > 1:
            raise RunError(
                f"{self.args.world_size} processes with {self.args.n_gpu} GPUs each: this training "
                "runs in one process on one; start it without torchrun, or set CUDA_VISIBLE_DEVICES"
            )

    def note(self, values: dict[str, float | Tensor]) -> None:
        """Values of this step, by name, that `Run.history` is to have means of."""
        for name, value in values.items():
            number = value.item() if isinstance(value, Tensor) else value
            self.noted.setdefault(name, []).append(number)

    def count_tokens(self, batch: dict[str, Tensor]) -> None:
        """Count a batch that was made within the loss, where `_track_num_input_tokens` is off."""
        self.state.num_input_tokens_seen += int(batch["attention_mask"].sum())

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            logs = logs | {name: sum(values) / len(values) for name, values in self.noted.items()}
            self.noted = {}
        super().log(logs, start_time)

    @contextlib.contextmanager
    def _with_head(self) -> Iterator[None]:
        """Within the block the head is a part of the model: the optimizer finds it there."""
        if self.head is None:
            yield
            return
        self.model.add_module(HEAD, self.head)
        try:
            yield
        finally:
            delattr(self.model, HEAD)

    def train(self, *args, **options):
        with self._with_head():
            return super().train(*args, **options)

    def load_finished(self, checkpoint: Path) -> None:
        with self._with_head():
            super().load_finished(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        if self.head is None:
            super()._save(output_dir, state_dict)
            return
        if adapter_of(self.model) is None and state_dict is None:
            state_dict = self.model.state_dict()
            for name in [name for name in state_dict if name.startswith(f"{HEAD}.")]:
                del state_dict[name]
        super()._save(output_dir, state_dict)
        save_head(self.head, Path(output_dir or self.args.output_dir) / HEAD_FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model=None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.head is not None:
            found = load_head(self.model, resume_from_checkpoint)
            self.head.load_state_dict(found.state_dict())


# --- from arguments to a run ----------------------------------------------------------------------
def train_options(given: dict, **defaults) -> TrainOptions:
    """Options of `TrainOptions`, those `given` in place of the defaults. RunError names one that
    there is not.
    """
    known = TrainOptions.__dataclass_fields__
    for name, value in given.items():
        if name not in known:
            raise RunError(f"{name}={value!r}: no such option; there are {', '.join(known)}")
    options = {**defaults, **given}
    if options.get("output_dir"):
        options["output_dir"] = Path(options["output_dir"])
    return TrainOptions(**options)


def make_ready(model, tokenizer, token_lists: list[list[int]], options: TrainOptions) -> None:
    """What every run does before its folder: the checks of model and tokens, the turn's end in the
    generation config, activations recomputed where asked for.
    """
    check_ids(model, tokenizer, token_lists)
    warn_of_frozen_rows(model, tokenizer)
    name_turn_end(model, tokenizer)
    with as_in_training(model, options.precision):
        check_later_tokens(model, token_lists[:64], tokenizer.pad_token_id)
    recompute_activations(model, options.checkpointing)


def run_with(
    trainer_of: Callable[..., MeasuredTrainer],
    model,
    tokenizer,
    options: TrainOptions,
    rows: tuple[list, list],
    encoded: tuple[list, list | None],
    identity: dict,
) -> Run:
    """Open the run's folder, have `trainer_of` make the trainer, train, leave the artifact and the
    head beside it. `rows` and `encoded`: to train on and to evaluate on.
    """
    train_set, eval_set = encoded
    args = options.trainer_arguments(model, evaluates=bool(eval_set))
    settings = {}
    if options.output_dir:
        recorded = {**options.identity(), **identity}
        settings = run_settings(model, tokenizer, *rows, list(encoded), **recorded)
    with open_folder(options.output_dir, settings, options.resume, args) as folder:
        trainer = trainer_of(
            model=model,
            args=args,
            train_dataset=train_set,
            eval_dataset=eval_set,
            callbacks=run_callbacks(args, options.show),
        )
        run = run_training(trainer, folder, tokenizer)
        _leave_head(trainer, folder)
        return run


def _leave_head(trainer: MeasuredTrainer, folder: RunFolder) -> None:
    if folder.path and trainer.head is not None:
        save_head(trainer.head, folder.path / HEAD_FILE)
