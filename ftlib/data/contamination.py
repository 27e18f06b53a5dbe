"""Rows that share a question, or a long run of words, with what a model will be judged on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ftlib.core.checks import check_positive_integer
from ftlib.core.errors import DataError
from ftlib.data.texts import row_parts, words


class Contamination:
    """Drops a row that repeats a prompt of the golden set: contains `share` or more of the prompt's
    runs of n words.

    Words are compared in lower case and without punctuation, so re-cased and re-punctuated copies
    are found: all of them. A prompt of fewer than n words counts as one run; one of fewer than n/2
    must be a whole text of the row, as "Spell key" says little inside another. GPT-3 (Brown et al.
    2020, appendix C) took any 13 words in common, PaLM (Chowdhery et al. 2022, section 8) 70% of
    the runs of 8; any run at all would call a template that both sets use a copy. `golden`: rows
    with a prompt, or strings.
    """

    name = "contamination"

    def __init__(self, golden: Iterable[dict | str], n: int = 8, share: float = 0.5):
        check_positive_integer("n", n, DataError)
        if not 0 < share <= 1:
            raise DataError(f"share={share}: must be above 0 and at most 1")
        self.n = n
        self.share = share
        self.whole: dict[tuple, int] = {}  # short prompts, and the golden row of each
        self.runs: dict[tuple, list[int]] = defaultdict(list)  # the prompts that have each run
        self.counts: Counter = Counter()  # runs of each golden prompt
        self.lengths: dict[str, set[int]] = defaultdict(set)  # of runs, by their first word
        self.owners: list[int] = []  # the golden row of each prompt
        for number, row in enumerate(golden):
            for prompt in _prompts(row, number):
                self._learn(words(prompt), number)

    def _learn(self, prompt: list[str], number: int) -> None:
        if not prompt:
            raise DataError(
                f"golden row {number} has a prompt without a word: it can be compared with nothing"
            )
        if 2 * len(prompt) < self.n:
            self.whole.setdefault(tuple(prompt), number)
            return
        length = min(self.n, len(prompt))
        prompt_number = len(self.owners)
        self.owners.append(number)
        starts = range(len(prompt) - length + 1)
        for run in {tuple(prompt[start : start + length]) for start in starts}:
            self.runs[run].append(prompt_number)
            self.counts[prompt_number] += 1
            self.lengths[run[0]].add(length)

    def _golden_runs(self, said: list[str]) -> set[tuple]:
        """The runs of a text that are runs of some golden prompt."""
        found = set()
        for start, word in enumerate(said):
            for length in self.lengths.get(word, ()):
                run = tuple(said[start : start + length])
                if run in self.runs:
                    found.add(run)
        return found

    def _reason(self, said: list[str]) -> str | None:
        """Why a text of these words repeats a golden prompt; None if it does not."""
        whole = tuple(said)
        if len(said) < self.n and whole in self.whole:
            return f"the prompt of golden row {self.whole[whole]}"
        shared: Counter = Counter()  # runs in common with each golden prompt
        for run in self._golden_runs(said):
            shared.update(self.runs[run])
        for prompt, count in shared.most_common():
            if count >= self.share * self.counts[prompt]:
                return f"{count} of {self.counts[prompt]} runs of golden row {self.owners[prompt]}"
        return None

    def __call__(self, row: dict) -> str | None:
        for _, text in row_parts(row):
            reason = self._reason(words(text))
            if reason is not None:
                return reason
        return None


def _prompts(row: dict | str, number: int) -> list[str]:
    """The prompts of a golden row: itself if it is a string, else what its user says."""
    if isinstance(row, str):
        return [row]
    prompts = [text for role, text in row_parts(row) if role == "user"]
    if not prompts:
        raise DataError(
            f"golden row {number} has no prompt: messages of the user, 'prompt', or a string is "
            "needed"
        )
    return prompts
