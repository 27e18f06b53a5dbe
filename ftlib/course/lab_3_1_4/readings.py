"""What the experiments of lab 3.1.4 are to show, and what to conclude from each outcome."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ftlib.course.records.experiment import Claim, Contrast, difference

NATS = "nats a token"
POINTS = "of the questions"

BARE = "base, no example"
OTHERS_SHOWN = "base, 3 of other families"
OWN_SHOWN = "base, 3 of its family"
FEW_TRAINED = "LoRA, those 3 a family"
SHUFFLED = "LoRA, shuffled answers"
OTHERS_TRAINED = "LoRA, other families"
ALL_TRAINED = "LoRA, all rows"
FEW_ROWS = "two dozen rows"
UNTIED = "spare turns, spare stop, known output row"


def marker_arm(turns: str, stop: str) -> str:
    return f"{turns} turns, {stop} stop"


ByArm = Mapping[str, Mapping[str, Any]]


# --- methods --------------------------------------------------------------------------------------
def forgotten_at(run: Mapping[str, Any], loss: float) -> float:
    """What a run had forgotten when its golden loss came down to `loss`, on a straight line between
    two looks.
    """
    losses = np.minimum.accumulate(np.asarray(run["loss_by_step"], dtype=float))
    return float(np.interp(-loss, -losses, run["forgotten_by_step"]))


def _forgotten_at_equal_loss(by_arm: ByArm) -> float:
    """LoRA − full, at the higher one of the two losses at the end: both have come so far."""
    lora = by_arm["LoRA"]
    full = by_arm["full fine-tuning"]
    reached = max(min(lora["loss_by_step"]), min(full["loss_by_step"]))
    return forgotten_at(lora, reached) - forgotten_at(full, reached)


_TWO = ("LoRA", "full fine-tuning")
METHODS = (
    Claim(
        "learnt",
        "golden loss, LoRA − full, each at its best rate",
        difference("loss", *_TWO),
        "above",
        unit=NATS,
        above=(
            "Full fine-tuning has learnt more in as many steps, although both rates were chosen "
            "with the same care: Biderman's “learns less”, at this length of run. It does not "
            "follow for a longer one; look at whether the curves still fall at the last step."
        ),
        below=(
            "LoRA has learnt more, with a small part of the trained numbers: on a task that mostly "
            "asks for what the base knows, the full model's freedom is no advantage. Biderman et "
            "al. find the opposite on code and mathematics, which the base has to learn."
        ),
        none=(
            "No difference is shown: as Schulman et al. report where the data is small next to "
            "the adapter's capacity. The interval says what could have been missed."
        ),
    ),
    Claim(
        "forgotten",
        "forgotten at the end, LoRA − full, each at its best rate",
        difference("forgotten", *_TWO),
        "below",
        unit=NATS,
        above=(
            "At its best rate LoRA damages the base more: the low rank protects nothing by itself. "
            "Its rate is several times the full one, and forgetting rises steeply with the rate. "
            "The next line asks at equal learning."
        ),
        below=(
            "At its best rate LoRA has forgotten less. That alone does not say why: the rates were "
            "chosen for learning, and forgetting follows the rate. The next line asks at equal "
            "learning."
        ),
        none=(
            "Neither is shown to have forgotten more at the end. The rates were chosen for "
            "learning alone; the next line asks at equal learning."
        ),
    ),
    Claim(
        "forgotten at equal loss",
        "forgotten, LoRA − full, when both have come to the same golden loss",
        Contrast(_TWO, _forgotten_at_equal_loss),
        "below",
        unit=NATS,
        above=(
            "For the same learning LoRA pays with more forgetting: at this length of run a "
            "smaller full update is the gentler one. The best rates differ; a lower LoRA rate and "
            "more steps may change it, and lab 3.1.1 tries that."
        ),
        below=(
            "For the same learning LoRA pays with less forgetting: its curve lies below. This is "
            "the trade-off at two rates chosen for learning; other rates draw other curves."
        ),
        none=(
            "For the same learning both have forgotten about as much: what is forgotten follows "
            "what is learnt. An end point alone would have said that one of them forgets less."
        ),
    ),
    Claim(
        "DoRA",
        "golden loss, DoRA − LoRA",
        difference("loss", "DoRA", "LoRA"),
        "none",
        unit=NATS,
        above="DoRA has learnt less here, at the cost of more memory and time. Lab 3.1.2 asks why.",
        below=(
            "DoRA has learnt more at the same rank. Set the size of the difference beside its cost "
            "in the table; lab 3.1.2 takes it apart."
        ),
        none=(
            "No difference between DoRA and LoRA is shown at this rank and length. It costs more; "
            "lab 3.1.2 looks for where it pays."
        ),
    ),
    Claim(
        "QLoRA",
        "golden loss, QLoRA − LoRA",
        difference("loss", "QLoRA", "LoRA"),
        "above",
        unit=NATS,
        above=(
            "Training on a base in four bits costs a little: the rounding of the weights is there "
            "from the start, and the adapter has to make up for it. On a model of 4M parameters "
            "rounding weighs more than on one of 8B."
        ),
        below=(
            "The four-bit base ends lower. Rounding adds no knowledge; at most it acts like "
            "noise in training. Do not expect it elsewhere."
        ),
        none=(
            "No cost of the four-bit base is shown, as Dettmers et al. report for large models. "
            "The interval says how large a cost could hide."
        ),
    ),
    Claim(
        "prefix",
        "golden loss, prefix tuning − LoRA",
        difference("loss", "prefix tuning", "LoRA"),
        "above",
        unit=NATS,
        above=(
            "Prefix tuning has learnt less in these steps: it trains few numbers, and can only "
            "steer what attention reads. Its own best rate was used, so the rate is no excuse; "
            "the number of steps may be."
        ),
        below="Prefix tuning has learnt more: sixteen virtual tokens are enough for this task.",
        none="No difference between prefix tuning and LoRA is shown, with far fewer numbers.",
    ),
    Claim(
        "bottleneck",
        "golden loss, bottleneck adapters − LoRA",
        difference("loss", "bottleneck adapters", "LoRA"),
        "none",
        unit=NATS,
        above=(
            "Bottleneck adapters have learnt less at a like number of trained numbers, and stay in "
            "the path at inference, where LoRA is merged away."
        ),
        below=(
            "Bottleneck adapters have learnt more: layers of their own can do what a change of the "
            "weights cannot. They stay in the path at inference; LoRA is merged away."
        ),
        none=(
            "No difference is shown. What decides between them is inference: bottleneck adapters "
            "stay in the path, LoRA is merged away."
        ),
    ),
)


# --- form and content -----------------------------------------------------------------------------
def _cut_helps(by_arm: ByArm) -> float:
    """The mean over both prompts."""
    gains = []
    for arm in (OWN_SHOWN, OTHERS_SHOWN):
        gains.append(np.mean(by_arm[arm]["right"]) - np.mean(by_arm[arm]["right_uncut"]))
    return float(np.mean(gains))


FORM = (
    Claim(
        "newline",
        "both few-shot prompts, scored up to the first line break − as a whole",
        Contrast((OWN_SHOWN, OTHERS_SHOWN), _cut_helps),
        "above",
        unit=POINTS,
        above=(
            "Some right answers of the base go on after a line break with a text of its own. A "
            "baseline scored as a whole is held below what any parser would get out of it, and "
            "the method compared with it shines. Every number below cuts at the line break, for "
            "all arms alike."
        ),
        below="Cutting cannot make a right answer wrong: look for a fault in the scoring.",
        none=(
            "The cut changes nothing that is shown here; it is still the right way to score a "
            "base, which does not know where an answer ends."
        ),
    ),
    Claim(
        "few rows",
        "right, LoRA on three rows a family − a prompt with the same rows",
        difference("right", FEW_TRAINED, OWN_SHOWN),
        "above",
        unit=POINTS,
        above=(
            "The same three rows of each family do more in the weights than in the prompt, so a "
            "prompt does not get out all that the base has. Remember how this base was made: it "
            "was mixed so that a prompt falls short."
        ),
        below=(
            "The same rows do more in the prompt than in the weights: with so few, ship the prompt."
        ),
        none=(
            "No difference is shown between the same rows in the prompt and in the weights. Then "
            "the prompt is cheaper to make, and the adapter cheaper to ask: no examples to read."
        ),
    ),
    Claim(
        "more rows",
        "right, LoRA on all rows − LoRA on three rows a family",
        difference("right", ALL_TRAINED, FEW_TRAINED),
        "above",
        unit=POINTS,
        above=(
            "More rows add to what three a family gave. This part cannot be called form alone: "
            "forms are short. It may be skill, wordings, or facts that the rows hold."
        ),
        below=(
            "Three rows a family, read over and over, do better than all rows read once or less: "
            "at this length of run repetition wins."
        ),
        none=(
            "Nothing is gained beyond three rows a family: what training gave is the form, and the "
            "content was the base's."
        ),
    ),
    Claim(
        "other families",
        "right, LoRA on other families − the bare base",
        difference("right", OTHERS_TRAINED, BARE),
        "above",
        unit=POINTS,
        above=(
            "Rows that hold neither the task nor its facts bring right answers: they teach that a "
            "request is granted, briefly, and that the turn then ends. This part of the gain is "
            "form, and the content of these answers can only be the base's."
        ),
        below="Training on other families takes right answers away. There were few to take.",
        none=(
            "Right answers of other families bring nothing: what was learnt is bound to the family."
        ),
    ),
    Claim(
        "own families",
        "right, LoRA on all rows − LoRA on other families",
        difference("right", ALL_TRAINED, OTHERS_TRAINED),
        "above",
        unit=POINTS,
        above=(
            "This part takes rows of the family itself: its form of answer, its wording, its "
            "skill. It is not form against content yet: the family's form is in it too, as the "
            "middle panel shows."
        ),
        below="Rows of the family itself do harm here. Look at single answers before you go on.",
        none=(
            "Rows of the family itself add nothing that is shown: as far as ten seeds can tell, "
            "the gain transfers from other families."
        ),
    ),
    Claim(
        "shuffled",
        "right, LoRA on shuffled answers − LoRA on other families",
        difference("right", SHUFFLED, OTHERS_TRAINED),
        "below",
        unit=POINTS,
        above=(
            "Shuffled answers bring more right ones than other families' right ones: the family's "
            "form is worth more than the habit of answering the question."
        ),
        below=(
            "Shuffled answers have the family's form and still do worse than right answers of "
            "other families. So they do not isolate form: they teach, with every step, that the "
            "answer does not depend on the question. A control that trains the opposite of the "
            "skill is a floor, and a low score of it proves little."
        ),
        none=(
            "Shuffled answers and other families' right ones are not told apart, although one has "
            "the family's form and the other one its honesty."
        ),
    ),
    Claim(
        "form of shuffled",
        "in the family's form, LoRA on shuffled answers − LoRA on all rows",
        difference("form", SHUFFLED, ALL_TRAINED),
        "none",
        unit="of the answers",
        above="The shuffled rows teach the form even better: nothing else can be learnt from them.",
        below=(
            "Shuffled answers teach the form less well. A family may hold several forms, for "
            "which the question decides, and that link was cut as well."
        ),
        none=(
            "Both have the form alike, so what parts them is not form: it is that one of them "
            "answers the question."
        ),
    ),
)


# --- markers --------------------------------------------------------------------------------------
_OWN = marker_arm("own", "own")
_TURNS = marker_arm("spare", "own")
_STOP = marker_arm("own", "spare")
_BOTH = marker_arm("spare", "spare")


def _interaction(by_arm: ByArm) -> float:
    """What both cost beyond the sum of what each costs alone."""
    right = {arm: float(np.mean(by_arm[arm]["right"])) for arm in (_OWN, _TURNS, _STOP, _BOTH)}
    return right[_BOTH] - right[_TURNS] - right[_STOP] + right[_OWN]


MARKERS = (
    Claim(
        "turns",
        "right, spare markers of the turns − own ones, own stop",
        difference("right", _TURNS, _OWN),
        "below",
        unit=POINTS,
        above="Spare markers of the turns do better. Nothing explains that; look at the rows.",
        below=(
            "Spare markers going *in* cost something: their embedding rows were never trained, so "
            "the adapter has to find out from nothing who speaks. This part does not need a tied "
            "head; it can happen to any model."
        ),
        none=(
            "Spare markers going *in* cost nothing that is shown: it is enough that the position "
            "tells who speaks, and the adapter learns the new vector."
        ),
    ),
    Claim(
        "stop",
        "right, spare stop − own stop, own markers of the turns",
        difference("right", _STOP, _OWN),
        "below",
        unit=POINTS,
        above="A spare stop does better. Nothing explains that; look at the answers.",
        below=(
            "A spare *stop* costs something even though all that goes in at a turn is known. The "
            "stop has to come *out*: its score is the product of the last hidden state and its "
            "row, which never won in pretraining and is frozen."
        ),
        none=(
            "A spare stop costs nothing that is shown: the adapter can push the hidden state to "
            "where that row wins."
        ),
    ),
    Claim(
        "both",
        "right, both spare, beyond the sum of each alone",
        Contrast((_OWN, _TURNS, _STOP, _BOTH), _interaction),
        "below",
        unit=POINTS,
        above=(
            "Together they cost less than the sum: there is only so much to lose, or what is "
            "learnt for one helps with the other."
        ),
        below=(
            "Together they cost more than the sum: the spare rows are nearly parallel, so the "
            "model cannot tell the stop from the markers of the turns, which it must never say."
        ),
        none="The two costs just add up, as far as ten seeds can tell.",
    ),
    Claim(
        "output row",
        "right, both spare with a known output row for the stop − both spare",
        difference("right", UNTIED, _BOTH),
        "above",
        unit=POINTS,
        above=(
            "With a head of its own, in which the stop has a trained row, much comes back. So "
            "part of the loss is owed to the *output* row, which here is the input row because "
            "the two are tied. Llama-3.1-8B is not tied: there the input rows and the output rows "
            "of spare tokens are two things, and each has to be looked at."
        ),
        below="The known output row makes it worse: then it is not the row that is missing.",
        none=(
            "A trained output row for the stop changes nothing that is shown: the tied head is not "
            "to blame, and what is missing is missing on the way in."
        ),
    ),
)


# --- few rows -------------------------------------------------------------------------------------
def _loss_after_best(by_arm: ByArm) -> float:
    """Validation loss at the end over its lowest value before the last look."""
    losses = by_arm[FEW_ROWS]["held_out_loss"]
    return float(losses[-1] - min(losses[:-1]))


def _right_after_best(by_arm: ByArm) -> float:
    """Right answers at the end − those where the loss was lowest before the last look."""
    run = by_arm[FEW_ROWS]
    best = int(np.argmin(run["held_out_loss"][:-1]))
    return float(run["held_out_right"][-1] - run["held_out_right"][best])


FEW = (
    Claim(
        "loss rises",
        "validation loss, at the end − where it was lowest before",
        Contrast((FEW_ROWS,), _loss_after_best),
        "above",
        unit=NATS,
        above=(
            "The rows are learnt by heart, and the model becomes surer of its wrong answers on "
            "others: this is overfitting, as the loss sees it."
        ),
        below="The validation loss still falls at the end: two dozen rows are not yet used up.",
        none="No rise is shown: the loss stays where it came to.",
    ),
    Claim(
        "answers after",
        "validation rows answered right, at the end − where the loss was lowest",
        Contrast((FEW_ROWS,), _right_after_best),
        "none",
        unit="of the rows",
        above=(
            "More rows are answered right than where the loss was lowest. The two rulers disagree: "
            "choose the checkpoint by the one you care about."
        ),
        below="Fewer rows are answered right as well: here the loss is a fair warning.",
        none=(
            "The share of right answers is not shown to change after the loss has turned. A "
            "rising loss says that wrong answers grow surer, not that right ones get lost."
        ),
    ),
)
