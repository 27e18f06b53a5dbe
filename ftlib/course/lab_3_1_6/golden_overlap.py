"""Lab 3.1.6, data, exercise 6: contamination."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def golden_overlap(prompt: list[str], text: list[str], n: int) -> float:
    """Share of the prompt's runs of n words (as a set) that occur in the text; a prompt shorter
    than n is one run.
    """
    n = min(n, len(prompt))

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    return len(runs(prompt) & runs(text)) / len(runs(prompt))


def _word_cases(g):
    prompt = ["which", "hobby", "does", "the", "weaver", "of", "the", "old", "town", "have"]
    yield prompt, prompt, 4
    yield (
        prompt,
        [
            *["please", "tell", "me"],
            *prompt,
            *["and", "what", "does", "it", "cost", "to", "learn", "it"],
        ],
        4,
    )
    yield prompt, ["which", "hobby", "does", "the", "weaver", "have", "in", "the", "old", "town"], 4
    yield ["spell", "key"], ["now", "spell", "key", "for", "me"], 8
    yield prompt, ["nothing", "of", "it"], 3
    yield prompt, prompt[2:7], 3


def _runs(words: list[str], n: int) -> set[tuple[str, ...]]:
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _share_of_prompt(prompt: set, text: set) -> float:
    return len(prompt & text) / max(1, len(prompt))


def _overlap(runs=_runs, share=_share_of_prompt, short=min):
    def overlap(prompt, text, n):
        n = short(n, len(prompt))
        return share(runs(prompt, n), runs(text, n))

    return overlap


OVERLAP = Exercise(
    name="golden_overlap",
    title="Has it seen the exam?",
    minutes=8,
    difficulty=2,
    reference=golden_overlap,
    cases=_word_cases,
    hints=(
        "Runs as before, as sets. How many of the prompt's are in the text's set?",
        "Divide by the number of the *prompt's* runs: a copy inside a long row must still give 1.",
        "A prompt of fewer than n words: let n be its length, `n = min(n, len(prompt))`.",
    ),
    wrong=(
        Wrong(
            "Jaccard",
            _overlap(share=lambda p, t: len(p & t) / max(1, len(p | t))),
            "That is Jaccard's similarity: a golden prompt copied into a long row then counts as "
            "little. "
            "Divide by the prompt's runs alone.",
        ),
        Wrong(
            "share of the row",
            _overlap(share=lambda p, t: len(p & t) / max(1, len(t))),
            "You divided by the row's runs: the longer the row around it, the better the copy "
            "hides.",
        ),
        Wrong(
            "any run",
            _overlap(share=lambda p, t: float(bool(p & t))),
            "You answer yes or no to any shared run: two questions of one form share one. The "
            "share tells a copy from a form.",
        ),
        Wrong(
            "short prompts pass",
            _overlap(short=lambda n, length: n),
            "A prompt of fewer than n words has no run in yours, and is never found: make n its "
            "length then.",
        ),
        Wrong(
            "single words",
            _overlap(runs=lambda t, n: {(w,) for w in t}),
            "You compared words, not runs of words: the same words in another order are another "
            "question.",
        ),
        Wrong(
            "same place",
            lambda p, t, n: (
                sum(p[i : i + n] == t[i : i + n] for i in range(max(1, len(p) - n + 1)))
                / max(1, len(p) - n + 1)
            ),
            "You compared runs at the same place: one word put in front, and the copy is not "
            "found.",
        ),
    ),
)
