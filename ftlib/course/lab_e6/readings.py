"""The claims of lab E6, with what to conclude in each case."""

from __future__ import annotations

from ftlib.course.lab_e6 import arms
from ftlib.course.lab_e6.settings import TOLERANCE
from ftlib.course.records.experiment import Claim, difference, level

NATS = "nats per token"


def _cost(
    name: str, arm: str, expected: str, above: str, below: str, none: str, unit: str = NATS
) -> Claim:
    """Held-out loss of a run with one default switched back, less that of all set alike."""
    return Claim(
        name,
        f"held-out loss, {arm} − {arms.ALIKE}",
        difference("test_loss", arm, arms.ALIKE),
        expected,
        unit=unit,
        above=above,
        below=below,
        none=none,
    )


def _gap(name: str, arm: str, expected: str, above: str, below: str, none: str) -> Claim:
    """The largest gap of a step, less the tolerance: below 0 the two curves are one."""
    return Claim(
        name,
        f"largest difference from ftlib in a step, {arm}, minus the tolerance of {TOLERANCE:g}",
        level("apart", arm, TOLERANCE),
        expected,
        unit="nats",
        above=above,
        below=below,
        none=none,
    )


# --- SFT: is it one run? --------------------------------------------------------------------------
EQUAL = (
    _gap(
        "alike",
        arms.ALIKE,
        "below",
        above=(
            "TRL and ftlib differ although every listed argument is set alike: one is missing from "
            "the tables. The step at which they diverge says where to look."
        ),
        below=(
            "TRL with PEFT and ftlib are the same run, step by step, within the tolerance: the "
            "tables have every difference that matters here. That says nothing about arguments "
            "that neither side used, such as packing."
        ),
        none=(
            "The largest differences are close to the tolerance: some seeds may be equal and "
            "others not. Rounding errors grow step by step; a bug may jump in one step."
        ),
    ),
    _gap(
        "written out",
        arms.BY_HAND,
        "below",
        above=(
            "The loop of the exercises' pieces trains differently from both libraries: it lacks "
            "something that a trainer does. Look at the step at which it diverges."
        ),
        below=(
            "The loop of the exercises' pieces is the same run too: what a trainer adds to the "
            "mathematics is saving, logging and devices."
        ),
        none=(
            "The loop of the exercises' pieces differs from ftlib by about the tolerance: full "
            "logits are rounded differently from chunks of them."
        ),
    ),
    _gap(
        "seen",
        arms.OWN_DRAW,
        "above",
        above=(
            "The comparison can fail: it detects the same run with another random A. So the "
            "equality above is not just a blunt measure."
        ),
        below=(
            "Another random A is not detected: then equality above proves little, and the "
            "comparison must be made sharper."
        ),
        none=(
            "Another random A is detected in some seeds and not in others: the comparison is at "
            "the limit of what it can detect."
        ),
    ),
)

# --- SFT: what a default costs --------------------------------------------------------------------
FREE = (
    _cost(
        "checkpointing",
        arms.CHECKPOINTS,
        "none",
        above="Recomputed activations should be the same numbers, but end higher here: a bug.",
        below="Recomputed activations should be the same numbers, but end lower here: a bug.",
        none=(
            "No difference, as it should be: recomputed activations are the same numbers. "
            "Checkpointing costs time and saves memory."
        ),
    ),
    _cost(
        "own draw",
        arms.OWN_DRAW,
        "none",
        above=(
            "PEFT's own draws of A end higher than ftlib's. Both are uniform with the same bounds, "
            "so it is these draws, not a rule; it also shows how much chance does to the others."
        ),
        below=(
            "PEFT's own draws of A end lower than ftlib's. Both are uniform with the same bounds, "
            "so it is these draws, not a rule; it also shows how much chance does to the others."
        ),
        none=(
            "With another draw of A every seed ends elsewhere, but on average no difference is "
            "shown. The spread is noise: a default that changes the held-out loss by less does not "
            "matter."
        ),
    ),
    _cost(
        "order",
        arms.ORDER,
        "none",
        above=(
            "Random order ends higher than batches of similar length, although its losses are "
            "smoother. Whether that holds for longer runs, these few steps do not say."
        ),
        below=(
            "Random order ends lower than batches of similar length: rows of one length are often "
            "one kind of task, and a short run ends on what came last. ftlib's order saves padding "
            "and pays for it here."
        ),
        none=(
            "The losses of single steps are worlds apart, but on held-out rows no difference is "
            "shown: a different curve need not mean a different model."
        ),
    ),
    _cost(
        "bf16",
        arms.BF16,
        "none",
        above=(
            "bf16 ends higher: its products have eight bits of precision. If the difference is far "
            "below the noise of another A, it is real and does not matter."
        ),
        below=(
            "bf16 ends lower than fp32. It has no advantage in precision; if the difference is far "
            "below the noise of another A, do not look for a reason."
        ),
        none=(
            "bf16 diverges in the first step, by rounding, but no difference on held-out rows is "
            "shown. The weights of the adapter and the optimizer stay in fp32."
        ),
    ),
    _cost(
        "dropout",
        arms.DROPOUT,
        "none",
        above="Dropout in the adapter ends higher: noise in a run too short to overfit.",
        below="Dropout in the adapter ends lower: it regularises, even in a run as short as this.",
        none=(
            "No effect of dropout in the adapter is shown. The run makes one pass over its rows, "
            "so it can hardly overfit."
        ),
    ),
    _cost(
        "weight decay",
        arms.DECAY,
        "none",
        above=(
            "PyTorch's own weight decay ends higher. Over so few steps it shrinks A and B by very "
            "little: look at the size before you draw a conclusion."
        ),
        below=(
            "PyTorch's own weight decay ends lower. Over so few steps it shrinks A and B by very "
            "little: look at the size before you draw a conclusion."
        ),
        none=(
            "No effect of `torch.optim.AdamW`'s default decay of 0.01 is shown on held-out rows: "
            "over so few steps it shrinks A and B by very little."
        ),
    ),
)

LOOP = (
    _cost(
        "clipping",
        arms.CLIP,
        "none",
        above=(
            "Without clipping the run ends higher: steps with large gradients disturb it. Adam "
            "divides by the gradient's own size, so the disturbance remains in its moments."
        ),
        below=(
            "Without clipping the run ends lower. The gradients of short answers are large here, "
            "and clipping them takes weight from those rows."
        ),
        none=(
            "Clipping changes the curve, but no difference on held-out rows is shown: Adam's step "
            "hardly depends on the gradient's size. Clipping is a cheap insurance."
        ),
    ),
    _cost(
        "means",
        arms.MEANS,
        "above",
        above=(
            "The mean of the micro-batches' means ends higher: tokens of short answers count more "
            "than on the held-out rows, where every token counts once."
        ),
        below=(
            "The mean of the micro-batches' means ends *lower*, although held-out tokens count "
            "once each. It gives tokens of short answers more weight, which happens to suit these "
            "rows. That is no reason to keep the bug: with it, what a step learns depends on how "
            "it was cut into micro-batches."
        ),
        none=(
            "The losses of the steps differ at once, but no difference on held-out rows is shown. "
            "With answers of similar length in a step the two means are close: the order of the "
            "rows hides the bug."
        ),
    ),
)

SCHEDULED = (
    _cost(
        "cosine",
        arms.COSINE,
        "none",
        above=(
            "ftlib's cosine ends higher than the linear schedule, at this rate and length. Their "
            "rates add up to about the same; the cosine has smaller rates in the last steps."
        ),
        below=(
            "ftlib's cosine ends lower than the linear schedule, at this rate and length. Their "
            "rates add up to about the same; the cosine has smaller rates in the last steps."
        ),
        none=(
            "No difference between cosine and linear is shown at this rate and length. Both bring "
            "the rate to 0 at the end."
        ),
    ),
    _cost(
        "warmup",
        arms.NO_WARMUP,
        "none",
        above=(
            "Without a warmup the run ends higher: the first steps of Adam are as large as the "
            "rate allows, on moments of one batch."
        ),
        below=(
            "Without a warmup the run ends lower: it wastes none of its few steps. With a warmup "
            "the first step has rate 0 and changes nothing."
        ),
        none=(
            "With or without a warmup no difference is shown at this rate. Near the highest rate "
            "that still trains it may matter, which these runs do not test."
        ),
    ),
    _cost(
        "fewer",
        arms.FEWER,
        "above",
        above=(
            "With half the rows per step, and the same number of steps, the run sees half the rows "
            "in all and ends higher. For the same number of epochs it would take twice the steps."
        ),
        below=(
            "With half the rows per step the run ends lower, with half the rows seen. Look at the "
            "order: the run ends on other rows."
        ),
        none=(
            "With half the rows per step, and half the rows in all, no difference is shown. The "
            "steps, not the rows, may limit so short a run."
        ),
    ),
)

ADAPTER = (
    _cost(
        "alpha",
        arms.ALPHA,
        "above",
        above=(
            "lora_alpha 8 instead of 16 ends higher at this rate: the update is half as large for "
            "the same A and B. A higher rate should make up for it, which is not tested here. Do "
            "not copy a rate without its alpha."
        ),
        below=(
            "lora_alpha 8 ends lower: this rate is on the high side for alpha 16. A rate belongs "
            "to an alpha."
        ),
        none=(
            "With lora_alpha 8 and 16 the curves diverge, but no difference on held-out rows is "
            "shown at this rate."
        ),
    ),
    _cost(
        "two layers",
        arms.TWO_LAYERS,
        "above",
        above=(
            "PEFT's default layers end higher: q and v alone are a small part of the adapter, and "
            "only the parameter count shows it. A higher rate or rank may win some of it back; "
            "these runs keep both fixed."
        ),
        below=(
            "PEFT's default layers end lower, with a small part of the parameters: at this rate "
            "more layers are no gain."
        ),
        none=(
            "No difference between q and v alone and every layer is shown in so short a run. Print "
            "the number of trained parameters all the same."
        ),
    ),
)

LOUD = (
    _cost(
        "every token",
        arms.EVERY_TOKEN,
        "above",
        above=(
            "With the prompts learnt too the run ends higher on the answers: most tokens of a step "
            "are then not answers. The training loss depends on the prompts, and cannot be "
            "compared with the others."
        ),
        below=(
            "With the prompts learnt too the run ends lower on the answers: with so few rows the "
            "prompts teach the domain as well. That is known for short answers to long prompts."
        ),
        none=(
            "With the prompts learnt too, no difference on the answers is shown. The training loss "
            "is another number all the same, and cannot be compared with the others."
        ),
    ),
    _cost(
        "rate",
        arms.RATE,
        "above",
        above=(
            "TRL's default learning rate is for full fine-tuning: with LoRA, in so few steps, "
            "almost nothing is learnt. As the rate falls, the loss flattens, and the run looks "
            "finished. Always set this one."
        ),
        below=(
            "TRL's default rate ends lower than the common one: then the common rate is far too "
            "high for this model. Sweep it."
        ),
        none=(
            "No difference between TRL's default rate and the common one is shown: then the rate "
            "does not limit this run. Sweep it before you believe that."
        ),
    ),
    _cost(
        "but the rate",
        arms.BUT_RATE,
        "above",
        above=(
            "All of TRL's and PEFT's other defaults together, at the common rate, end higher. "
            "The costs of each alone (some are folded below) need not add up to this one."
        ),
        below=(
            "All of TRL's and PEFT's other defaults together, at the common rate, end lower: as a "
            "set they suit this run better than the common settings."
        ),
        none=(
            "All of TRL's and PEFT's other defaults together, at the common rate, show no "
            "difference: their costs and gains may be about equal here."
        ),
    ),
    _cost(
        "nothing set",
        arms.EVERYTHING,
        "above",
        above=(
            "`SFTTrainer(model, train_dataset=messages, peft_config=LoraConfig())` trains without "
            "an error. On the answers almost nothing is learnt in these steps, and only the "
            "held-out rows show it."
        ),
        below=(
            "With nothing set at all the run ends lower than with the common settings: then these "
            "are a bad choice."
        ),
        none=(
            "With nothing set at all no difference is shown: then these steps may teach little on "
            "either side."
        ),
    ),
)

SFT = (*EQUAL, *FREE, *LOOP, *SCHEDULED, *ADAPTER, *LOUD)

# --- DPO ------------------------------------------------------------------------------------------
DPO = (
    _gap(
        "alike",
        arms.ALIKE,
        "below",
        above=(
            "TRL's DPO and ftlib's differ although every listed argument is set alike: one is "
            "missing from the tables. Check the reference first."
        ),
        below=(
            "TRL's DPO and ftlib's are the same run, step by step, within the tolerance. Yet TRL "
            "keeps a copy of the adapter as its reference and runs every prompt twice, while ftlib "
            "computes the reference once and runs a prompt once."
        ),
        none=(
            "The largest differences are close to the tolerance: some seeds may be equal and "
            "others not. Sums over long answers have larger rounding errors than means."
        ),
    ),
    _gap(
        "ahead",
        arms.AHEAD,
        "below",
        above=(
            "A reference computed ahead gives other losses than one computed in every step: it may "
            "have been computed with dropout, or with another model."
        ),
        below=(
            "Computing the reference ahead or in every step gives the same numbers: choose by time "
            "and memory."
        ),
        none=(
            "Computing the reference ahead shows in some seeds: differently composed batches are "
            "rounded differently."
        ),
    ),
    _gap(
        "seen",
        arms.BASE_REFERENCE,
        "above",
        above=(
            "The comparison can fail: it detects the same run with another reference. So the "
            "equality above is not just a blunt measure."
        ),
        below=(
            "Another reference is not detected: then the reference does not enter the loss, or the "
            "two are the same."
        ),
        none=(
            "Another reference is detected in some seeds and not in others: the comparison is at "
            "the limit of what it can detect."
        ),
    ),
    _cost(
        "bf16",
        arms.BF16,
        "none",
        above=(
            "bf16 ends higher: the loss is made of differences of sums, which keep the rounding "
            "error of every token."
        ),
        below=(
            "bf16 ends lower than fp32. It has no advantage in precision: look at the size before "
            "you look for a reason."
        ),
        none=(
            "bf16 diverges, but no difference on held-out pairs is shown. The first loss is ln 2 "
            "in both precisions: policy and reference are rounded alike while they are the same."
        ),
        unit="nats",
    ),
    _cost(
        "base as reference",
        arms.BASE_REFERENCE,
        "above",
        above=(
            "With the model before SFT as reference the run ends higher, measured against the "
            "model after it. Policy and reference start apart, so the first loss is not ln 2, and "
            "pairs count as won or lost before the first step. Do not get a reference by switching "
            "off an SFT adapter."
        ),
        below=(
            "With the model before SFT as reference the run ends *lower*, measured against the "
            "model after it: pairs that SFT has ranked wrongly start far behind and pull harder. "
            "Still, the first loss is not ln 2, and the KL is then measured from a model that "
            "nobody wants back."
        ),
        none=(
            "With the model before SFT as reference no difference on held-out pairs is shown, "
            "although the first loss is not ln 2 and the curves are worlds apart. The first loss "
            "shows which reference a run had; the end does not. A likely reason, not tested here: "
            "the size of Adam's steps depends on the rate, and hardly on the loss."
        ),
        unit="nats",
    ),
    _cost(
        "means",
        arms.MEAN_LOGPS,
        "above",
        above=(
            "Means per token instead of sums end higher on the loss of sums. Means are smaller "
            "than sums by the length of the answer, so β in effect changes too."
        ),
        below=(
            "Means per token instead of sums end *lower* on the loss of sums: with smaller numbers "
            "no pair ever counts as won, so every pair keeps pulling."
        ),
        none=(
            "Means per token instead of sums show no difference on the loss of sums, in so few "
            "steps. The training losses are different. The same β is another strength for "
            "means; in so few steps with Adam that does not show here."
        ),
        unit="nats",
    ),
    _cost(
        "rate",
        arms.DPO_RATE,
        "above",
        above=(
            "TRL's default learning rate for DPO is for full fine-tuning: with an adapter, in so "
            "few steps, the loss stays close to ln 2. Always set this one."
        ),
        below=(
            "TRL's default rate for DPO ends lower than the common one: then the common rate is "
            "far too high. Sweep it."
        ),
        none=(
            "No difference between TRL's default rate for DPO and the common one is shown: then "
            "these steps may teach little at either."
        ),
        unit="nats",
    ),
)
