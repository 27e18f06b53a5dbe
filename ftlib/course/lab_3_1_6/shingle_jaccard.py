"""Lab 3.1.6, data, exercise 4: Jaccard similarity of shingles."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def shingle_jaccard(a: list[str], b: list[str], size: int) -> float:
    """Jaccard similarity of the sets of runs of `size` tokens; a text shorter than `size` is one
    run.
    """
    one, two = ({tuple(t[i : i + size]) for i in range(max(1, len(t) - size + 1))} for t in (a, b))
    return len(one & two) / len(one | two)


def _token_cases(g):
    long = [
        "what",
        "is",
        "the",
        "colour",
        "of",
        "the",
        "lamp",
        "in",
        "the",
        "hall",
        "of",
        "the",
        "town",
    ]
    yield long, [*long[:5], "green", *long[5:]], 3
    yield (
        ["please", "send", "the", "order", "to", "the", "town", "please", "send", "the", "order"],
        ["please", "send", "the", "order", "to", "the", "mill"],
        2,
    )
    yield ["hello"], ["hello"], 3
    yield ["a", "b", "a", "b", "a", "b"], ["a", "b"], 2
    yield ["one", "two", "three"], ["three", "two", "one"], 1


def _runs(tokens: list[str], size: int) -> set[tuple[str, ...]]:
    starts = range(max(1, len(tokens) - size + 1))
    return {tuple(tokens[i : i + size]) for i in starts}


def _share_of_union(one: set, two: set) -> float:
    return len(one & two) / max(1, len(one | two))


def _jaccard(runs=_runs, share=_share_of_union):
    def jaccard(a, b, size):
        return share(runs(a, size), runs(b, size))

    return jaccard


def _bags(a, b, size):
    from collections import Counter

    one, two = (
        Counter(tuple(t[i : i + size]) for i in range(max(1, len(t) - size + 1))) for t in (a, b)
    )
    return (one & two).total() / (one | two).total()


JACCARD = Exercise(
    name="shingle_jaccard",
    title="How alike are two texts?",
    minutes=8,
    difficulty=1,
    reference=shingle_jaccard,
    cases=_token_cases,
    hints=(
        "A run of `size` tokens from i on: `tuple(tokens[i: i + size])`. There are `len(tokens) - "
        "size + 1` of them.",
        "A text with fewer tokens than `size` counts as one run: take `max(1, …)` starts.",
        "Python's sets have `&` and `|`: the similarity is the size of the one over the size of "
        "the other.",
    ),
    wrong=(
        Wrong(
            "sum in place of union",
            _jaccard(share=lambda x, y: len(x & y) / (len(x) + len(y))),
            "The union counts what both have once: |A| + |B| − |A ∩ B|. With the sum, two equal "
            "texts have 0.5.",
        ),
        Wrong(
            "containment",
            _jaccard(share=lambda x, y: len(x & y) / max(1, min(len(x), len(y)))),
            "You divided by the smaller set: a short text inside a long one is then a duplicate "
            "of it. Divide by the union.",
        ),
        Wrong(
            "last run lost",
            _jaccard(runs=lambda t, n: {tuple(t[i : i + n]) for i in range(max(1, len(t) - n))}),
            "The last run is missing: there are len − size + 1 of them.",
        ),
        Wrong(
            "short texts empty",
            _jaccard(runs=lambda t, n: {tuple(t[i : i + n]) for i in range(len(t) - n + 1)}),
            "A text shorter than `size` has no runs in yours, so it resembles nothing, not even "
            "itself: count it as one run.",
        ),
        Wrong(
            "single tokens",
            _jaccard(runs=lambda t, n: set(t)),
            "You compared single tokens: two questions of one form are then nearly the same, "
            "whatever their order.",
        ),
        Wrong(
            "bags",
            _bags,
            "You counted repeats: Jaccard's similarity, and MinHash after it, is of sets.",
        ),
    ),
)
