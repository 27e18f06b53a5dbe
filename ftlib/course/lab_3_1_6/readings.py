"""What the experiments of lab 3.1.6 on what is trained on are to show, with a reading for whatever
comes out.
"""

from __future__ import annotations

from ftlib.course.records.experiment import Claim, difference, within

TREATMENTS = ("raw", "copies dropped", "cleaned", "pipeline", "checked", "random drop")
WRONG = 0.4  # of the messy set's rows
NATS = "nats per answer token"
SHARE = "of the answers"


# --- cleaning -------------------------------------------------------------------------------------
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
            "Ten seeds show no effect of cleaning. Either these defects cost little, since most "
            "rows with one still have a right answer inside, or the loss on a hundred clean "
            "questions is too coarse a measure of it."
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
            "No effect of the whole pipeline over ten seeds. Fewer rows, read more often, and a "
            "larger share of wrong answers among them, may weigh as much as what was taken out: "
            "the comparison with a random drop of as many rows is the one that separates these."
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
            "Against rows dropped by chance ten seeds show no difference, so nothing here says "
            "that the rules choose well. With more rows a trial, or more dirt, they might."
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
            "Taking out the remaining wrong answers shows no effect over ten seeds. At this "
            "amount of training, rows that contradict the others are partly outvoted; section 12 "
            "gives them a larger share."
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
            "At the file's own share of defects ten seeds show no difference: three rows of four "
            "are clean, and they outvote the rest. Privacy, honest splits and an unseen exam are "
            "then the reasons to clean, and a lower loss is not."
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
            "a dozen questions a seed is few, and some are harder than others."
        ),
        none=(
            "A copy read about once shows no effect on the dozen questions it concerns. Section 6 "
            "puts the exam in more often, and measures it on all questions."
        ),
        unit=SHARE,
    ),
)

# --- quality and quantity -------------------------------------------------------------------------
QUALITY = (
    Claim(
        name="short",
        text="accuracy, small and clean − large and messy (equal steps: one epoch of the small)",
        contrast=difference("accuracy", "small, short", "messy, short"),
        expected="above",
        above=(
            "Not all of this is quality. Batches hold rows of like length, so a quarter of an "
            "epoch of the large set is one sweep from long rows to short, and the small set's "
            "epoch is four. The two lines on the large sets hold rows, order and steps fixed: they "
            "say what wrong answers cost."
        ),
        below=(
            "Wrong answers do better than right ones over as many rows read once. That is hard to "
            "explain but by chance; look at the loss, and at more seeds."
        ),
        none=(
            "Over so few steps ten seeds show no difference in accuracy: what is learnt first, "
            "the form of an answer, wrong rows teach as well. Look at the loss and at longer "
            "training."
        ),
        unit=SHARE,
    ),
    Claim(
        name="wrong, short",
        text="accuracy, large and clean − large and messy (a quarter of an epoch)",
        contrast=difference("accuracy", "large, short", "messy, short"),
        expected="above",
        above=(
            "The same questions in the same order for as many steps, and only the answers differ: "
            "this is what wrong answers cost before a row is read twice."
        ),
        below=(
            "With the same questions in the same order, wrong answers do better than right ones: "
            "look for a mistake before you look for a reason."
        ),
        none=(
            "With the same questions in the same order, wrong answers cost nothing that ten seeds "
            "show in so few steps."
        ),
        unit=SHARE,
    ),
    Claim(
        name="wrong, long",
        text="accuracy, large and clean − large and messy (one epoch)",
        contrast=difference("accuracy", "large, long", "messy, long"),
        expected="above",
        above=(
            "The same questions in the same order for a whole epoch: this is what 40% wrong "
            "answers cost. Errors that contradict each other were not outvoted."
        ),
        below=(
            "With the same questions in the same order, wrong answers do better than right ones: "
            "look for a mistake before you look for a reason."
        ),
        none=(
            "With the same questions in the same order, 40% wrong answers cost nothing that ten "
            "seeds show: they contradict each other, and the right ones outvote them."
        ),
        unit=SHARE,
    ),
    Claim(
        name="long",
        text="accuracy, small and clean − large and messy (equal steps: one epoch of the large)",
        contrast=difference("accuracy", "small, long", "messy, long"),
        expected="above",
        above=(
            "Now the large set was read whole, and few clean rows read four times are still "
            "better. The large set holds more than twice as many right rows as the small one; its "
            "wrong ones cost more than those give."
        ),
        below=(
            "Read whole, the large set wins although 40% of it is wrong: its right rows outnumber "
            "the small set's, and its errors contradict each other. That LIMA's rule holds is a "
            "matter of task, base and steps."
        ),
        none=(
            "Read whole, the large set does about as well: ten seeds show no difference. Its "
            "errors contradict each other and the right rows outvote them. Earlier versions of "
            "such comparisons, in which most of the large set was never read, could not see this."
        ),
        unit=SHARE,
    ),
    Claim(
        name="epoch",
        text="accuracy, small and clean − large and messy (one full epoch each)",
        contrast=difference("accuracy", "small, short", "messy, long"),
        expected="none",
        above=(
            "Every row read once, the small clean set is better, at a quarter of the computing. "
            "Where rows cost money and steps do too, this is the comparison that counts."
        ),
        below=(
            "Every row read once, the large set is better: it also gets four times the steps. If "
            "steps are cheap, its size makes up for its errors; at equal steps see the line "
            "above."
        ),
        none=(
            "Every row read once, ten seeds show no difference, though the large set had four "
            "times the steps. Its size about makes up for its errors, at four times the "
            "computing."
        ),
        unit=SHARE,
    ),
    Claim(
        name="loss",
        text="validation loss, small and clean − large and messy (one epoch of the large)",
        contrast=difference("loss", "small, long", "messy, long"),
        expected="below",
        above=(
            "By the loss the large set is better, whatever the accuracy says: few rows read four "
            "times make a model too sure of itself."
        ),
        below=(
            "By the loss the clean set is far ahead. Part of that is not about being right: a "
            "model taught 40% wrong answers learns to be unsure, and the loss charges doubt even "
            "where the likeliest answer is right. Accuracy leaves that part out."
        ),
        none=(
            "By the loss ten seeds show no difference: doubt taught by wrong answers on one side "
            "and overconfidence after four epochs on the other may cancel."
        ),
        unit=NATS,
    ),
    Claim(
        name="part",
        text="accuracy, large and messy − a quarter of it at random (equal steps)",
        contrast=difference("accuracy", "messy, long", "part of messy, long"),
        expected="above",
        above=(
            "At the same quality four times the rows help: the small part is read four times, "
            "wrong answers with it, until they are known by heart. Number and quality are two "
            "things, and both count."
        ),
        below=(
            "At the same quality fewer rows read more often do better. Memorising a wrong answer "
            "then seems to harm less than meeting new ones."
        ),
        none=(
            "At the same quality ten seeds do not tell the two apart by accuracy; the interval "
            "says to within how much. So size alone does not explain the clean set's lead."
        ),
        unit=SHARE,
    ),
    Claim(
        name="shuffled",
        text="accuracy, small and clean − the same rows with answers shuffled (equal steps)",
        contrast=difference("accuracy", "small, long", "shuffled, long"),
        expected="above",
        above=(
            "The control has the same questions, the same sort of answers and the same steps, and "
            "falls far behind: right answers teach more than form. Part of the distance is what "
            "wrong answers unteach, since nearly every answer of the control is another "
            "question's."
        ),
        below=(
            "Shuffled answers do better than right ones: then the score measures form, and not "
            "whether an answer is right. Read some answers."
        ),
        none=(
            "Shuffled answers do as well: then all that these rows teach is form, and the base "
            "knew the answers before."
        ),
        unit=SHARE,
    ),
    Claim(
        name="rows",
        text="accuracy, large clean set − small clean set (equal steps: one epoch of the large)",
        contrast=difference("accuracy", "large, long", "small, long"),
        expected="above",
        above=(
            "At equal steps new rows teach more than the same rows again: here a budget for "
            "annotation still buys something. The curves above say where that ends."
        ),
        below=(
            "At equal steps repeated rows do better than new ones; with so little training, "
            "seeing a row again may fix what a first reading only began."
        ),
        none=(
            "At equal steps four times the rows are not told apart from the same rows again by "
            "accuracy. Muennighoff et al. (2023) find that a row may be read up to four times in "
            "pretraining with little loss. The validation loss in the table is a finer measure: "
            "see whether it favours new rows."
        ),
        unit=SHARE,
    ),
    Claim(
        name="steps",
        text="accuracy, small clean set: four epochs − one",
        contrast=difference("accuracy", "small, long", "small, short"),
        expected="above",
        above=(
            "With the rows fixed, more steps help. A learning curve at one epoch each would have "
            "credited this to rows: it gives the larger set both more rows and more steps."
        ),
        below=(
            "With the rows fixed, more steps harm: the model learns the rows by heart. Stop "
            "early, by validation."
        ),
        none=(
            "With the rows fixed, four times the steps show no effect: one reading was enough for "
            "what these rows teach."
        ),
        unit=SHARE,
    ),
)
