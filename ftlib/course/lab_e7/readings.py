"""The claims of lab E7, with what to conclude in each case."""

from __future__ import annotations

from ftlib.course.lab_e7.trials import AVERAGED_MEANS, NOT_AVERAGED, ONE, RIGHT, SAME_ROWS
from ftlib.course.records.experiment import Claim, difference

DDP = "LoRA, DDP"
ZERO2 = "LoRA, ZeRO-2"
FSDP2 = "LoRA, FSDP2"
FSDP2_64 = "LoRA, FSDP2, float64"
FULL = "full, FSDP2"
FULL_64 = "full, FSDP2, float64"
NF4 = "QLoRA, FSDP2"
CONTROL = "LoRA, DDP, mean of means"
DECADES = "decades"
NATS = "nats per token"

EQUALITY = (
    Claim(
        "control",
        "log₁₀ of the gradient's gap, mean of means − mean over tokens (DDP)",
        difference("gradient", CONTROL, DDP),
        "above",
        unit=DECADES,
        above=(
            "The test can fail: with every process's mean counted alike the gap is larger by so "
            "many powers of ten. What is called equal below is equal by a test that sees this one "
            "fault."
        ),
        below=(
            "The control lies nearer to one process than the right run. Then something is wrong "
            "with the comparison itself, and nothing below may be called equal."
        ),
        none=(
            "The control's gap is not told apart from that of the right run, so these gaps prove "
            "nothing: take rows of more unequal lengths."
        ),
    ),
    Claim(
        "precision",
        "log₁₀ of the gradient's gap, FSDP2 in float64 − in float32 (LoRA)",
        difference("gradient", FSDP2_64, FSDP2),
        "below",
        unit=DECADES,
        above=(
            "With more digits the gap grows: then it is no rounding, and the two runs do not "
            "compute the same."
        ),
        below=(
            "With more digits the gap shrinks by about as many decades as float64 has more than "
            "float32, so it was rounding: sums of the same numbers in another order. A mistake in "
            "the mathematics would have stayed."
        ),
        none=(
            "The gap does not shrink with more digits. Either something still computes in "
            "float32, or the gap is no rounding: look for a cast before you call the runs equal."
        ),
    ),
    Claim(
        "precision, full",
        "log₁₀ of the gradient's gap, FSDP2 in float64 − in float32 (full fine-tuning)",
        difference("gradient", FULL_64, FULL),
        "below",
        unit=DECADES,
        above=(
            "Where all weights train the gap grows with more digits: then it is no rounding, and "
            "two processes do not compute what one does."
        ),
        below=(
            "The same holds where all weights train: embedding, norms and head are cut too, and "
            "what is left is rounding."
        ),
        none=(
            "Where all weights train the gap does not shrink with more digits: before this is "
            "called rounding, find what still computes in float32."
        ),
    ),
    Claim(
        "cutting",
        "log₁₀ of the weights' gap after the last step, FSDP2 − DDP (LoRA, float32)",
        difference("weights", FSDP2, DDP),
        "none",
        unit=DECADES,
        above=(
            "After the last step cut models lie further from one process than whole ones do. Both "
            "gaps are of the size of rounding; the cut ones sum in yet another order."
        ),
        below=(
            "After the last step cut models lie nearer to one process than whole ones do. Both "
            "gaps are of the size of rounding, so nothing follows for practice."
        ),
        none=(
            "Cutting the model costs no accuracy that is shown here: weights are put together "
            "bit by bit before anything is computed with them."
        ),
    ),
    Claim(
        "4 bits",
        "log₁₀ of the gradient's gap, QLoRA − LoRA (FSDP2, float32)",
        difference("gradient", NF4, FSDP2),
        "none",
        unit=DECADES,
        above=(
            "Over 4-bit weights the gap is larger, and still of the size of rounding: dequantised "
            "weights are the same in each process, but products with them round otherwise."
        ),
        below=(
            "Over 4-bit weights the gap is smaller than over fp32 weights. Both are of the size of "
            "rounding; nothing follows for practice."
        ),
        none=(
            "Packed 4-bit weights go through cutting and gathering as well as fp32 ones: no "
            "difference in the gap is shown. A wrong pairing of bytes and scales would be far "
            "larger."
        ),
    ),
)

FAULTS = (
    Claim(
        "right and one",
        "held-out loss, two processes − one",
        difference("held_out", RIGHT, ONE),
        "none",
        unit=NATS,
        above=(
            "Two processes do worse than one by so much. The rows and the gradients are the same, "
            "so look at rounding that has grown over the steps, or for a fault."
        ),
        below=(
            "Two processes do better than one by so much. The rows and the gradients are the same, "
            "so this can only be rounding that has grown over the steps, or a fault in one of "
            "them."
        ),
        none=(
            "A whole run in two processes ends where one process ends, as far as these seeds show."
        ),
    ),
    Claim(
        "wrong gradient",
        "first gradient's distance from one process, mean of means − right",
        difference("gap", AVERAGED_MEANS, RIGHT),
        "above",
        unit="of its length",
        above=(
            "So wrong is the gradient where every process's mean counts alike: rows of unequal "
            "lengths fall unequally on the processes, and the process with few tokens pulls too "
            "hard. Nothing raises an error."
        ),
        below=(
            "The mean of means lies nearer to the gradient of one process than the weighted mean "
            "does. By the mathematics it cannot: look for a fault in the weighting."
        ),
        none=(
            "The mean of means is not told apart from the weighted mean on these rows: their "
            "processes have about equally many tokens. Longer answers among short ones would show "
            "it."
        ),
    ),
    Claim(
        "cost of the mean of means",
        "held-out loss, mean of means − right",
        difference("held_out", AVERAGED_MEANS, RIGHT),
        "none",
        unit=NATS,
        above=(
            "The wrong gradient costs held-out loss. So it is no matter of taste: short answers "
            "are weighted more than they should be, and the average token is predicted worse."
        ),
        below=(
            "The wrong gradient does *better* on held-out rows. It weights short answers more, "
            "which is another objective, and here happens to help. That is a reason to choose "
            "weights on purpose, not to leave them to chance."
        ),
        none=(
            "No cost of the wrong gradient is shown on held-out rows: over a run its errors point "
            "now this way, now that, and may average out. So nobody notices by the loss; only the "
            "comparison with one process shows it."
        ),
    ),
    Claim(
        "cost of the same rows",
        "held-out loss, both processes on the same rows − right",
        difference("held_out", SAME_ROWS, RIGHT),
        "above",
        unit=NATS,
        above=(
            "Without a sampler the second process teaches nothing: the run is one on half of the "
            "rows, at twice the cost, and held-out loss says so. Its training loss looks as it "
            "should."
        ),
        below=(
            "Both processes on the same rows do better than on different ones. A smaller batch can "
            "do that where few steps are made; with the rows spent, the order should turn round."
        ),
        none=(
            "Held-out loss does not show that the second process reads what the first one reads: "
            "half of the rows are enough here, or too few steps are made. The count of different "
            "rows shows it at once."
        ),
    ),
    Claim(
        "cost of not averaging",
        "held-out loss, gradients not averaged − right",
        difference("held_out", NOT_AVERAGED, RIGHT),
        "above",
        unit=NATS,
        above=(
            "Each process has trained a model of its own on its half of the rows, and the two "
            "lose, on average, against one model trained on both halves."
        ),
        below=(
            "Two models trained apart do better, on average, than one on all rows. Then the batch "
            "of half the size suits these few steps; it is no reason to leave the average out."
        ),
        none=(
            "That nothing was averaged is not shown by held-out loss: each model has learnt from "
            "half of the rows, which is enough here. Compare the weights of two processes after a "
            "step: they must be equal."
        ),
    ),
)
