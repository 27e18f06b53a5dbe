"""What the controls of lab 3.1.3 are to show, and what to conclude from each outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference, within

NATS = "nats per token"


def _fresh_less_unshifted(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return by_arm["fast, noise"]["loss"] - by_arm["fast, frozen"]["loss_without_shift"]


CONTROLS = (
    Claim(
        "Gaussian",
        "loss on the rows trained on, Gaussian − uniform noise, same variance",
        difference("own_loss", "fast, Gaussian", "fast, noise"),
        "none",
        unit=NATS,
        above=(
            "At equal variance Gaussian noise loosens the fit more: the shape counts, which to "
            "second order it should not."
        ),
        below=(
            "At equal variance uniform noise loosens the fit more: the shape counts, which to "
            "second order it should not."
        ),
        none=(
            "At equal variance the shape is not shown to matter for the fit. It is no test of "
            "section 4's second order where that has already ended at this alpha (a line below "
            "says whether it has)."
        ),
    ),
    Claim(
        "unseen",
        "test loss, Gaussian − uniform noise, same variance",
        difference("loss", "fast, Gaussian", "fast, noise"),
        "none",
        unit=NATS,
        above="On unseen requests Gaussian noise does worse at equal variance: the shape counts.",
        below="On unseen requests Gaussian noise does better at equal variance: the shape counts.",
        none=(
            "On unseen requests the shape is not shown to matter either. The interval is what "
            "remains possible, and may be as wide as the effect of the noise itself."
        ),
    ),
    Claim(
        "frozen",
        "test loss, fresh − frozen noise",
        difference("loss", "fast, noise", "fast, frozen"),
        "below",
        unit=NATS,
        above=(
            "Noise that never changes, and that the model may get used to, does better than fresh "
            "noise: the randomness costs, and buys nothing."
        ),
        below=(
            "Fresh noise does better than frozen noise of the same size. Either the randomness "
            "helps or the fixed shift harms, for which see the next line, frozen against none."
        ),
        none=(
            "Fresh noise and frozen noise of the same size are not shown to differ, so whatever "
            "the noise does to the loss is not shown to come from its randomness."
        ),
    ),
    Claim(
        "shift",
        "test loss, frozen noise − no noise",
        difference("loss", "fast, frozen", "fast"),
        "none",
        unit=NATS,
        above=(
            "The fixed shift harms by itself. The pretrained weights know the clean table: this "
            "control carries a mismatch of its own, so the question of randomness stays open here. "
            "That fresh noise leads over none does not settle it: none differs in size and in "
            "randomness."
        ),
        below=(
            "A fixed shift helps by itself, without any randomness. What fresh noise gives beyond "
            "that, the line before says."
        ),
        none="A fixed shift of this size is not shown to help or to harm.",
    ),
    Claim(
        "mismatch",
        "test loss, frozen noise, shift taken away at test − left on",
        within("fast, frozen", "loss_without_shift", "loss"),
        "above",
        unit=NATS,
        above=(
            "A shift that is there in training and gone at test is a mismatch with a price of its "
            "own. A frozen control that is tested without its shift mixes this price into the "
            "comparison."
        ),
        below=(
            "Without the shift the test loss is lower: the model reads clean embeddings better "
            "than those that it was trained on. The mismatch is between the shift and the "
            "pretrained weights, and training on few rows has not removed it; taking the shift "
            "away at test does not cost, it helps."
        ),
        none="Whether the shift is taken away at test or left on is not shown to matter.",
    ),
    Claim(
        "unshifted",
        "test loss, fresh noise − frozen noise tested without its shift",
        Contrast(("fast, noise", "fast, frozen"), _fresh_less_unshifted),
        "below",
        unit=NATS,
        above="Where neither has a shift at test, frozen noise does better than fresh noise.",
        below=(
            "Fresh noise leads also where neither has a shift at test. This is the fairer of the "
            "two comparisons, and still not of randomness alone: the frozen runs were trained "
            "under a table that the pretrained weights do not know."
        ),
        none="Where neither has a shift at test, fresh and frozen noise are not shown to differ.",
    ),
)
