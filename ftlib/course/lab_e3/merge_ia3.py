"""Lab E3, ReFT and its relatives, exercise 4: (IA)³ as rescaled weights."""

from __future__ import annotations

from torch import Tensor

from ftlib.course.exercise import Exercise, Wrong
from ftlib.course.lab_e3.tensors import randn


def merge_ia3(
    weight: Tensor, bias: Tensor | None, scale: Tensor, on_input: bool
) -> tuple[Tensor, Tensor | None]:
    """The weight (out, in) and bias (out,) of the plain linear layer that does what the layer does
    with (IA)³'s vector on its input, (in,), or on its output, (out,).
    """
    if on_input:
        return weight * scale, bias
    scaled_bias = None if bias is None else bias * scale
    return weight * scale[:, None], scaled_bias


def _cases(g):
    for n_in, n_out, has_bias in [(5, 3, True), (4, 4, True), (6, 6, False), (3, 7, True)]:
        for on_input in (True, False):
            bias = randn(g, n_out) if has_bias else None
            scale = 1 + 0.5 * randn(g, n_in if on_input else n_out)
            yield randn(g, n_out, n_in), bias, scale, on_input


def _rows(weight, scale):
    """Scaled along the first dimension as far as its length allows, else along the second."""
    return weight * scale[:, None] if len(scale) == len(weight) else weight * scale


def _columns(weight, scale):
    return weight * scale if len(scale) == weight.shape[1] else weight * scale[:, None]


def _scaled(bias, scale):
    return None if bias is None or len(scale) != len(bias) else bias * scale


def _bias_kept(weight, bias, scale, on_input):
    return merge_ia3(weight, bias, scale, on_input)[0], bias


def _bias_always(weight, bias, scale, on_input):
    merged, _ = merge_ia3(weight, bias, scale, on_input)
    return merged, bias if _scaled(bias, scale) is None else bias * scale


def _bias_dropped(weight, bias, scale, on_input):
    return merge_ia3(weight, bias, scale, on_input)[0], None


def _turned(weight, bias, scale, on_input):
    merged = _rows(weight, scale) if on_input else _columns(weight, scale)
    return merged, merge_ia3(weight, bias, scale, on_input)[1]


def _one_more(weight, bias, scale, on_input):
    return merge_ia3(weight, bias, 1 + scale, on_input)


def _added(weight, bias, scale, on_input):
    along = scale if on_input else scale[:, None]
    return weight + along, merge_ia3(weight, bias, scale, on_input)[1]


def _inverse(weight, bias, scale, on_input):
    return merge_ia3(weight, bias, 1 / scale, on_input)


MERGE_IA3 = Exercise(
    name="merge_ia3",
    title="(IA)³ as rescaled weights",
    minutes=8,
    difficulty=1,
    reference=merge_ia3,
    cases=_cases,
    hints=(
        "On the output: l ⊙ (W x + b) = (…) x + (…). On the input: W (l ⊙ x) + b.",
        "l on the output multiplies row i of W by l_i, and the bias with it. l on the input "
        "multiplies column j by l_j, and leaves the bias unchanged.",
        "`weight * scale[:, None]` scales rows, `weight * scale` scales columns. A bias may be "
        "None.",
        "on_input: return weight * scale, bias. Else: weight * scale[:, None], and bias * scale.",
    ),
    wrong=(
        Wrong(
            "bias not scaled",
            _bias_kept,
            "With the vector on the output the bias is scaled too: l ⊙ (W x + b) has l ⊙ b in it.",
        ),
        Wrong(
            "bias always scaled",
            _bias_always,
            "With the vector on the *input* the bias stays as it is: W (l ⊙ x) + b.",
        ),
        Wrong(
            "bias dropped",
            _bias_dropped,
            "The bias is lost: return it with the weight.",
        ),
        Wrong(
            "axes swapped",
            _turned,
            "Rows and columns are swapped where the layer is square: a vector on the input scales "
            "columns, one on the output scales rows.",
        ),
        Wrong(
            "one plus l",
            _one_more,
            "You scale by 1 + l: (IA)³'s vector starts at one and is the factor itself.",
        ),
        Wrong("added", _added, "You add l to the weight: it is a factor."),
        Wrong("inverse", _inverse, "You divide by l: the weight is multiplied by it."),
    ),
)
