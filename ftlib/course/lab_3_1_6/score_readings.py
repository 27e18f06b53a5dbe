"""What the experiments of lab 3.1.6 on inflated scores are to show, with a reading for whatever
comes out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.lab_3_1_6.cleaning_readings import SHARE
from ftlib.course.records.experiment import Claim, Contrast, difference


def value(arm: str, metric: str) -> Contrast:
    """A metric itself, where 0 is what is expected of no effect."""

    def read(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
        return float(np.mean(by_arm[arm][metric]))

    return Contrast((arm,), read)


# --- inflated scores ------------------------------------------------------------------------------
LEAKAGE = (
    Claim(
        name="row",
        text="validation − facts in neither part, copies dealt by row",
        contrast=value("by row", "inflation"),
        expected="above",
        above=(
            "Validation reports a skill that is not there. The facts are made up and nobody can "
            "infer them, so every right answer beyond a lucky guess was read in training in "
            "another wording. The number asked of facts in neither part is the honest one."
        ),
        below=(
            "Validation comes out below the honest number, which copies cannot explain. Look at "
            "which facts were drawn."
        ),
        none=(
            "Ten seeds establish no inflation: the model may not have kept the facts well "
            "enough to recognise them in another wording. Train longer and it will."
        ),
        unit=SHARE,
    ),
    Claim(
        name="likeness",
        text="validation − facts in neither part, copies dealt by likeness of text",
        contrast=value("by likeness", "inflation"),
        expected="above",
        above=(
            "Dealing groups found by likeness does not help here: in a question of six tokens one "
            "polite word breaks so many shingles that copies stay below the threshold. A group is "
            "what belongs together by *meaning*; a key of your data knows that, a similarity "
            "guesses."
        ),
        below=(
            "Validation comes out below the honest number, which copies cannot explain. Look at "
            "which facts were drawn."
        ),
        none=(
            "Likeness of text found the copies well enough that ten seeds show no inflation. With "
            "wordings further apart it would not."
        ),
        unit=SHARE,
    ),
    Claim(
        name="fact",
        text="validation − facts in neither part, dealt by fact",
        contrast=value("by fact", "inflation"),
        expected="none",
        above=(
            "Some inflation is left although no fact lies on both sides: something else is "
            "shared, such as the person or the sort of question."
        ),
        below=(
            "Dealt by fact, validation is below the honest number. Ten facts per seed are few; a "
            "difference of this size is worth a look at which ones were drawn."
        ),
        none=(
            "Dealt by fact, validation is not shown to differ from the honest number; the interval "
            "says to within how much. No fact of validation was read in training, so it asks "
            "what the honest number asks. This is a bad score and a true one."
        ),
        unit=SHARE,
    ),
    Claim(
        name="no copies",
        text="validation − facts in neither part, dealt by row, each fact once",
        contrast=value("by row, no copies", "inflation"),
        expected="none",
        above=(
            "Dealing rows inflates validation even where no fact is there twice, so copies are "
            "not all of the leak: the rows share something else."
        ),
        below=(
            "Without copies validation falls below the honest number, which dealing cannot explain."
        ),
        none=(
            "The control: dealt by row in the same way, but with nothing there twice, validation "
            "is not shown to differ from the honest number. So it is the copies across the split "
            "that inflate, not dealing by row."
        ),
        unit=SHARE,
    ),
)

CONTAMINATION = (
    Claim(
        name="half",
        text="golden score, half of it trained on − none of it",
        contrast=difference("golden", "50% of golden", "none"),
        expected="above",
        above=(
            "The golden score rises, and by this number a paper would claim progress. The next "
            "lines say how much of it is memory: part of the rise is honest learning of the golden "
            "set's *wordings*, which the other training rows lack."
        ),
        below=(
            "The golden score falls with the exam in the training rows. They replaced other rows; "
            "if those were worth more, this can happen, and memory did not make up for it."
        ),
        none=(
            "Ten seeds do not tell the golden score from the one without the exam: three "
            "readings may not be enough to keep answers, or the score was near its top "
            "before."
        ),
        unit=SHARE,
    ),
    Claim(
        name="wording",
        text="golden score, as many other questions in its wordings − none",
        contrast=difference("golden", "other questions", "none"),
        expected="above",
        above=(
            "Other questions in the golden set's wordings raise the score too, and not one of "
            "them is in the exam. This part of the rise is a skill that carries over, so the "
            "untreated model is the wrong baseline for the effect of contamination."
        ),
        below=(
            "Other questions in the same wordings lower the score: they are fewer different rows, "
            "each read more often."
        ),
        none=(
            "Other questions in the same wordings are not shown to differ from none, so no part of "
            "the rise above is shown to be the wording's."
        ),
        unit=SHARE,
    ),
    Claim(
        name="memory",
        text="the questions trained on − the same ones where others were trained on",
        contrast=difference("upper_half", "50% of golden", "other questions"),
        expected="above",
        above=(
            "The same questions, scored after training on them and after training on as many "
            "others in the same wordings: this difference is memory, as far as the next line finds "
            "no gain on the other half. Over the whole exam, half of which was not copied, it is "
            "half as much: add that, not this, to the wording's part."
        ),
        below=(
            "Questions that were trained on come out worse than without: nothing was kept of "
            "them, and chance did the rest."
        ),
        none=(
            "Against the control ten seeds show no memory of the exam: what the copies "
            "taught, other questions in the same wordings may teach as well."
        ),
        unit=SHARE,
    ),
    Claim(
        name="rest",
        text="the questions not trained on − the same ones where others were trained on",
        contrast=difference("lower_half", "50% of golden", "other questions"),
        expected="none",
        above=(
            "Even the half that was not trained on gains over the control: the exam's questions "
            "are better practice for the rest of the exam than others are."
        ),
        below=(
            "The half that was not trained on is worse than under the control: what was spent on "
            "learning answers by heart is missing elsewhere."
        ),
        none=(
            "On the half that was not trained on no difference from the control is shown; the "
            "interval says to within how much. So an uncontaminated part gives the honest number, "
            "if one knows which part that is."
        ),
        unit=SHARE,
    ),
    Claim(
        name="filtered",
        text="golden score, the copies filtered out again − none",
        contrast=difference("golden", "50%, filtered", "none"),
        expected="none",
        above=(
            "After the filter the score is still higher than without contamination: some copies "
            "passed it. Look at short prompts and at the share that must occur."
        ),
        below=(
            "After the filter the score is lower than without contamination: there are fewer rows "
            "left, each read more often at equal steps. That is the price of throwing rows away, "
            "not of the filter."
        ),
        none=(
            "Against no contamination no rise is shown any more: the copies are word for "
            "word, so the filter finds all of them. It leaves fewer rows, which are then read "
            "more often, and the score may even be a little lower. The record has ftlib's "
            "function; a live run has yours. A paraphrase would pass."
        ),
        unit=SHARE,
    ),
)
