"""What the experiments of lab 3.1.3 on losses are to show, and what to conclude from each outcome.

The expectations are the paper's, where it has one. Each claim has a reading for the outcome that
contradicts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference

NATS = "nats per token"
EARLY = 2  # the look, of `trials.LOOKS`, after four of the ten epochs


def _since_early(arm: str, metric: str) -> Contrast:
    """The metric of a course at its end less that after four epochs."""

    def change(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        course = by_arm[arm][metric]
        return course[-1] - course[EARLY]

    return Contrast((arm,), change)


def _penalty(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return by_arm["no noise"]["own_rise"]


COURSES = (
    Claim(
        "falls",
        "loss on the rows trained on, fast, after ten epochs − after four",
        _since_early("fast", "own_by_step"),
        "below",
        unit=NATS,
        above=(
            "The fit gets worse with training: this rate is too high, and nothing below can be "
            "read as overfitting."
        ),
        below="At the fast rate the model goes on fitting the rows that it is trained on.",
        none=(
            "A further fall after four epochs is not shown. Without it a rise on other requests "
            "would not be overfitting in the usual sense."
        ),
    ),
    Claim(
        "rises",
        "validation loss, fast, after ten epochs − after four",
        _since_early("fast", "validation_by_step"),
        "above",
        unit=NATS,
        above=(
            "The loss on other people's requests rises towards the end. If the fit improves "
            "meanwhile, this is overfitting, and what a regulariser is for. Whether the *answers* "
            "get worse is another question, which the loss does not settle: a model that has grown "
            "too sure of one wording pays for it in the loss and may still say true things."
        ),
        below=(
            "The loss on other people's requests still falls, part of which may be the falling "
            "rate's doing. No overfitting is seen here, and the comparison at this rate is then "
            "not one of cures."
        ),
        none=(
            "A rise is not shown. There may be a fall and a rise between, see the curve. The "
            "comparison at this rate cannot then be read as a cure of overfitting."
        ),
    ),
    Claim(
        "tuned",
        "validation loss, best rate, after ten epochs − after four",
        _since_early("best rate", "validation_by_step"),
        "below",
        unit=NATS,
        above=(
            "Even at the best rate the loss rises between four epochs and the end, so that a "
            "regulariser has something to do there too. (Best of full runs: a shorter one may be "
            "better still, and is not measured at this rate.)"
        ),
        below=(
            "At the best rate the loss on other requests is lower at the end than after four "
            "epochs. The look after four is taken while the rate is still high, so part of the "
            "fall may come from its decay; that more steps help is not shown by this."
        ),
        none=(
            "At the best rate neither a rise nor a fall of the loss on other requests is shown "
            "between four epochs and the end."
        ),
    ),
)

NOISE = (
    Claim(
        "loss",
        "test loss at the best rate, alpha 10 − no noise",
        difference("loss", "alpha 10", "no noise"),
        "below",
        unit=NATS,
        above=(
            "At the rate that is best without it, noise makes the loss on unseen requests higher. "
            "The rate was chosen for no noise; with noise another could be better."
        ),
        below=(
            "With noise the loss on unseen requests is lower even at the rate that is best without "
            "it, in phrasings that no training row has. Whether another regulariser would do the "
            "same is not measured at this rate."
        ),
        none=(
            "A difference at the rate that is best without noise is not shown, although the rows "
            "are few and read ten times. The interval says what may have been missed."
        ),
    ),
    Claim(
        "dose",
        "test loss at the best rate, alpha 5 − no noise",
        difference("loss", "alpha 5", "no noise"),
        "below",
        unit=NATS,
        above=(
            "At half of that alpha noise makes the loss on unseen requests higher too, at the rate "
            "that is best without it. Section 3 says how this dose compares with the paper's."
        ),
        below=(
            "At half of that alpha the loss on unseen requests is lower than without noise, at the "
            "rate that is best without it. Section 3 says how this dose compares with the paper's."
        ),
        none=(
            "At half of that alpha neither a gain nor a loss is shown; the interval is what "
            "remains possible. Section 3 says how this dose compares with the paper's, so do not "
            "read the line before as a verdict on the paper's alphas."
        ),
    ),
    Claim(
        "fit",
        "loss on the rows trained on, best rate, alpha 10 − no noise",
        difference("own_loss", "alpha 10", "no noise"),
        "above",
        unit=NATS,
        above=(
            "The noise loosens the fit, measured with the noise off. A regulariser does that, and "
            "so does any run that learns more slowly; it says nothing yet about whether the looser "
            "fit is the better one."
        ),
        below=(
            "The rows trained on are fitted more closely with noise. That is not what a "
            "regulariser does."
        ),
        none=(
            "A change of the fit is not shown at this rate. The interval says how large a change "
            "could have been missed."
        ),
    ),
    Claim(
        "robust",
        "rise of the test loss under noise, trained at alpha 10 − trained without",
        difference("rise", "alpha 10", "no noise"),
        "below",
        unit=NATS,
        above=(
            "Training under noise makes the model bear noise *worse*. Suspect the hook before you "
            "judge the idea."
        ),
        below=(
            "Trained under noise, the model bears noise better: the hook works, and the model has "
            "adapted to the noise."
        ),
        none=(
            "That training under noise makes the model bear it better is not shown. Check the hook "
            "before you judge the idea."
        ),
    ),
    Claim(
        "penalty",
        "rise of the loss on the rows trained on, under noise of alpha 10, trained without",
        Contrast(("no noise",), _penalty),
        "above",
        unit=NATS,
        above=(
            "This is what noise of alpha 10 adds to the training loss of a model trained without "
            "it: the penalty that training under noise starts from. How much of a gap between two "
            "losses it could close does not follow from its size: what counts is how it *changes* "
            "with the weights."
        ),
        below=(
            "Noise *lowers* the loss even of rows that were trained on: at this alpha it is no "
            "penalty, but a reward."
        ),
        none="That noise of alpha 10 changes the loss on the rows trained on is not shown.",
    ),
)

CURE = (
    Claim(
        "fast",
        "test loss at the fast rate, noise − no noise",
        difference("loss", "fast, noise", "fast"),
        "below",
        unit=NATS,
        above=(
            "At the fast rate the noise makes the loss on unseen requests even higher, at the "
            "alpha that was best of four on validation rows."
        ),
        below=(
            "At the fast rate noise takes back a part of what this rate costs. Whether it does "
            "more than the ordinary cures, the other lines say."
        ),
        none=(
            "At the fast rate an effect of the noise on the loss of unseen requests is not shown. "
            "The interval says what may have been missed."
        ),
    ),
    Claim(
        "slower",
        "test loss, noise at the fast rate − no noise at half of it",
        difference("loss", "fast, noise", "half fast"),
        "below",
        unit=NATS,
        above=(
            "Halving the rate does more than the noise, and costs nothing. What noise gains at "
            "the fast rate, if it gains, is then no reason to prefer it to a lower rate."
        ),
        below=(
            "The noised run is better than one at half the rate without noise: to learn at half "
            "the rate does not explain all that the noise does."
        ),
        none=(
            "Noise and half the rate are not shown to differ on unseen requests, so this record "
            "does not tell the noise from slower learning."
        ),
    ),
    Claim(
        "stopped",
        "test loss at the fast rate, noise, ten epochs − no noise, four epochs",
        difference("loss", "fast, noise", "fast, short"),
        "above",
        unit=NATS,
        above=(
            "A run of four epochs without noise, with a schedule of its own, is better than ten "
            "epochs with noise, and costs less than half. This is the baseline that the noise "
            "would have to beat."
        ),
        below=(
            "Ten epochs with noise are better than four without. Other lengths are not measured; "
            "the best of them could be better still."
        ),
        none=(
            "Ten epochs with noise and four without, at less than half the cost, are not shown to "
            "differ on unseen requests."
        ),
    ),
    Claim(
        "dropout",
        "test loss at the fast rate, noise − dropout, each at the best of four strengths",
        difference("loss", "fast, noise", "fast, dropout"),
        "none",
        unit=NATS,
        above=(
            "An ordinary regulariser, its strength chosen on the same rows from as many, does "
            "better. Where its strength is the largest that was tried (see the line under the "
            "strengths), its lead may be larger still. The paper does not compare with dropout."
        ),
        below=(
            "The noise does better than dropout in the adapter, whose strength was chosen on the "
            "same rows from as many."
        ),
        none=(
            "NEFTune and dropout in the adapter, each at its best strength of four, are not shown "
            "to differ. Compare both with no noise in the figure: it takes a gain first to ask "
            "whose is larger."
        ),
    ),
    Claim(
        "cured",
        "test loss, noise at the fast rate − no noise at the best rate",
        difference("loss", "fast, noise", "best rate"),
        "above",
        unit=NATS,
        above=(
            "A well-chosen rate without noise is better than the fast one with noise. Tune the "
            "rate first."
        ),
        below=(
            "The noised run at four times the best rate is better than the best rate without "
            "noise: noise gives more here than the choice of the rate."
        ),
        none=(
            "The noised run at four times the best rate and the best rate without noise are not "
            "shown to differ on unseen requests."
        ),
    ),
)
