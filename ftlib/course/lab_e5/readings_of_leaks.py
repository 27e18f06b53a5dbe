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
            "The leak raises the score. The control has the same number of rows and steps, and "
            "statements of the same form, so the reason is these very questions."
        ),
        below="The leak lowers the score, which nothing here explains: look for a bug first.",
        none=(
            "These seeds do not show that the leak raises the score: this training may not have "
            "memorised what it read."
        ),
    ),
    Claim(
        "dose",
        "score for each further share of the benchmark that leaks",
        slope("score", PLACES),
        "above",
        unit="for all of it",
        above=(
            "The more leaks, the higher the score: the slope says what each leaked question adds, "
            "beyond a lucky guess. With chance at a quarter the slope can be three quarters at "
            "most."
        ),
        below="More leaked questions go with a lower score: implausible, look for a bug.",
        none="These seeds do not show that the score follows the share that leaks.",
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
            "The questions that did not leak are answered worse: what was memorised disturbs the "
            "guesses."
        ),
        none=(
            "These seeds show no gain on the questions that did not leak: a higher score does not "
            "make the model better at the rest."
        ),
    ),
    Claim(
        "other words",
        "score, leak in other words − as many others",
        difference("score", REWORDED, OTHERS),
        "above",
        unit=POINTS,
        above=(
            "A leak in other words raises the score as well, though no word sequence is shared. "
            "This is what Yang et al. (2023) found with rephrased benchmarks: n-grams miss it."
        ),
        below="The leak in other words lowers the score: look for a bug first.",
        none=(
            "A leak in other words is not shown to raise the score: this model may learn sentences "
            "rather than facts."
        ),
    ),
    Claim(
        "paraphrase",
        "score in the benchmark's words − in other words, after 40% leaked",
        within(MOST, "score", "reworded"),
        "above",
        unit=POINTS,
        above=(
            "The same questions in other words score less: part of what was learnt is the wording. "
            "A check by paraphrase sees only this part."
        ),
        below="In other words the questions are answered better than in the leaked words.",
        none=(
            "No difference is shown when the questions are in other words: the model has learnt "
            "the *facts*, and a check by paraphrase calls the benchmark clean."
        ),
    ),
    Claim(
        "twin",
        "score − the twin's, 40% leaked − as many others",
        Contrast((MOST, OTHERS), _gap_difference),
        "above",
        unit=POINTS,
        above=(
            "The gap to a fresh twin, questions of the same form that no model can have seen, "
            "reveals the leak. That needs no access to the training data."
        ),
        below="The gap to a fresh twin shrinks with the leak: look for a bug first.",
        none="These seeds show no difference in the gap to a fresh twin.",
    ),
    Claim(
        "control",
        "score − the twin's, as many others",
        level("gap", OTHERS),
        "none",
        unit=POINTS,
        above=(
            "The twin is a little harder than the benchmark even without a leak, so that part of "
            "every gap is not a leak. Every seed uses the same two sets of questions, and one set "
            "may be harder by chance. Only the test over questions, in the table, allows for that."
        ),
        below=(
            "The twin is a little easier than the benchmark even without a leak, and hides part of "
            "every gap. Every seed uses the same two sets of questions, and one set may be easier "
            "by chance. Only the test over questions, in the table, allows for that."
        ),
        none=(
            "Without a leak no difference between twin and benchmark is shown: the twin looks like "
            "a fair yardstick."
        ),
    ),
)
