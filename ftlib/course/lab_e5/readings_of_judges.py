"""What the runs on judges may say, each reading chosen by the result."""

from __future__ import annotations

from ftlib.course.lab_e5.names import BYTES_JUDGE, FAIR, FIRST, LONGER, SLIGHTLY_FIRST
from ftlib.course.records.experiment import Claim, difference, level, within

LEVEL = 0.05  # at which the checks are made

JUDGES = (
    Claim(
        "place",
        "advantage of the first place, planted − no bias",
        difference("advantage", FIRST, FAIR),
        "above",
        above=(
            "The planted preference for the first place is found. Judging in both orders removes "
            "it from the *win rate*, but the pairs that it decided are lost."
        ),
        below="The first place loses although it gets a bonus: look for a bug first.",
        none="The planted preference for the first place is not found with these pairs.",
    ),
    Claim(
        "no place",
        "advantage of the first place, no bias",
        level("advantage", FAIR),
        "none",
        above=(
            "These ten evaluations accuse the honest judge of preferring the first place. It "
            "scores each answer on its own, so it cannot: this is a false alarm, or a bug. The two "
            "thousand evaluations of section 7 test it again."
        ),
        below=(
            "These ten evaluations accuse the honest judge of preferring the second place. It "
            "scores each answer on its own, so it cannot: this is a false alarm, or a bug. The two "
            "thousand evaluations of section 7 test it again."
        ),
        none=(
            "The judge without a bias flips too, because it samples its verdicts, but both ways "
            "about equally. Flips alone are no bias."
        ),
    ),
    Claim(
        "length",
        "win rate − the rule's, for the longer − no bias",
        difference("tilt", LONGER, FAIR),
        "above",
        unit="of the pairs",
        above=(
            "The wordy system gains by the judge's preference for length, and judging in both "
            "orders does not help: the longer answer stays longer."
        ),
        below="The wordy system loses by a bonus for length: look for a bug first.",
        none="A preference for length is planted, and the win rate does not show it here.",
    ),
    Claim(
        "controlled",
        "error of the win rate − error at equal length, for the longer",
        within(LONGER, "off_raw", "off_controlled"),
        "above",
        unit="of the pairs",
        above=(
            "At equal length the win rate is nearer to the rule's. The correction does not know "
            "the rule: it only estimates how much length counts for this judge."
        ),
        below=(
            "At equal length the win rate is further from the rule's: the correction's model does "
            "not fit this judge, or the pairs are too few for its second coefficient."
        ),
        none=(
            "The correction is not shown to bring the win rate nearer to the rule's: with these "
            "pairs its own uncertainty may be as large as what it removes."
        ),
    ),
    Claim(
        "agreement",
        "κ with the rule, no bias − for the first",
        difference("kappa", FAIR, FIRST),
        "above",
        above=(
            "The bias costs agreement with the rule. κ says *that* a judge errs; only the other "
            "two checks say which way."
        ),
        below="The judge with the bias agrees more with the rule, which is chance or a bug.",
        none=(
            "With these pairs no difference in κ between the judges is shown: a bias changes only "
            "pairs that were nearly undecided. A good κ does not prove that there is no bias."
        ),
    ),
    Claim(
        "a byte",
        "weight of length φ, all words, per byte",
        level("slope", BYTES_JUDGE),
        "below",
        unit="log odds",
        above=(
            "This was not planted: by the log-likelihood of all words per byte, this model prefers "
            "the longer answer, since it finds closings likelier than facts."
        ),
        below=(
            "This was not planted: by the log-likelihood of all words per byte, this model prefers "
            "the *shorter* answer, since it finds facts likelier than closings. A judge brings "
            "biases of its own."
        ),
        none="By all words per byte, this model is not shown to prefer either length.",
    ),
)

ALARMS = (
    Claim(
        "no place, again",
        "advantage of the first place, no bias, 2,000 evaluations",
        level("advantage", FAIR),
        "none",
        above=(
            "The honest judge prefers the first place in two thousand evaluations too. That is not "
            "chance: look for a bug, in the judge or in how its verdicts are sampled."
        ),
        below=(
            "The honest judge prefers the second place in two thousand evaluations too. That is "
            "not chance: look for a bug, in the judge or in how its verdicts are sampled."
        ),
        none=(
            "In two thousand evaluations the honest judge is not shown to prefer a position. If "
            "the ten of section 6 said otherwise, that was a false alarm. Holm's method makes "
            "false alarms rare, not impossible."
        ),
    ),
    Claim(
        "honest place",
        "alarms of the advantage, no bias, − 5%",
        level("place", FAIR, LEVEL),
        "none",
        unit="of the judgings",
        above=(
            "The check accuses an honest judge more often than its level says. It assumes normal "
            "data, and verdicts have only three values; go by the rate measured here, not by 5%."
        ),
        below=(
            "The check accuses an honest judge less often than its level says: it is cautious, and "
            "misses a little more."
        ),
        none=(
            "As far as these seeds show, the check accuses an honest judge as often as its level "
            "says: in one evaluation of twenty."
        ),
    ),
    Claim(
        "honest length",
        "alarms of φ, no bias, − 5%",
        level("length", FAIR, LEVEL),
        "none",
        unit="of the judgings",
        above=(
            "The length check accuses an honest judge more often than its level says: its standard "
            "error is for large samples. Go by the rate measured here, or judge more pairs."
        ),
        below="The length check accuses an honest judge less often than its level says.",
        none=(
            "As far as these seeds show, the length check accuses an honest judge as often as its "
            "level says."
        ),
    ),
    Claim(
        "rule of thumb",
        "alarms by flips, no bias, − 5%",
        level("flips", FAIR, LEVEL),
        "above",
        unit="of the judgings",
        above=(
            "The rule of thumb accuses an honest judge far too often: it takes an unsure judge for "
            "a biased one."
        ),
        below="The rule of thumb accuses an honest judge in fewer than one evaluation of twenty.",
        none="The rule of thumb accuses an honest judge about as often as the check at 5% does.",
    ),
    Claim(
        "found",
        "alarms of the advantage, a little for the first − no bias",
        difference("place", SLIGHTLY_FIRST, FAIR),
        "above",
        unit="of the judgings",
        above=(
            "A small bias is found more often than an honest judge is accused: the check has power."
        ),
        below="A small bias is found less often than an honest judge is accused: look for a bug.",
        none="A small bias is not shown to be found more often than an honest judge is accused.",
    ),
)
