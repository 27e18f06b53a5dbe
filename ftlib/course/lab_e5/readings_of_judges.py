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
            "The planted preference for the first place is found. Judging in both orders takes it "
            "out of the *win rate*, and does not give back the pairs in which it decided."
        ),
        below="The first place loses by a bonus for it: look for a fault first.",
        none="The planted preference for the first place is not found with these pairs.",
    ),
    Claim(
        "no place",
        "advantage of the first place, no bias",
        level("advantage", FAIR),
        "none",
        above=(
            "These ten judgings accuse the honest judge of preferring the first place. It scores "
            "each answer by itself and cannot: this is a false alarm, or a fault. The two thousand "
            "judgings of section 7 ask again."
        ),
        below=(
            "These ten judgings accuse the honest judge of preferring the second place. It scores "
            "each answer by itself and cannot: this is a false alarm, or a fault. The two thousand "
            "judgings of section 7 ask again."
        ),
        none=(
            "The judge without a bias flips as well, because it draws its verdicts, to either side "
            "alike. Flips alone are no bias."
        ),
    ),
    Claim(
        "length",
        "win rate − the rule's, for the longer − no bias",
        difference("tilt", LONGER, FAIR),
        "above",
        unit="of the pairs",
        above=(
            "The wordy system wins by a judge's preference for length, and both orders do nothing "
            "against it: length is no matter of place."
        ),
        below="The wordy system loses by a bonus for length: look for a fault first.",
        none="A preference for length is planted, and the win rate does not show it here.",
    ),
    Claim(
        "controlled",
        "error of the win rate − error at equal length, for the longer",
        within(LONGER, "off_raw", "off_controlled"),
        "above",
        unit="of the pairs",
        above=(
            "At equal length the rate is nearer to the rule's. The correction knows nothing of the "
            "rule: it asks only what length is worth to this judge."
        ),
        below=(
            "At equal length the rate is further from the rule's: the model of the correction does "
            "not fit this judge, or the pairs are too few for its second coefficient."
        ),
        none=(
            "The correction is not shown to bring the rate nearer to the rule's: with these pairs "
            "its own uncertainty is as large as what it takes out."
        ),
    ),
    Claim(
        "agreement",
        "κ with the rule, no bias − for the first",
        difference("kappa", FAIR, FIRST),
        "above",
        above=(
            "The bias costs agreement with the rule. κ says *that* a judge errs; which way, only "
            "the two other checks say."
        ),
        below="The judge with the bias agrees more with the rule, which is chance or a fault.",
        none=(
            "κ does not tell the biased judge from the other with these pairs: a bias moves only "
            "the pairs that were nearly undecided. A good κ is no proof that there is no bias."
        ),
    ),
    Claim(
        "a byte",
        "worth of length φ, all words, a byte",
        level("slope", BYTES_JUDGE),
        "below",
        unit="log odds",
        above=(
            "Nobody has planted it: scored by all words per byte, this model prefers the longer "
            "answer, whose closings it finds likelier than the facts."
        ),
        below=(
            "Nobody has planted it: scored by all words per byte, this model prefers the *shorter* "
            "answer, whose facts it finds likelier than the closings. A judge brings biases of its "
            "own."
        ),
        none="Scored by all words per byte, this model is not shown to prefer either length.",
    ),
)

ALARMS = (
    Claim(
        "no place, again",
        "advantage of the first place, no bias, 2,000 judgings",
        level("advantage", FAIR),
        "none",
        above=(
            "The honest judge prefers the first place in two thousand judgings too. That is no "
            "chance: look for the fault, in the judge or in the draw of its verdicts."
        ),
        below=(
            "The honest judge prefers the second place in two thousand judgings too. That is no "
            "chance: look for the fault, in the judge or in the draw of its verdicts."
        ),
        none=(
            "In two thousand judgings the honest judge has no preference for a place. If ten of "
            "them, in section 6, said otherwise, that was a false alarm, which ten seeds and "
            "Holm's method make rare and do not abolish."
        ),
    ),
    Claim(
        "honest place",
        "alarms of the advantage, no bias, − 5%",
        level("place", FAIR, LEVEL),
        "none",
        unit="of the judgings",
        above=(
            "The check accuses an honest judge more often than its level says. It is normal theory "
            "on verdicts of three values; read its 5% as what is measured here."
        ),
        below=(
            "The check accuses an honest judge less often than its level says: it is careful, and "
            "misses a little more."
        ),
        none=(
            "The check accuses an honest judge as often as its level says, as far as these seeds "
            "show: in one judging of twenty."
        ),
    ),
    Claim(
        "honest length",
        "alarms of φ, no bias, − 5%",
        level("length", FAIR, LEVEL),
        "none",
        unit="of the judgings",
        above=(
            "The check of length accuses an honest judge more often than its level says: its error "
            "is that of large samples. Read its 5% as what is measured here, or judge more pairs."
        ),
        below="The check of length accuses an honest judge less often than its level says.",
        none=(
            "The check of length accuses an honest judge as often as its level says, as far as "
            "these seeds show."
        ),
    ),
    Claim(
        "rule of thumb",
        "alarms by flips, no bias, − 5%",
        level("flips", FAIR, LEVEL),
        "above",
        unit="of the judgings",
        above=(
            "The rule of thumb accuses an honest judge far too often: it takes a judge that is "
            "unsure for one that is biased."
        ),
        below="The rule of thumb accuses an honest judge in less than one judging of twenty.",
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
        below="A small bias is found less often than an honest judge is accused: look for a fault.",
        none="A small bias is not found more often than an honest judge is accused.",
    ),
)
