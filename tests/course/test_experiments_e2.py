"""What the experiments of lab E2 take for granted: texts that are judged are seen by nothing else,
mixtures of the size and share asked for, EWC and Fisher as ftlib's, curves and fronts by hand.
"""

import math

import numpy as np
import pytest
import torch
from conftest import byte_tokenizer, llama

import ftlib as ft
from ftlib.batches.collate import SFTCollator
from ftlib.batches.encode import text_rows
from ftlib.core.profiles import get_profile
from ftlib.course.lab_e2 import curves, experiments, frontier, lines, readings, settings, trials
from ftlib.course.lab_e2.ewc_penalty import ewc_penalty
from ftlib.course.lab_e2.fisher_diagonal import fisher_diagonal
from ftlib.course.lab_e2.replay_count import replay_count
from ftlib.course.lab_e2.schematic import draw_forgetting
from ftlib.course.lab_e2.stop_step import stop_step
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")
POCKET = get_profile("pocket")


def run(loss, forgotten):
    return {"loss": loss, "forgotten": forgotten}


# --- rows and texts -------------------------------------------------------------------------------
@pytest.mark.parametrize("profile", [TINY, POCKET], ids=lambda p: p.name)
def test_texts_have_one_use_each(profile):
    judged = trials.judged_texts(profile)
    watched = trials.watched_texts(profile)
    replayed = trials.replay_texts(profile)
    assert judged and watched and replayed
    assert len({*judged, *watched, *replayed}) == len(judged) + len(watched) + len(replayed)


@pytest.mark.parametrize("share", [0.0, *settings.REPLAYED])
def test_a_mixture_has_its_size_and_share(share):
    """160 rows, 10% of them texts: 16. A text's labels are all of its tokens."""
    _, tokenizer = trials.study_base(TINY)
    rows = trials.mixture(TINY, tokenizer, 0, 160, share)
    texts = [row for row in rows if row["labels"] == row["input_ids"]]
    assert len(rows) == 160
    assert len(texts) == round(160 * share)


def test_the_same_texts_with_their_words_shuffled():
    """As many words, the same ones, another order."""
    texts = ["a b c d e f", "one two three four five six"]
    mixed = trials.shuffled_words(texts, 0)
    assert [sorted(text.split()) for text in mixed] == [sorted(text.split()) for text in texts]
    assert mixed != texts


def test_a_stream_goes_through_all_rows_before_it_repeats_one():
    drawn = trials.stream([{"i": i} for i in range(5)], 12, 0)
    for part in (drawn[:5], drawn[5:10]):
        assert sorted(row["i"] for row in part) == list(range(5))
    assert len(drawn) == 12
    assert drawn[:5] != drawn[5:10]


def test_the_share_is_of_the_mixture():
    assert replay_count(90, 0.1) == 10
    assert trials.replay_count is replay_count


def test_replayed_tokens_by_hand():
    """A text of 5 tokens has 4 that are predicted; the row 2 that are learnt: 4 of 6."""
    text = {"input_ids": [1, 2, 3, 4, 5], "labels": [1, 2, 3, 4, 5]}
    row = {"input_ids": [1, 2, 3, 4], "labels": [-100, -100, 3, 4]}
    assert lines.replayed_tokens([text, row]) == pytest.approx(4 / 6)


# --- what is known --------------------------------------------------------------------------------
def test_questions_of_a_sheet():
    texts = ["A story. It ends.", "Question: Who? Answer: Ann\nQuestion: Where? Answer: Here"]
    assert trials.sheet_questions(texts) == [
        ("Question: Who? Answer:", " Ann"),
        ("Question: Where? Answer:", " Here"),
    ]


def test_the_base_knows_and_has_forgotten_nothing():
    model, tokenizer = trials.study_base(TINY)
    hits = trials.known(TINY, model, tokenizer)
    assert len(hits) == len(trials.sheet_questions(trials.judged_texts(TINY)))
    assert np.mean(hits) > 0.95
    assert trials.forgotten(TINY, model, tokenizer) == 0


def test_hits_are_what_greedy_writing_gives():
    """Token by token, each after the model's own, on a model so shaken that it knows some answers
    and not others.
    """
    model, tokenizer = trials.study_base(TINY)
    texts = trials.judged_texts(TINY)[:30]
    torch.manual_seed(0)
    hits = [1.0]
    while all(hits):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.3 * parameter.std() * torch.randn_like(parameter))
        hits = trials.sheet_hits(model, tokenizer, texts)
    assert sum(hits) > 0
    for (question, answer), hit in zip(trials.sheet_questions(texts), hits, strict=True):
        ids = tokenizer(question)["input_ids"]
        wanted = tokenizer(question + answer)["input_ids"][len(ids) :]
        written = []
        with torch.no_grad():
            for _ in wanted:
                logits = model(torch.tensor([ids + written])).logits
                written.append(int(logits[0, -1].argmax()))
        assert hit == float(written == wanted)


# --- EWC ------------------------------------------------------------------------------------------
def test_the_student_s_parts_make_ftlib_s_ewc():
    """The same Fisher diagonal and the same penalty as `ftlib.losses.ewc`."""
    model = llama().requires_grad_(True)
    tokenizer = byte_tokenizer()
    texts = ["one", "two words", "and three words"]
    mine = fisher_diagonal(trials.example_gradients(model, tokenizer, texts, 64))
    rows = text_rows(tokenizer, texts, 64)
    theirs = ft.fisher_diagonal(model, [SFTCollator(tokenizer.pad_token_id)(rows)])
    for name, tensor in theirs.items():
        assert torch.allclose(mine[name], tensor, rtol=1e-4, atol=1e-8), name
    anchor = ft.trained_weights(model)
    penalty = trials.penalty_of(model, mine, 3.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    wanted = ft.ewc_penalty(model, theirs, anchor, 3.0)
    assert penalty(model).item() == pytest.approx(wanted.item(), rel=1e-4)


def test_flat_springs_have_the_same_sum():
    """F = 1, 3 in one tensor and 8 in another: 4 each."""
    fisher = {"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[8.0]])}
    flat = trials.flat(fisher)
    assert flat["a"].tolist() == [4.0, 4.0]
    assert flat["b"].tolist() == [[4.0]]


def test_the_share_that_a_few_weights_hold():
    """F = 6, 2, 1, 1: the largest of four holds 6 of 10, the two largest 8."""
    fisher = {"a": torch.tensor([1.0, 6.0]), "b": torch.tensor([1.0, 2.0])}
    assert lines.held_share(fisher, 0.25) == pytest.approx(0.6)
    assert lines.held_share(fisher, 0.5) == pytest.approx(0.8)


def test_the_student_s_functions_reach_the_trial_that_uses_them(monkeypatch):
    called = {}
    for name in ("ewc_trial", "interpolation_trial", "stop_trial", "method_trial"):

        def note(profile, seed, lr, weight=0, t=0, threshold=0, ewc_penalty=None, name=name):
            called[name] = ewc_penalty
            return {}

        monkeypatch.setattr(trials, name, note)
    for settings_of_one in ({"weight": 1}, {"t": 0.5}, {"threshold": 0.1}, {}):
        trials.strength_trial(TINY, 0, lr=1, ewc_penalty=ewc_penalty, other=1, **settings_of_one)
    assert set(called) == {"ewc_trial", "interpolation_trial", "stop_trial", "method_trial"}
    assert called["ewc_trial"] is ewc_penalty


# --- the early stop -------------------------------------------------------------------------------
def test_the_student_s_stop_is_the_watch_s():
    """Looks every 2 steps at losses 1, 1.05, 1.2, 1.5: above 0.1 first at step 4."""

    class Watched:
        every = 2
        threshold = 0.1
        settings = {}  # noqa: RUF012 -- the protocol's name

        def __init__(self):
            self.values = iter([1.0, 1.05, 1.2, 1.5])

        def measure(self, model, tokenizer):
            return next(self.values)

    rows = [{"input_ids": [1, 2, 3], "labels": [1, 2, 3]}] * 4
    model = llama().requires_grad_(True)
    found = ft.finetune(
        model,
        byte_tokenizer(),
        rows,
        steps=6,
        learning_rate=1e-5,
        batch_size=2,
        watch=Watched(),
        show=False,
    )
    assert found.watched[-1]["step"] == stop_step([1.0, 1.05, 1.2, 1.5], 2, 0.1) == 4


# --- curves and fronts ----------------------------------------------------------------------------
def test_forgotten_at_a_loss_by_hand():
    """Runs at (loss 1, e⁰ nats), (2, e⁻²), and (2.5, e⁻¹), which the second dominates. At 1.5 half
    way between 0 and −2; at 3 the gentlest; at 0.5 the strongest.
    """
    by_arm = {"a": run(1.0, 1.0), "b": run(2.0, math.exp(-2)), "c": run(2.5, math.exp(-1))}
    for loss, want in ((1.5, -1.0), (3.0, -2.0), (0.5, 0.0)):
        assert curves.forgotten_at(by_arm, ["a", "b", "c"], loss) == pytest.approx(want)


def test_a_ratio_at_the_loss_that_both_reach():
    """One method: (1, e), (2, 1). Another that gets no lower than 1.5, where it forgot e²: the one
    has forgotten e^½ there. The reference run ended at 1.2, which the other never reaches.
    """
    by_arm = {"a": run(1.0, math.e), "b": run(2.0, 1.0), "c": run(1.5, math.exp(2))}
    by_arm["reference"] = run(1.2, 9.0)
    found = curves.log_ratio_at(by_arm, ["c"], ["a", "b"], "reference")
    assert found == pytest.approx(2 - 0.5)
    by_arm["reference"] = run(2.0, 9.0)
    assert curves.log_ratio_at(by_arm, ["c"], ["a", "b"], "reference") == pytest.approx(2)


class Recorded:
    """Three arms at four seeds: `low` learns most and forgets most, `mid` lies between, `bad` is
    dominated by `mid` on average and in three of the seeds.
    """

    why = ""
    live = {}  # noqa: RUF012
    shown_in = ""
    seeds = (0, 1, 2, 3)
    runs = {  # noqa: RUF012
        "low": ([1.0] * 4, [4.0] * 4, [0.1] * 4),
        "mid": ([2.0] * 4, [1.0] * 4, [0.8] * 4),
        "bad": ([2.5, 2.5, 2.5, 1.5], [1.5, 1.5, 1.5, 1.5], [0.7] * 4),
    }

    def has(self, arm):
        return arm in self.runs

    def means(self, arm, metric):
        return np.array(self.runs[arm][("loss", "forgotten", "known").index(metric)])

    def interval(self, arm, metric):
        return ft.mean_interval(self.means(arm, metric))


def test_the_front_by_hand():
    """The mean of `bad` is (2.25, 1.5), which (2, 1) dominates; in the last seed its run (1.5, 1.5)
    is on the front. A redrawn mean is on it if its loss is below 2: three of four draws, or all,
    of the last seed: 4·(1/4)³·(3/4) + (1/4)⁴ = 13/256.
    """
    found = {one.arm: one for one in curves.on_front(Recorded(), ["low", "mid", "bad"])}
    assert [found[arm].by_means for arm in ("low", "mid", "bad")] == [True, True, False]
    assert found["bad"].of_seeds.mean == pytest.approx(1 / 4)
    assert found["low"].redrawn == found["mid"].redrawn == 1
    assert found["bad"].redrawn == pytest.approx(13 / 256, abs=0.02)


def test_an_incomplete_record_is_cut_to_the_seeds_that_all_arms_have():
    class Incomplete:
        def means(self, arm, metric):
            return np.arange(3.0) if arm == "a" else np.arange(2.0)

    assert curves.points_of(Incomplete(), ["a", "b"]).shape == (2, 2, 2)


def test_lines_of_the_front():
    table = lines.front_table(Recorded(), ["bad", "low", "mid", "not run"])
    assert [row[""] for row in table] == ["low", "mid", "bad"]
    line = lines.front_line(Recorded(), ["bad", "low", "mid"])
    assert "front of the means: low; mid." in line
    assert line.endswith("of the resamples: low; mid.")


def test_exceptions_of_the_comparison_are_counted():
    """Smaller rates end at 1.0, the reference, and 2.0. A method whose lowest loss is 1.5 falls
    short of 1.0, and is compared at 1.5, which the rates reach; one at 3.0 falls short and lies
    above all rates; one at 0.9 reaches the loss.
    """
    rates = (readings.REFERENCE, "slowest")
    losses = {readings.REFERENCE: 1.0, "slowest": 2.0, "short": 1.5, "far": 3.0, "good": 0.9}
    entries = {}
    for arm, loss in losses.items():
        for seed in range(2):
            entries[arm, seed] = Entry(arm, seed, {}, {"loss": loss}, 1.0, {})

    class Runs:
        record = Record("E2", "curves", "tiny", entries=entries)
        seeds = (0, 1)
        shown_in = ""

        def has(self, arm):
            return arm in losses

    own = {readings.SMALLER: rates, "a": ("short",), "b": ("far",), "c": ("good",)}
    said = lines.exceptions_line(Runs(), own, ["a", "b", "c"])
    assert said.endswith("compared: a 2 and 0; b 2 and 2; c 0 and 0.")
    assert lines.exceptions_line(Runs(), {**own, "d": ("not run",)}, ["d"]) == ""


def test_the_explorer_prices_forgetting():
    """At price 0.1: low 1.4, mid 2.1, bad 2.4. At 0.5: low 3, mid 2.5, bad 3.25 in three seeds and
    2.25 in the last: mid on average, and in three of four by itself.
    """
    own = {"one": ("mid", "low"), "other": ("bad",)}
    explorer = frontier.FrontierExplorer(Recorded(), own)
    assert explorer.best(0.1) == ("low", 4)
    assert explorer.best(0.5) == ("mid", 3)
    before = explorer.headline.value
    explorer.controls["price"].value = 0.1
    assert explorer.headline.value != before
    explorer.controls["method"].value = "other"
    assert len(explorer.draw(**explorer.values).axes) == 1


# --- experiments ----------------------------------------------------------------------------------
@pytest.mark.parametrize("profile", [TINY, POCKET], ids=lambda p: p.name)
def test_every_method_has_as_many_settings(profile):
    """Four each, of as many steps; but for LoRA at the best rate or shares of it."""
    arms = experiments.curve_arms(profile)
    for curve in readings.CURVES.values():
        assert len(set(curve)) == 4
    for curve in (*readings.CURVES.values(), *readings.CONTROLS.values()):
        assert set(curve) <= set(arms)
    assert len({(arm["steps"], arm["batch"]) for arm in arms.values()}) == 1
    best = experiments.best_rate(profile, trials.FULL)
    for name, arm in arms.items():
        if arm["method"] == trials.FULL:
            share = float(name.partition("rate × ")[2] or 1)
            assert arm["lr"] == pytest.approx(share * best), name


def test_controls_differ_in_the_one_thing():
    arms = experiments.curve_arms(TINY)
    shuffled = arms[readings.shuffled_arm(readings.MOST)]
    assert shuffled == {**arms[readings.replay_arm(readings.MOST)], "shuffle": True}
    for weight in settings.WEIGHTS:
        flat = arms[readings.flat_arm(weight, settings.HALF)]
        assert flat == {**arms[readings.ewc_arm(weight, settings.HALF)], "is_flat": True}


def test_sweeps_take_other_seeds_than_comparisons():
    assert max(e.seeds for e in experiments.EXPERIMENTS) < trials.SWEEP_SEED


def test_letters_of_claims():
    class Decided:
        def outcome(self, claim):
            return {"x": "below", "y": "none", "z": "above"}[claim]

    assert lines.letters(Decided(), ["x", "y", "z"]) == "abc"


def test_the_schematic_is_drawn():
    assert len(draw_forgetting().axes) == 2
