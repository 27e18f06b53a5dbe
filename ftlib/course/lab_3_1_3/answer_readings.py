"""What the experiment on the answers of lab 3.1.3 is to show, and what to conclude from each
outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.lab_3_1_3.answers import wins_less_losses
from ftlib.course.records.experiment import Claim, Contrast, difference

NATS = "nats per token"


def _wins(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return wins_less_losses(by_arm["fast, noise"], by_arm["fast"])


ANSWERS = (
    Claim(
        "fit",
        "loss on the rows trained on, fast rate, noise − no noise",
        difference("own_loss", "fast, noise", "fast"),
        "above",
        unit=NATS,
        above=(
            "The noise loosens the fit, measured with the noise off. A regulariser does that, and "
            "so does any run that learns more slowly. Whether looseness is what helps, the next "
            "line says."
        ),
        below=(
            "The rows trained on are fitted more closely with noise. That is not what a "
            "regulariser does, and whatever the noise does for unseen requests, it does not do it "
            "by a looser fit."
        ),
        none=(
            "A change of the fit is not shown. The interval says how large a change could have "
            "been missed."
        ),
    ),
    Claim(
        "facts",
        "score of an answer, fast rate, noise − no noise",
        difference("score", "fast, noise", "fast"),
        "none",
        above=(
            "Answers are better by the rule, which counts facts and faults and gives nothing for "
            "length. That is more than the paper reports for tasks with right and wrong answers."
        ),
        below=(
            "Answers are worse by the rule; the next two lines say whether fewer true facts or "
            "more false ones are part of it. The paper finds no such price. This rate and this "
            "dose are both far from the paper's (section 7)."
        ),
        none=(
            "A change in what the answers say is not shown. The paper finds none where answers are "
            "right or wrong, on far more questions; the interval says what may have been missed "
            "here."
        ),
    ),
    Claim(
        "right",
        "right facts per answer, fast rate, noise − no noise",
        difference("right", "fast, noise", "fast"),
        "none",
        above="More true facts are stated with noise.",
        below="Fewer true facts are stated with noise.",
        none=(
            "That fewer true facts are stated, or more, is not shown; the interval is what remains "
            "possible."
        ),
    ),
    Claim(
        "wrong",
        "wrong facts per answer, fast rate, noise − no noise",
        difference("wrong", "fast, noise", "fast"),
        "none",
        above=(
            "More is stated that is not so, or that is said of somebody else. Answers that are "
            "longer have more room for it."
        ),
        below="Less is stated that is not so, or that is said of somebody else.",
        none="That more is stated that is not so, or less, is not shown.",
    ),
    Claim(
        "wins",
        "wins minus losses, fast rate, noise against none, answers alike in length",
        Contrast(("fast, noise", "fast"), _wins),
        "above",
        above=(
            "Where both answers are about as long, the noised model's are preferred by the rule. "
            "This is the form of the paper's headline result with length taken out of it."
        ),
        below=(
            "Where both answers are about as long, the noised model's are the worse ones by the "
            "rule. A judge who likes length could still have preferred them."
        ),
        none=(
            "Among answers that are alike in length neither model is shown to win more often. This "
            "judge counts facts; liveliness, which a language model as a judge may reward, it does "
            "not see."
        ),
    ),
    Claim(
        "length",
        "length of an answer, fast rate, noise − no noise",
        difference("words", "fast, noise", "fast"),
        "above",
        unit="words",
        above=(
            "Noise makes answers longer, as the paper observes (§5); how much of it is answers "
            "that never stop, a line below says. Longer is not better: see the score, the facts "
            "that are wrong, and the share of answers cut by the limit."
        ),
        below=(
            "Answers get shorter, against the paper's observation. There the training answers are "
            "hundreds of tokens long; here they are a few sentences."
        ),
        none=(
            "A change of length is not shown. In the paper length grows together with the win "
            "rate, on training answers that are far longer than these."
        ),
    ),
    Claim(
        "copied",
        "copied runs of words, fast rate, noise − no noise",
        difference("copied", "fast, noise", "fast"),
        "below",
        above=(
            "The noised model copies more of its training answers, name left aside: the opposite "
            "of the paper's explanation (§5)."
        ),
        below=(
            "A smaller share of the noised model's words is copied from its training answers, name "
            "left aside. The paper's explanation (§5), that it has learnt them less literally, "
            "would have it so; but a share falls also where the rest grows, so a line below counts "
            "the runs."
        ),
        none=(
            "A change in copying is not shown, so the paper's explanation, that noise keeps a "
            "model from the exact wording, finds no support here. Much of what counts as copied "
            "are the few sentences in which a fact can be said at all."
        ),
    ),
)
