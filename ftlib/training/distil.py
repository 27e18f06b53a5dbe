"""Distillation on the trainer that SFT has: a student learns a teacher's next-token distributions,
on given answers or on its own (GKD, Agarwal et al. 2023, arXiv 2306.13649).

Sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947) needs none of this: it is
`finetune` on answers that the teacher wrote.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftlib.batches.collate import SFTCollator, sequence
from ftlib.batches.control_tokens import handling_of
from ftlib.batches.encode import encode_both, encode_rows
from ftlib.batches.stops import learnt_stops
from ftlib.batches.template import IGNORE, check_tokenizer
from ftlib.core.checks import as_rows, check_above_zero, check_positive_integer
from ftlib.core.modes import evaluation_mode
from ftlib.losses.distillation import DIVERGENCES, distillation_loss, scored_logits
from ftlib.training.errors import RunError
from ftlib.training.identity import digest_parameters, name_of
from ftlib.training.measured import MeasuredTrainer, make_ready, run_with, train_options
from ftlib.training.options import TrainOptions, check_trainable
from ftlib.training.run import Run
from ftlib.training.samplers import generator_of
from ftlib.training.sampling import sample_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

METRICS = ("own_answers", "length")


def distil(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    teacher: nn.Module,
    rows: Iterable[dict],
    *,
    steps: int,
    learning_rate: float,
    divergence: str = "forward_kl",
    temperature: float = 1.0,
    on_policy: float = 0.0,
    max_new_tokens: int = 40,
    batch_size: int = 16,
    seed: int = 0,
    eval_rows: Iterable[dict] | None = None,
    loss_function: Callable[[Tensor, Tensor, float], Tensor] | None = None,
    **options: Any,
) -> Run:
    """Train what requires grad of `model`, the student, on `ftlib.distillation_loss` towards
    `teacher`, another model over the same token ids, which is left as it is; returns a `Run`.

    `rows`: conversations as in `finetune`. `on_policy`: the share of the steps, drawn from the
    seed, in which the answer that a row ends with gives way to one that the student draws, at
    temperature 1 and of up to `max_new_tokens` tokens (GKD's λ): 0 learns on the rows' answers, 1
    only on its own. No gradient goes through the drawing. `temperature` is the loss's.
    `loss_function` takes the place of `divergence`: of both models' logits at the scored positions,
    (N, V) each, and the temperature, it makes the loss, ().

    `Run.history` has, as means over the steps since the last entry, "own_answers", that share, and
    "length", tokens scored a row; `Run.eval_history` the loss of plain fine-tuning on `eval_rows`,
    in nats a token. The loss is the mean over a batch's tokens; with `accumulate` the mean of such
    means. Needs the full logits of both models, (B, T, V) each. `options`: those of `TrainOptions`
    (output_dir, precision, …); checkpoints and resuming as in `finetune`. In one process.
    RunError, DataError, LossError.
    """
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size, "seed": seed}
    chosen = train_options({**given, **options})
    check_trainable(model)
    objective: dict[str, Any] = {
        "divergence": divergence,
        "temperature": temperature,
        "on_policy": on_policy,
        "max_new_tokens": max_new_tokens,
    }
    _check_objective(**objective)
    _check_teacher(model, teacher)
    given_rows = list(as_rows("rows", rows, RunError))
    given_eval = list(as_rows("eval_rows", eval_rows or [], RunError))
    train_set, eval_set = encode_both(_encoder(model, tokenizer, chosen), given_rows, given_eval)
    token_lists = [row["input_ids"] for row in [*train_set, *(eval_set or [])]]
    make_ready(model, tokenizer, token_lists, chosen)
    trainer_of = functools.partial(
        DistillationTrainer,
        teacher=teacher,
        loss_function=loss_function,
        tokenizer=tokenizer,
        data_collator=SFTCollator(tokenizer.pad_token_id),
        **objective,
    )
    identity = {"kind": "distil", **objective, "teacher": _fingerprint(teacher)}
    if loss_function is not None:
        identity["loss_function"] = name_of(loss_function)
    both = (given_rows, given_eval)
    return run_with(trainer_of, model, tokenizer, chosen, both, (train_set, eval_set), identity)


def _encoder(model, tokenizer, options: TrainOptions) -> Callable:
    """Makes token ids and labels of conversations, as `finetune` does."""
    stops = learnt_stops(model, check_tokenizer(tokenizer))
    return functools.partial(
        encode_rows,
        tokenizer,
        max_length=options.max_length,
        stops=stops,
        control_tokens=handling_of(tokenizer, options.control_tokens, stops),
    )


def _check_objective(
    divergence: str, temperature: float, on_policy: float, max_new_tokens: int
) -> None:
    if divergence not in DIVERGENCES:
        raise RunError(f"divergence={divergence!r}: use one of {', '.join(DIVERGENCES)}")
    check_above_zero("temperature", temperature, RunError)
    check_positive_integer("max_new_tokens", max_new_tokens, RunError)
    if not 0 <= on_policy <= 1:
        raise RunError(f"on_policy={on_policy!r}: a share of the steps, from 0 to 1, is needed")


def _check_teacher(model, teacher) -> None:
    """RunError for a teacher that is the student, or that counts its tokens differently."""
    if teacher is model:
        raise RunError("teacher is the model itself: pass another one, loaded beside it")
    student_size = model.get_output_embeddings().weight.shape[0]
    teacher_size = teacher.get_output_embeddings().weight.shape[0]
    if student_size != teacher_size:
        raise RunError(
            f"teacher has {teacher_size} tokens, the model {student_size}: distributions over "
            "different vocabularies cannot be compared; finetune on the teacher's answers instead"
        )
    if teacher.device != model.device:
        raise RunError(
            f"teacher is on {teacher.device}, the model on {model.device}: move it there"
        )


def _fingerprint(teacher) -> str:
    """Of a sample of every weight, frozen or not."""
    return digest_parameters(
        (name, nn.Parameter(p.detach(), requires_grad=False))
        for name, p in teacher.named_parameters()
    )


class DistillationTrainer(MeasuredTrainer):
    """`distillation_loss` of a batch of conversations, or of the student's own answers to them."""

    metric_names = METRICS

    def __init__(
        self,
        model,
        teacher: nn.Module,
        tokenizer,
        divergence: str,
        temperature: float,
        on_policy: float,
        max_new_tokens: int,
        loss_function: Callable | None = None,
        **trainer,
    ):
        super().__init__(model, **trainer)
        self.teacher = teacher
        self.tokenizer = tokenizer
        self.divergence = divergence
        self.temperature = temperature
        self.on_policy = on_policy
        self.max_new_tokens = max_new_tokens
        self.loss_function = loss_function
        self.batch_of_step = (-1, 0)  # the step, and which of its batches

    def _track_num_input_tokens(self, inputs) -> None:
        """Counted with the loss: the answers may be others than the rows'."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None) -> Tensor:
        self._count_batch()
        generator = generator_of(self._stream_seed(), self.state.global_step)
        own = torch.rand((), generator=generator).item() < self.on_policy
        batch = self._own_answers(inputs) if own else inputs
        self.count_tokens(batch)
        scored = (batch["labels"][:, 1:] != IGNORE).sum(1)
        self.note({"own_answers": float(own), "length": scored.double().mean()})
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with evaluation_mode(self.teacher), torch.no_grad(), self.accelerator.autocast():
            teacher_logits = self.teacher(**tokens, use_cache=False).logits
        student_logits = model(**tokens, use_cache=False).logits
        return self._loss(student_logits, teacher_logits, batch["labels"])

    def _count_batch(self) -> None:
        """Number the batches that one step accumulates."""
        step = self.state.global_step
        number = self.batch_of_step[1] + 1 if self.batch_of_step[0] == step else 0
        self.batch_of_step = (step, number)

    def _stream_seed(self) -> int:
        """The run's seed; of a step's further batches one of their own, or they would draw the same
        answers.
        """
        return self.args.seed + 2**32 * self.batch_of_step[1]

    def _loss(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        if self.loss_function is None:
            return distillation_loss(
                student_logits, teacher_logits, labels, self.temperature, self.divergence
            )
        student = scored_logits(student_logits, labels)  # (N, V)
        teacher = scored_logits(teacher_logits, labels)
        return self.loss_function(student, teacher, self.temperature)

    def _own_answers(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with the last answer of each row drawn from the student as it is."""
        prompts = []
        lengths = batch["attention_mask"].sum(1).tolist()
        for ids, labels, length in zip(
            batch["input_ids"].tolist(), batch["labels"].tolist(), lengths, strict=True
        ):
            prompts.append(ids[: answer_start(labels[:length])])
        answers = sample_ids(
            self.model,
            self.tokenizer,
            prompts,
            max_new_tokens=self.max_new_tokens,
            batch_size=len(prompts),
            temperature=1.0,
            seed=generator_of(self._stream_seed(), self.state.global_step).initial_seed(),
        )
        rows = [sequence(p, a) for p, a in zip(prompts, answers, strict=True)]
        drawn = SFTCollator(self.tokenizer.pad_token_id)(rows)
        return {name: value.to(self.model.device) for name, value in drawn.items()}


def answer_start(labels: list[int]) -> int:
    """Where the last answer of a row begins: the last run of labels that are not -100."""
    end = len(labels)
    while labels[end - 1] == IGNORE:
        end -= 1
    start = end
    while start > 0 and labels[start - 1] != IGNORE:
        start -= 1
    return start
