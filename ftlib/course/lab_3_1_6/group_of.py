"""Lab 3.1.6, data, exercise 7: groups."""

from __future__ import annotations

from ftlib.course.exercise import Exercise, Wrong


def group_of(count: int, pairs: list[tuple[int, int]]) -> list[int]:
    """For each of `count` rows the least row that it is linked to, over any number of links; itself
    if there is none.
    """
    group = list(range(count))
    changed = True
    while changed:
        changed = False
        for i, j in pairs:
            least = min(group[i], group[j])
            if group[i] != least or group[j] != least:
                group[i] = group[j] = least
                changed = True
    return group


def _pair_cases(g):
    yield 6, [(4, 5), (2, 4), (0, 2)]
    yield 5, []
    yield 7, [(1, 3), (3, 1), (6, 5), (5, 3)]
    yield 8, [(0, 7), (6, 7), (5, 6), (1, 2)]
    yield 4, [(3, 2), (1, 0)]


def _one_pass(least=min, start=lambda n: list(range(n))):
    def groups(count, pairs):
        group = start(count)
        for i, j in pairs:
            group[i] = group[j] = least(group[i], group[j])
        return group

    return groups


def _named_by(pick):
    def groups(count, pairs):
        found = group_of(count, pairs)
        return [pick([j for j in range(count) if found[j] == found[i]]) for i in range(count)]

    return groups


GROUPS = Exercise(
    name="group_of",
    title="Who belongs together",
    minutes=12,
    difficulty=2,
    reference=group_of,
    cases=_pair_cases,
    dtypes={None: "index"},
    hints=(
        "Start with every row alone: `group = list(range(count))`.",
        "A pair (i, j) gives both the smaller of their two groups. After one pass over the pairs, "
        "is every chain joined? "
        "Try (4, 5), (2, 4), (0, 2).",
        "Repeat the pass until nothing changes. (A union-find structure does it without "
        "repeating.)",
    ),
    wrong=(
        Wrong(
            "one pass",
            _one_pass(),
            "One pass over the pairs does not join a chain that comes in the wrong order: repeat "
            "until nothing changes.",
        ),
        Wrong(
            "direct neighbours",
            lambda count, pairs: [
                min([i, *(a + b - i for a, b in pairs if i in (a, b))]) for i in range(count)
            ],
            "You joined direct neighbours only: if A is like B and B like C, all three must lie "
            "on one side of a split.",
        ),
        Wrong(
            "first of each pair",
            lambda count, pairs: [next((a for a, b in pairs if b == i), i) for i in range(count)],
            "You took the first row of the pair that a row comes second in: the pairs have no "
            "direction, and chains go on.",
        ),
        Wrong(
            "largest",
            _named_by(max),
            "The groups are right, but each is named by its largest row: the least is wanted, the "
            "one that a filter keeps.",
        ),
        Wrong(
            "numbered",
            lambda count, pairs: [
                sorted(set(group_of(count, pairs))).index(v) for v in group_of(count, pairs)
            ],
            "The groups are right, but numbered 0, 1, 2, …: name each by its least row, which is "
            "the one to keep.",
        ),
    ),
)
