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
            "The student with a teacher is *worse* on new rows than the one trained on the same "
            "rows alone, both at their best rates."
        ),
        below=(
            "From the same rows, in equally many steps and at the best rate of each, the student "
            "learns more with the teacher's probabilities. A row's answer is one of many good "
            "wordings; the teacher says how likely each is."
        ),
        none=(
            "On the same rows no gain over training without the teacher is shown, each at the rate "
            "chosen by two runs. The interval says how large a gain may still be; the next line "
            "has both at one rate."
        ),
    ),
    _claim(
        "gain, one rate",
        "loss",
        "test loss",
        (FORWARD_AT_ROWS, ROWS_ALONE),
        "below",
        above=(
            "At the rate chosen for rows alone, too, the student with a teacher is worse on new "
            "rows."
        ),
        below=(
            "At one rate, the one chosen for *rows alone*, the student learns more with the "
            "teacher. If the line above shows less, its rate was chosen badly: two runs per rate "
            "are few. (This arm was added after the others had run; its rate favours the "
            "baseline.)"
        ),
        none=(
            "At one rate, the one chosen for rows alone, no gain is shown either. The teacher adds "
            "mostly how likely each good wording is, which a row's own answer does not reward. "
            "The hard part here, who lives where, is in the row as well."
        ),
    ),
    _claim(
        "nearer, one rate",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (FORWARD_AT_ROWS, ROWS_ALONE),
        "below",
        above="At one rate it ends farther from the teacher than the student without a teacher.",
        below="At one rate it ends nearer to the teacher than the student without a teacher.",
        none="At one rate, too, it is not shown to end nearer to the teacher.",
    ),
    _claim(
        "nearer",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (FORWARD, ROWS_ALONE),
        "below",
        above="The forward-KL student ends *farther* from the teacher than one without a teacher.",
        below=(
            "It ends nearer to the teacher than the student without a teacher. That is what it "
            "was trained for; the line above says how much the rows' own answers reward it."
        ),
        none="It is not shown to end nearer to the teacher than the student without a teacher.",
    ),
    _claim(
        "answers",
        "loss",
        "test loss",
        (DRAWN, ROWS_ALONE),
        "none",
        above=(
            "The student of the teacher's answers does worse on the rows' own answers. That test "
            "favours rows alone; the teacher's mistakes may add to it. Sequence-level distillation "
            "pays where there are no answers yet."
        ),
        below=(
            "Answers that the teacher wrote teach *more* than the rows' own, at equal numbers. One "
            "model wrote them all, so a smaller one may imitate them more easily."
        ),
        none=(
            "No difference is shown between the teacher's answers and the rows' own, one per "
            "question. The teacher's advantage is that it can write as many as you like."
        ),
    ),
    _claim(
        "logits",
        "loss",
        "test loss",
        (FORWARD, DRAWN),
        "below",
        above="The teacher's probabilities teach *less* than one answer sampled from them.",
        below=(
            "A whole distribution per token teaches more than one token sampled from it: the same "
            "expectation, without the sampling noise."
        ),
        none="No difference is shown between the teacher's probabilities and one answer by it.",
    ),
    _claim(
        "shuffled",
        "loss",
        "test loss",
        (SHUFFLED, FORWARD),
        "above",
        above=(
            "With the same confidence, but the rest of the probability on the wrong tokens, the "
            "student learns less: it matters *which* other tokens are likely, not only that the "
            "target is soft."
        ),
        below="A teacher whose lower probabilities are shuffled teaches *better*: look for a bug.",
        none=(
            "No harm from shuffling the teacher's lower probabilities is shown, so nor is any use "
            "of them. Softness alone could explain a gain."
        ),
    ),
    _claim(
        "covers",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (REVERSE, FORWARD),
        "above",
        above=(
            "The reverse-KL student gives less probability to what the teacher says: it has given "
            "up some of it. The forward-KL student covers more."
        ),
        below="The reverse-KL student covers *more* of what the teacher says than the forward one.",
        none="No difference in how much they cover of what the teacher says is shown.",
    ),
    _claim(
        "seeks",
        "surprise",
        "the teacher's surprise at the student's own answers",
        (REVERSE, FORWARD),
        "below",
        above=(
            "The reverse-KL student's own answers surprise the teacher *more*, unlike in the toy. "
            "There are two possible reasons. A name or town that the start gives almost no "
            "probability has almost no gradient (section 3), so this student has learnt less by "
            "now. And on given text it is corrected after prefixes that it would not write. In "
            "section 8 the second phase rules out the first reason, own text the second."
        ),
        below=(
            "The teacher finds the reverse-KL student's own answers more likely: that student "
            "seeks the teacher's likely answers and leaves the others out."
        ),
        none="No difference in how likely the teacher finds their own answers is shown.",
    ),
    Claim(
        "in a manner",
        f"answers in one of the two manners, {REVERSE} − {FORWARD}",
        difference("clear", REVERSE, FORWARD),
        "above",
        unit="share",
        above=(
            "The reverse-KL student keeps to the teacher's two manners more strictly: it hardly "
            "ever opens an answer as the teacher never would. That is seeking, in the part of an "
            "answer that both had learnt before. But the forward KL ran at a higher rate, and at "
            "that of rows alone (table) it strays less."
        ),
        below="The reverse-KL student leaves the teacher's two manners *more* often.",
        none="No difference in how often an answer is in one of the two manners is shown.",
    ),
    _claim(
        "narrow",
        "entropy",
        "the student's entropy along its own answers",
        (REVERSE, FORWARD),
        "below",
        above=(
            "The reverse-KL student is *less* sure of its next token. The other lines say whether "
            "it covers more or has merely learnt less."
        ),
        below="The reverse-KL student is surer of its next token: it has narrowed.",
        none="No difference in entropy between the two students is shown.",
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
            "Corrected on its own text in half of the steps, the student ends nearer to the "
            "teacher along its own answers, at equal steps and at the other's rate. Each such "
            "step also costs a generation (see the times)."
        ),
        none="At equal steps no gain from the student's own text is shown.",
    ),
    _claim(
        "own text, price",
        "forward",
        "KL(teacher‖student) along the teacher's answers",
        (REVERSE_OWN, REVERSE),
        "above",
        above=(
            "It costs coverage: along the teacher's answers the student that learnt on its own "
            "text is farther away. In half of its steps it did not see the rows' text."
        ),
        below="Own text brings the student nearer along the teacher's answers as well.",
        none="Along the teacher's answers no cost of own text is shown.",
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
            "After the same first phase the reverse KL gives up some of what the teacher says, "
            "and the forward KL keeps it. That is covering, from an equal start."
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
            "the teacher *more*: by this measure it does not seek. Two possible reasons remain: "
            "it was corrected on text that it would not write, and it had few steps."
        ),
        below=(
            "From a start that knows its people the reverse KL does what it does in the toy: its "
            "own answers surprise the teacher less. If section 7 says otherwise, the start was "
            "the reason."
        ),
        none=(
            "From a start that knows its people no difference in surprise is shown, so no seeking "
            "either. In the toy a search found the best student; here the student had few steps, "
            "and was corrected after prefixes of the rows, not its own."
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
        none="No difference in entropy is shown after the second phase.",
    ),
)
