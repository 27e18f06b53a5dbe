"""What the runs on contamination may say, each reading chosen by the result."""

from __future__ import annotations

from ftlib.course.lab_e5.names import NOTHING, OTHERS, REWORDED, SHARES, leak_arm
from ftlib.course.records.experiment import Claim, Contrast, difference, level, slope, within

MOST = leak_arm(SHARES[-1])
POINTS = "of the questions"
PLACES = {NOTHING: 0.0, **{leak_arm(share): share for share in SHARES}}


def _gap_difference(by_arm) -> float:
    return by_arm[MOST]["gap"] - by_arm[OTHERS]["gap"]


LEAKS = (
    Claim(
        "leak",
        "score, 40% leaked − as many others",
        difference("score", MOST, OTHERS),
        "above",
        unit=POINTS,
        above=(
            "The leak raises the score. Rows, form and number of steps are the same as with other "
            "questions, so it is neither the form nor the exercise, but these very questions."
        ),
        below="The leak lowers the score, which nothing here explains: look for a fault first.",
        none=(
            "The leak does not raise the score by an amount that these seeds show: this training "
            "has not memorised what it read."
        ),
    ),
    Claim(
        "dose",
        "score for each further share of the benchmark that leaks",
        slope("score", PLACES),
        "above",
        unit="for all of it",
        above=(
            "The more leaks, the higher the score, along a line: each leaked question is worth "
            "about its own mark, less those guessed right anyway. With chance at a quarter the "
            "most that the slope can be is three quarters."
        ),
        below="More leaked questions go with a lower score: against all reason, look for a fault.",
        none="The score does not follow the share that leaks as far as these seeds show.",
    ),
    Claim(
        "rest",
        "score on questions that did not leak, 40% leaked − nothing leaked",
        difference("rest", MOST, NOTHING),
        "none",
        unit=POINTS,
        above=(
            "The questions that did not leak are answered better too: the leak has taught more "
            "than its own answers, such as which answers are frequent."
        ),
        below=(
            "The questions that did not leak are answered worse: what was memorised gets in the "
            "way of the guesses."
        ),
        none=(
            "Nothing carries over to the questions that did not leak, as far as these seeds show. "
            "The score went up, and the model has become no better at anything else."
        ),
    ),
    Claim(
        "other words",
        "score, leak in other words − as many others",
        difference("score", REWORDED, OTHERS),
        "above",
        unit=POINTS,
        above=(
            "A leak in other words raises the score as well, though no run of words is shared. "
            "This is what Yang et al. (2023) found with rephrased benchmarks: n-grams miss it."
        ),
        below="The leak in other words lowers the score: look for a fault first.",
        none=(
            "A leak in other words is not shown to raise the score: here a model learns sentences "
            "rather than facts."
        ),
    ),
    Claim(
        "paraphrase",
        "score in its own words − in other words, after 40% leaked",
        within(MOST, "score", "reworded"),
        "above",
        unit=POINTS,
        above=(
            "The same questions in other words score less: part of what leaked is the wording. A "
            "check by paraphrase sees this part, and only this one."
        ),
        below="In other words the questions are answered better than in those that leaked.",
        none=(
            "The same questions in other words score as much, as far as these seeds show: the "
            "model has learnt the *facts*, and a check by paraphrase calls the benchmark clean."
        ),
    ),
    Claim(
        "twin",
        "score − the twin's, 40% leaked − as many others",
        Contrast((MOST, OTHERS), _gap_difference),
        "above",
        unit=POINTS,
        above=(
            "The gap to a fresh twin, questions of the same form that nobody can have seen, gives "
            "the leak away. It needs no look at the training data."
        ),
        below="The gap to a fresh twin shrinks with the leak: look for a fault first.",
        none="The gap to a fresh twin does not tell the leak from the control with these seeds.",
    ),
    Claim(
        "control",
        "score − the twin's, as many others",
        level("gap", OTHERS),
        "none",
        unit=POINTS,
        above=(
            "The twin is a little harder than the benchmark even without a leak, and that part of "
            "every gap is its own. Seeds train the model anew and ask the same two sets of "
            "questions; that one set came out harder may be the luck of drawing them, which only "
            "the test over questions, in the table, allows for."
        ),
        below=(
            "The twin is a little easier than the benchmark even without a leak, and hides that "
            "part of every gap. Seeds train the model anew and ask the same two sets of questions; "
            "that one set came out easier may be the luck of drawing them, which only the test "
            "over questions, in the table, allows for."
        ),
        none=(
            "Without a leak the twin scores as the benchmark does, as far as these seeds show. It "
            "is a fair yardstick."
        ),
    ),
)
