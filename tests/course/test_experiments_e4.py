"""What the experiments of lab E4 take for granted: exact toys, a student that is part of its base,
teachers that stand in for another, divergences along answers, rows that a student has not read.
"""

import copy
import dataclasses
import math

import numpy as np
import pytest
import torch
from conftest import llama

import ftlib as ft
from ftlib.batches.collate import SFTCollator, sequence
from ftlib.core.profiles import get_profile
from ftlib.course.lab_e4 import (
    experiments,
    lines,
    measures,
    models,
    names,
    served,
    settings,
    toy,
    trials,
)
from ftlib.course.lab_e4.bytes_per_token import LLAMA_1B, bytes_per_token
from ftlib.course.lab_e4.divergence_explorer import DivergenceExplorer, draw_divergences
from ftlib.course.lab_e4.forward_kl import forward_kl
from ftlib.course.lab_e4.generalised_jsd import generalised_jsd
from ftlib.course.lab_e4.independent_student import independent_student
from ftlib.course.lab_e4.reverse_kl_gradient import reverse_kl_gradient
from ftlib.course.lab_e4.schematic import draw_distillation
from ftlib.course.lab_e4.teachers import Remembering, Shuffled, shuffled_below_the_top
from ftlib.course.records import shown
from ftlib.course.records.experiment import find_experiment
from ftlib.course.records.live import Result
from ftlib.course.records.store import Entry, Record

TINY = get_profile("tiny")
POCKET = get_profile("pocket")
F64 = torch.float64


def draw(positions=5, vocabulary=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (positions, vocabulary)
    return [2 * torch.randn(shape, generator=generator, dtype=F64) for _ in range(2)]


def as_batch(*logits):
    """Logits (N, V) as a row of N + 1 positions, and labels that score the first N."""
    padded = [torch.cat([rows, rows[:1]])[None] for rows in logits]
    return *padded, torch.zeros(1, len(logits[0]) + 1, dtype=torch.long)


# --- the exercises' references are ftlib's --------------------------------------------------------
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_forward_kl_is_ftlib_s(temperature):
    student, teacher = draw()
    want = ft.distillation_loss(*as_batch(student, teacher), temperature)
    torch.testing.assert_close(forward_kl(student, teacher, temperature), want)


def test_the_middle_of_the_jsd_is_ftlib_s():
    student, teacher = draw()
    want = ft.distillation_loss(*as_batch(student, teacher), divergence="jsd")
    torch.testing.assert_close(generalised_jsd(student, teacher, 0.5).mean(), want)


@pytest.mark.parametrize("beta", [0.1, 0.5, 0.8])
def test_the_generalised_jsd_is_trls(beta):
    theirs = pytest.importorskip("trl.experimental.gkd").GKDTrainer.generalized_jsd_loss
    student, teacher = draw()
    want = theirs(student[None], teacher[None], beta=beta, reduction="sum")
    torch.testing.assert_close(generalised_jsd(student, teacher, beta).sum(), want)


def test_the_reverse_kl_s_gradient_is_autograd_s():
    student, teacher = draw()
    student.requires_grad_()
    batch = as_batch(student, teacher)
    (len(student) * ft.distillation_loss(*batch, divergence="reverse_kl")).backward()
    torch.testing.assert_close(student.grad, reverse_kl_gradient(student.detach(), teacher))


def test_bytes_of_a_token_by_hand():
    """Llama-3.2-1B, a layer: q, o 2·2048² and k, v 2·512·2048 and the MLP 3·2048·8192 = 60,817,408;
    16 of them and the head 128,256·2,048 = 262,668,288: 1,235,746,816 numbers, two bytes each. A
    token in the cache: 2·16·8·64 numbers, two bytes each.
    """
    assert bytes_per_token(LLAMA_1B, 0, 2.0) == 2 * 1_235_746_816
    assert bytes_per_token(LLAMA_1B, 10, 0.0) == 10 * 2 * 16 * 8 * 64 * 2


# --- the toys -------------------------------------------------------------------------------------
def test_the_forward_student_of_two_words_by_hand():
    """Even margins: a quarter for each pair, ln 2 − H(ε) from the teacher, its words' mutual
    information; the search finds what the exercise writes down.
    """
    mixed = 0.02
    teacher = toy.two_words(mixed)
    student, apart = toy.best_independent(teacher, 0.0)
    entropy = -mixed * math.log(mixed) - (1 - mixed) * math.log(1 - mixed)
    assert apart == pytest.approx(math.log(2) - entropy, rel=1e-9)
    assert np.allclose(student, 0.25)
    assert np.allclose(independent_student(torch.tensor(teacher)), student)


def test_the_reverse_student_of_two_words_gives_one_answer_up():
    """Of a teacher that never mixes it says BB alone (or AA): −ln ½ from it. With ε above 1/2 the
    pairs AB and BA are the modes.
    """
    student, apart = toy.best_independent(toy.two_words(0.0), 1.0)
    assert apart == pytest.approx(math.log(2), rel=1e-6)
    assert sorted(student.ravel()) == pytest.approx([0, 0, 0, 1])
    mixing, _ = toy.best_independent(toy.two_words(0.99), 1.0)
    assert max(mixing[0, 1], mixing[1, 0]) > 0.95


@pytest.mark.parametrize("beta, ends", [(1e-6, "forward"), (1 - 1e-6, "reverse")])
def test_the_divergence_s_ends(beta, ends):
    """D/β goes to KL(p‖q) as β → 0, D/(1−β) to KL(q‖p) as β → 1; at ½ it is at most ln 2."""
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    small = min(beta, 1 - beta)
    want = toy.divergence(p, q, 0.0 if ends == "forward" else 1.0)
    assert toy.divergence(p, q, beta) / small == pytest.approx(want, rel=1e-4)
    sure = np.eye(2)
    assert toy.divergence(sure[0], sure[1], 0.5) == pytest.approx(math.log(2))


def test_bumps_are_covered_or_sought():
    teacher = toy.two_bumps(6.0, 0.45)
    forward = toy.best_bump(teacher, 0.0)
    reverse = toy.best_bump(teacher, 1.0)
    mean = (teacher * toy.SPOTS).sum()
    spread = math.sqrt((teacher * toy.SPOTS**2).sum() - mean**2)
    assert forward.centre == pytest.approx(mean, abs=0.2)  # the forward KL matches moments
    assert forward.width == pytest.approx(spread, rel=0.1)
    assert reverse.centre == pytest.approx(3.0, abs=0.2) and reverse.width < 1
    assert toy.covered(teacher, forward.student) > 0.99 > toy.covered(teacher, reverse.student)
    assert (
        toy.unheard_of(teacher, reverse.student) < 0.01 < toy.unheard_of(teacher, forward.student)
    )


# --- the student ----------------------------------------------------------------------------------
def test_a_student_is_some_of_its_base_s_layers(ids):
    """All layers kept, it is the base; without the last, the base cut there."""
    base = llama(layers=3)
    whole = models.keep_layers(base, (0, 1, 2))
    assert torch.equal(whole(ids).logits, base(ids).logits)
    student = models.keep_layers(base, (0, 2))
    cut = copy.deepcopy(base)
    del cut.model.layers[1]
    cut.config.num_hidden_layers = 2
    cut.model.layers[1].self_attn.layer_idx = 1
    assert torch.allclose(student(ids).logits, cut(ids, use_cache=False).logits, atol=1e-6)
    assert len(student.model.layers) == 2 and student.config.num_hidden_layers == 2
    with torch.no_grad():
        student.model.layers[0].self_attn.q_proj.weight.zero_()
    assert base.model.layers[0].self_attn.q_proj.weight.any()


@pytest.mark.parametrize("keep", [(), (3,), (-1,)])
def test_layers_that_are_not_there_are_named(keep):
    with pytest.raises(ValueError, match="numbers from 0 to 2 are needed"):
        models.keep_layers(llama(layers=3), keep)


def test_a_student_is_measured_on_rows_that_it_has_not_read():
    """About its own people; and what all students read before is about others."""
    warm = {row["key"] for row in models.warm_rows(TINY)}
    for seed in (0, 3):
        read = models.student_rows(TINY, seed)
        asked = models.test_rows(TINY, seed)
        people = {row["key"] for row in asked}
        assert len(people) == len(asked) == settings.TINY.people
        assert {row["key"] for row in read} == people and not people & warm
        questions = {row["messages"][0]["content"] for row in read}
        assert not questions & {row["messages"][0]["content"] for row in asked}
    assert models.student_rows(TINY, 0) != models.student_rows(TINY, 3)


def test_in_pocket_a_student_is_measured_on_messages_that_it_has_not_read():
    warm = {row["key"] for row in models.warm_rows(POCKET)}
    assert len(warm) == len(models.pool_of(POCKET)) / 2
    for seed in (0, 3):
        read = {row["key"] for row in models.student_rows(POCKET, seed)}
        asked = {row["key"] for row in models.test_rows(POCKET, seed)}
        assert len(read) == len(asked) == settings.POCKET.rows
        assert not read & warm and not asked & (read | warm)
    assert models.student_rows(POCKET, 0) != models.student_rows(POCKET, 3)


def test_layers_that_a_student_keeps():
    """Those named; or two of every three and the last; or all of a smaller model."""
    assert models.kept_layers(TINY, 4) == settings.TINY.keep
    assert models.kept_layers(POCKET, 7) == (0, 1, 3, 4, 6)
    assert models.kept_layers(POCKET, 30)[-3:] == (25, 27, 29)
    smaller = dataclasses.replace(POCKET.study, model="a smaller one")
    assert models.kept_layers(dataclasses.replace(POCKET, study=smaller), 3) == (0, 1, 2)


# --- teachers -------------------------------------------------------------------------------------
def test_a_shuffled_teacher_keeps_its_top_and_its_confidence():
    """By hand: logits 3 1 2 0 in the order 1 2 3 0 are 1 2 0 3; the 3 goes back to place 0, what
    was dealt there, 1, to place 3.
    """
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0]])
    order = torch.tensor([1, 2, 3, 0])
    assert shuffled_below_the_top(logits, order).tolist() == [[3.0, 2.0, 0.0, 1.0]]
    drawn = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    dealt = shuffled_below_the_top(drawn, torch.randperm(50))
    assert torch.equal(dealt.argmax(-1), drawn.argmax(-1))
    assert torch.equal(dealt.sort(-1).values, drawn.sort(-1).values)


def test_a_remembering_teacher_says_the_same_and_is_asked_once(monkeypatch):
    """Padded, in another company, and again: the logits where there is text are the teacher's."""
    teacher = llama().eval()
    rows = [sequence([5, 6, 7], [8, 9]), sequence([5, 6], [7]), sequence([4, 4, 4, 4], [3])]
    one = SFTCollator(0)(rows[:2])
    other = SFTCollator(0)([rows[1], rows[2]])
    again = SFTCollator(0)([rows[2], rows[0]])
    remembering = Remembering(teacher)
    calls = []
    asked = teacher.forward
    monkeypatch.setattr(teacher, "forward", lambda **rest: calls.append(1) or asked(**rest))
    for batch in (one, other, again):
        tokens = {name: batch[name] for name in ("input_ids", "attention_mask")}
        want = asked(**tokens).logits
        with torch.no_grad():
            have = remembering(**tokens).logits
        real = batch["attention_mask"].bool()
        torch.testing.assert_close(have[real], want[real], atol=1e-5, rtol=0)
    assert len(calls) == 2
    shuffled = Shuffled(teacher)
    assert shuffled.get_output_embeddings() is teacher.get_output_embeddings()


# --- measures -------------------------------------------------------------------------------------
def test_divergences_along_answers_by_hand(tokenizer):
    """A row at a time, without padding, in fp64."""
    one, other = llama(seed=1, initializer_range=0.3), llama(seed=2, initializer_range=0.3)
    drawn = measures.Drawn([[5, 6, 7], [8, 9]], [[10, 11], [12]])
    p, q = (measures.logps_along(model, tokenizer, drawn) for model in (one, other))
    wanted = []
    for prompt, answer in zip(drawn.prompts, drawn.answers, strict=True):
        ids = torch.tensor([prompt + answer])
        span = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
        with torch.no_grad():
            there = [m(ids).logits[0, span].double().log_softmax(-1) for m in (one, other)]
        wanted.append((there[0].exp() * (there[0] - there[1])).sum(-1))
    assert measures.kl(p, q) == pytest.approx(torch.cat(wanted).mean().item(), rel=1e-4)
    assert measures.kl(p, p) == 0
    even = torch.full((3, 4), 0.25, dtype=F64).log()
    assert measures.entropy(even) == pytest.approx(math.log(4))


def test_manners_by_hand():
    said = ["Go home. X.", "With pleasure. Y.", "Not again. Z.", "Well."]
    assert measures.manners(said) == {"clear": 0.75, "polite": pytest.approx(1 / 3)}
    assert measures.manners(["Well."]) == {"clear": 0.0, "polite": 0.5}


# --- arms, figures --------------------------------------------------------------------------------
def test_every_student_has_as_many_rates_and_its_own():
    arms = experiments.rate_arms(TINY)
    assert len(arms) == len(names.GIVEN) * len(experiments.FACTORS)
    chosen = experiments.student_arms(TINY)
    assert tuple(chosen) == names.ARMS
    assert chosen[names.FORWARD_AT_ROWS]["lr"] == chosen[names.ROWS_ALONE]["lr"]
    assert chosen[names.REVERSE_OWN]["lr"] == chosen[names.REVERSE]["lr"]
    for student, given in chosen.items():
        assert given["lr"] in experiments.rates_of(TINY, student)
        assert (given["on_policy"] > 0) == student.endswith(names.OWN)


def test_second_phases_differ_in_what_follows_alone():
    """The first phase is everyone's, by the forward KL at its best rate."""
    arms = experiments.phase_arms(TINY)
    assert tuple(arms) == names.PHASES
    for given in arms.values():
        assert given["first_lr"] == experiments.best_rate(TINY, names.FORWARD)
    assert [given["objective"] for given in arms.values()] == [names.FORWARD, names.REVERSE]
    assert len(experiments.phase_rate_arms(TINY)) == 2 * len(experiments.PHASE_FACTORS)


def test_an_objective_that_the_lab_does_not_have_is_refused():
    with pytest.raises(ValueError, match="objective='KL'"):
        trials.loss_options("KL", forward_kl, generalised_jsd)


def test_the_figures_draw():
    assert len(draw_distillation().axes) == 3 and len(draw_divergences().axes) == 3
    explorer = DivergenceExplorer()
    text = explorer.describe(beta=1.0, distance=6.0, left=0.45)
    assert text.startswith("reverse KL: centre 3.0") and "0% of the student is unheard of" in text
    assert explorer.describe(beta=0.3, distance=2.0, left=0.5).startswith(
        "generalised JSD, β = 0.3"
    )


# --- what is said ---------------------------------------------------------------------------------
def result_of(name, metrics_of, seeds=5):
    """A result whose entry of an arm and seed has these metrics."""
    experiment = find_experiment("E4", name)
    record = Record("E4", name, "tiny")
    for arm, given in experiment.arms(TINY).items():
        for seed in range(seeds):
            metrics = metrics_of(arm, seed)
            record.entries[arm, seed] = Entry(arm, seed, dict(given), metrics, 1.0, {})
    return Result(experiment, TINY, record, {}, True, "", 0.0)


def test_lines_of_the_students():
    """Forward KL 0.2 below rows alone in every seed, all else alike but for a little noise."""

    def metrics_of(arm, seed):
        noise = 0.001 * np.random.default_rng([seed, *arm.encode()]).normal()
        value = 1.0 - 0.2 * (arm == names.FORWARD) + noise
        metrics = ("loss", "forward", "reverse", "entropy", "surprise", "clear", "polite")
        return dict.fromkeys(metrics, value)

    result = result_of("students", metrics_of)
    assert lines.letters(result, ["gain", "answers", "covers"]) == "abc"
    said = lines.conclusions(result, ["gain"])
    assert said.startswith("- **test loss, forward KL − rows alone: -0.")
    table = lines.students_table(result)
    assert [row["student"] for row in table] == list(names.ARMS)
    assert table[2]["test loss"].startswith(("0.80", "0.79")) and table[0]["in a manner"] == "100%"
    assert len(lines.draw_plane(result).axes[0].get_legend().get_texts()) == len(names.ARMS)


def test_the_smallest_difference_that_seeds_could_show():
    """Forward KL minus rows alone is -2, -1, 0, 1, 2 over five seeds: s = √2.5, s/√5 = 0.7071; with
    4 degrees of freedom t is 2.776 at 95%, so ±1.96, and 6.015 at 1 - 0.05/13 for
    the 13 claims of the experiment, so ±4.25.
    """

    def metrics_of(arm, seed):
        value = seed - 2.0 if arm == names.FORWARD else 0.0
        metrics = ("loss", "forward", "reverse", "entropy", "surprise", "clear", "polite")
        return dict.fromkeys(metrics, value)

    (row,) = lines.smallest_table(result_of("students", metrics_of), ["gain"])
    assert row["difference"] == "+0" and row["difference shown"] == "no"
    assert row["smallest, alone"] == "±2" and row["smallest, by Holm at most"] == "±4.3"


def test_a_rate_at_the_grid_s_edge_is_named():
    """The reverse KL is judged by itself, the others by the loss: here the loss falls with the
    rate, the reverse KL is least in the middle.
    """
    middle = settings.TINY.rate

    def metrics_of(arm, seed):
        rate = experiments.rate_arms(TINY)[arm]["lr"]
        return {"loss": -rate, "reverse": abs(rate - middle)}

    series = {name: experiments.rates_of(TINY, name) for name in names.GIVEN}
    measures = {name: experiments.measure_of(name) for name in names.GIVEN}
    swept = result_of("rates", metrics_of, seeds=1)
    said = shown.grid_line(swept, series, measures).split("; ")
    highest = max(experiments.FACTORS) * middle
    assert said[0] == f"rows alone {-highest:.3f} at {highest:.2g}, **at the grid's edge**"
    assert said[-1] == f"reverse KL 0.000 at {middle:.2g}"


def test_files_are_held_against_the_first(tmp_path):
    path = tmp_path / "a"
    files = {
        "large": served.File(path, 8_000_000, np.array([100.0, 120.0, 110.0])),
        "small": served.File(path, 2_000_000, np.array([220.0])),
        "silent": served.File(path, 4_000_000, np.array([])),
    }
    rows = served.files_table(files)
    assert [row["of the first"] for row in rows] == ["100%", "25%", "50%"]
    assert [row["times the first"] for row in rows] == ["1.00", "2.00", "–"]
    assert rows[0]["MB"] == "8.00" and rows[2]["tokens per second"] == "not run"
