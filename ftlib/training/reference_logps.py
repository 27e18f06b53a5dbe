"""The starting policy's log-probabilities, put into the rows before training begins."""

from __future__ import annotations

from pathlib import Path

import torch

from ftlib.batches.preference import sequences_of
from ftlib.core.locks import locked
from ftlib.training.errors import RunError
from ftlib.training.folder import RunFolder
from ftlib.training.preference_trainer import PreferenceTrainer
from ftlib.training.reference import describe, load_reference, save_reference, sequence_key


def row_keys(item: dict) -> list[bytes]:
    """The keys of the two sequences that an encoded row has scored."""
    return [sequence_key(**sequence) for sequence in sequences_of(item)]


def _not_known(items: list[dict], known: dict[bytes, float]) -> list[dict]:
    """What is to be computed: pairs of which a side is not known, whose prompt can be run once;
    KTO's sequences one by one, since its mismatched ones change with the seed and its own do not.
    """
    if "chosen_ids" in items[0]:
        return [item for item in items if not known.keys() >= set(row_keys(item))]
    missing = {}
    for item in items:
        for sequence in sequences_of(item):
            key = sequence_key(**sequence)
            if key not in known:
                missing[key] = sequence
    return list(missing.values())


def _compute(
    trainer: PreferenceTrainer, todo: list[dict], show: bool
) -> tuple[dict[bytes, float], torch.dtype]:
    """Log-probabilities of these pairs or sequences by key, and their dtype."""
    logps = trainer.reference_logps(todo, show)
    computed: dict[bytes, float] = {}
    for item, values in zip(todo, logps.tolist(), strict=True):
        keys = row_keys(item) if "chosen_ids" in item else [sequence_key(**item)]
        computed.update(zip(keys, values, strict=True))
    return computed, logps.dtype


def add_reference(
    trainer: PreferenceTrainer,
    precision: str | None,
    run: RunFolder,
    shared: Path | None,
    show: bool,
) -> None:
    """Put the starting policy's log-probabilities into the trainer's rows: found in a folder, or
    computed and left there. The folder is the run's own, or one `shared` by several runs, which is
    locked meanwhile; without either nothing is kept.
    """
    folder = shared
    if folder is None and run.path:
        folder = run.path / "reference"
    parts = {"train": trainer.train_dataset}
    if trainer.eval_dataset:
        parts["eval"] = trainer.eval_dataset
    items = [item for part in parts.values() for item in part]
    with trainer.args.main_process_first(), locked(shared, "reference"):
        policy = {}
        known = {}
        if folder:
            policy = describe(trainer.model, precision)
            known = load_reference(folder, policy, run.resumed, parts)
        todo = _not_known(items, known)
        if todo and run.resumed:
            raise RunError(
                f"{folder} holds no reference of {len(todo)} of the rows, and the run had begun: "
                "delete the run's folder and start again"
            )
        if todo:
            computed, dtype = _compute(trainer, todo, show)
            known.update(computed)
            if folder and trainer.args.process_index == 0:
                save_reference(folder, policy, known, dtype)
    for item in items:
        item["ref_logps"] = [known[key] for key in row_keys(item)]
