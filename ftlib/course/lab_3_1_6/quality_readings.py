"""What the experiment of lab 3.1.6 on few clean rows and many with wrong answers is to show, with a
reading for whatever comes out.
"""

from __future__ import annotations

from ftlib.course.lab_3_1_6.cleaning_readings import NATS, SHARE
from ftlib.course.records.experiment import Claim, difference

WRONG = 0.4  # of the messy set's rows

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
            "explain except by chance; look at the loss, and at more seeds."
        ),
        none=(
            "Over so few steps these seeds do not tell the two apart by accuracy: what is "
            "learnt first, the form of an answer, wrong rows may teach as well. Look at the "
            "loss and at longer training."
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
            "With the same questions in the same order, wrong answers cost nothing that these "
            "seeds show in so few steps."
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
            "With the same questions in the same order, 40% wrong answers cost nothing that "
            "these seeds show: they contradict each other, and the right ones may outvote "
            "them."
        ),
        unit=SHARE,
    ),
    Claim(
        name="long",
        text="accuracy, small and clean − large and messy (equal steps: one epoch of the large)",
        contrast=difference("accuracy", "small, long", "messy, long"),
        expected="above",
        above=(
            "Now the large set was read whole, and the few clean rows, read more than once, "
            "are still better. The large set holds more right rows than the small one; its "
            "wrong ones cost more than those give."
        ),
        below=(
            "Read whole, the large set wins although 40% of it is wrong: its right rows outnumber "
            "the small set's, and its errors contradict each other. Whether LIMA's rule holds "
            "depends on task, base and steps."
        ),
        none=(
            "Read whole, the large set is not shown to differ from the small one; the interval "
            "says to within how much. Its errors contradict each other, and its right rows "
            "may outvote them."
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
            "Every row read once, these seeds do not tell the two apart, though the large set "
            "had more steps. Its size may make up for its errors, at the price of more "
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
            "By the loss the large set is better, whatever the accuracy says: few rows read "
            "more than once make a model too sure of itself."
        ),
        below=(
            "By the loss the clean set is far ahead. Part of that is not about being right: a "
            "model taught 40% wrong answers learns to be unsure, and the loss penalises doubt even "
            "where the likeliest answer is right. Accuracy leaves that part out."
        ),
        none=(
            "By the loss these seeds do not tell the two apart: doubt taught by wrong answers "
            "on one side and overconfidence after more than one epoch on the other may "
            "cancel."
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
            "At the same quality these seeds do not tell the two apart by accuracy; the "
            "interval says to within how much. So size alone does not explain the clean set's "
            "lead."
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
            "Shuffled answers are not shown to differ from right ones: what these rows teach may "
            "be no more than form, or the base knew the answers before."
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
            "At equal steps more rows and the same rows again are not shown to differ by accuracy. "
            "Muennighoff et al. (2023) find that a row may be read up to four times in pretraining "
            "with little loss. The validation loss in the table is a finer measure: see whether it "
            "favours new rows."
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
            "With the rows fixed, more steps are not shown to differ from one epoch: a single "
            "reading may have been enough for what these rows teach."
        ),
        unit=SHARE,
    ),
)
