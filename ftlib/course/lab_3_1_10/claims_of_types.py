"""What lab 3.1.10's experiments on kinds of matrices, mixes, importance and order of steps are to
show, and how to read each outcome.
"""

from __future__ import annotations

import math

from ftlib.course.lab_3_1_10.files import KINDS
from ftlib.course.records.experiment import Claim, Contrast, difference, log_ratio

ORDER = list(KINDS.values())  # of the numbers of one entry of `kinds`


def _of_kind(arm: str, first: str, second: str) -> Contrast:
    """Difference of log KL of two kinds of matrices at one type."""

    def subtract(by_arm) -> float:
        kl = by_arm[arm]["answer_kl"]
        return math.log(kl[ORDER.index(first)]) - math.log(kl[ORDER.index(second)])

    return Contrast((arm,), subtract)


KIND_CLAIMS = (
    Claim(
        name="down_up",
        text="ln(KL on answers, down / up) at Q2_K",
        contrast=_of_kind("Q2_K", "down", "up"),
        expected="above",
        above=(
            "The same number of weights at the same type, and down costs more: its inputs are "
            "products of two activations, and its outputs go straight into the residual stream. "
            "llama.cpp's recipes give it more bits."
        ),
        below="up costs more than down here, against llama.cpp's recipes: this model is another.",
        none=(
            "Neither costs more, as far as these seeds show: the recipes' preference finds no "
            "support here."
        ),
    ),
    Claim(
        name="v_k",
        text="ln(KL on answers, v / k) at Q2_K",
        contrast=_of_kind("Q2_K", "v", "k"),
        expected="above",
        above=(
            "v and k have the same shape, and v costs more: an error in k changes how much is "
            "read, and softmax forgives; an error in v changes what is read, and is passed on "
            "unchanged."
        ),
        below="k costs more than v here, against llama.cpp's recipes: this model is another.",
        none=(
            "Neither costs more, as far as these seeds show: the recipes' preference finds no "
            "support here."
        ),
    ),
)

MIX_CLAIMS = (
    Claim(
        name="matrices",
        text="ln(KL on answers, more bits for v and down / more bits for k and up)",
        contrast=log_ratio("answer_kl", "recipe", "elsewhere"),
        expected="below",
        below=(
            "The files have the same size to the byte, so on answers it matters which matrices "
            "get the bits. One comparison, whose baseline other sections share: the next line "
            "asks whether the prompts, which have more tokens, say the same."
        ),
        above="The same bytes do more good in k and up: the recipe was made for other models.",
        none=(
            "The same bytes elsewhere are not shown to differ from the recipe's: luck with prompts "
            "and roundings is as large as the recipe's merit."
        ),
    ),
    Claim(
        name="matrices_prompts",
        text="ln(KL on prompts, more bits for v and down / more bits for k and up)",
        contrast=log_ratio("prompt_kl", "recipe", "elsewhere"),
        expected="below",
        below="The prompts, which have more tokens than the answers, say so too.",
        above="On prompts the same bits would do more good in k and up.",
        none="On prompts the choice of matrices is not shown to matter.",
    ),
    Claim(
        name="layers",
        text="ln(KL on answers, the recipe's layers / the other layers)",
        contrast=log_ratio("answer_kl", "recipe", "other layers"),
        expected="below",
        below="The recipe's choice of layers pays too, at the same size.",
        above="The other layers would have been the better choice in this model.",
        none="On answers, which layers get the bits makes no difference that ten seeds show.",
    ),
    Claim(
        name="layers_prompts",
        text="ln(KL on prompts, the recipe's layers / the other layers)",
        contrast=log_ratio("prompt_kl", "recipe", "other layers"),
        expected="below",
        below="On prompts the recipe's choice of layers pays.",
        above=(
            "On prompts the *other* layers would have been the better choice. The recipe was made "
            "for models with many more layers; with four of them this is one split of two against "
            "two."
        ),
        none="On prompts neither choice of layers is shown to be better.",
    ),
    Claim(
        name="bytes",
        text="ln(KL on answers, recipe / all blocks in Q4_K)",
        contrast=log_ratio("answer_kl", "recipe", "plain"),
        expected="below",
        below="And the recipe is nearer than the smaller file without it, as it should be.",
        above="The larger file is the farther one: rounding errors of two matrices had cancelled.",
        none="The bytes that the recipe adds buy nothing that these prompts show.",
    ),
)

IMPORTANCE_CLAIMS = (
    Claim(
        name="rounding",
        text="weighted rounding at Q2_K, own texts − none",
        contrast=difference("rounding", "Q2_K, own", "Q2_K, none"),
        expected="below",
        unit="share",
        below=(
            "The matrix does what it promises, on texts that it has not seen: the rounding is "
            "smaller where the inputs are large."
        ),
        above="The rounding grew on held-out texts: the calibration says nothing about them.",
        none="No difference on held-out texts: the calibration says nothing about them.",
    ),
    Claim(
        name="information",
        text="weighted rounding at Q2_K, own texts − the same numbers shuffled",
        contrast=difference("rounding", "Q2_K, own", "Q2_K, shuffled"),
        expected="below",
        unit="share",
        below=(
            "The right numbers round better than wrong ones. At two bits most of the gain over "
            "none comes with the wrong numbers as well: given any matrix, llama.cpp uses other "
            "routines for the scales (`quantize_row_q2_K_impl` in ggml-quants.c). The next line "
            "says whether that is so at four bits."
        ),
        above=(
            "Shuffled importance rounds better than the right one, so the gain is not information."
        ),
        none=(
            "A shuffled matrix is not shown to differ from the right one: the gain may be the "
            "other routine alone that llama.cpp takes when it is given any matrix."
        ),
    ),
    Claim(
        name="search_four",
        text="weighted rounding at Q4_K_M, the numbers shuffled − none",
        contrast=difference("rounding", "Q4_K_M, shuffled", "Q4_K_M, none"),
        expected="below",
        unit="share",
        below="At four bits too any matrix helps, a wrong one as well.",
        above=(
            "At four bits a wrong matrix rounds *worse* than none: there the other routine gains "
            "nothing by itself, and wrong numbers cost. A shuffled matrix is wrong knowledge and "
            "not the absence of it, so that own − shuffled overstates what knowing is worth."
        ),
        none="At four bits a wrong matrix and none are not shown to differ.",
    ),
    Claim(
        name="kl",
        text="ln(KL on answers, own texts / none) at Q2_K",
        contrast=log_ratio("answer_kl", "Q2_K, own", "Q2_K, none"),
        expected="below",
        below="And the smaller rounding is seen in the answers.",
        above=(
            "The rounding is smaller and the answers are farther away. What the matrix makes small "
            "is each layer's error alone; errors of several layers can add up or cancel."
        ),
        none=(
            "In the answers none of it is seen: prompts and the luck of rounding move KL by more "
            "than this gain, in a model of 4M parameters. On your own model measure before you "
            "believe either."
        ),
    ),
    Claim(
        name="kl_four",
        text="ln(KL on answers, own texts / none) at Q4_K_M",
        contrast=log_ratio("answer_kl", "Q4_K_M, own", "Q4_K_M, none"),
        expected="none",
        none="At four bits there is little to gain, and none is seen.",
        below="Even at four bits the matrix brings the answers nearer.",
        above="At four bits the matrix does harm on these prompts.",
    ),
)

WAY_CLAIMS = (
    Claim(
        name="apart",
        text="ln(KL on answers, adapter apart / merged then quantised)",
        contrast=log_ratio("answer_kl", "apart", "merged"),
        expected="below",
        below=(
            "An update that is never rounded keeps the answers nearer, as expected: the "
            "adapter apart costs a second file and gains accuracy."
        ),
        above=(
            "The adapter apart is *farther* from the merged model, though its update is never "
            "rounded. So the update's own rounding is not what costs; the base's is, and the "
            "weights before training round a little worse than those after it."
        ),
        none=(
            "It makes no difference that these answers show. (The interval is of a logarithm: "
            "0.7 would be a factor of two.)"
        ),
    ),
    Claim(
        name="into",
        text="ln(KL on answers, merged into the Q4_K_M file (changed weights f16) / apart)",
        contrast=log_ratio("answer_kl", "into Q4_K_M, as F16", "apart"),
        expected="none",
        none=(
            "Merged into the quantised file and left in 16 bits, or apart beside it: the same sum, "
            "and no difference that these answers show."
        ),
        above=(
            "Merged into the quantised file is farther than the adapter beside it, though the sum "
            "is the same: what differs is how llama.cpp multiplies with 16 bits and with four."
        ),
        below=(
            "Merged into the quantised file is nearer than the adapter beside it, though the sum "
            "is the same: a 16-bit weight is multiplied with inputs that are not rounded to 8 bits."
        ),
    ),
    Claim(
        name="again",
        text="ln(KL on answers, merged into Q4_K_M and to Q4_K_M again / merged then quantised)",
        contrast=log_ratio("answer_kl", "into Q4_K_M, again Q4_K_M", "merged"),
        expected="above",
        above=(
            "Two roundings are worse than one. With the 16-bit base at hand, merge into that; "
            "without it this is the small file that you can get."
        ),
        below="The second rounding undid some of the first: luck, not a method.",
        none="The second rounding does not show on these answers. It cannot help, so avoid it.",
    ),
    Claim(
        name="eight",
        text="ln(KL on answers, merged into Q8_0 and then Q4_K_M / merged then quantised)",
        contrast=log_ratio("answer_kl", "into Q8_0, then Q4_K_M", "merged"),
        expected="none",
        none=(
            "From a base in Q8_0 the result is that of the 16-bit base, as far as these answers "
            "show: if you can choose what to download, it needs half the disk."
        ),
        above="A base in Q8_0 costs something too, though its rounding is a sixteenth of Q4_K's.",
        below="A base in Q8_0 came out nearer than the 16-bit one: luck, not a method.",
    ),
)
