"""What the experiment of lab E4 is to show, and what to conclude from each outcome."""

from __future__ import annotations

from ftlib.course.lab_e4.names import (
    AGAIN,
    DRAWN,
    FORWARD,
    FORWARD_AT_ROWS,
    REVERSE,
    REVERSE_OWN,
    ROWS_ALONE,
    SHUFFLED,
    THEN,
)
from ftlib.course.records.experiment import Claim, difference

NATS = "nats per token"


def _claim(
    name: str, metric: str, text: str, arms: tuple[str, str], expected: str, **readings: str
) -> Claim:
    first, second = arms
    return Claim(
        name,
        f"{text}, {first} − {second}",
        difference(metric, first, second),
        expected,
        unit=NATS,
        **readings,
    )


# What the papers let one expect: soft targets teach more than hard ones (Hinton et al. 2015), the
# reverse KL seeks (MiniLLM), own text helps (GKD).
STUDENTS = (
    _claim(
        "gain",
        "loss",
        "test loss",
        (FORWARD, ROWS_ALONE),
        "below",
        above=(
            "The student that listened to the teacher is *worse* on new rows than the one that "
            "read the same rows alone, both at their best rates."
        ),
        below=(
            "From the same rows, in as many steps and at the best rate of each, the student "
            "learns more with the teacher's probabilities beside them. An answer says which of "
            "many good wordings was drawn; the teacher says how likely each was."
        ),
        none=(
            "On the same rows no gain over training without the teacher is shown, each at the "
            "rate that two runs have chosen. The interval says how large one may have been missed; "
            "the next line takes away one suspect, the rate."
        ),
    ),
    _claim(
        "gain, one rate",
        "loss",
        "test loss",
        (FORWARD_AT_ROWS, ROWS_ALONE),
        "below",
        above=(
            "At the rate that was chosen for rows alone, too, the student beside the teacher is "
            "worse on new rows."
        ),
        below=(
            "At one rate, the one that was chosen for *rows alone*, the student learns more beside "
            "the teacher. Where the line above shows less, its rate was chosen badly: two runs a "
            "rate are few. (This arm was added after the others had run; it gives the baseline "
            "the better rate.)"
        ),
        none=(
            "At one rate, the one that was chosen for rows alone, no gain is shown either. What "
            "the teacher adds is mostly how likely each good wording is, and a row's own answer "
            "does not reward that; what is hard here, who lives where, the row says as well."
        ),
    ),
    _claim(
        "nearer, one rate",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (FORWARD_AT_ROWS, ROWS_ALONE),
        "below",
        above="At one rate it ends farther from the teacher than the student that never met it.",
        below="At one rate it ends nearer to the teacher than the student that never met it.",
        none="At one rate it does not end nearer to the teacher either.",
    ),
    _claim(
        "nearer",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (FORWARD, ROWS_ALONE),
        "below",
        above="The forward-KL student ends *farther* from its teacher than one that never met it.",
        below=(
            "It ends nearer to the teacher than the student that never met it. That is what it "
            "was trained for; how much of it the rows' own answers reward, the line above says."
        ),
        none="It does not end nearer to the teacher than the student that never met it.",
    ),
    _claim(
        "answers",
        "loss",
        "test loss",
        (DRAWN, ROWS_ALONE),
        "none",
        above=(
            "Answers that the teacher wrote teach less than the rows' own: they add the teacher's "
            "mistakes. Sequence-level distillation pays where there are no answers yet."
        ),
        below=(
            "Answers that the teacher wrote teach *more* than the rows' own, at equal numbers. "
            "The teacher's are drawn from one model, which a smaller one may follow more easily."
        ),
        none=(
            "One answer a question from the teacher is worth about what the row's own is worth: a "
            "sample is a sample. Its use is elsewhere: the teacher can write as many as you like."
        ),
    ),
    _claim(
        "logits",
        "loss",
        "test loss",
        (FORWARD, DRAWN),
        "below",
        above="The teacher's probabilities teach *less* than one answer drawn from them.",
        below=(
            "A whole distribution a token teaches more than one token drawn from it: the same "
            "expectation, without the noise of the draw."
        ),
        none="Between the teacher's probabilities and one answer by it no difference is shown.",
    ),
    _claim(
        "shuffled",
        "loss",
        "test loss",
        (SHUFFLED, FORWARD),
        "above",
        above=(
            "With the same confidence and the rest of the probability on the wrong tokens the "
            "student learns less: *which* other tokens are likely matters, and not only that the "
            "target is soft. A teacher that is unsure of the wrong things does harm."
        ),
        below="A teacher whose lesser probabilities are shuffled teaches *better*: look for a bug.",
        none=(
            "A teacher whose lesser probabilities are shuffled teaches as well: no use of what "
            "stands below the likeliest token is shown. Softness alone could explain the gain."
        ),
    ),
    _claim(
        "covers",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (REVERSE, FORWARD),
        "above",
        above=(
            "The reverse-KL student gives less probability to what the teacher says: it has let "
            "some of it go. The forward-KL student covers more."
        ),
        below="The reverse-KL student covers *more* of what the teacher says than the forward one.",
        none="Which of the two covers more of what the teacher says is not shown.",
    ),
    _claim(
        "seeks",
        "surprise",
        "the teacher's surprise at the student's own answers",
        (REVERSE, FORWARD),
        "below",
        above=(
            "The reverse-KL student's own answers surprise the teacher *more*, against what the "
            "toy says. Two suspects: a name or a town to which the start gives next to nothing "
            "has next to no gradient (section 3), so that this student has learnt less by now; "
            "and on given text it is corrected at prefixes that it would not have written. The "
            "second phase (section 8) takes the first suspect away, and own text the second."
        ),
        below=(
            "What the reverse-KL student says by itself, the teacher would rather have said too: "
            "it seeks the teacher's likely answers and leaves the others out."
        ),
        none="By how the teacher likes their own answers the two students are not told apart.",
    ),
    Claim(
        "in a manner",
        f"answers in one of the two manners, {REVERSE} − {FORWARD}",
        difference("clear", REVERSE, FORWARD),
        "above",
        unit="share",
        above=(
            "The reverse-KL student keeps to the teacher's manners more strictly: it hardly ever "
            "opens an answer in a way that the teacher never would. That is seeking, in the part "
            "of an answer that both had learnt before; but the forward KL ran at a higher rate, "
            "and at that of rows alone (table) it strays less."
        ),
        below="The reverse-KL student leaves the teacher's two manners *more* often.",
        none="By how often an answer is in one of the two manners they are not told apart.",
    ),
    _claim(
        "narrow",
        "entropy",
        "the student's entropy along its own answers",
        (REVERSE, FORWARD),
        "below",
        above=(
            "The reverse-KL student is *less* sure of its next token. That is the spread of a "
            "student that has not got far, not of one that covers: compare the other lines."
        ),
        below="The reverse-KL student is surer of its next token: it has narrowed.",
        none="By their entropy the two students are not told apart.",
    ),
    _claim(
        "own text",
        "reverse",
        "KL(student‖teacher) along the student's answers",
        (REVERSE_OWN, REVERSE),
        "below",
        above=(
            "With half of its steps on its own text the student ends *farther* from the teacher "
            "along its own answers. A start that writes badly has bad text to learn on."
        ),
        below=(
            "Corrected on what it writes itself in half of the steps, the student ends nearer to "
            "the teacher there, at equal steps and at the other's rate. Each such step costs a "
            "generation more (see the times)."
        ),
        none="At equal steps no use of the student's own text is shown.",
    ),
    _claim(
        "own text, price",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (REVERSE_OWN, REVERSE),
        "above",
        above=(
            "Its price is coverage: along what the teacher writes, the student that learnt on its "
            "own text is farther away. Half of the time nobody showed it those texts."
        ),
        below="Own text brings the student nearer along the teacher's answers as well.",
        none="Along what the teacher writes no price of own text is shown.",
    ),
)

# From a start that knows its people, where the first suspect is gone.
SECOND = (
    _claim(
        "covers then",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (THEN, AGAIN),
        "above",
        above=(
            "After the same first phase the reverse KL lets some of what the teacher says go, "
            "where the forward KL keeps it. This is covering, without the head start."
        ),
        below="After the same first phase the reverse KL covers *more* of what the teacher says.",
        none="After the same first phase no difference in covering is shown.",
    ),
    _claim(
        "seeks then",
        "surprise",
        "the teacher's surprise at the student's own answers",
        (THEN, AGAIN),
        "below",
        above=(
            "Even from a start that knows its people the reverse-KL student's own answers surprise "
            "the teacher *more*: by this measure it does not seek. What is left is that it was "
            "corrected on text that it would not have written, and few steps."
        ),
        below=(
            "From a start that knows its people the reverse KL does what the toy says: its own "
            "answers surprise the teacher less. Where section 7's line says otherwise, it was the "
            "start."
        ),
        none=(
            "From a start that knows its people the disadvantage of section 7 is not shown any "
            "more, and no seeking by the surprise either. In the toy every loss ran to its end; "
            "here it had few steps, and met the teacher at prefixes of the rows, not of its own."
        ),
    ),
    _claim(
        "narrow then",
        "entropy",
        "the student's entropy along its own answers",
        (THEN, AGAIN),
        "below",
        above="In its second phase the reverse-KL student is *less* sure than the forward one.",
        below="In its second phase the reverse-KL student is surer of its next token.",
        none="In the second phase the two are not told apart by their entropy.",
    ),
)
