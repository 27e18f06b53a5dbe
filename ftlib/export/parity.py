"""Is the exported file the model? transformers against llama.cpp on the same tokens, quantisations
against the first file.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from gguf import LlamaFileType
from torch import nn

from ftlib.batches.stops import model_stops
from ftlib.export.errors import ExportError
from ftlib.export.gguf_file import read_gguf
from ftlib.export.llamacpp import open_llama
from ftlib.training.sampling import own_distribution

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


# Largest difference of logits that arithmetic explains, by the file's type, for one layer and in
# units of the logits' standard deviation over the vocabulary. Roundings of many layers add up like
# a random walk: with the root of their number. Measured, and with room: a model of 4 layers differs
# by 0.0023 in f16 and by 0.016 in bf16, one of 30 layers by 0.010 and 0.14.
TOLERANCES = {"ALL_F32": 1e-4, "MOSTLY_F16": 6e-3, "MOSTLY_BF16": 0.05}
PENALISED = 64  # tokens back that a repeat penalty counts


@dataclass
class FileReport:
    """One file's figures. Counts are of prompts; `kl` and `same_top` compare with the first file,
    over all tokens.
    """

    name: str
    kind: str
    megabytes: float
    same_prompt: int = 0
    same_answer: int = 0
    max_logit_diff: float = 0.0
    perplexity: float = math.nan
    kl: float = 0.0
    same_top: float = 1.0


@dataclass
class ExportReport:
    """What `check_export` found: `files`, the model's own `perplexity`, and `problems`; `passed`
    when there are none. `rounding`: the unit of TOLERANCES for this model.
    """

    prompts: int
    perplexity: float
    files: list[FileReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    rounding: float = 1.0

    @property
    def passed(self) -> bool:
        return not self.problems

    def check(self) -> ExportReport:
        """Itself if it passed; else ExportError with what differs."""
        if self.problems:
            raise ExportError("the export differs from the model:\n" + "\n".join(self.problems))
        return self

    def __str__(self) -> str:
        header = (
            f"{'file':<24}{'type':<14}{'MB':>9}{'prompts =':>11}{'answers =':>11}"
            f"{'max |Δlogit|':>14}{'perplexity':>12}{'KL, nats':>10}{'same top':>10}"
        )
        model = f"{'transformers':<24}{'':<69}{self.perplexity:>12.4f}"
        lines = [header, model]
        lines += [self._line(file) for file in self.files]
        lines += self.problems
        lines.append("passed" if self.passed else "FAILED")
        return "\n".join(lines)

    def _line(self, file: FileReport) -> str:
        same_prompt = f"{file.same_prompt}/{self.prompts}"
        same_answer = f"{file.same_answer}/{self.prompts}"
        return (
            f"{file.name:<24}{file.kind:<14}{file.megabytes:>9.1f}{same_prompt:>11}"
            f"{same_answer:>11}{file.max_logit_diff:>14.2g}{file.perplexity:>12.4f}"
            f"{file.kl:>10.2g}{file.same_top:>10.1%}"
        )


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
    threads: int = 1,
    generate: Callable | None = None,
) -> ExportReport:
    """Compare exported files with the model they were made of; returns a report that passes or
    names what differs.

    files: a path or a list; the first is the unquantised one, which must give the same greedy
    answers and logits within `tolerance` (largest difference; by default what the roundings of its
    type explain, see TOLERANCES),
    the others are measured against it and must stay below `max_kl`, the mean of KL(first ‖ file) in
    nats a token. Every file must turn every chat into the same token ids. prompts: texts of the
    user or lists of messages. texts: what perplexity and KL are measured on (default: the prompts
    with the model's answers). The model is used as it is, adapter on; nothing is merged in it.
    threads: llama.cpp's. generate: another runtime, `generate(prompt)` -> str, whose answers must
    be the model's. Logits of the model and of the first file lie in a temporary folder meanwhile: 8
    bytes a token and vocabulary entry.
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
                _judge_first(found, report, tolerance)
            else:
                _judge_other(found, report, max_kl)
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
    threads: int,
) -> FileReport:
    """One file's figures, which the report then has. The `first` file's logits stay in the folder
    `scratch`, for the others to be measured against.
    """
    conversations = [case.ids + case.answer for case in cases]
    width = max(map(len, conversations + rows)) + 1
    with open_llama(file, n_ctx=width, threads=threads, all_logits=True) as llama:
        found = _describe(file)
        report.files.append(found)
        _compare_chats(llama, tokenizer, cases, found, report, first)
        _compare_logits(llama, rows, found, scratch, first)
    return found


def _case(model, tokenizer, prompt: str | list[dict], max_new_tokens: int) -> _Case:
    chat = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    ids = _chat_ids(tokenizer, chat)
    return _Case(chat, ids, _answer(model, ids, max_new_tokens, model_stops(model, tokenizer)))


def _describe(file: Path) -> FileReport:
    kind = LlamaFileType(read_gguf(file).get_field("general.file_type").contents()).name
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


# --- llama.cpp's side -----------------------------------------------------------------------------
def llama_chat_ids(llama, chat: list[dict]) -> list[int]:
    """Token ids of a chat as llama-cpp-python's chat completion makes them: the file's template,
    the file's tokenizer.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    def text(token: int) -> str:
        if token < 0:
            return ""
        return llama.detokenize([token], special=True).decode()

    formatter = Jinja2ChatFormatter(
        llama.metadata["tokenizer.chat_template"],
        eos_token=text(llama.token_eos()),
        bos_token=text(llama.token_bos()),
    )
    made = formatter(messages=chat)
    return llama.tokenize(made.prompt.encode(), add_bos=not made.added_special, special=True)


def llama_answer(
    llama, ids: list[int], max_new_tokens: int, repeat_penalty: float = 1.0
) -> list[int]:
    """llama.cpp's greedy continuation, up to and with a token at which it ends generation by
    itself. `repeat_penalty`: of the tokens among the last 64, prompt included, the logit is divided
    by it where it is positive, else multiplied, as Ollama does. (llama-cpp-python's own counts the
    generated tokens alone.)
    """
    from llama_cpp import LogitsProcessorList, llama_model_get_vocab, llama_vocab_is_eog

    def penalise(tokens, logits):
        recent = np.unique(tokens[-PENALISED:])
        values = logits[recent]
        logits[recent] = np.where(values > 0, values / repeat_penalty, values * repeat_penalty)
        return logits

    processors = None if repeat_penalty == 1.0 else LogitsProcessorList([penalise])
    vocab = llama_model_get_vocab(llama.model)
    out: list[int] = []
    for token in llama.generate(ids, temp=0.0, logits_processor=processors):
        out.append(token)
        if len(out) == max_new_tokens or llama_vocab_is_eog(vocab, token):
            break
    return out


def llama_logits(llama, ids: list[int]) -> torch.Tensor:
    """Logits (T, V) of every position, fp32."""
    llama.reset()
    llama.eval(ids)
    return torch.from_numpy(llama.scores[: len(ids)].copy())


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


def _judge_first(found: FileReport, report: ExportReport, tolerance: float | None) -> None:
    limit = tolerance
    if limit is None and found.kind in TOLERANCES:
        limit = TOLERANCES[found.kind] * report.rounding
    if limit is None:
        report.problems.append(
            f"{found.name}: the first file is {found.kind}: put an f32, f16 or bf16 export first, "
            "or pass a tolerance"
        )
    elif not found.max_logit_diff <= limit:
        report.problems.append(
            f"{found.name}: logits differ by up to {found.max_logit_diff:.3g}, more than "
            f"{limit:.3g}"
        )


def _judge_other(found: FileReport, report: ExportReport, max_kl: float) -> None:
    if not found.kl <= max_kl:
        report.problems.append(
            f"{found.name}: KL from the first file is {found.kl:.3g} nats a token, above "
            f"max_kl={max_kl:g}"
        )


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
