"""What the experiment of lab 3.1.4 on form and content is to show, and what to conclude from each
outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.records.experiment import Claim, Contrast, difference

POINTS = "of the questions"

BARE = "base, no example"
OTHERS_SHOWN = "base, 3 of other families"
OWN_SHOWN = "base, 3 of its family"
FEW_TRAINED = "LoRA, those 3 a family"
SHUFFLED = "LoRA, shuffled answers"
OTHERS_TRAINED = "LoRA, other families"
ALL_TRAINED = "LoRA, all of its family"

ByArm = Mapping[str, Mapping[str, Any]]


def beyond_half(arm: str) -> Contrast:
    """The arm's gain in right answers over the bare base − half the gain of all rows of the asked
    families: above 0, the arm has most of that gain.
    """

    def subtract(by_arm: ByArm) -> float:
        bare = np.mean(by_arm[BARE]["right"])
        own = np.mean(by_arm[arm]["right"]) - bare
        whole = np.mean(by_arm[ALL_TRAINED]["right"]) - bare
        return float(own - whole / 2)

    return Contrast((arm, BARE, ALL_TRAINED), subtract)


FORM = (
    Claim(
        "few rows",
        "right, LoRA on three rows per family − a prompt with the same rows",
        difference("right", FEW_TRAINED, OWN_SHOWN),
        "above",
        unit=POINTS,
        above=(
            "The same three rows of each family do more in the weights than in the prompt, so a "
            "prompt does not get out all that the base has. In `tiny` that is no wonder: its base "
            "was mixed so that a prompt falls short."
        ),
        below=(
            "The same rows do more in the prompt than in the weights: with so few, ship the prompt."
        ),
        none=(
            "No difference is shown between the same rows in the prompt and in the weights. The "
            "interval says what could have been missed. The trained arm reads its rows so often "
            "that it is probably past its best look (section 8): its score is rather too low."
        ),
    ),
    Claim(
        "prompt or training",
        "right, LoRA on all rows of the family − a prompt with three of them",
        difference("right", ALL_TRAINED, OWN_SHOWN),
        "above",
        unit=POINTS,
        above=(
            "Training on all rows of the asked families beats the prompt. In `tiny` that is built "
            "into the base; what can be carried over is the way of comparing."
        ),
        below=(
            "The prompt beats training of this length: ship the prompt, unless longer runs, which "
            "are not part of this comparison, overtake it."
        ),
        none=(
            "In runs this short it is not shown that training beats the prompt; the longer runs of "
            "section 10 are not part of this comparison. Where training shows no gain, the prompt "
            "is the cheaper choice, and the interval says what you might give away with it."
        ),
    ),
    Claim(
        "own examples",
        "right, a prompt with three of its family − with three of other families",
        difference("right", OWN_SHOWN, OTHERS_SHOWN),
        "above",
        unit=POINTS,
        above="In a prompt, examples of the family itself do more than those of other families.",
        below=(
            "In a prompt, examples of other families do more than those of the family itself. Read "
            "the answers: it may be copying, which was not counted."
        ),
        none=(
            "On the mean over questions it is not shown that the family of a prompt's examples "
            "matters. The interval says how much it could. The largest family weighs most in this "
            "mean; the table by family below is another look at the same answers."
        ),
    ),
    Claim(
        "more rows",
        "right, LoRA on all rows of the family − LoRA on three of them",
        difference("right", ALL_TRAINED, FEW_TRAINED),
        "above",
        unit=POINTS,
        above=(
            "In as many reads, more different rows add to what three per family gave. This part "
            "cannot be called form alone: forms are short. It may be skill, wordings, or facts "
            "that the rows hold; or it is that the other arm reads its few rows too often (section "
            "8)."
        ),
        below=(
            "Three rows per family, read over and over, do better than all rows read at most once: "
            "at this length of run repetition wins."
        ),
        none=(
            "No gain beyond three rows per family is shown. The interval says how large a gain "
            "could have been missed. What gain there is may come from repetition: the arm of three "
            "rows reads each of them too often (section 8)."
        ),
    ),
    Claim(
        "three rows, most",
        "right, gain by three rows per family − half the gain by all rows of the family",
        beyond_half(FEW_TRAINED),
        "above",
        unit=POINTS,
        above="Three rows per family bring more than half of what all rows bring.",
        below="Three rows per family bring less than half of what all rows bring.",
        none="Whether three rows per family bring more or less than half is not shown.",
    ),
    Claim(
        "other families",
        "right, LoRA on other families − the bare base",
        difference("right", OTHERS_TRAINED, BARE),
        "above",
        unit=POINTS,
        above=(
            "Rows that hold nothing of the asked families bring right answers. So this part of the "
            "gain is what families share: how to answer at all and, where all families ask for one "
            "skill (messages into JSON), that skill as well. In `tiny` they share no skill: the "
            "base ends its turns by itself, so it is not the stop that is learnt, and much of the "
            "gain may be that a *first* request is answered. Where three examples of other "
            "families were shown in a prompt, the line below says what they bring without any "
            "training."
        ),
        below="Training on other families takes right answers away. There were few to take.",
        none=(
            "It is not shown that right answers of other families bring anything. The interval "
            "says what could have been missed."
        ),
    ),
    Claim(
        "form, most",
        "right, gain by other families − half the gain by all rows of the family",
        beyond_half(OTHERS_TRAINED),
        "above",
        unit=POINTS,
        above=(
            "More than half of what rows of the family bring, rows of other families alone bring "
            "as well. As those hold nothing of the family, most of the gain can be had by what "
            "families share: form in this sense. It is no split: other means bring the same part, "
            "and their shares overlap."
        ),
        below=(
            "Rows of other families bring less than half of what rows of the family bring. Form "
            "that is shared by families is then not most of the gain; a family's own form may be."
        ),
        none="Whether other families bring more or less than half of the gain is not shown.",
    ),
    Claim(
        "own families",
        "right, LoRA on all rows of the family − LoRA on other families",
        difference("right", ALL_TRAINED, OTHERS_TRAINED),
        "above",
        unit=POINTS,
        above=(
            "This part takes rows of the family itself: its form of answer, its wording, its "
            "skill. It is not form against content yet: the family's form is in it too, as the "
            "lower panel shows."
        ),
        below="Rows of the family itself do harm here. Look at single answers before you go on.",
        none=(
            "It is not shown that rows of the family itself add anything to what other families "
            "bring. The interval says how much they could."
        ),
    ),
    Claim(
        "shuffled",
        "right, LoRA on shuffled answers − LoRA on the same rows as they are",
        difference("right", SHUFFLED, ALL_TRAINED),
        "below",
        unit=POINTS,
        above="Shuffled answers bring more right ones than right answers. Look for a fault.",
        below=(
            "With the same prompts and the same answers, dealt out again, fewer answers are right. "
            "That much could be known before: these rows train the opposite of the skill, and the "
            "next line says whether they leave anything of the gain."
        ),
        none="It is not shown that shuffling the answers costs anything.",
    ),
    Claim(
        "shuffled or nothing",
        "right, LoRA on shuffled answers − the bare base",
        difference("right", SHUFFLED, BARE),
        "above",
        unit=POINTS,
        above=(
            "Even shuffled answers bring right ones. Some come by chance: where a family has "
            "few answers, the table above says how many stay right in the shuffling."
        ),
        below="Shuffled answers do harm even against a base that hardly answers.",
        none=(
            "It is not shown that shuffled answers bring anything. As a control they are then a "
            "floor. But the distance from it is not content alone: they also teach that the answer "
            "does not depend on the question."
        ),
    ),
)
