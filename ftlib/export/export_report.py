"""What comparing exported files with their model has found: figures by file, and what is wrong."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ftlib.export.errors import ExportError

# Largest difference of logits that arithmetic explains, by the file's type, for one layer and in
# units of the logits' standard deviation over the vocabulary. Roundings of many layers add up like
# a random walk: with the root of their number. Measured, and with room: a model of 4 layers differs
# by 0.0023 in f16 and by 0.016 in bf16; of 30 layers, one with random weights by 0.010 and 0.14,
# and SmolLM2-135M, whose inputs have outliers, by 0.034 in f16. Wrong weights are off by 1 or more.
TOLERANCES = {"ALL_F32": 1e-4, "MOSTLY_F16": 0.012, "MOSTLY_BF16": 0.1}


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


def judge_first(found: FileReport, report: ExportReport, tolerance: float | None) -> None:
    """A problem for the report where the first file's logits differ from the model's by more than
    the roundings of its type explain, or `tolerance`.
    """
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


def judge_other(found: FileReport, report: ExportReport, max_kl: float) -> None:
    """A problem for the report where another file is further from the first than `max_kl`."""
    if not found.kl <= max_kl:
        report.problems.append(
            f"{found.name}: KL from the first file is {found.kl:.3g} nats per token, above "
            f"max_kl={max_kl:g}"
        )
