"""What the experiments of lab 3.1.1 are to show, and what to conclude from each outcome.

The expectations are the papers'. Each claim has a reading for the outcome that contradicts them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ftlib.course.records.experiment import Claim, Contrast, difference, log_ratio

NATS = "nats per token"


def _random_forgets_more(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return by_arm["LoRA"]["random_forgotten"] - by_arm["LoRA"]["forgotten"]


def _random_learns_less(by_arm: Mapping[str, Mapping[str, Any]]) -> float:
    return by_arm["LoRA"]["random_loss"] - by_arm["LoRA"]["loss"]


METHODS = (
    Claim(
        "learnt",
        "test loss, LoRA − full, each at its best rate",
        difference("loss", "LoRA", "full"),
        "above",
        unit=NATS,
        above=(
            "LoRA learns less, at this rank and in this many steps, although its rate and alpha "
            "were chosen with the same care. That is what Biderman et al. report for long training "
            "on much data. Here there is little data, so capacity is an unlikely reason; the "
            "longer run below asks whether the steps are."
        ),
        below=(
            "LoRA learns more, with a small part of the trained numbers. On so few rows the full "
            "model's freedom is no advantage. It does not follow that it would hold on much data, "
            "which is where Biderman et al. find the opposite."
        ),
        none=(
            "No difference is shown, at the alpha and the rate that were chosen for LoRA; the map "
            "says what other alphas reach. Little data next to the adapter's capacity is the case "
            "in which Schulman et al. find none. The interval says how large a difference could "
            "have been missed, and the longer run below asks again."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten, LoRA − full, each at its best rate",
        difference("forgotten", "LoRA", "full"),
        "below",
        unit=NATS,
        above=(
            "At the rate that is best for learning LoRA damages the base domain more. The paper's "
            "“forgets less” is not a property of the formula: look at where the two sit on the "
            "plane, and at what LoRA's steps cost."
        ),
        below=(
            "At the rate that is best for learning LoRA forgets less. Before you quote Biderman "
            "et al. look at the sweep: how much does full fine-tuning forget one step of the grid "
            "below its best rate? Each rate was chosen for the validation loss alone, and "
            "forgetting rises steeply with the rate. The next comparison holds what is learnt "
            "fixed."
        ),
        none=(
            "Neither is shown to forget more at its best rate. Forgetting rises so steeply with "
            "the rate that this says as much about the two rates as about the two methods; the "
            "plane says more."
        ),
    ),
    Claim(
        "forgotten at equal loss",
        "forgotten, LoRA − the slower full fine-tuning, at about the same validation loss",
        difference("forgotten", "LoRA", "full, slower"),
        "below",
        unit=NATS,
        above=(
            "To learn about as much as full fine-tuning does at a lower rate, this LoRA forgets "
            "*more*: a smaller rate has protected the base, and the low rank has not. It is LoRA "
            "on all linear layers at one rank, and at a rate next to a steep rise: the sweep's "
            "rates beside it forget far less and far more. Section 10 has other places for the "
            "same number of parameters. More steps at a lower rate are the next question."
        ),
        below=(
            "Where both have learnt about the same, LoRA has forgotten less: this is more than a "
            "smaller rate. It holds at this rank and this length of run."
        ),
        none=(
            "Where both have learnt about the same, no difference in forgetting is shown: what is "
            "forgotten may follow from how much is learnt, and from the rate, more than from the "
            "method."
        ),
    ),
    Claim(
        "shuffled",
        "test loss, LoRA − LoRA on shuffled answers",
        difference("loss", "LoRA", "LoRA, shuffled"),
        "below",
        unit=NATS,
        above=(
            "The answers that belong to other questions teach more than the right ones: then "
            "something is wrong with the data or the measure. Do not go on before you know what."
        ),
        below=(
            "The control has the same questions, the same answers, as many steps of the same size, "
            "and only the pairing is gone. What it reaches is what the look of the answers alone "
            "is worth; the rest was learnt from what is asked."
        ),
        none=(
            "No difference from shuffled answers is shown, nor therefore that the model has learnt "
            "more than what answers look like. A falling loss alone would not have shown that."
        ),
    ),
    Claim(
        "random learns",
        "test loss, a random ΔW of the same output − LoRA's",
        Contrast(("LoRA",), _random_learns_less),
        "above",
        unit=NATS,
        above=(
            "A random update that moves every layer's output as far does not do the task: it is "
            "the direction that was learnt, not the size. This control is weaker than the shuffled "
            "one: a run that has learnt only the look of the answers would beat it by far."
        ),
        below="A random update does better than the trained one: look for a mistake in the run.",
        none=(
            "A random update of the same output is not shown to differ from the trained one, nor "
            "therefore that training has found more than a size."
        ),
    ),
    Claim(
        "random forgets",
        "forgotten, a random ΔW of the same output − LoRA's",
        Contrast(("LoRA",), _random_forgets_more),
        "above",
        unit=NATS,
        above=(
            "A random update that moves the task's outputs as far costs more of the base domain: "
            "the trained one lies where the base's own texts feel it less. Size alone does not "
            "decide what is forgotten."
        ),
        below=(
            "The trained update costs more of the base domain than a random one that moves the "
            "task's outputs as far. So forgetting is not just noise of this size in the weights. "
            "Why the trained one costs more is not shown: how far each moves the outputs on the "
            "base's own text was not held fixed."
        ),
        none=(
            "What a random update that moves the task's outputs as far costs of the base domain is "
            "not shown to differ from the trained one's cost: size may explain the forgetting."
        ),
    ),
    Claim(
        "intruders",
        "intruder dimensions per matrix, LoRA − full",
        difference("intruders", "LoRA", "full"),
        "above",
        unit="of 10",
        above=(
            "LoRA's tuned weights have leading singular vectors that resemble none of the base's, "
            "more than full fine-tuning's have, as Shuttleworth et al. report. The count depends "
            "on the threshold, and on how far the weights have moved: section 6 has the sizes of "
            "the two updates. They connect the count with forgetting; hold it against what the two "
            "have forgotten in section 6 before you do."
        ),
        below=(
            "Full fine-tuning has more intruder dimensions here, against Shuttleworth et al. Look "
            "at the norms first: the method that moves the weights further has more of them."
        ),
        none=(
            "No difference in intruder dimensions is shown. At these rates both move the weights "
            "so far, or so little, that the measure does not tell them apart."
        ),
    ),
    Claim(
        "PiSSA",
        "test loss, PiSSA − LoRA, each at its best rate",
        difference("loss", "PiSSA", "LoRA"),
        "below",
        unit=NATS,
        above=(
            "Starting from W's principal directions learns less here than starting from B = 0. "
            "PiSSA's paper compares at one rate for both; here each had its own, and LoRA its own "
            "alpha too."
        ),
        below=(
            "Starting from W's principal directions learns more, as the paper reports. Both "
            "factors move from the first step on, and they are large, so a step goes further."
        ),
        none=(
            "No difference is shown once both have their own rate; LoRA has had its alpha tuned "
            "too, PiSSA has not. A better start is worth most where the steps are few or the rate "
            "is not tuned."
        ),
    ),
)

LONG = (
    Claim(
        "learnt",
        "ln of test loss, LoRA over full, three times the steps",
        log_ratio("loss", "LoRA", "full"),
        "none",
        above=(
            "Both losses are far below the short run's, and LoRA's is the higher one, by a "
            "factor. Look at the words beside the loss: where nearly all are right, a factor in a "
            "small loss is worth little to anybody who reads the answers. It does say that full "
            "fine-tuning comes closer to certainty in the same number of steps."
        ),
        below=(
            "With three times the steps LoRA's loss is the lower one, by a factor. For this little "
            "data a low rank is no handicap, given the steps."
        ),
        none=(
            "With three times the steps no factor between the two losses is shown. That is the "
            "statement of “LoRA without regret”, for little data."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten, LoRA − full, three times the steps",
        difference("forgotten", "LoRA", "full"),
        "below",
        unit=NATS,
        above=(
            "LoRA forgets more at these rates. Before you blame the low rank look at the next "
            "line: each rate was chosen for the validation loss alone, and near the best rate that "
            "loss is flat while forgetting is steep."
        ),
        below=(
            "At these rates LoRA forgets less. The two have not learnt equally much, so this is "
            "not yet a comparison of methods: the next line has full fine-tuning at a lower rate."
        ),
        none=(
            "No difference in forgetting is shown at these rates. The two have not learnt equally "
            "much: the next line has full fine-tuning at a lower rate."
        ),
    ),
    Claim(
        "forgotten, slower",
        "forgotten, LoRA − the slower full fine-tuning, three times the steps",
        difference("forgotten", "LoRA", "full, slower"),
        "none",
        unit=NATS,
        above=(
            "Against full fine-tuning at a lower rate LoRA forgets more, also with three times the "
            "steps. More steps have not taken the difference away: in this task the base is "
            "protected by small steps of all weights better than by a low rank."
        ),
        below=(
            "Against full fine-tuning at a lower rate LoRA forgets less: given enough steps the "
            "low rank protects the base, as Biderman et al. report. Compare the losses in the "
            "figure before you conclude; they are near each other, not equal."
        ),
        none=(
            "Against full fine-tuning at a lower rate no difference in forgetting is shown. What "
            "is forgotten may follow from how the model is trained rather than from the method."
        ),
    ),
)

STARTS = (
    Claim(
        "damage",
        "the base's text before the first step, both random − the base",
        Contrast(("both random",), lambda by_arm: by_arm["both random"]["damage"]),
        "above",
        unit=NATS,
        above=(
            "With both factors random the model is damaged before it has learnt anything, measured "
            "on text of the base's own domain. On the new task's text the loss may even fall, "
            "because any noise makes a confident wrong answer less confident: measure damage where "
            "the base was good."
        ),
        below="Random updates improve the base on its own text: the base was not trained well.",
        none=(
            "No damage is shown: at this alpha the random product is too small next to W. A larger "
            "alpha would show it."
        ),
    ),
    Claim(
        "A zero",
        "validation loss, A zero − B zero, the same rate",
        difference("validation_loss", "A zero, B random", "A random, B zero"),
        "below",
        unit=NATS,
        above=(
            "At the same rate the start with A = 0 is behind: its first steps are larger, and here "
            "they are too large."
        ),
        below=(
            "At the same rate the start with A = 0 is ahead. That is no advantage of the start "
            "yet: its first Adam step moves the output about d/r times as far, as you have "
            "computed. A larger rate might do the same for B = 0."
        ),
        none="No difference is shown at this rate, although the first steps differ in size.",
    ),
    Claim(
        "A zero, equal steps",
        "validation loss, A zero at rate · r/d − B zero",
        difference("validation_loss", "A zero, rate · r/d", "A random, B zero"),
        "above",
        unit=NATS,
        above=(
            "With its first step made as small as the usual start's, A = 0 falls far behind. That "
            "does not show that the step was its whole lead: the rate holds for the entire run, "
            "and so small a one is too low for the later steps. Neither comparison is fair; each "
            "start needs its own best rate."
        ),
        below=(
            "Even with its first step made as small A = 0 is ahead: the size of the steps is not "
            "all of it."
        ),
        none=(
            "With its first step made as small no difference is shown: the size of the steps may "
            "have been the whole advantage."
        ),
    ),
)

SCALING = (
    Claim(
        "same rate",
        "test loss at the highest rank, α/√r − α/r, same alpha and rate",
        difference("loss", "α/√r", "α/r"),
        "below",
        unit=NATS,
        above=(
            "At the same alpha and rate rsLoRA does worse. The rate was tuned for α/r at this "
            "rank, and rsLoRA's factor is √r times as large, so the rate is too high for it. That "
            "is no test of rsLoRA, nor of its theorem, which is about stability as r grows without "
            "end; it says that alpha and rate belong together."
        ),
        below=(
            "At the same alpha and rate rsLoRA does better, as its paper reports: the larger "
            "factor lets a high rank move."
        ),
        none="No difference is shown at the same alpha and rate.",
    ),
    Claim(
        "lower rate",
        "test loss at the highest rank, α/√r at a lower rate − α/r",
        difference("loss", "α/√r, lower rate", "α/r"),
        "none",
        unit=NATS,
        above=(
            "Also at the lower rate rsLoRA is behind. One lower rate is not a sweep: the map says "
            "where the best for such a large factor would be."
        ),
        below=(
            "At a lower rate rsLoRA is ahead of α/r: the larger factor with smaller steps is the "
            "better setting for a high rank. LoRA with a larger alpha would be the same model: the "
            "two differ by a number, α√r in place of α."
        ),
        none=(
            "At a lower rate no difference is shown. The two formulas are one model with two names "
            "for a number: rsLoRA at α is LoRA at α√r. What differs is which of the settings carry "
            "over when the rank changes."
        ),
    ),
)
