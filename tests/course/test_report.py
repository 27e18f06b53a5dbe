"""A comparison's readings: by the test's p value, none with few runs, several judged by Holm's."""

import numpy as np
import pytest

import ftlib as ft
from ftlib.core.stats import Interval
from ftlib.course.report import folded, outcome, say_folded, say_under, verdict, verdicts


def difference(mean: float, p_value: float, runs: int = 10) -> Interval:
    """A difference with bounds at ±0.1 of its mean, and the p value wanted."""
    return Interval(mean, mean - 0.1, mean + 0.1, 0.95, runs, p_value, "paired t test")


@pytest.mark.parametrize(
    "mean, p_value, lower_is_better, wanted",
    [
        (0.3, 0.01, False, "better"),
        (0.3, 0.01, True, "worse"),
        (-0.3, 0.01, True, "better"),
        (-0.3, 0.01, False, "worse"),
        (0.3, 0.05, False, "better"),
        (0.3, 0.051, False, "no difference shown"),
        (-0.3, 0.6, True, "no difference shown"),
        (0.0, 1.0, False, "no difference shown"),
    ],
)
def test_the_outcome(mean, p_value, lower_is_better, wanted):
    assert outcome(difference(mean, p_value), lower_is_better) == wanted


def test_another_level_and_another_p_value():
    strict = Interval(0.3, 0.1, 0.5, 0.99, 10, 0.02, "paired t test")
    assert outcome(strict) == "no difference shown"  # 0.02 > 1 - 0.99
    assert outcome(difference(0.3, 0.02), p_value=0.06) == "no difference shown"


@pytest.mark.parametrize("runs, wanted", [(2, "too few runs"), (4, "too few runs"), (5, "better")])
def test_fewer_than_five_runs_get_no_verdict(runs, wanted):
    clear = difference(0.3, 1e-6, runs)
    assert outcome(clear) == wanted
    text = verdict(clear, "A", "B")
    assert ("too few for a verdict: five at least" in text) == (runs < 5)
    assert ("better" in text) == (runs >= 5)


def test_a_verdict_names_difference_runs_and_test():
    """Differences -0.1, …, -0.3 over five runs: the mean -0.2, s = 0.0791, t = -5.66 with four
    degrees of freedom, p = 0.0048; t·s/√5 = 2.776·0.0354 = 0.098.
    """
    found = ft.paired_difference([1.0, 1.0, 1.0, 1.0, 1.0], [1.1, 1.15, 1.2, 1.25, 1.3])
    assert verdict(found, "DoRA", "LoRA", unit="nats", lower_is_better=True) == (
        "**DoRA is better than LoRA**: -0.2 [-0.298, -0.102] nats over 5 runs (paired t test, "
        "p = 0.00481)."
    )
    none = ft.paired_difference([0.50, 0.52, 0.51, 0.49, 0.5], [0.5, 0.5, 0.53, 0.51, 0.5])
    text = verdict(none, "A", "B", unit="points", runs="seeds")
    assert text.startswith("**No difference shown** between A and B: -0.4 [-2.5, +1.7] points over")
    assert "5 seeds (paired t test, p = 0.6" in text
    sure = verdict(difference(0.3, 1e-9), "A", "B")
    assert sure == (
        "**A is better than B**: +0.3 [+0.2, +0.4] over 10 runs (paired t test, p < 0.001)."
    )


def test_runs_that_all_agree_are_judged_by_their_signs():
    """The same difference five times: 2·(1/2)⁵ = 0.0625; six times 0.031."""
    five = ft.paired_difference(np.full(5, 0.3), np.full(5, 0.1))
    six = ft.paired_difference(np.full(6, 0.3), np.full(6, 0.1))
    assert (outcome(five), outcome(six)) == ("no difference shown", "better")
    assert "sign test, as all runs differ by the same, p = 0.0625" in verdict(five, "A", "B")


def test_several_comparisons_are_judged_together():
    """Alone 0.03 says "better"; as the second of three it is 2·0.03 = 0.06 by Holm, and 0.001 is
    0.003.
    """
    made = {
        ("A", "base"): difference(0.3, 0.001),
        ("B", "base"): difference(0.3, 0.03),
        ("C", "base"): difference(0.1, 0.4),
    }
    lines = verdicts(made, unit="nats").splitlines()
    assert lines[0] == (
        "- **A is better than base**: +0.3 [+0.2, +0.4] nats over 10 runs (paired t test, "
        "p = 0.001; by Holm for 3 comparisons p = 0.003)."
    )
    assert lines[1].startswith("- **No difference shown** between B and base: +0.3")
    assert "p = 0.03; by Holm for 3 comparisons p = 0.06" in lines[1]
    assert "p = 0.4; by Holm for 3 comparisons p = 0.4" in lines[2]
    alone = verdicts({("B", "base"): made["B", "base"]})
    assert alone == f"- {verdict(made['B', 'base'], 'B', 'base')}"


def test_too_few_runs_among_several():
    made = {("A", "B"): difference(0.3, 0.01, runs=3), ("C", "B"): difference(0.3, 0.01)}
    few, enough = verdicts(made).splitlines()
    assert "3 runs are too few for a verdict" in few and "by Holm for 2" in enough


@pytest.mark.parametrize(
    "interval",
    [
        Interval(0.5, 0.25, 0.75),
        ft.share_interval(3, 4),
        ft.prediction_interval([1, 2, 3, 4, 5]),
        ft.bootstrap_interval(np.arange(30)),
    ],
)
def test_no_verdict_without_a_test(interval):
    with pytest.raises(ValueError, match=r"no verdict on it: pass what ftlib.paired_difference"):
        verdict(interval, "A", "B")
    with pytest.raises(ValueError, match="no verdict on it"):
        verdicts({("A", "B"): interval})


def test_no_comparison_at_all():
    with pytest.raises(ValueError, match="differences is empty"):
        verdicts({})


CLAIM = "**win rate, DPO − SFT: 0.2 [0.1, 0.3] over 10 seeds (t test: p = 0.01).** "


@pytest.mark.parametrize(
    "text, shown, rest",
    [
        (f"{CLAIM}It wins. Why is open. More runs?", f"{CLAIM}It wins.", "Why is open. More runs?"),
        ("In tiny, a model of 4M parameters: **a: 1 (p = 0.3).** None. Go on.", None, "Go on."),
        (f"{CLAIM}Gao et al. (2022) find it. “So” it is.", None, "“So” it is."),
        ("KL 2.5 nats, see eq. 7 of it. *Then* more.", "KL 2.5 nats, see eq. 7 of it.", None),
    ],
)
def test_a_claim_and_its_first_sentence_stand_and_the_rest_is_folded(text, shown, rest):
    """Nothing is lost: what is shown and what is folded are the whole text."""
    before, _, inside = folded(text).partition("\n\n<details><summary>More</summary>\n\n")
    inside = inside.removesuffix("\n\n</details>")
    assert f"{before} {inside}" == text
    assert shown in (None, before) and rest in (None, inside)


def test_what_has_one_sentence_is_left_as_it_is():
    assert folded(f"{CLAIM}No difference is shown.") == f"{CLAIM}No difference is shown."
    assert folded("a: not measured here.") == "a: not measured here."


def test_in_a_terminal_all_is_printed(capsys):
    say_folded(f"{CLAIM}It wins. Why is open.")
    say_under("In numbers", ["one", "two"])
    printed = capsys.readouterr().out
    assert printed == f"{CLAIM}It wins. Why is open.\nIn numbers:\n\none\n\ntwo\n"


def test_in_a_notebook_texts_are_folded_under_their_title(monkeypatch):
    said = []
    monkeypatch.setattr("ftlib.core.notebook.in_notebook", lambda: True)
    monkeypatch.setattr("ftlib.course.report.say", said.append)
    say_under("In numbers", ["one", "two"])
    assert said == ["<details><summary>In numbers</summary>\n\none\n\ntwo\n\n</details>"]
