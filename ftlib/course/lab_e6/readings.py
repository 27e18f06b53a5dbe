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
        f"largest gap of a step from ftlib, {arm}, less the tolerance of {TOLERANCE:g}",
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
            "TRL and ftlib do not train alike although every listed argument is set alike: one is "
            "missing from the tables. Look at the step at which they part before you look further."
        ),
        below=(
            "TRL with PEFT and ftlib are one run, step by step, within the tolerance: the tables "
            "hold every difference that matters here. It says nothing of arguments that neither "
            "side has used, such as packing."
        ),
        none=(
            "The largest gaps lie about the tolerance: some seeds are equal and others are not. "
            "Rounding grows over steps; look whether it does, or whether one step jumps."
        ),
    ),
    _gap(
        "written out",
        arms.BY_HAND,
        "below",
        above=(
            "The loop of the exercises' pieces trains otherwise than both libraries: something "
            "that a trainer does is not in it. Look at the step at which it parts."
        ),
        below=(
            "The loop of the exercises' pieces is the same run too: what a trainer adds to the "
            "mathematics is saving, logging and devices."
        ),
        none=(
            "The loop of the exercises' pieces lies about the tolerance from ftlib: full logits "
            "round otherwise than chunks of them do."
        ),
    ),
    _gap(
        "seen",
        arms.OWN_DRAW,
        "above",
        above=(
            "The comparison can fail: the same run from another random A is told apart from it. So "
            "equality above is no weakness of the measure."
        ),
        below=(
            "Another random A is not told apart: then equality above proves little, and the "
            "comparison must be made sharper."
        ),
        none=(
            "Another random A is told apart in some seeds and not in others: the comparison is at "
            "the limit of what it can see."
        ),
    ),
)

# --- SFT: what a default costs --------------------------------------------------------------------
FREE = (
    _cost(
        "checkpointing",
        arms.CHECKPOINTS,
        "none",
        above="Activations computed twice should be the same numbers, and end higher here: a bug.",
        below="Activations computed twice should be the same numbers, and end lower here: a bug.",
        none=(
            "No difference, as there should be none: activations that are computed twice are the "
            "same numbers. It costs time and saves memory."
        ),
    ),
    _cost(
        "own draw",
        arms.OWN_DRAW,
        "none",
        above=(
            "PEFT's own draws of A end higher than ftlib's. Both are uniform with one bound, so it "
            "is these draws and no rule; it is also the size of what chance does to the others."
        ),
        below=(
            "PEFT's own draws of A end lower than ftlib's. Both are uniform with one bound, so it "
            "is these draws and no rule; it is also the size of what chance does to the others."
        ),
        none=(
            "Another draw of A ends elsewhere in every seed and nowhere in particular. Its spread "
            "is the noise: a default that moves the held-out loss by less is not worth a thought."
        ),
    ),
    _cost(
        "order",
        arms.ORDER,
        "none",
        above=(
            "Random order ends higher than rows of like length. The step's losses are smoother all "
            "the same; whether it holds for longer runs, these few steps do not say."
        ),
        below=(
            "Random order ends lower than rows of like length: a step of rows of one length is a "
            "step of one kind of task, and a run of few steps ends on what came last. ftlib's "
            "order saves padding and pays for it here."
        ),
        none=(
            "The losses of single steps are worlds apart, and on held-out rows no difference is "
            "shown: a curve that looks different need not be a different model."
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
            "bf16 ends lower than fp32. Nothing in it is better; with a difference far below the "
            "noise of another A, do not look for a reason."
        ),
        none=(
            "bf16 leaves the curve in the first step, by rounding, and no difference on held-out "
            "rows is shown. The weights of the adapter and the optimizer stay in fp32."
        ),
    ),
    _cost(
        "dropout",
        arms.DROPOUT,
        "none",
        above="Dropout in the adapter ends higher: noise in a run too short to overfit.",
        below="Dropout in the adapter ends lower: it regularises, even in a run as short as this.",
        none=(
            "No difference by dropout in the adapter is shown in a run of one pass over its rows, "
            "where nothing is read twice and so nothing can be overfitted."
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
            "The decay of 0.01 that `torch.optim.AdamW` has by itself shows in the losses and not "
            "on held-out rows: over so few steps it shrinks A and B by very little."
        ),
    ),
)

LOOP = (
    _cost(
        "clipping",
        arms.CLIP,
        "none",
        above=(
            "Without clipping the run ends higher: steps with large gradients throw it off. Adam "
            "divides by the gradient's own size, so it is what they leave in its moments."
        ),
        below=(
            "Without clipping the run ends lower. The gradients of short answers are large here, "
            "and clipping them takes weight from those rows."
        ),
        none=(
            "Clipping changes the curve, and no difference on held-out rows is shown: Adam's step "
            "hardly depends on the gradient's size. It is an insurance; its premium is small."
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
            "once each. Tokens of short answers weigh more in it, and with these rows that is the "
            "better mixture. It is an accident of the data and no reason to keep the bug: what a "
            "step learns then depends on how it was cut into micro-batches."
        ),
        none=(
            "The losses of the steps differ at once, and no difference on held-out rows is shown. "
            "With answers of like length in a step the two means are near each other: the order of "
            "the rows hides the bug."
        ),
    ),
)

SCHEDULED = (
    _cost(
        "cosine",
        arms.COSINE,
        "none",
        above=(
            "ftlib's cosine ends higher than the straight line, at this rate and length. Their "
            "rates add up to about the same; the cosine has spent more of it before the last steps."
        ),
        below=(
            "ftlib's cosine ends lower than the straight line, at this rate and length. Their "
            "rates add up to about the same; the cosine has spent more of it before the last steps."
        ),
        none=(
            "Cosine or a straight line: no difference is shown at this rate and length. Both bring "
            "the rate to 0 at the end, which is what counts most."
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
            "Without a warmup the run ends lower: of so few steps none is given away. In a warmup "
            "the first step has rate 0 and moves nothing."
        ),
        none=(
            "With or without a warmup no difference is shown at this rate. Near the highest rate "
            "that still trains it would be another matter, which these runs do not try."
        ),
    ),
    _cost(
        "fewer",
        arms.FEWER,
        "above",
        above=(
            "Half the rows per step are half the rows in all, as the steps are held: the run ends "
            "higher. Held instead by epochs it would take twice the steps at the same rate."
        ),
        below=(
            "Half the rows per step end lower, with half the rows seen. Look at the order: with "
            "fewer rows of one length a step, the run ends on others."
        ),
        none=(
            "Half the rows per step, and half the rows in all: no difference is shown. The steps, "
            "not the rows, limit a run as short as this."
        ),
    ),
)

ADAPTER = (
    _cost(
        "alpha",
        arms.ALPHA,
        "above",
        above=(
            "lora_alpha 8 in the place of 16 ends higher at this rate: the update is half as large "
            "for the same A and B. A higher rate should make up for it, which is not run here; a "
            "rate copied from elsewhere, with another alpha, does not."
        ),
        below=(
            "lora_alpha 8 ends lower: this rate is on the high side for alpha 16. A rate belongs "
            "to an alpha."
        ),
        none=(
            "lora_alpha 8 or 16: the curves part and no difference on held-out rows is shown. Adam "
            "moves A and B by the rate whatever the gradient's size; at this rate the two are "
            "alike."
        ),
    ),
    _cost(
        "two layers",
        arms.TWO_LAYERS,
        "above",
        above=(
            "PEFT's own choice of layers ends higher: q and v alone are a small part of the "
            "adapter, and nothing says so but the count of parameters. A higher rate or rank may "
            "win some of it back; these runs hold both."
        ),
        below=(
            "PEFT's own choice of layers ends lower, with a small part of the parameters: at this "
            "rate more layers are no gain."
        ),
        none=(
            "q and v alone, or every layer: no difference is shown in so short a run. Print the "
            "count of trained parameters all the same."
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
            "are then not what is asked for. The training loss looks *better* or worse by what "
            "prompts are like, and compares with nothing."
        ),
        below=(
            "With the prompts learnt too the run ends lower on the answers: with so few rows the "
            "prompts teach the domain as well. It is known of short answers to long prompts."
        ),
        none=(
            "With the prompts learnt too, no difference on the answers is shown. The training loss "
            "is another number all the same, and compares with nothing."
        ),
    ),
    _cost(
        "rate",
        arms.RATE,
        "above",
        above=(
            "TRL's default rate is one for full fine-tuning: with LoRA, in so few steps, next to "
            "nothing is learnt, and the falling rate hides that it would go on. It is the default "
            "that must not be left alone."
        ),
        below=(
            "TRL's default rate ends lower than the common one: then the common rate is far too "
            "high for this model. Sweep it."
        ),
        none=(
            "TRL's default rate and the common one end alike: then this run is not limited by the "
            "rate. Sweep it before you believe that."
        ),
    ),
    _cost(
        "but the rate",
        arms.BUT_RATE,
        "above",
        above=(
            "All of TRL's and PEFT's other defaults together, at the common rate, end higher. "
            "Their costs above need not add up to it: half the scale on fewer layers is one "
            "effect, not two."
        ),
        below=(
            "All of TRL's and PEFT's other defaults together, at the common rate, end lower: as a "
            "set they suit this run better than the common ground does."
        ),
        none=(
            "All of TRL's and PEFT's other defaults together, at the common rate, show no "
            "difference: what they cost and what they gain is about equal here."
        ),
    ),
    _cost(
        "nothing set",
        arms.EVERYTHING,
        "above",
        above=(
            "Two lines, `SFTTrainer(model, train_dataset=messages, peft_config=LoraConfig())`, "
            "train without an error. On the answers next to nothing is learnt in these steps, and "
            "nothing says so but held-out rows."
        ),
        below=(
            "With nothing set at all the run ends lower than on the common ground: then the common "
            "ground is a bad choice."
        ),
        none=(
            "With nothing set at all no difference is shown: then these steps teach little on "
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
            "TRL's DPO and ftlib's do not train alike although every listed argument is set alike: "
            "one is missing from the tables. Begin with the reference."
        ),
        below=(
            "TRL's DPO and ftlib's are one run, step by step, within the tolerance, although one "
            "keeps a copy of the adapter as its reference and runs every prompt twice, and the "
            "other computes the reference once and runs a prompt once."
        ),
        none=(
            "The largest gaps lie about the tolerance: some seeds are equal and others are not. "
            "Sums over long answers round more than means do."
        ),
    ),
    _gap(
        "ahead",
        arms.AHEAD,
        "below",
        above=(
            "A reference that is computed ahead gives other losses than one computed in every "
            "step: it was computed with dropout, or of another model."
        ),
        below=(
            "Whether the reference is computed ahead or in every step changes no number: it is a "
            "question of time and memory."
        ),
        none=(
            "Whether the reference is computed ahead shows in some seeds: batches of another make "
            "round otherwise."
        ),
    ),
    _gap(
        "seen",
        arms.BASE_REFERENCE,
        "above",
        above=(
            "The comparison can fail: the same run against another reference is told apart. So "
            "equality above is no weakness of the measure."
        ),
        below=(
            "Another reference is not told apart: then the reference does not enter the loss, or "
            "the two are one."
        ),
        none=(
            "Another reference is told apart in some seeds and not in others: the comparison is at "
            "the limit of what it can see."
        ),
    ),
    _cost(
        "bf16",
        arms.BF16,
        "none",
        above=(
            "bf16 ends higher: the loss is made of differences of sums, in which the rounding of "
            "every token is kept."
        ),
        below=(
            "bf16 ends lower than fp32. Nothing in it is better: look at the size before you look "
            "for a reason."
        ),
        none=(
            "bf16 leaves the curve, and no difference on held-out pairs is shown. The first loss "
            "is ln 2 in both precisions: policy and reference round alike while they are the same."
        ),
        unit="nats",
    ),
    _cost(
        "base as reference",
        arms.BASE_REFERENCE,
        "above",
        above=(
            "Against the model before SFT the run ends higher, measured against the model after "
            "it: the first loss is not ln 2, since policy and reference begin apart, and "
            "pairs count as won or lost before the first step. Switching an SFT adapter off is no "
            "reference."
        ),
        below=(
            "Against the model before SFT the run ends *lower*, measured against the model after "
            "it: pairs that SFT has ranked wrongly begin far behind and pull harder. The first "
            "loss is not ln 2 all the same, and KL is then counted from a model that nobody wants "
            "back."
        ),
        none=(
            "Against the model before SFT no difference on held-out pairs is shown, although the "
            "first loss is not ln 2 and the curves are worlds apart: the end does not show which "
            "reference a run has had. The first loss does. A likely reason, which no run here "
            "tries: Adam's steps go by the rate, and hardly by the size of the loss."
        ),
        unit="nats",
    ),
    _cost(
        "means",
        arms.MEAN_LOGPS,
        "above",
        above=(
            "Means a token in the place of sums end higher on the loss of sums: β then acts on a "
            "number that is smaller by the length of the answers, so it is another β as well."
        ),
        below=(
            "Means a token in the place of sums end *lower* on the loss of sums: with a smaller "
            "number under β no pair is ever won, so every pair keeps pulling."
        ),
        none=(
            "Means a token in the place of sums show no difference on the loss of sums, in so few "
            "steps. The losses of the steps are others, and β does not carry over."
        ),
        unit="nats",
    ),
    _cost(
        "rate",
        arms.DPO_RATE,
        "above",
        above=(
            "TRL's default rate of DPO is one for full fine-tuning: with an adapter, in so few "
            "steps, the loss stays at ln 2. It is the default that must not be left alone."
        ),
        below=(
            "TRL's default rate of DPO ends lower than the common one: then the common rate is far "
            "too high. Sweep it."
        ),
        none=(
            "TRL's default rate of DPO and the common one end alike: then these steps teach little "
            "at either."
        ),
        unit="nats",
    ),
)
