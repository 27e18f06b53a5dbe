"""What the experiment of lab 3.1.6 on the messy file is to show, with a reading for whatever comes
out.
"""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, difference, within

TREATMENTS = ("raw", "copies dropped", "cleaned", "pipeline", "checked", "random drop")
NATS = "nats per answer token"
SHARE = "of the answers"

PIPELINE = (
    Claim(
        name="cleaned",
        text="validation loss, cleaned − raw (70% dirt, equal steps)",
        contrast=difference("loss", "cleaned", "raw"),
        expected="below",
        above=(
            "Cleaning alone makes the model worse here. Look at what it takes away: masked and "
            "dropped rows may have carried answers that validation asks for. Read the rows that "
            "went before you trust a rule."
        ),
        below=(
            "Markup, foreign rows, empty answers and personal data taken out or put right, the "
            "same number of steps teaches more of the task. Which of these it was is not separated "
            "here, and no random drop of this size was run beside it: the next lines have one for "
            "the whole pipeline."
        ),
        none=(
            "Ten seeds do not tell cleaned from raw. Either these defects cost little, since "
            "most rows with one still have a right answer inside, or the loss on a hundred "
            "clean questions is too coarse a measure of it."
        ),
        unit=NATS,
    ),
    Claim(
        name="copies",
        text="validation loss, copies dropped − raw (70% dirt, equal steps)",
        contrast=difference("loss", "copies dropped", "raw"),
        expected="none",
        above=(
            "Dropping copies alone costs: what is left has a larger share of the other defects, "
            "since copies are clean rows seen twice. Deduplication without cleaning concentrates "
            "the dirt."
        ),
        below=(
            "Dropping copies alone helps: steps spent on seeing a row twice are spent on new "
            "rows. Lee et al. (2021) find the same in pretraining."
        ),
        none=(
            "No effect of dropping copies alone is established. They were mostly right rows, read "
            "twice; without them a larger share of what is left is wrong, so that it may even "
            "harm. Where copies do harm is elsewhere: in splits (section 9) and in what is kept "
            "word for word (section 8)."
        ),
        unit=NATS,
    ),
    Claim(
        name="pipeline",
        text="validation loss, pipeline − raw (70% dirt, equal steps)",
        contrast=difference("loss", "pipeline", "raw"),
        expected="below",
        above=(
            "The whole pipeline leaves the model worse than the raw file, although each row that "
            "is left is cleaner. It has fewer rows, each is read more often at equal steps, and a "
            "larger share of them is wrong. Compare it with the random drop, which has as many."
        ),
        below=(
            "The pipeline helps, with fewer rows and the same number of steps. That each row is "
            "then read more than once is part of the treatment; the random drop, which shares it, "
            "says how much is due to which rows were left."
        ),
        none=(
            "Ten seeds do not tell the whole pipeline from the raw file. Fewer rows, read "
            "more often, and a larger share of wrong answers among them, may weigh as much as "
            "what was taken out: the comparison with a random drop of as many rows is the one "
            "that separates these."
        ),
        unit=NATS,
    ),
    Claim(
        name="control",
        text="validation loss, pipeline − random drop (as many rows and steps)",
        contrast=difference("loss", "pipeline", "random drop"),
        expected="below",
        above=(
            "Rows dropped by rule leave a worse set than rows dropped by chance: the rules take "
            "what the task needs. This is the comparison to believe, since nothing else differs."
        ),
        below=(
            "Against the control, which has as many rows, steps and epochs, the rules do better: "
            "it matters *which* rows go, not that some do. This is the comparison to believe, "
            "since nothing else differs."
        ),
        none=(
            "Ten seeds do not tell the pipeline from rows dropped by chance, so nothing here "
            "says that the rules choose well. With more rows per trial, or more dirt, they "
            "might."
        ),
        unit=NATS,
    ),
    Claim(
        name="checked",
        text="validation loss, pipeline and a check of answers − pipeline",
        contrast=difference("loss", "checked", "pipeline"),
        expected="below",
        above=(
            "Taking the wrong answers out costs more than it gives. They are few, and their rows "
            "still teach the form; look at the number of rows before concluding more."
        ),
        below=(
            "What the rules cannot see is worth taking out: some of what the pipeline leaves has "
            "a wrong answer, and someone who knows the answers has to find it. Section 8 shows "
            "how to give that person a short list."
        ),
        none=(
            "Ten seeds do not tell the checked rows from the pipeline's. At this amount of "
            "training, rows that contradict the others may be outvoted; section 12 gives them "
            "a larger share."
        ),
        unit=NATS,
    ),
    Claim(
        name="epoch",
        text="validation loss, pipeline − random drop (one epoch of what is left)",
        contrast=difference("loss", "pipeline, one epoch", "random drop, one epoch"),
        expected="below",
        above=(
            "Read only once, the pipeline's rows teach less than as many drawn by chance. At "
            "equal epochs the clean set gets as few steps as the control, so this is about the "
            "rows."
        ),
        below=(
            "The same with every row read once: the gain is not due to reading rows again. Both "
            "have fewer steps than the raw file's epoch, so compare each with the other alone."
        ),
        none=(
            "With every row read once, no difference is established. Both sets then have about "
            "half the steps, and after so few of them seeds spread widely."
        ),
        unit=NATS,
    ),
    Claim(
        name="as it is",
        text="validation loss, pipeline − raw (28% dirt, as the file is)",
        contrast=difference("loss", "pipeline, 28% dirt", "raw, 28% dirt"),
        expected="none",
        above=(
            "At the file's own share of defects the pipeline costs a little: more good rows are "
            "lost as copies than harm is taken out. It is then worth running for privacy and for "
            "an honest exam, and not for the loss."
        ),
        below=(
            "At the file's own share of defects the pipeline helps, in runs whose seeds spread "
            "less than those above. No random drop was run at this share, so it does not say which "
            "rows mattered."
        ),
        none=(
            "At the file's own share of defects ten seeds do not tell the two apart: three "
            "rows of four are clean, and may outvote the rest. Privacy, honest splits and an "
            "unseen exam are then the reasons to clean, and a lower loss is not."
        ),
        unit=NATS,
    ),
    Claim(
        name="exam",
        text="raw rows: golden questions with a copy among them − others",
        contrast=within("raw", "golden_copied", "golden_others"),
        expected="above",
        above=(
            "Trained on the raw file, the model does better on golden questions whose copies lie "
            "in it. Cleaning takes these copies away, and so can *lower* the golden score of a "
            "better model. A score on a seen exam cannot judge cleaning; validation can."
        ),
        below=(
            "Questions whose copies are in the file come out worse, which memory cannot explain: "
            "a dozen questions per seed is few, and some are harder than others."
        ),
        none=(
            "Over the dozen questions it concerns, a copy read about once is not told apart "
            "from none. Section 6 puts the exam in more often, and measures it on all "
            "questions."
        ),
        unit=SHARE,
    ),
)
