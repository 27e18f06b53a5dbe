"""Second solutions of lab E5, on benchmarks and judges."""

import math
import statistics
from fractions import Fraction


# --- E5 -------------------------------------------------------------------------------------------
def choice_loglikelihood(logits, ids, context):
    """Token by token, each probability by its own sum of exponentials."""
    total = 0.0
    for place in range(context, len(ids)):
        row = [float(value) for value in logits[place - 1]]
        largest = max(row)
        whole = sum(math.exp(value - largest) for value in row)
        total += row[int(ids[place])] - largest - math.log(whole)
    return total


def normalised_choice(logps, choices, unit):
    """Sorted by score; of equal ones the place decides."""
    sizes = {
        "sum": lambda text: 1,
        "characters": lambda text: sum(1 for _ in text),
        "bytes": lambda text: len(bytes(text, "utf-8")),
    }
    ranked = sorted(
        range(len(choices)), key=lambda place: (-logps[place] / sizes[unit](choices[place]), place)
    )
    return ranked[0]


def mcnemar_p(right_a, right_b):
    """Every outcome of the coins that is at most as likely as the one seen, as fractions."""
    won = list(zip(right_a, right_b, strict=True))
    a = won.count((True, False))
    n = a + won.count((False, True))
    weights = [Fraction(math.comb(n, k), 2**n) for k in range(n + 1)]
    return float(sum(weight for k, weight in enumerate(weights) if weight <= weights[a]))


def questions_needed(difference, disagreement, level, power):
    """Counted up from the closed formula's root, with shares of wins and losses in its place."""
    normal = statistics.NormalDist()
    win = (disagreement + difference) / 2
    lose = (disagreement - difference) / 2
    variance = win + lose - (win - lose) ** 2
    root = (
        -normal.inv_cdf(level / 2) * (win + lose) ** 0.5 - normal.inv_cdf(1 - power) * variance**0.5
    )
    count = (root / (win - lose)) ** 2
    return int(count) + (count > int(count))


def cohen_kappa(a, b):
    """Disagreement seen over disagreement of all pairs of verdicts."""
    seen = sum(x != y for x, y in zip(a, b, strict=True)) / len(a)
    by_chance = sum(x != y for x in a for y in b) / (len(a) * len(b))
    return 1 - seen / by_chance


def position_check(forward, backward):
    """Pair by pair."""
    flips, gain = 0, 0.0
    for one, two in zip(forward.tolist(), backward.tolist(), strict=True):
        flips += one + two != 1
        gain += one + two - 1
    return flips / len(forward), gain / len(forward)
