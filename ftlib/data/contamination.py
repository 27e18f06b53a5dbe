"""Rows that share a question, or a long run of words, with what a model will be judged on."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from ftlib.core.errors import DataError
from ftlib.data.texts import row_parts, words


# --- contamination --------------------------------------------------------------------------------
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
        if n < 1 or not 0 < share <= 1:
            raise DataError(f"n={n}, share={share}: n is at least 1, share above 0 and at most 1")
        self.n, self.share = n, share
        self.whole: dict[tuple, int] = {}
        self.runs: dict[tuple, list[int]] = defaultdict(list)
        self.counts: Counter = Counter()  # runs of each golden prompt
        self.lengths: dict[str, set[int]] = defaultdict(set)  # of runs, by their first word
        self.owners: list[int] = []  # the golden row of each prompt
        for number, row in enumerate(golden):
            prompts = (
                [row]
                if isinstance(row, str)
                else [text for role, text in row_parts(row) if role == "user"]
            )
            if not prompts:
                raise DataError(
                    f"golden row {number} has no prompt: messages of the user, 'prompt', or a "
                    "string is needed"
                )
            for prompt in prompts:
                self._learn(words(prompt), number)

    def _learn(self, prompt: list[str], number: int) -> None:
        if not prompt:
            raise DataError(
                f"golden row {number} has a prompt without a word: it can be compared with nothing"
            )
        if 2 * len(prompt) < self.n:
            self.whole.setdefault(tuple(prompt), number)
            return
        length, own = min(self.n, len(prompt)), len(self.owners)
        self.owners.append(number)
        for run in {tuple(prompt[i : i + length]) for i in range(len(prompt) - length + 1)}:
            self.runs[run].append(own)
            self.counts[own] += 1
            self.lengths[run[0]].add(length)

    def __call__(self, row: dict) -> str | None:
        for _, text in row_parts(row):
            said = words(text)
            if len(said) < self.n and tuple(said) in self.whole:
                return f"the prompt of golden row {self.whole[tuple(said)]}"
            found = {
                run
                for i, word in enumerate(said)
                for length in self.lengths.get(word, ())
                if (run := tuple(said[i : i + length])) in self.runs
            }
            shared = Counter(own for run in found for own in self.runs[run])
            for own, count in shared.most_common():
                if count >= self.share * self.counts[own]:
                    return f"{count} of {self.counts[own]} runs of golden row {self.owners[own]}"
        return None
