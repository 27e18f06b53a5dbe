"""What `check` asks of an answer beyond its values, and what it says of one that is wrong."""

import ast
import functools
import json
import math
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ftlib.course.allocation import holds_product
from ftlib.course.catalogue import MODULES, lab_files
from ftlib.course.comparing import changed, difference, dtype_difference
from ftlib.course.exercise import Exercise, Grade, Lab, Wrong, judge, load_lab

EXERCISES = {e.name: e for number in MODULES for e in load_lab(number).exercises}
TRAINED = [e for e in EXERCISES.values() if e.gradient_of]


def exercise_of(reference, cases, **fields):
    """An exercise whose reference and cases are given."""
    return Exercise(
        name=reference.__name__,
        title="A title",
        minutes=1,
        difficulty=1,
        reference=reference,
        cases=lambda g: cases,
        wrong=(),
        hints=("One.", "Two."),
        **fields,
    )


def first_case(name):
    return next(iter(EXERCISES[name].cases(torch.Generator().manual_seed(0))))


# --- gradients ------------------------------------------------------------------------------------
def test_what_trains_is_checked_through_its_gradient():
    """Losses, forward passes and what they are made of, by name; exercises of an instructor's own
    may be more.
    """
    assert {e.name for e in TRAINED} >= {
        "lora_forward",
        "dora_forward",
        "noise_hook",
        "sft_loss",
        "qlora_forward",
        "completion_logp",
        "implicit_reward",
        "preference_loss",
        "mean_logps",
        "simpo_loss",
        "log1mexp",
        "log_odds_ratio",
        "orpo_loss",
        "binary_loss",
    }


@pytest.mark.parametrize("exercise", TRAINED, ids=[e.name for e in TRAINED])
def test_a_detached_result_is_named(exercise):
    verdict = judge(exercise, lambda *args, **named: exercise.reference(*args, **named).detach())
    assert verdict.status == "wrong"
    assert "no gradient reaches" in verdict.message
    assert all(f"`{name}`" in verdict.message for name in exercise.gradient_of)


@pytest.mark.parametrize("exercise", TRAINED, ids=[e.name for e in TRAINED])
def test_a_result_made_anew_of_numbers_is_named(exercise):
    def made_anew(*args, **named):
        return torch.tensor(exercise.reference(*args, **named).tolist())

    verdict = judge(exercise, made_anew)
    assert verdict.status == "wrong" and "no gradient reaches" in verdict.message


def test_one_argument_that_is_detached_is_named_alone():
    def rejected_detached(chosen, rejected, label_smoothing=0.0):
        z = chosen - rejected.detach()
        return -(1 - label_smoothing) * F.logsigmoid(z) - label_smoothing * F.logsigmoid(-z)

    message = judge(EXERCISES["preference_loss"], rejected_detached).message
    assert "no gradient reaches `rejected_rewards`:" in message


def test_a_loss_as_a_python_number_is_told_why_it_cannot_train():
    def as_float(logits, labels):
        return EXERCISES["sft_loss"].reference(logits, labels).item()

    message = judge(EXERCISES["sft_loss"], as_float).message
    assert message.startswith("it returns a float, and no gradient comes out of a number")


def test_numpy_inside_a_loss_is_told_by_what_it_raises_in_training():
    def with_numpy(chosen, rejected, beta, gamma):
        z = beta * (chosen - rejected).numpy() - gamma
        return torch.from_numpy(np.logaddexp(np.float32(0), -z))

    message = judge(EXERCISES["simpo_loss"], with_numpy).message
    assert "with `chosen` and `rejected` requiring grad, as in training" in message
    assert "RuntimeError" in message


def test_a_gradient_that_differs_is_shown():
    """The straight-through trick gives the value of x² and the slope of x."""

    def square(x):
        return x * x

    exercise = exercise_of(square, [(torch.tensor([3.0, 0.5]),)], gradient_of=("x",))
    verdict = judge(exercise, lambda x: x + (x * x - x).detach())
    assert verdict.status == "wrong"
    assert "the gradient of `x` is not: values differ by up to" in verdict.message
    assert judge(exercise, lambda x: x.pow(2)).status == "right"


def test_the_gradient_through_doras_norm_keeps_its_own_sentence():
    def through(x, W, b, A, B, m, s):
        s2 = s * s
        square = W.square().sum(1) + 2 * s * (B * (W @ A.T)).sum(1)
        norm = (square + s2 * ((B @ (A @ A.T)) * B).sum(1)).sqrt()
        y = (F.linear(x, W) + s * F.linear(F.linear(x, A), B)) * (m / norm)
        return y if b is None else y + b

    message = judge(EXERCISES["dora_forward"], through).message
    assert "gradients flow through the norm" in message


def test_judging_under_no_grad_and_inference_mode_is_the_same():
    exercise = EXERCISES["sft_loss"]
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            assert judge(exercise, exercise.reference).status == "right"
            assert judge(exercise, lambda *a: exercise.reference(*a).detach()).status == "wrong"


# --- arguments ------------------------------------------------------------------------------------
def total(values):
    """The sum of a list, a tensor or a mapping's values."""
    return sum(values.values() if isinstance(values, dict) else values)


def _sorted_in_place(values):
    values.sort()
    return total(values)


def _popped(values):
    return sum(values.pop(key) for key in list(values))


def _doubled_in_place(values):
    return total(values.mul_(2)) / 2


@pytest.mark.parametrize(
    "argument, answer",
    [
        ([3, 1, 2], _sorted_in_place),
        ({"a": 1, "b": 2}, _popped),
        (torch.tensor([1.0, 2.0]), _doubled_in_place),
    ],
    ids=["list.sort", "dict.pop", "mul_"],
)
def test_an_argument_that_is_changed_in_place_is_named(argument, answer):
    exercise = exercise_of(total, [(argument,)])
    verdict = judge(exercise, answer)
    assert verdict.status == "wrong"
    assert "changes its argument `values` in place" in verdict.message
    assert judge(exercise, total).status == "right"


def test_a_weight_merged_in_place_is_not_accepted():
    def into_the_weight(W, A, B, s):
        return W.add_((s * B @ A).to(W.dtype)) if W.dtype == A.dtype else merged(W, A, B, s)

    merged = EXERCISES["merge_weights"].reference
    message = judge(EXERCISES["merge_weights"], into_the_weight).message
    assert "changes its argument `weight` in place" in message


def test_a_wrong_answer_that_changes_its_argument_is_told_both():
    exercise = exercise_of(total, [([3, 1, 2],)])
    message = judge(exercise, lambda values: values.pop()).message
    assert "it returns 2, 6 is wanted; and it changes `values` in place" in message


def test_modules_and_nested_containers_are_compared():
    layer = torch.nn.Linear(2, 2)
    other = torch.nn.Linear(2, 2)
    other.load_state_dict(layer.state_dict())
    assert not changed(layer, other)
    assert changed(layer, other.eval())
    assert changed(layer, other.train().requires_grad_(False))
    assert changed([{"a": [1]}], [{"a": [2]}]) and not changed([{"a": [1]}], [{"a": [1]}])
    assert changed({"a": 1, "b": 2}, {"b": 2, "a": 1})
    assert not changed([math.nan, torch.tensor(math.nan)], [math.nan, torch.tensor(math.nan)])


# --- what is allocated ----------------------------------------------------------------------------
def _by_einsum(W, A, B, s):
    return (W + s * torch.einsum("or,ri->oi", B, A)).norm(dim=1)


def _by_expanding(W, A, B, s):
    update = (B.T[:, :, None].expand(-1, -1, W.shape[1]) * A[:, None]).sum(0)
    return (W + s * update).norm(dim=1)


def _by_outer_products(W, A, B, s):
    V = W.clone()
    for column, row in zip(B.T, A, strict=True):
        V += s * torch.outer(column, row)
    return V.norm(dim=1)


def _by_a_list_of_rows(W, A, B, s):
    rows = [w + s * (b @ A) for w, b in zip(W, B, strict=True)]
    return torch.tensor([float(row.norm()) for row in rows])


def _by_addmm(W, A, B, s):
    return W.clone().addmm_(B, A, alpha=s).norm(dim=1)


def _row_by_row(W, A, B, s):
    return torch.stack([(w + s * (b @ A)).norm() for w, b in zip(W, B, strict=True)])


def _by_numpy(W, A, B, s):
    V = W.numpy() + s * B.numpy() @ A.numpy()
    return torch.from_numpy(np.linalg.norm(V, axis=1))


@pytest.mark.parametrize(
    "answer",
    [_by_einsum, _by_expanding, _by_outer_products, _by_a_list_of_rows, _by_addmm],
    ids=lambda f: f.__name__,
)
def test_the_product_is_seen_however_it_is_made(answer):
    verdict = judge(EXERCISES["dora_norm"], answer)
    assert verdict.status == "wrong" and "you built an out × in tensor" in verdict.message


def test_rows_that_are_not_kept_are_no_product():
    verdict = judge(EXERCISES["dora_norm"], _row_by_row)
    assert verdict.status == "right" and "BA was never made" in verdict.message


def test_what_numpy_allocates_is_not_praised():
    verdict = judge(EXERCISES["dora_norm"], _by_numpy)
    assert verdict.status == "right"
    assert "not measured" in verdict.message and "never made" not in verdict.message


@pytest.mark.parametrize("name", ["numpy", "tolist", "item"])
def test_ways_out_of_torch_are_noticed(name):
    def leaves(A, B):
        return getattr(A[:1, :1] if name == "item" else A, name)()

    assert holds_product(leaves, (torch.ones(2, 50), torch.ones(50, 2)), (0, 1)) is None


def test_copies_of_the_weight_are_no_product():
    """W transposed, in fp64 or copied is as large as the product, and is not made from A and B."""

    def contiguous(x, W, b, A, B, s):
        y = x @ W.T.contiguous() + s * (x @ A.T.contiguous()) @ B.T.contiguous()
        return y if b is None else y + b

    def in_float64(x, W, b, A, B, s):
        base = F.linear(x.double(), W.double(), None if b is None else b.double())
        return (base + s * (x.double() @ A.double().T) @ B.double().T).to(x.dtype)

    for answer in (contiguous, in_float64):
        verdict = judge(EXERCISES["lora_forward"], answer)
        assert verdict.status == "right", verdict
        assert "no out × in tensor was made" in verdict.message


def test_forward_passes_with_the_merged_weight_are_seen():
    def merged_first(x, W, b, A, B, s):
        return F.linear(x, W + s * torch.einsum("or,ri->oi", B, A), b)

    assert "you built an out × in tensor" in judge(EXERCISES["lora_forward"], merged_first).message


def test_a_weight_with_its_rows_scaled_is_told_to_scale_the_output():
    """It holds no BA, and is as large."""

    def scaled_rows(x, W, b, A, B, m, s):
        with torch.no_grad():
            norm = EXERCISES["dora_norm"].reference(W, A, B, s)
        scale = m / norm
        y = F.linear(x, W * scale[:, None]) + scale * s * F.linear(F.linear(x, A), B)
        return y if b is None else y + b

    message = judge(EXERCISES["dora_forward"], scaled_rows).message
    assert "W with its rows scaled): scale the *output*" in message


# --- dtypes, integers, calls ----------------------------------------------------------------------
WIDENED = {
    "pack_codes": (None, torch.int64),
    "normal_levels": (None, torch.float64),
    "merge_weights": (None, torch.float32),
    "merge_dora": (None, torch.float64),
    "merge_weight": (None, torch.float64),
    "minhash_signature": (None, torch.float64),
    "q8_0_blocks": (1, torch.float32),
    "quantize_blocks": (0, torch.float32),
    "pad_batch": ("labels", torch.float32),
}


@pytest.mark.parametrize("name", WIDENED)
def test_a_dtype_that_was_asked_for_is_compared(name):
    """The right values in another dtype."""
    exercise = EXERCISES[name]
    part, dtype = WIDENED[name]

    def widened(*args):
        result = exercise.reference(*args)
        if part is None:
            return result.to(dtype)
        parts = dict(result) if isinstance(result, dict) else list(result)
        parts[part] = parts[part].to(dtype)
        return parts

    verdict = judge(exercise, widened)
    assert verdict.status == "wrong" and "The values are right, but" in verdict.message
    assert str(dtype) in verdict.message


@pytest.mark.parametrize("name", ["group_of", "pack_rows", "early_stop", "build_labels"])
def test_floats_are_no_indices(name):
    exercise = EXERCISES[name]

    def as_floats(value):
        if isinstance(value, dict):
            return {key: as_floats(v) for key, v in value.items()}
        return [as_floats(v) for v in value] if isinstance(value, (list, tuple)) else float(value)

    verdict = judge(exercise, lambda *args: as_floats(exercise.reference(*args)))
    assert verdict.status == "wrong" and "an integer is asked for" in verdict.message


def test_uint8_codes_do_not_index():
    """PyTorch takes a uint8 tensor between brackets for a mask."""
    codes = torch.zeros(3, dtype=torch.uint8)
    assert "cannot index" in dtype_difference((codes,), (codes.long(),), {0: "index"})
    assert dtype_difference((codes.int(),), (codes.long(),), {0: "index"}) is None


def test_integers_are_equal_only_if_they_are_the_same():
    """One in ten million is less than the tolerance of floating-point numbers."""
    assert difference(10_000_001, 10_000_000, 1e-5) == "it returns 10000001, 10000000 is wanted"
    assert difference(2**60 + 1, 2**60, 1e-5) and difference(2**60, 2**60, 0.0) is None
    assert difference(torch.tensor([10**7 + 1]), torch.tensor([10**7]), 1e-5)
    assert difference(4000.0, 4000, 1e-5) is None and difference(np.int64(7), 7, 1e-5) is None


def test_a_default_that_is_lost_or_another_is_named():
    scaling = EXERCISES["lora_scaling"]

    def no_default(alpha, r, use_rslora):
        return alpha / (math.sqrt(r) if use_rslora else r)

    def other_default(alpha, r, use_rslora=True):
        return no_default(alpha, r, use_rslora)

    for answer in (no_default, other_default):
        message = judge(scaling, answer).message
        assert "without `use_rslora`" in message and "`use_rslora=False`" in message


def test_a_renamed_parameter_that_the_lab_passes_by_name_is_named():
    def renamed(chosen, rejected, lambda_):
        return EXERCISES["orpo_loss"].reference(chosen, rejected, lambda_)

    message = judge(EXERCISES["orpo_loss"], renamed).message
    assert "calls it with `lam` by keyword" in message


def _code_of(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if cell["cell_type"] == "code":
            yield ast.parse("".join(cell["source"]))


@pytest.mark.parametrize("number", MODULES)
def test_the_labs_own_calls_are_what_is_asked_for(number):
    """Every keyword of a call in the notebook and every default of a stub is in the exercise."""
    (path,) = lab_files([number])
    exercises = {e.name: e for e in load_lab(number).exercises}
    for tree in _code_of(path):
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in exercises:
                by_name = {keyword.arg for keyword in node.keywords}
                assert by_name <= set(exercises[node.func.id].keywords), ast.unparse(node)
            if isinstance(node, ast.FunctionDef) and node.name in exercises:
                with_default = node.args.args[len(node.args.args) - len(node.args.defaults) :]
                stubs = {argument.arg for argument in with_default}
                assert stubs == set(exercises[node.name].defaults), node.name


# --- whatever is handed in ------------------------------------------------------------------------
def double(x):
    """Twice x."""
    return 2 * x


DOUBLE = exercise_of(double, [(torch.tensor([1.0, -2.0]),), (torch.ones(2),)])


class Doubler:
    """An answer that is an object."""

    def __call__(self, x):
        return x + x


def _times(factor, x):
    return factor * x


def _check_cell(answer):
    """Run a check cell as a notebook does; what `double` is bound to afterwards."""
    names = {"check": Lab("3.1.1", [DOUBLE]).check, "double": answer}
    exec(compile("double = check(double)", "cell", "exec"), names)
    return names["double"]


@pytest.mark.parametrize(
    "answer", [lambda x: x + x, functools.partial(_times, 2), Doubler(), torch.nn.Identity()]
)
def test_lambdas_partials_and_objects_are_answers(answer, capsys):
    handed = _check_cell(answer)
    line = capsys.readouterr().out
    right = not isinstance(answer, torch.nn.Identity)
    assert line.startswith("✓ double:" if right else "✗ double:")
    assert handed is (answer if right else double)


def test_an_alias_is_judged_as_the_exercise_that_it_is_bound_to(capsys):
    """A function of another exercise's name, bound to this one's."""

    def triple(x):
        return 3 * x

    lab = Lab("3.1.1", [DOUBLE, exercise_of(triple, [(torch.ones(2),)])])
    names = {"check": lab.check, "double": triple, "triple": triple}
    exec(compile("double = check(double)", "cell", "exec"), names)
    line = capsys.readouterr().out
    assert line.startswith("✗ double: Your result is too much by `x`, everywhere: values")


def test_an_answer_without_any_name_gets_a_sentence(capsys, monkeypatch):
    check = Lab("3.1.1", [DOUBLE]).check
    answer = functools.partial(_times, 2)
    assert check(answer) is answer
    assert "has none of the names of this lab's exercises (double)" in capsys.readouterr().out
    monkeypatch.setenv("FTLIB_GRADING", "1")
    with pytest.raises(Grade, match="none of the names"):
        check(answer)


def _asserts(x):
    if x.dtype != torch.float64:
        raise AssertionError
    return 2 * x


def _exits(x):
    raise SystemExit(1)


class SilentError(Exception):
    """An error that cannot be shown."""

    def __str__(self):
        raise ValueError("no text")


def _raises_silently(x):
    raise SilentError


@pytest.mark.parametrize(
    "answer, words",
    [
        (_raises_silently, r"raises SilentError: line \d+, raise SilentError"),
        (lambda x: (2 * x).to_sparse(), "which cannot be compared with|values differ"),
        (lambda x: (2 * x).to("meta"), "cannot be compared"),
        (_asserts, r"raises AssertionError: line \d+, raise AssertionError"),
        (_exits, "raises SystemExit: 1"),
        (lambda x: (2 * x).numpy(), "it returns ndarray, a tensor is wanted"),
        (lambda x: {"a": x, 1: x}, "it returns dict, a tensor"),
        (lambda x: (v for v in x), "it returns generator, a tensor"),
        (lambda x: torch.complex(2 * x, x), "tensor .* complex64, real numbers are wanted"),
        (3, "it is 3, not a function"),
    ],
)
def test_whatever_an_answer_does_ends_in_a_message(answer, words):
    verdict = judge(DOUBLE, answer)
    assert verdict.status == "wrong" and re.search(words, verdict.message), verdict


def test_an_assertion_in_an_answer_that_the_property_calls_is_a_message():
    def only_a_batch_of_two(x):
        assert len(x) == 2, "two rows"
        return 2 * x

    exercise = exercise_of(
        double, [(torch.ones(2),)], property=lambda function: function(torch.ones(3)) and None
    )
    message = judge(exercise, only_a_batch_of_two).message
    assert "on another input it raises AssertionError: two rows" in message


def test_an_operation_that_torch_lacks_is_not_an_answer_that_is_not_written():
    def uses_meta(x):
        return torch.empty(2, device="meta").to("cpu") + x

    verdict = judge(DOUBLE, uses_meta)
    assert verdict.status == "wrong" and "raises NotImplementedError" in verdict.message


@pytest.mark.parametrize(
    "got, want, words",
    [
        ({1: 0, "a": 0}, {"a": 0}, "it returns .*keys"),
        ("1.0", 1.0, "the text '1.0', a number"),
        (torch.ones(3), [1, 1, 1], r"returns tensor \(3,\) float32, a list of 3 items"),
        (10**400, 1.0, "a number is wanted"),
        (np.array(["a"]), np.array([1.0]), "cannot be compared"),
    ],
    ids=str,
)
def test_results_of_other_kinds_are_described(got, want, words):
    assert re.search(words, difference(got, want, 1e-5))


def test_numpys_truth_values_are_truth_values():
    assert difference(np.True_, True, 0.0) is None
    assert difference(("x", np.False_), ("x", True), 0.0)


# --- right answers in other words -----------------------------------------------------------------
def test_leaks_in_any_order_are_found():
    reference = EXERCISES["find_leaks"].reference
    assert judge(EXERCISES["find_leaks"], lambda m: sorted(reference(m))).status == "right"
    assert judge(EXERCISES["find_leaks"], lambda m: set(reference(m))).status == "right"
    assert judge(EXERCISES["find_leaks"], lambda m: reference(m) * 2).status == "wrong"


def test_a_dicts_order_is_nothing():
    reference = EXERCISES["noise_sizes"].reference
    answer = lambda *a: dict(reversed(reference(*a).items()))  # noqa: E731 -- shown as it is
    assert judge(EXERCISES["noise_sizes"], answer).status == "right"


@pytest.mark.parametrize(
    "template",
    [
        "{{- range $i, $m := .Messages -}} <|{{ $m.Role }}|>{{ $m.Content }}<|end|>\n"
        "{{- end }}<|assistant|>",
        "{{ range .Messages -}}\n<|{{ .Role }}|>{{ .Content }}<|end|>{{ end }}<|assistant|>",
    ],
)
def test_templates_with_trimming_and_variables_are_right(template):
    verdict = judge(EXERCISES["ollama_prompt"], lambda render, talk: render(template, talk))
    assert verdict.status == "right", verdict


# --- messages -------------------------------------------------------------------------------------
def test_an_unknown_mistake_is_shown_with_input_and_both_results():
    exercise = exercise_of(double, [(torch.zeros(2),), (torch.tensor([1.0, -2.0]),)])
    message = judge(exercise, lambda x: x.abs() * 2).message
    assert message.splitlines() == [
        "Your result is wrong only where `x` is negative. It is right on 1 of 2 inputs: "
        "values differ by up to 8, at [1]: 4 came, -4 is wanted.",
        "    input 2 of 2: x = tensor (2,) float32 [1, -2]",
        "    yours:  tensor (2,) float32 [2, 4]",
        "    wanted: tensor (2,) float32 [2, -4]",
    ]


def test_a_grade_is_one_line(monkeypatch):
    monkeypatch.setenv("FTLIB_GRADING", "1")
    with pytest.raises(Grade) as grade:
        _check_cell(lambda x: x + 1)
    text = str(grade.value)
    assert "\n" not in text and "; input 1 of 2" in text and "; wanted: tensor" in text


def test_long_inputs_are_cut():
    exercise = exercise_of(total, [(list(range(5000)),)])
    message = judge(exercise, lambda values: 0).message
    assert len(message) < 500 and "12497500 is wanted" in message


def test_a_value_that_is_not_finite_is_shown_where_it_is():
    words = difference(torch.tensor([1.0, math.nan]), torch.tensor([1.5, 2.0]), 1e-5)
    assert words == "values differ at [1]: nan came, 2 is wanted"
    assert "at [0, 1]: inf came" in difference(
        torch.tensor([[0.0, math.inf]]), torch.zeros(1, 2), 1e-5
    )


def test_a_result_of_as_many_items_is_not_said_to_have_another_number():
    """A set, a dict and a text of two are no pair; a pair with a NaN has no largest difference."""
    for two in ({1.0, 2.0}, {"a": 1, "b": 2}, "ab", torch.ones(2)):
        assert "2 items" not in difference(two, (1.0, 2.0), 1e-5).partition("a tuple")[0]
    assert "up to nan" not in difference((1.0, torch.tensor([math.nan])), (1.0, torch.ones(1)), 0.0)


def test_a_stop_looked_for_from_the_end_is_told_apart():
    """Neither accepted nor taken for the first of the list or for a stop that is kept."""
    exercise = EXERCISES["stream_until_stop"]

    def backwards(choose):
        def stream(pieces, stops):
            held = ""
            shown = []
            for piece in pieces:
                held += piece
                found = [at for stop in stops if (at := held.rfind(stop)) >= 0]
                if found:
                    return [*shown, held[: choose(found)]], True
                ends = [i for i in range(len(held)) if any(s.startswith(held[i:]) for s in stops)]
                safe = min(ends, default=len(held))
                shown.append(held[:safe])
                held = held[safe:]
            return [*shown, held], False

        return stream

    for choose in (min, max):
        verdict = judge(exercise, backwards(choose))
        assert verdict.status == "wrong"
        assert verdict.message not in {wrong.message for wrong in exercise.wrong}


def test_an_overflowing_exponential_is_not_taken_for_a_sigmoid():
    """log(1 + e^(−z)) and log σ(z) are infinite at the same places: the sentence covers both."""
    for name in ("preference_loss", "simpo_loss"):
        (known,) = [wrong for wrong in EXERCISES[name].wrong if wrong.name == "log of sigmoid"]
        assert "or 1 + e^(−z) overflows" in known.message

    def overflowing(c, r, e=0.0):
        def loss(z):
            return torch.log(1 + torch.exp(-z))

        return (1 - e) * loss(c - r) + (e * loss(r - c) if e else 0)

    message = judge(EXERCISES["preference_loss"], overflowing).message
    assert "1 + e^(−z) overflows" in message


def test_a_gradient_that_is_a_factor_off_is_told():
    exercise = exercise_of(double, [(torch.tensor([3.0, 0.5]),)], gradient_of=("x",))
    message = judge(exercise, lambda x: 3 * x + (2 * x - 3 * x).detach()).message
    assert "the gradient of `x` is not: values differ" in message
    assert "It is 1.5 times what is wanted." in message


def test_a_known_mistake_is_named_only_if_all_cases_say_so():
    """An answer that raises as a known mistake does on one case, and is right on the other, is
    another mistake.
    """

    def fails_always(x):
        raise ValueError("empty")

    def fails_once(x):
        if x.sum() > 0:
            raise ValueError("empty")
        return 2 * x

    known = Wrong("fails", fails_always, "You never look at x at all.")
    exercise = Exercise(
        "double", "t", 1, 1, double, lambda g: [(torch.ones(1),), (-torch.ones(1),)], (known,), ()
    )
    assert judge(exercise, fails_always).message == known.message
    assert "raises ValueError: empty" in judge(exercise, fails_once).message
