"""What merging and quantising are to show in lab 3.1.10, and how to read each outcome."""

from __future__ import annotations

import math

from ftlib.course.records.experiment import Claim, Contrast, difference, level, log_ratio


def _within(arm: str, first: str, second: str) -> Contrast:
    """Difference of the logarithms of two metrics of one arm."""

    def subtract(by_arm) -> float:
        return math.log(by_arm[arm][first]) - math.log(by_arm[arm][second])

    return Contrast((arm,), subtract)


MERGE_CLAIMS = (
    Claim(
        name="bf16_f16",
        text="KL on answers, bf16 file − f16 file",
        contrast=difference("answer_kl", "bf16", "f16"),
        expected="above",
        unit="nats per token",
        above=(
            "bf16 keeps 8 significant bits of each weight where f16 keeps 11, and the distance "
            "shows it. Write f16 where the weights fit its range. It does not say that bf16 is "
            "bad: compare it with the next number."
        ),
        below=(
            "The file with fewer bits is the nearer one, which rounding does not explain: look for "
            "weights outside the range of f16, below 6e-8 or above 65,504."
        ),
        none=(
            "No difference between the two is shown: whatever separates them is smaller than the "
            "spread over prompts."
        ),
    ),
    Claim(
        name="bf16_q8",
        text="ln(KL on answers, bf16 file / Q8_0)",
        contrast=log_ratio("answer_kl", "bf16", "Q8_0"),
        expected="below",
        below=(
            "A bf16 merge of this adapter costs less than the 8-bit file that everybody serves "
            "without a thought. The warning against it is about something else: about updates that "
            "are small compared with the weights, below."
        ),
        above=(
            "Rounding to bf16 costs more than Q8_0 here. Merge in fp32 and quantise from that or "
            "from f16."
        ),
        none=(
            "bf16 and Q8_0 are not shown to differ on these prompts. Which of the two distances is "
            "larger would take more prompts."
        ),
    ),
    Claim(
        name="sum",
        text="KL on answers, sum taken in bf16 − fp32 sum rounded to bf16",
        contrast=difference("answer_kl", "bf16 sum", "bf16"),
        expected="none",
        unit="nats per token",
        none=(
            "No difference in KL is shown. Here the update is rounded before the sum and the sum "
            "after it; the first adds little to the second (the bars of rounding above), because W "
            "is the larger number. What costs is *keeping* the result in bf16."
        ),
        above=(
            "Adding in bf16 costs something beyond the rounding of the result: the update's own "
            "rounding shows."
        ),
        below=(
            "The sum in bf16 is the nearer one. Two roundings are better than one only by luck: on "
            "these prompts the errors happen to cancel."
        ),
    ),
    Claim(
        name="small",
        text="KL lost in bf16 over the update's own KL, alpha/256 minus alpha",
        contrast=difference("lost_effect", "bf16, alpha/256", "bf16"),
        expected="above",
        above=(
            "This is the danger: where an update is smaller than half a step of the weight, the "
            "rounded sum *is* the old weight, and it is lost without a trace. KL grows with the "
            "square of a shift, so of the shift itself the square root of this share is lost. A "
            "short training at a low learning rate can end there; compare ‖update‖ / ‖weight‖ of "
            "your adapter with the figure. Doing the sum in fp32 and then storing bf16 does not "
            "help."
        ),
        below=(
            "The smaller update survives better, against arithmetic: look at the figure of what "
            "is kept."
        ),
        none=(
            "Even an update 256 times smaller survives as well: this model's weights have steps "
            "that are finer than its updates."
        ),
    ),
)

FILE_CLAIMS = (
    Claim(
        name="where",
        text="ln(KL on answers / KL on prompts), Q4_K_M",
        contrast=_within("Q4_K_M", "answer_kl", "prompt_kl"),
        expected="below",
        below=(
            "KL is smaller where the model answers than where it reads, as one would expect of a "
            "model trained on answers alone: certainty leaves little to move. A mean over the "
            "whole text is mostly a mean over the prompt, which nobody generates. Look at answers."
        ),
        above=(
            "The answers suffer more than the prompts: a mean over the whole text hides the "
            "damage that users see."
        ),
        none=(
            "Answers and prompts are not shown to differ by these samples; the interval says by "
            "which factor a mean over the whole text could still mislead."
        ),
    ),
    Claim(
        name="prompt_loss",
        text="log-loss of the prompts in Q2_K, minus f16's",
        contrast=level("prompt_loss", "Q2_K"),
        expected="above",
        unit="nats per token",
        above="The prompts became less likely, as one would expect of a damaged model.",
        below=(
            "The prompts became *more* likely in the most damaged file. No skill was gained; "
            "perhaps the model, trained on answers alone, is too sure of wrong continuations of a "
            "prompt, and noise flattens that (a guess, not tested here). Perplexity over whole "
            "texts, which are mostly prompt, can so reward damage. KL, which counts every "
            "departure, is not fooled."
        ),
        none=(
            "Perplexity of the prompts does not tell the most damaged file from the original. KL "
            "does."
        ),
    ),
    Claim(
        name="answer_loss",
        text="log-loss of the answers in Q2_K, minus f16's",
        contrast=level("answer_loss", "Q2_K"),
        expected="above",
        unit="nats per token",
        above=(
            "On the tokens that it was trained to write the damaged model is worse. So perplexity "
            "can see damage, if it looks at answers only."
        ),
        below="Even the answers became likelier: their f16 file is too sure of them.",
        none=(
            "Not even on the answers does perplexity show damage that KL shows plainly. Gains on "
            "some tokens and losses on others cancel; in KL nothing can."
        ),
    ),
    Claim(
        name="right",
        text="right answers, Q2_K − F16",
        contrast=difference("right", "Q2_K", "F16"),
        expected="below",
        unit="of the prompts",
        below=(
            "In the smallest file the answers suffer. Where between it and Q4_K_M that begins "
            "depends on your own task."
        ),
        above=(
            "Fewer bits gave more right answers, which is chance or a fault: look at the answers."
        ),
        none=(
            "No loss of right answers that 10 samples of prompts could show, in a file whose KL is "
            "many times that of Q4_K_M. Greedy answers of a few sure tokens are a blunt measure: "
            "KL warns long before them."
        ),
    ),
)
