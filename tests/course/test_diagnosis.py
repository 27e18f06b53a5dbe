"""What is said of a wrong result beyond its largest difference, and that it is so."""

import math

import pytest
import torch

from ftlib.course.diagnosis import Case, as_if, diagnose, which_inputs

G = torch.Generator().manual_seed(3)
X = [torch.randn(3, 4, generator=G) for _ in range(2)]
SQUARES = [torch.randn(3, 3, generator=G) for _ in range(2)]
LENGTHS = (5, 7)


def said(change, wanted=X, **given):
    """The diagnosis where `change` makes what came of what was wanted; `given`: two values each."""
    cases = []
    for i, want in enumerate(wanted):
        cases.append(Case(change(want, i), want, {name: v[i] for name, v in given.items()}))
    return diagnose(cases, 1e-5)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda x, i: -x, "−1 times"),
        (lambda x, i: 2 * x, "It is 2 times"),
        (lambda x, i: x / 2, "half"),
        (lambda x, i: x * math.log(2), "ln 2"),
        (lambda x, i: x / math.log(2), "1/ln 2"),
        (lambda x, i: x * LENGTHS[i], "`T` times what is wanted"),
        (lambda x, i: x / LENGTHS[i], "what is wanted divided by `T`"),
        (lambda x, i: x * math.sqrt(LENGTHS[i]), "√`T` times"),
        (lambda x, i: x / math.sqrt(LENGTHS[i]), "divided by √`T`"),
        (lambda x, i: x * (3 + i), "one factor: ×3, ×4"),
        (lambda x, i: x * 0.3, "It is 0.3 times"),
        (lambda x, i: x + LENGTHS[i], "too much by `T`"),
        (lambda x, i: x - 0.25, "too small by 0.25"),
        (lambda x, i: x + torch.arange(4.0), "the same in every row"),
        (lambda x, i: x + torch.arange(3.0)[:, None], "the same in every column"),
        (lambda x, i: x.exp(), "exponential"),
        (lambda x, i: x.abs(), "absolute value"),
        (lambda x, i: x.T, "transposed"),
        (lambda x, i: x.flip(0), "reverse order along dimension 0"),
        (lambda x, i: x.roll(1, 1), "rotated by one position forwards along dimension 1"),
        (lambda x, i: torch.cat([x[:, :1], x[:, :-1]], 1), "one place too late"),
        (lambda x, i: torch.cat([x[:, 1:], x[:, :1] * 0], 1), "one place too early"),
        (lambda x, i: torch.cat([x[:2], x[2:] + 1 + x[:1]]), "last along dimension 0"),
        (lambda x, i: x.sum(1), "the sum over dimension 1 of"),
        (lambda x, i: x.mean(0), "the mean over dimension 0 of"),
        (lambda x, i: x[:-1], "last along dimension 0 are missing"),
        (lambda x, i: x[None], "size 1"),
        (lambda x, i: x.flatten(), "shape is another"),
        (lambda x, i: x.where(x < x.max(), math.nan), "2 of 24 numbers are NaN, and all others"),
        (lambda x, i: None, "without a `return`"),
    ],
)
def test_a_relation_is_told(change, words):
    assert words in said(change, T=LENGTHS)


@pytest.mark.parametrize(
    "change",
    [
        lambda x, i: -x if i else 2 * x + x * x,
        lambda x, i: x * (1 if i else 3) + x.abs() * i,
        lambda x, i: x.T if i else x * x * x + 1,
    ],
)
def test_what_holds_in_one_case_only_is_not_said(change):
    assert said(change, SQUARES, T=LENGTHS) is None


def test_a_factor_with_many_names_is_told_by_its_numbers():
    """r, alpha, k and T have one value: which of them it is, nobody knows."""
    message = said(lambda x, i: x * LENGTHS[i], r=LENGTHS, alpha=LENGTHS, k=LENGTHS, T=LENGTHS)
    assert "×5, ×7" in message and "`r`" not in message


def test_one_number_is_no_factor():
    """4 for 2 may be 2·2, 2 + 2 or 2²."""
    assert diagnose([Case(4, 2, {"r": 2})], 0.0) is None or "`r`" in "too much by `r`"
    assert "times" not in (diagnose([Case(4, 2, {"x": 7})], 0.0) or "")


def test_a_missing_argument_of_the_same_shape_is_an_offset():
    bias = (torch.arange(4.0), torch.ones(4))
    assert "too little by `bias`" in said(lambda x, i: x - bias[i], bias=bias)


def test_another_dimension_is_told_by_the_argument():
    cases = [Case(x.norm(dim=0), x.norm(dim=1), {"weight": x}) for x in SQUARES]
    assert diagnose(cases, 1e-5) == (
        "It is the norm of `weight` over dimension 0: the norm over dimension 1 is wanted."
    )
    cases = [Case(x.mean(1), x.sum(1), {"weight": x}) for x in SQUARES]
    assert "mean of `weight` over dimension 1: the sum" in diagnose(cases, 1e-5)


def test_parts_of_a_result_are_told_apart():
    cases = [Case((x, 2 * x), (x, x), {}) for x in X]
    assert diagnose(cases, 1e-5).startswith("In your result's [1]: It is 2 times")
    cases = [Case({"a": -x, "b": x / 2}, {"a": x, "b": x}, {}) for x in X]
    assert "['a']: The sign" in diagnose(cases, 1e-5) and "['b']: It is half" in diagnose(
        cases, 1e-5
    )


def test_where_a_mask_is_false():
    mask = (torch.tensor([True, False, True]), torch.tensor([False, True, True]))

    def wrong_there(x, i):
        return torch.where(mask[i][:, None], x, x.exp() + x)

    assert "only where `mask` is False or 0" in said(wrong_there, mask=mask)


@pytest.mark.parametrize(
    "got, want, words",
    [
        (" a\n", "a", "white space at its ends"),
        ("A b", "a b", "upper and lower"),
        ("ab", "abc", "end of the wanted text is missing"),
        ([["b"], ["a"]], [["a"], ["b"]], "reverse order"),
        (["a"], ["a", "b"], "The end is missing"),
        (["b", "c", "a"], ["a", "b", "c"], "their order is not"),
        (["a", "c"], ["a", "b", "c"], "none is wrong"),
    ],
)
def test_texts_and_lists(got, want, words):
    assert words in diagnose([Case(got, want, {})], 1e-5)


def test_an_argument_that_is_not_used_is_named():
    def scaled(x, scaling, shift):
        return scaling * x + shift

    given = [{"x": x, "scaling": 3.0 + i, "shift": 0.5} for i, x in enumerate(X)]
    unscaled = [Case(g["x"] + g["shift"], scaled(**g), g) for g in given]
    assert as_if(scaled, unscaled, torch.allclose) == "It is what comes out with `scaling` = 1."
    swapped = [Case(scaled(g["x"], g["shift"], g["scaling"]), scaled(**g), g) for g in given]
    assert "`scaling` and `shift` exchanged" in as_if(scaled, swapped, torch.allclose)
    assert (
        as_if(scaled, [Case(g["x"].exp(), scaled(**g), g) for g in given], torch.allclose) is None
    )


def test_the_inputs_that_go_wrong_are_told():
    right = [{"bias": X[0], "flag": True}, {"bias": X[1], "flag": False}]
    wrong = [{"bias": None, "flag": True}, {"bias": None, "flag": False}]
    assert which_inputs(right, wrong) == "It is wrong only where `bias` is None."
    assert which_inputs(wrong[:1], wrong[:1]) == "It is right on 1 of 2 inputs."
    assert which_inputs([], wrong) is None


def test_rounding_in_half_precision_hides_no_relation():
    """bf16 has 8 bits: 3·x is rounded by up to 1/256, and is 3·x all the same."""
    wanted = [x.bfloat16() for x in X]
    assert "`T` times what is wanted" in said(lambda x, i: x * LENGTHS[i], wanted, T=LENGTHS)
    assert said(lambda x, i: (x.float() * 1.03 + 0.05 * x.float() ** 2).bfloat16(), wanted) is None
