"""Is the exported file the model? transformers against llama.cpp on the same tokens, quantisations
against the first file.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from gguf import LlamaFileType
from torch import nn

from ftlib.batches.stops import model_stops
from ftlib.export.errors import ExportError
from ftlib.export.export_report import ExportReport, FileReport, judge_first, judge_other
from ftlib.export.llama_outputs import llama_answer, llama_chat_ids, llama_logits
from ftlib.export.llamacpp import open_llama
from ftlib.training.sampling import own_distribution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class _Case:
    """A chat, its token ids and the model's answer to it."""

    chat: list[dict]
    ids: list[int]
    answer: list[int]


def check_export(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    files: Sequence[str | os.PathLike] | str | os.PathLike,
    prompts: Sequence,
    texts: Sequence[str] | None = None,
    max_new_tokens: int = 32,
    tolerance: float | None = None,
    max_kl: float = 0.5,
    threads: int | None = None,
    generate: Callable | None = None,
) -> ExportReport:
    """Compare exported files with the model they were made of; returns a report that passes or
    names what differs.

    files: a path or a list; the first is the unquantised one, which must give the same greedy
    answers and logits within `tolerance` (largest difference; by default what the roundings of its
    type explain, see TOLERANCES), the others are measured against it and must stay below `max_kl`,
    the mean of KL(first ‖ file) in nats per token. Every file must turn every chat into the same
    token ids. prompts: texts of the user or lists of messages. texts: what perplexity and KL are
    measured on (default: the prompts with the model's answers). The model is used as it is, adapter
    on; nothing is merged in it. threads: llama.cpp's, by default as many as PyTorch's. generate:
    another runtime, `generate(prompt)` -> str, whose answers must be the model's. Logits of the
    model and of the first file lie in a temporary folder meanwhile: 8 bytes per token and
    vocabulary entry.
    """
    named = [files] if isinstance(files, (str, os.PathLike)) else files
    paths = [Path(file) for file in named]
    if not paths or not prompts:
        raise ExportError(f"{len(paths)} files, {len(prompts)} prompts: pass at least one of each")
    cases = [_case(model, tokenizer, prompt, max_new_tokens) for prompt in prompts]
    rows = _rows_to_measure(tokenizer, cases, texts)
    report = ExportReport(len(prompts), math.nan)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        report.perplexity, spread = _keep_logits(model, rows, scratch)
        layers = getattr(model.config, "num_hidden_layers", 1)
        report.rounding = spread * math.sqrt(layers)
        for number, file in enumerate(paths):
            first = number == 0
            found = _measure(file, tokenizer, cases, rows, scratch, report, first, threads)
            if first:
                judge_first(found, report, tolerance)
            else:
                judge_other(found, report, max_kl)
    if generate is not None:
        answers = [case.answer for case in cases]
        _compare_runtime(generate, tokenizer, prompts, answers, report)
    return report


def _rows_to_measure(tokenizer, cases: list[_Case], texts) -> list[list[int]]:
    """Token ids that perplexity and KL are measured on: of the texts, else of the chats with the
    model's answers. A row of one token has nothing to predict.
    """
    if texts is None:
        rows = [case.ids + case.answer for case in cases]
    else:
        rows = [tokenizer(text)["input_ids"] for text in texts]
    return [row for row in rows if len(row) > 1]


def _measure(
    file: Path,
    tokenizer,
    cases: list[_Case],
    rows: list[list[int]],
    scratch: Path,
    report: ExportReport,
    first: bool,
    threads: int | None,
) -> FileReport:
    """One file's figures, which the report then has. The `first` file's logits stay in the folder
    `scratch`, for the others to be measured against.
    """
    conversations = [case.ids + case.answer for case in cases]
    width = max(map(len, conversations + rows)) + 1
    with open_llama(file, n_ctx=width, threads=threads, all_logits=True) as llama:
        found = _describe(file, llama)
        report.files.append(found)
        _compare_chats(llama, tokenizer, cases, found, report, first)
        _compare_logits(llama, rows, found, scratch, first)
    return found


def _case(model, tokenizer, prompt: str | list[dict], max_new_tokens: int) -> _Case:
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    ids = _chat_ids(tokenizer, chat)
    return _Case(chat, ids, _answer(model, ids, max_new_tokens, model_stops(model, tokenizer)))


def _describe(file: Path, llama) -> FileReport:
    kind = LlamaFileType(int(llama.metadata["general.file_type"])).name
    return FileReport(file.name, kind, file.stat().st_size / 1e6)


def _chat_ids(tokenizer, chat: list[dict]) -> list[int]:
    return tokenizer.apply_chat_template(
        chat, tokenize=True, return_dict=True, add_generation_prompt=True
    )["input_ids"]


@torch.no_grad()
def _answer(model, ids: list[int], max_new_tokens: int, stops: list[int]) -> list[int]:
    """The greedy continuation, its stop token included. One at a time: padding would change the
    last digits.
    """
    row = torch.tensor([ids], device=model.device)
    with own_distribution(model):
        out = model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=model.generation_config.pad_token_id or 0,
            eos_token_id=stops or None,
        )
    return out[0, len(ids) :].tolist()


@torch.no_grad()
def _keep_logits(model, rows: list[list[int]], scratch: Path) -> tuple[float, float]:
    """Write the model's logits of every row, fp32, into the folder; returns (its perplexity, the
    logits' standard deviation over the vocabulary, the mean of all positions).
    """
    nll = 0.0
    spreads = []
    for i, ids in enumerate(rows):
        batch = torch.tensor([ids], device=model.device)
        logits = model(input_ids=batch).logits[0].float().cpu()
        np.save(scratch / f"model{i}.npy", logits.numpy())
        nll += _nll(logits, ids)
        spreads.append(logits.std(-1))
    perplexity = math.exp(nll / sum(len(r) - 1 for r in rows))
    return perplexity, torch.cat(spreads).mean().item()


def _kept(scratch: Path, whose: str, row: int) -> torch.Tensor:
    return torch.from_numpy(np.load(scratch / f"{whose}{row}.npy"))


def _nll(logits: torch.Tensor, ids: list[int]) -> float:
    """Negative log-likelihood of a row after its first token, summed (nats)."""
    targets = torch.tensor(ids[1:])
    return torch.nn.functional.cross_entropy(logits[:-1], targets, reduction="sum").item()


# --- a file against the model ---------------------------------------------------------------------
def _compare_chats(
    llama, tokenizer, cases: list[_Case], found: FileReport, report: ExportReport, first: bool
) -> None:
    for i, case in enumerate(cases):
        theirs = llama_chat_ids(llama, case.chat)
        if theirs == case.ids:
            found.same_prompt += 1
        else:
            difference = _difference(tokenizer, case.ids, theirs)
            report.problems.append(f"{found.name}: prompt {i} becomes other tokens, {difference}")
        said = llama_answer(llama, case.ids, max(len(case.answer), 1))
        if said == case.answer:
            found.same_answer += 1
        elif first:
            difference = _difference(tokenizer, case.answer, said)
            report.problems.append(f"{found.name}: the answer to prompt {i} differs, {difference}")


def _difference(tokenizer, ours: list[int], theirs: list[int]) -> str:
    at = _first_difference(ours, theirs)
    our_text = tokenizer.decode(ours[at : at + 4])
    their_text = tokenizer.decode(theirs[at : at + 4])
    return f"first at token {at}: transformers {our_text!r}, llama.cpp {their_text!r}"


def _first_difference(ours: list[int], theirs: list[int]) -> int:
    shorter = min(len(ours), len(theirs))
    for position in range(shorter):
        if ours[position] != theirs[position]:
            return position
    return shorter


def _compare_logits(
    llama, rows: list[list[int]], found: FileReport, scratch: Path, first: bool
) -> None:
    """Against the model's logits, and for all files but the first against the first one's."""
    nll = 0.0
    kl = 0.0
    same_top = 0
    for i, ids in enumerate(rows):
        logits = llama_logits(llama, ids)
        difference = (logits - _kept(scratch, "model", i)).abs().max().item()
        found.max_logit_diff = max(found.max_logit_diff, difference)
        nll += _nll(logits, ids)
        if first:
            np.save(scratch / f"first{i}.npy", logits.numpy())
        else:
            base = _kept(scratch, "first", i)
            kl += _kl(base, logits)
            same_top += (logits.argmax(-1) == base.argmax(-1)).sum().item()
    tokens = sum(map(len, rows))
    found.perplexity = math.exp(nll / (tokens - len(rows)))
    if not first:
        found.kl = kl / tokens
        found.same_top = same_top / tokens


def _kl(base: torch.Tensor, logits: torch.Tensor) -> float:
    """KL(base ‖ logits), summed over the positions (nats)."""
    return torch.nn.functional.kl_div(
        logits.log_softmax(-1), base.log_softmax(-1), reduction="sum", log_target=True
    ).item()


def _compare_runtime(
    generate: Callable, tokenizer, prompts, answers: list[list[int]], report: ExportReport
) -> None:
    name = getattr(generate, "__name__", "generate")
    for i, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ours = tokenizer.decode(answer, skip_special_tokens=True).strip()
        theirs = generate(prompt).strip()
        if ours != theirs:
            report.problems.append(
                f"{name}: the answer to prompt {i} is {theirs!r}, transformers says {ours!r}"
            )
