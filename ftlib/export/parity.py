"""Is the exported file the model? transformers against llama.cpp on the same tokens, quantisations
against the first file.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from gguf import LlamaFileType

from ftlib.export.errors import ExportError
from ftlib.export.gguf_file import read_gguf
from ftlib.export.llamacpp import open_llama

# Largest difference of logits that arithmetic explains, by the file's type: measured with the
# embedded model, with room.
TOLERANCES = {"ALL_F32": 1e-3, "MOSTLY_F16": 0.05, "MOSTLY_BF16": 0.5}


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
    when there are none.
    """

    prompts: int
    perplexity: float
    files: list[FileReport] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.problems

    def check(self) -> ExportReport:
        """Itself if it passed; else ExportError with what differs."""
        if self.problems:
            raise ExportError("the export differs from the model:\n" + "\n".join(self.problems))
        return self

    def __str__(self) -> str:
        n = self.prompts
        lines = [
            f"{'file':<24}{'type':<14}{'MB':>9}{'prompts =':>11}{'answers =':>11}{'max |Δlogit|':>14}{'perplexity':>12}"
            f"{'KL, nats':>10}{'same top':>10}",
            f"{'transformers':<24}{'':<59}{'':>10}{self.perplexity:>12.4f}",
        ]
        lines += [
            f"{f.name:<24}{f.kind:<14}{f.megabytes:>9.1f}{f'{f.same_prompt}/{n}':>11}{f'{f.same_answer}/{n}':>11}"
            f"{f.max_logit_diff:>14.2g}{f.perplexity:>12.4f}{f.kl:>10.2g}{f.same_top:>10.1%}"
            for f in self.files
        ]
        return "\n".join([*lines, *self.problems, "passed" if self.passed else "FAILED"])


def check_export(
    model,
    tokenizer,
    files,
    prompts,
    texts=None,
    max_new_tokens: int = 32,
    tolerance: float | None = None,
    max_kl: float = 0.5,
    threads: int = 1,
    generate: Callable | None = None,
) -> ExportReport:
    """Compare exported files with the model they were made of; returns a report that passes or
    names what differs.

    files: a path or a list; the first is the unquantised one, which must give the same greedy answers and logits within `tolerance`
    (largest difference; default by its type, see TOLERANCES), the others are measured against it and must stay below `max_kl`, the
    mean of KL(first ‖ file) in nats a token. Every file must turn every chat into the same token ids. prompts: texts of the user
    or lists of messages. texts: what perplexity and KL are measured on (default: the prompts with the model's answers). The model
    is used as it is, adapter on; nothing is merged in it. threads: llama.cpp's. generate: another runtime, `generate(prompt)`
    -> str, whose answers must be the model's. Logits of the model and of the first file lie in a temporary folder meanwhile:
    8 bytes a token and vocabulary entry.
    """
    files = [Path(f) for f in (files if isinstance(files, (list, tuple)) else [files])]
    if not files or not prompts:
        raise ExportError(f"{len(files)} files, {len(prompts)} prompts: pass at least one of each")
    chats = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    encoded = [_chat_ids(tokenizer, c) for c in chats]
    answers = [_answer(model, ids, max_new_tokens) for ids in encoded]
    rows = (
        [p + a for p, a in zip(encoded, answers)]
        if texts is None
        else [tokenizer(t)["input_ids"] for t in texts]
    )
    rows = [r for r in rows if len(r) > 1]
    report = ExportReport(len(prompts), math.nan)
    width = max(map(len, [p + a for p, a in zip(encoded, answers)] + rows)) + 1
    with tempfile.TemporaryDirectory() as scratch:
        report.perplexity = _keep_logits(model, rows, Path(scratch))
        for number, file in enumerate(files):
            with open_llama(file, n_ctx=width, threads=threads, all_logits=True) as llama:
                found = _describe(file)
                report.files.append(found)
                _compare_chats(
                    llama, tokenizer, chats, encoded, answers, found, report, first=not number
                )
                _compare_logits(llama, rows, found, Path(scratch), first=not number)
            _judge(found, report, tolerance, max_kl, first=not number)
    if generate is not None:
        _compare_runtime(generate, tokenizer, prompts, answers, report)
    return report


def _describe(file: Path) -> FileReport:
    kind = LlamaFileType(read_gguf(file).get_field("general.file_type").contents()).name
    return FileReport(file.name, kind, file.stat().st_size / 1e6)


def _chat_ids(tokenizer, chat: list[dict]) -> list[int]:
    return tokenizer.apply_chat_template(
        chat, tokenize=True, return_dict=True, add_generation_prompt=True
    )["input_ids"]


@torch.no_grad()
def _answer(model, ids: list[int], max_new_tokens: int) -> list[int]:
    """The greedy continuation, its stop token included. One at a time: padding would change the
    last digits.
    """
    row = torch.tensor([ids], device=model.device)
    out = model.generate(
        input_ids=row,
        attention_mask=torch.ones_like(row),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        pad_token_id=model.generation_config.pad_token_id or 0,
    )
    return out[0, len(ids) :].tolist()


@torch.no_grad()
def _keep_logits(model, rows: list[list[int]], scratch: Path) -> float:
    """Write the model's logits of every row, fp32, into the folder; returns its perplexity."""
    nll = 0.0
    for i, ids in enumerate(rows):
        logits = model(input_ids=torch.tensor([ids], device=model.device)).logits[0].float().cpu()
        np.save(scratch / f"model{i}.npy", logits.numpy())
        nll += _nll(logits, ids)
    return math.exp(nll / sum(len(r) - 1 for r in rows))


def _kept(scratch: Path, whose: str, row: int) -> torch.Tensor:
    return torch.from_numpy(np.load(scratch / f"{whose}{row}.npy"))


def _nll(logits: torch.Tensor, ids: list[int]) -> float:
    return torch.nn.functional.cross_entropy(
        logits[:-1], torch.tensor(ids[1:]), reduction="sum"
    ).item()


# --- llama.cpp's side -----------------------------------------------------------------------------
def llama_chat_ids(llama, chat: list[dict]) -> list[int]:
    """Token ids of a chat as llama-cpp-python's chat completion makes them: the file's template,
    the file's tokenizer.
    """
    from llama_cpp.llama_chat_format import Jinja2ChatFormatter

    text = {
        name: llama.detokenize([token], special=True).decode() if token >= 0 else ""
        for name, token in (("bos_token", llama.token_bos()), ("eos_token", llama.token_eos()))
    }
    made = Jinja2ChatFormatter(llama.metadata["tokenizer.chat_template"], **text)(messages=chat)
    return llama.tokenize(made.prompt.encode(), add_bos=not made.added_special, special=True)


def llama_answer(llama, ids: list[int], max_new_tokens: int) -> list[int]:
    """llama.cpp's greedy continuation, up to and with a token at which it ends generation by
    itself.
    """
    from llama_cpp import llama_model_get_vocab, llama_vocab_is_eog

    vocab, out = llama_model_get_vocab(llama.model), []
    for token in llama.generate(ids, temp=0.0):
        out.append(token)
        if len(out) == max_new_tokens or llama_vocab_is_eog(vocab, token):
            return out


def llama_logits(llama, ids: list[int]) -> torch.Tensor:
    """Logits (T, V) of every position, fp32."""
    llama.reset()
    llama.eval(ids)
    return torch.from_numpy(llama.scores[: len(ids)].copy())


def _compare_chats(
    llama, tokenizer, chats, encoded, answers, found: FileReport, report: ExportReport, first: bool
) -> None:
    for i, (chat, ids, answer) in enumerate(zip(chats, encoded, answers)):
        theirs = llama_chat_ids(llama, chat)
        found.same_prompt += theirs == ids
        if theirs != ids:
            report.problems.append(
                f"{found.name}: prompt {i} becomes other tokens, "
                f"{_difference(tokenizer, ids, theirs)}"
            )
        said = llama_answer(llama, ids, max(len(answer), 1))
        found.same_answer += said == answer
        if first and said != answer:
            report.problems.append(
                f"{found.name}: the answer to prompt {i} differs, "
                f"{_difference(tokenizer, answer, said)}"
            )


def _difference(tokenizer, ours: list[int], theirs: list[int]) -> str:
    at = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs))
    )
    ours, theirs = tokenizer.decode(ours[at : at + 4]), tokenizer.decode(theirs[at : at + 4])
    return f"first at token {at}: transformers {ours!r}, llama.cpp {theirs!r}"


def _compare_logits(
    llama, rows: list[list[int]], found: FileReport, scratch: Path, first: bool
) -> None:
    nll = kl = same = 0.0
    for i, ids in enumerate(rows):
        logits = llama_logits(llama, ids)
        found.max_logit_diff = max(
            found.max_logit_diff, (logits - _kept(scratch, "model", i)).abs().max().item()
        )
        nll += _nll(logits, ids)
        if first:
            np.save(scratch / f"first{i}.npy", logits.numpy())
        else:
            base = _kept(scratch, "first", i)
            kl += torch.nn.functional.kl_div(
                logits.log_softmax(-1), base.log_softmax(-1), reduction="sum", log_target=True
            ).item()
            same += (logits.argmax(-1) == base.argmax(-1)).sum().item()
    tokens = sum(map(len, rows))
    found.perplexity = math.exp(nll / (tokens - len(rows)))
    if not first:
        found.kl, found.same_top = kl / tokens, same / tokens


def _judge(
    found: FileReport, report: ExportReport, tolerance: float | None, max_kl: float, first: bool
) -> None:
    if not first and not found.kl <= max_kl:
        report.problems.append(
            f"{found.name}: KL from the first file is {found.kl:.3g} nats a token, above "
            f"max_kl={max_kl:g}"
        )
    if first:
        limit = tolerance if tolerance is not None else TOLERANCES.get(found.kind)
        if limit is None:
            report.problems.append(
                f"{found.name}: the first file is {found.kind}: put an f32, f16 or bf16 export "
                "first, or "
                f"pass a tolerance"
            )
        elif not found.max_logit_diff <= limit:
            report.problems.append(
                f"{found.name}: logits differ by up to {found.max_logit_diff:.3g}, more than "
                f"{limit:g}"
            )


def _compare_runtime(
    generate: Callable, tokenizer, prompts, answers: list[list[int]], report: ExportReport
) -> None:
    for i, (prompt, answer) in enumerate(zip(prompts, answers)):
        ours, theirs = (
            tokenizer.decode(answer, skip_special_tokens=True).strip(),
            generate(prompt).strip(),
        )
        if ours != theirs:
            name = getattr(generate, "__name__", "generate")
            report.problems.append(
                f"{name}: the answer to prompt {i} is {theirs!r}, transformers says {ours!r}"
            )
