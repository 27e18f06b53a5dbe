"""What the experiments of lab 3.1.3 are to show, and what to conclude from each outcome.

The expectations are the paper's, where it has one. Each claim has a reading for the outcome that
contradicts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.lab_3_1_3.answers import wins_less_losses
from ftlib.course.records.experiment import Claim, Contrast, difference

NATS = "nats a token"
EARLY = 2  # the look, of `trials.LOOKS`, after four of the ten epochs


def _since_early(arm: str, metric: str) -> Contrast:
    """The metric of a course at its end less that after four epochs."""

    def change(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        course = by_arm[arm][metric]
        return course[-1] - course[EARLY]

    return Contrast((arm,), change)


def _stopped(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    """The noised run at its end, against the run without noise at the look that is its lowest."""
    return by_arm["fast, alpha 10"]["end"] - by_arm["fast"]["lowest"]


def _wins(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return wins_less_losses(by_arm["fast, alpha 10"], by_arm["fast"])


def _mismatch(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    frozen = by_arm["frozen, alpha 10"]
    return frozen["loss_without_shift"] - frozen["loss"]


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
            "After four epochs the fit improves no further, so there is no room in which to "
            "overfit; more rows or a lower rate would make some."
        ),
    ),
    Claim(
        "rises",
        "validation loss, fast, after ten epochs − after four",
        _since_early("fast", "validation_by_step"),
        "above",
        unit=NATS,
        above=(
            "Meanwhile the loss on other people's requests rises: this is overfitting, and what a "
            "regulariser is for. Whether the *answers* get worse is another question, which the "
            "loss does not settle: a model that has grown too sure of one wording pays for it in "
            "the loss and may still say true things."
        ),
        below=(
            "The loss on other people's requests still falls: even at this rate there is no "
            "overfitting to cure, and a regulariser has little to do."
        ),
        none=(
            "No rise is shown. There may be a fall and a rise between, see the curve; a "
            "regulariser then has little to gain at the end."
        ),
    ),
    Claim(
        "tuned",
        "validation loss, best rate, after ten epochs − after four",
        _since_early("best rate", "validation_by_step"),
        "below",
        unit=NATS,
        above=(
            "At the rate with the lowest loss at the end the loss rises on the way there as well: "
            "a shorter run would be better still, and a regulariser has something to do even at "
            "the best rate."
        ),
        below=(
            "At the best rate the loss on other requests falls to the end. That is no accident: "
            "the rate was chosen by this loss at the end, and among the rates those that overfit "
            "lost. To tune the rate on held-out rows *is* a regulariser, and leaves another one "
            "little to do."
        ),
        none=(
            "At the best rate the loss on other requests neither rises nor falls by an amount that "
            "shows: the rate was chosen by this loss at the end, and those that overfit lost. To "
            "tune the rate on held-out rows *is* a regulariser."
        ),
    ),
    Claim(
        "stopped",
        "validation loss, fast: alpha 10 at its end − no noise at its lowest look",
        Contrast(("fast", "fast, alpha 10"), _stopped),
        "above",
        unit=NATS,
        above=(
            "To stop the run without noise in time is better than to noise it to its end. Early "
            "stopping costs nothing but a validation set, so this is the baseline that the noise "
            "would have to beat. (The lowest look is chosen by the same rows, which flatters it a "
            "little.)"
        ),
        below=(
            "Even against the run without noise stopped at its best moment the noised one is "
            "ahead, although the choice of that moment flatters the other. The noise does more "
            "than to put overfitting off."
        ),
        none=(
            "The noise, to the end, and none, stopped in time, are not shown to differ: noise "
            "does what early stopping does. (The lowest look is chosen by the same rows, which "
            "flatters it a little.)"
        ),
    ),
)

NOISE = (
    Claim(
        "loss",
        "test loss, best alpha − no noise, each at its best rate",
        difference("loss", "best alpha", "no noise"),
        "below",
        unit=NATS,
        above=(
            "Noise makes the loss on unseen requests higher, at the alpha that was best on "
            "validation rows. The choice did not carry over to other phrasings: the optimum in "
            "alpha is flat, or lies at none."
        ),
        below=(
            "With noise the loss on unseen requests is lower, in phrasings that no training row "
            "has. It is what a regulariser does. Whether it is more than another one would do, "
            "see dropout and weight decay; whether answers gain, see their score."
        ),
        none=(
            "No difference is shown, although the rows are few and read ten times."
            " The interval says what may have been missed. Three reasons to look at: the "
            "size of the noise beside the embeddings, what the first normalisation leaves of it "
            "(section 3), and how little the loss rises under it, which is all the penalty there "
            "is (below). And the rate was chosen first: that is a regulariser already."
        ),
    ),
    Claim(
        "fast",
        "test loss at the fast rate, alpha 10 − no noise",
        difference("loss", "fast, alpha 10", "fast"),
        "below",
        unit=NATS,
        above=(
            "Where fine-tuning overfits the noise makes the loss on unseen requests even higher. "
            "Whatever it penalises is not what overfits here: an adapter that has few rows by "
            "heart can have them by heart under noise as well, since the noise blurs no token into "
            "another (section 3)."
        ),
        below=(
            "Where fine-tuning overfits, noise takes back a part of what was lost. This is the "
            "paper's setting, a rate that was not chosen for the set at hand. How much is left "
            "when the rate has been chosen, the line above says."
        ),
        none=(
            "Even where fine-tuning overfits, no difference is shown. The noise blurs no token "
            "into another (section 3), so the rows can be learnt by heart under noise as well."
        ),
    ),
    Claim(
        "cured",
        "test loss, alpha 10 at the fast rate − no noise at the best rate",
        difference("loss", "fast, alpha 10", "no noise"),
        "above",
        unit=NATS,
        above=(
            "A well-chosen rate without noise beats a rate that overfits with noise. Tune the rate "
            "first."
        ),
        below=(
            "The noised run at a rate that overfits without noise beats the best rate without: "
            "noise makes room for larger steps, and buys more than the choice of the rate."
        ),
        none=(
            "The noised run at a rate that overfits without noise is about as good as the best "
            "rate without: noise and a lower rate are two ways to the same place."
        ),
    ),
    Claim(
        "fit",
        "loss on the rows trained on, alpha 10 − no noise",
        difference("own_loss", "alpha 10", "no noise"),
        "above",
        unit=NATS,
        above=(
            "The noise loosens the fit, with the noise switched off for measuring. So it acts as a "
            "regulariser; this says nothing yet about whether the looser fit is the better one."
        ),
        below=(
            "The rows trained on are fitted more closely with noise. That is not what a "
            "regulariser does; the rate may have been too high without noise."
        ),
        none=(
            "Not even the fit is shown to change. Noise of this size is nothing to this model: the "
            "adapter learns to look past it."
        ),
    ),
    Claim(
        "facts",
        "score of an answer at the fast rate, alpha 10 − no noise",
        difference("score", "fast, alpha 10", "fast"),
        "none",
        above=(
            "Answers are better by the rule, which counts facts and faults and gives nothing for "
            "length. That is more than the paper reports for tasks with right and wrong answers."
        ),
        below=(
            "Answers are worse by the rule: the noise is paid for in facts. The paper finds no "
            "such price, on larger models."
        ),
        none=(
            "What the answers say is not shown to change. It agrees with the paper, which finds no "
            "change where answers are right or wrong, and gains where a judge compares manners."
        ),
    ),
    Claim(
        "wins",
        "wins less losses at the fast rate, alpha 10 against no noise, answers alike in length",
        Contrast(("fast, alpha 10", "fast"), _wins),
        "above",
        above=(
            "Where both answers are about as long, the noised model's are preferred by the rule. "
            "This is the form of the paper's headline result with length taken out of it."
        ),
        below=(
            "Where both answers are about as long, the noised model's are the worse ones. A judge "
            "who likes length could still have preferred them."
        ),
        none=(
            "Among answers that are alike in length neither model wins more often. What remains "
            "of a win rate would be length. This judge counts facts; it has no eye for the "
            "liveliness that a language model as a judge may reward."
        ),
    ),
    Claim(
        "length",
        "length of an answer at the fast rate, alpha 10 − no noise",
        difference("words", "fast, alpha 10", "fast"),
        "above",
        unit="words",
        above=(
            "Noise makes answers longer, as the paper observes (§5). Longer is not better: see the "
            "score, and the share of facts that are wrong."
        ),
        below=(
            "Answers get shorter, against the paper's observation. There the training answers are "
            "hundreds of tokens long, and an end that comes late costs nothing."
        ),
        none=(
            "No change of length is shown. In the paper length grows together with the win rate; "
            "here training answers are a few sentences, and the model has learnt where to end."
        ),
    ),
    Claim(
        "copied",
        "copied runs of words at the fast rate, alpha 10 − no noise",
        difference("copied", "fast, alpha 10", "fast"),
        "below",
        above=(
            "The noised model copies more. Perhaps it falls back on the commonest sentences of the "
            "training rows, where the details of a request are blurred."
        ),
        below=(
            "The noised model copies less of its training answers, name left aside: it has learnt "
            "them less literally, which is the paper's explanation (§5)."
        ),
        none=(
            "No change in copying is shown. The paper's explanation, that noise keeps a model "
            "from the exact wording, finds no support here; most of what is copied are the few "
            "sentences in which a fact can be said at all."
        ),
    ),
    Claim(
        "Gaussian",
        "test loss, Gaussian − uniform, alpha 10, same variance",
        difference("loss", "Gaussian, alpha 10", "alpha 10"),
        "none",
        unit=NATS,
        above="At equal variance uniform noise is better: the shape matters, as the paper says.",
        below="At equal variance Gaussian noise is better, against the paper's choice.",
        none=(
            "At equal variance the shape is not shown to matter. That is what section 4 "
            "predicts: to second order only the variance enters."
        ),
    ),
    Claim(
        "frozen",
        "test loss, fresh − frozen noise, alpha 10",
        difference("loss", "alpha 10", "frozen, alpha 10"),
        "below",
        unit=NATS,
        above=(
            "Noise that never changes, and that the model may get used to, does better than fresh "
            "noise: the randomness costs, and buys nothing."
        ),
        below=(
            "Frozen noise has the size, and is there at test too, so that it is no mismatch; only "
            "the randomness is gone. Fresh noise does better: the randomness is what helps, or "
            "the fixed shift harms, which its difference from no noise tells."
        ),
        none=(
            "Fresh noise and frozen noise of the same size are not shown to differ. Whatever this "
            "alpha does to the loss, then, is not shown to come from the randomness."
        ),
    ),
    Claim(
        "mismatch",
        "test loss, frozen noise, shift taken away at test − left on, alpha 10",
        Contrast(("frozen, alpha 10",), _mismatch),
        "above",
        unit=NATS,
        above=(
            "A shift that is there in training and gone at test is a mismatch with a price of its "
            "own. A frozen control that is tested without its shift mixes this price into the "
            "comparison."
        ),
        below=(
            "Without the shift the test loss is lower: the model never adapted to the shift, and "
            "reads clean embeddings better even so."
        ),
        none=(
            "Taken away or left on, the shift makes no difference that shows: the model reads "
            "through it."
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
            "grown flatter around its embeddings, which is what the second-order term asks for."
        ),
        none=(
            "Training under noise is not shown to make the model bear it better. Suspect the hook, "
            "or an alpha too small to matter."
        ),
    ),
    Claim(
        "penalty",
        "rise of the loss on the rows trained on, under noise of alpha 10, trained without",
        Contrast(("no noise",), _penalty),
        "above",
        unit=NATS,
        above=(
            "This is the penalty in nats that noise of alpha 10 adds to the training loss of a "
            "model trained without it. Hold it against the gap between the two losses in the "
            "figure: what is small beside that gap cannot close it. At alpha 1 it is, to second "
            "order, a hundredth."
        ),
        below=(
            "Noise *lowers* the loss even of rows that were trained on: the trace of the Hessian "
            "is negative there, and the noise is no penalty."
        ),
        none=(
            "Noise of alpha 10 is not shown to change the loss on the rows trained on: there is no "
            "penalty to speak of, and nothing that training could reduce."
        ),
    ),
    Claim(
        "dropout",
        "test loss, best alpha − dropout of the strength best on validation rows",
        difference("loss", "best alpha", "dropout"),
        "none",
        unit=NATS,
        above=(
            "An ordinary regulariser, chosen with the same care, does better. The paper compares "
            "with none."
        ),
        below=(
            "The noise does better than dropout in the adapter, chosen with the same care. The "
            "place of the noise matters then, not only its being noise."
        ),
        none=(
            "NEFTune and dropout in the adapter, each at its best strength, are not shown to "
            "differ. What the noise gives, an ordinary regulariser gives as well, or neither "
            "gives anything: compare both with no noise in the figure."
        ),
    ),
)
