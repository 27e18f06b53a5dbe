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
            "The test can fail: averaging the processes' means makes the gap larger by that many "
            "powers of ten. So the test that calls runs equal below would notice such a mistake."
        ),
        below=(
            "The control is nearer to one process than the right run. Then something is wrong with "
            "the comparison itself, and nothing below may be called equal."
        ),
        none=(
            "No difference between the gaps of the control and of the right run is shown, so these "
            "gaps prove nothing: take rows of more unequal lengths."
        ),
    ),
    Claim(
        "precision",
        "log₁₀ of the gradient's gap, FSDP2 in float64 − in float32 (LoRA)",
        difference("gradient", FSDP2_64, FSDP2),
        "below",
        unit=DECADES,
        above=(
            "With more digits the gap grows: then it is not rounding, and the two runs do not "
            "compute the same."
        ),
        below=(
            "In float64 the gap shrinks. A fall of eight to nine decades means rounding (float64 "
            "has 29 bits more, 8.7 decades): sums of the same numbers in another order. A mistake "
            "in the mathematics would have stayed."
        ),
        none=(
            "It is not shown that the gap shrinks with more digits. Either something still "
            "computes in float32, or it is not rounding: look for a cast before you call the runs "
            "equal."
        ),
    ),
    Claim(
        "precision, full",
        "log₁₀ of the gradient's gap, FSDP2 in float64 − in float32 (full fine-tuning)",
        difference("gradient", FULL_64, FULL),
        "below",
        unit=DECADES,
        above=(
            "When all weights are trained, the gap grows with more digits: then it is not "
            "rounding, and two processes do not compute what one does."
        ),
        below=(
            "When all weights are trained, with embedding, norms and head split too, the gap also "
            "shrinks: it was rounding."
        ),
        none=(
            "When all weights are trained, it is not shown that the gap shrinks with more digits: "
            "before you call it rounding, find what still computes in float32."
        ),
    ),
    Claim(
        "cutting",
        "log₁₀ of the weights' gap after the last step, FSDP2 − DDP (LoRA, float32)",
        difference("weights", FSDP2, DDP),
        "none",
        unit=DECADES,
        above=(
            "After the last step the split model is further from one process than the whole one. "
            "Both gaps are of the size of rounding; the split model sums in yet another order."
        ),
        below=(
            "After the last step the split model is nearer to one process than the whole one. Both "
            "gaps are of the size of rounding, so nothing follows for practice."
        ),
        none=(
            "No cost of splitting in accuracy is shown: the gathered weights are the original "
            "ones, bit by bit."
        ),
    ),
    Claim(
        "4 bits",
        "log₁₀ of the gradient's gap, QLoRA − LoRA (FSDP2, float32)",
        difference("gradient", NF4, FSDP2),
        "none",
        unit=DECADES,
        above=(
            "With 4-bit weights the gap is larger, and still of the size of rounding: dequantised "
            "weights are the same in each process, but products with them are rounded differently."
        ),
        below=(
            "With 4-bit weights the gap is smaller than with fp32 weights. Both are of the size of "
            "rounding; nothing follows for practice."
        ),
        none=(
            "No difference in the gap is shown: packed 4-bit weights are split and gathered as "
            "well as fp32 ones. A wrong pairing of bytes and scales would be far larger."
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
            "Two processes do worse than one. The rows and the gradients are the same, so this is "
            "rounding that has grown over the steps, or a bug."
        ),
        below=(
            "Two processes do better than one. The rows and the gradients are the same, so this is "
            "rounding that has grown over the steps, or a bug in one of them."
        ),
        none=("No difference between a whole run in two processes and in one is shown."),
    ),
    Claim(
        "wrong gradient",
        "first gradient's distance from one process, mean of means − right",
        difference("gap", AVERAGED_MEANS, RIGHT),
        "above",
        unit="of its length",
        above=(
            "That is how wrong the gradient is when the processes' means are averaged. The "
            "processes have unequal numbers of tokens, and the one with few tokens gets too much "
            "weight. There is no error message."
        ),
        below=(
            "The mean of means is nearer to the gradient of one process than the weighted mean. "
            "Mathematically it cannot be: look for a bug in the weighting."
        ),
        none=(
            "No difference between the mean of means and the weighted mean is shown on these rows: "
            "the processes may have about equally many tokens. Longer answers among short ones "
            "would show it."
        ),
    ),
    Claim(
        "cost of the mean of means",
        "held-out loss, mean of means − right",
        difference("held_out", AVERAGED_MEANS, RIGHT),
        "none",
        unit=NATS,
        above=(
            "The wrong gradient costs held-out loss. It gives short answers too much weight, and "
            "predicts the average token worse."
        ),
        below=(
            "The wrong gradient does *better* on held-out rows. It gives short answers more "
            "weight, which is another objective and happens to help here. That is a reason to "
            "choose weights on purpose, not to leave them to chance."
        ),
        none=(
            "No cost of the wrong gradient is shown on held-out rows: over a run its errors point "
            "in different directions, and may average out. The loss does not reveal it; the "
            "comparison with one process does."
        ),
    ),
    Claim(
        "cost of the same rows",
        "held-out loss, both processes on the same rows − right",
        difference("held_out", SAME_ROWS, RIGHT),
        "above",
        unit=NATS,
        above=(
            "Without a sampler the second process contributes nothing: the run sees half of the "
            "rows at twice the cost, and held-out loss shows it. The training loss looks normal."
        ),
        below=(
            "Both processes on the same rows do better than on different ones. A smaller batch may "
            "do that in a run of few steps; in a longer run the order should be reversed."
        ),
        none=(
            "Held-out loss does not show that both processes read the same rows: half of the rows "
            "may be enough here, or the run too short. Counting the different rows shows it at "
            "once."
        ),
    ),
    Claim(
        "cost of not averaging",
        "held-out loss, gradients not averaged − right",
        difference("held_out", NOT_AVERAGED, RIGHT),
        "above",
        unit=NATS,
        above=(
            "Each process has trained its own model on half of the rows, and on average the two do "
            "worse than one model trained on both halves."
        ),
        below=(
            "Two models trained separately do better, on average, than one on all rows. The "
            "smaller batch may suit these few steps; that is no reason not to average."
        ),
        none=(
            "Held-out loss does not show that nothing was averaged: half of the rows may be enough "
            "for each model here. Compare the weights of two processes after a step: they must be "
            "equal."
        ),
    ),
)
