"""An answer in another process is judged as one in this process: the same verdicts, word for word,
and nothing of the other process reaches what judges.
"""

import pickle

import pytest
import torch

from ftlib.course import sandbox
from ftlib.course.answering import DistantAnswer, Line, LineLost
from ftlib.course.catalogue import MODULES
from ftlib.course.exercise import Verdict, judge, load_lab
from ftlib.course.plain import encode

EXERCISES = {f"{number} {e.name}": e for number in MODULES for e in load_lab(number).exercises}
TRAINED = {key: e for key, e in EXERCISES.items() if e.gradient_of}
SETUP = "from ftlib.course.exercise import load_lab, open_lab\ncheck, *_ = open_lab('3.1.1')"


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """To a process that runs cells; this process judges."""
    sandbox.CONTEXT.set_forkserver_preload(list(sandbox.PRELOAD))
    theirs, ours = sandbox.CONTEXT.Pipe()
    folder = str(tmp_path_factory.mktemp("answers"))
    process = sandbox.CONTEXT.Process(target=sandbox._answer, args=(theirs, folder, SETUP))
    process.start()
    theirs.close()
    line = Line(ours)
    assert line.ask("setup_error") == ""
    yield line
    ours.close()
    process.join(10)
    assert process.exitcode == 0  # it ends with its judge


def from_afar(line, source: str, name: str = "answer"):
    """What a cell defines, as the judge has it."""
    assert line.ask("run", source) == ""
    return line.answer(name)


def there(line, key: str, what: str, around: str = "{}"):
    """The reference or a wrong answer of an exercise, in the other process."""
    number, name = key.split()
    found = f"load_lab({number!r}).find({name!r}).{what}"
    return from_afar(line, f"answer = {around.format(found)}")


# --- the same verdicts ----------------------------------------------------------------------------
@pytest.mark.parametrize("key", EXERCISES)
def test_the_reference_and_every_known_mistake_get_the_verdict_that_they_get_here(line, key):
    """That each mistake has its own message in this process, `test_course.py` holds."""
    exercise = EXERCISES[key]
    assert judge(exercise, there(line, key, "reference")) == judge(exercise, exercise.reference)
    for i, wrong in enumerate(exercise.wrong):
        verdict = judge(exercise, there(line, key, f"wrong[{i}].function"))
        assert verdict == Verdict("wrong", wrong.message), wrong.name


@pytest.mark.parametrize("key", TRAINED)
def test_a_detached_result_is_told_as_it_is_here(line, key):
    exercise = TRAINED[key]

    def detached(*args, **named):
        return exercise.reference(*args, **named).detach()

    source = "def without_gradient(f):\n    return lambda *a, **k: f(*a, **k).detach()"
    assert line.ask("run", source) == ""
    distant = there(line, key, "reference", "without_gradient({})")
    assert judge(exercise, distant) == judge(exercise, detached)


def test_an_argument_changed_in_place_is_told_as_it_is_here(line):
    exercise = EXERCISES["3.1.1 find_leaks"]
    source = (
        "def answer(model):\n    names = load_lab('3.1.1').find('find_leaks').reference(model)\n"
        "    model.requires_grad_(False)\n    return names"
    )

    def freezes(model):
        names = exercise.reference(model)
        model.requires_grad_(False)
        return names

    verdict = judge(exercise, from_afar(line, source))
    assert verdict == judge(exercise, freezes)
    assert "changes its argument `model` in place" in verdict.message


RAISES = {
    "a text": "raise ValueError('no rows\\nat all')",
    "no text": "raise KeyError",
    "a key": "raise KeyError('a')",
    "a class that takes arguments": "raise UnicodeDecodeError('utf-8', b'a', 0, 1, 'why')",
    "a class of its own": "class Odd(ArithmeticError):\n        pass\n    raise Odd('odd')",
    "a text that raises": "class Odd(Exception):\n"
    "        def __str__(self):\n            raise TypeError\n    raise Odd",
    "the end of the process": "import sys\n    sys.exit('bye')",
    "a group": "raise ExceptionGroup('both', [ValueError(1)])",
}


@pytest.mark.parametrize("how", RAISES)
def test_an_error_is_told_as_it_is_here(line, how):
    exercise = EXERCISES["3.1.7 implicit_reward"]
    source = f"def answer(*args):\n    {RAISES[how]}"
    here: dict = {}
    exec(source, here)
    verdict = judge(exercise, from_afar(line, source))
    inside = judge(exercise, here["answer"])
    if how not in ("no text", "a text that raises"):  # the line is known where the cell's text is
        assert verdict == inside
    assert verdict.message.partition(":")[0] == inside.message.partition(":")[0]


def test_an_error_from_afar_can_be_caught_by_its_class(line):
    answer = from_afar(line, "def answer(*args):\n    return [][args[0]]")
    with pytest.raises(IndexError, match="list index out of range"):
        answer(1)
    with pytest.raises(LookupError):
        answer(1)


def test_what_is_not_there_or_no_function(line):
    with pytest.raises(NameError, match="name 'nothing' is not defined"):
        line.answer("nothing")
    assert from_afar(line, "answer = 0.5") == 0.5


# --- gradients ------------------------------------------------------------------------------------
def test_gradients_come_from_the_other_process(line):
    """f(x, y) = (x²·y, x + y, y detached). Of 3·x²y + 5·(x + y) the derivative by x is 6xy + 5, by
    y it is 3x² + 5.
    """
    answer = from_afar(line, "def answer(x, y):\n    return x * x * y, x + y, y.detach()")
    x = torch.tensor([2.0, -1.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0.5, 4.0], dtype=torch.float64, requires_grad=True)
    product, total, detached = answer(x, y=y)
    assert not detached.requires_grad and product.requires_grad and total.requires_grad
    (3 * product + 5 * total).sum().backward()
    assert torch.equal(x.grad, (6 * x * y + 5).detach())
    assert torch.equal(y.grad, (3 * x * x + 5).detach())


def test_no_gradient_where_none_is_tracked(line):
    answer = from_afar(line, "def answer(x):\n    return 2 * x")
    x = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        assert not answer(x).requires_grad
    assert answer(x).requires_grad and not answer(x.detach()).requires_grad


# --- what a submission changes of its own process -------------------------------------------------
PATCHES = {
    "what judges": (
        "from ftlib.course import exercise\n"
        "exercise.judge = exercise._judge = lambda *args: exercise.Verdict('right', '')",
        ["ftlib.course.exercise.judge", "ftlib.course.exercise._judge"],
    ),
    "what compares": (
        "from ftlib.course import comparing\ncomparing.difference = lambda *args: None",
        ["ftlib.course.comparing.difference"],
    ),
    "its code": (
        "from ftlib.course import comparing\n"
        "comparing.difference.__code__ = (lambda got, want, tolerance: None).__code__",
        ["ftlib.course.comparing.difference"],
    ),
    "a method": (
        "from ftlib.course.exercise import Lab\nLab.check = lambda self, function: function",
        ["ftlib.course.exercise.Lab.check"],
    ),
    "PyTorch": ("import torch\ntorch.isclose = lambda *args, **named: torch.tensor(True)", []),
    "`check`": ("check = lambda function: function", ["check"]),
    "what is allocated": (
        "from ftlib.course import allocation\n"
        "allocation.holds_product.__wrapped__.__code__ = (lambda *args, **named: False).__code__\n"
        "allocation.holds_product = lambda *args, **named: False",
        ["ftlib.course.allocation.holds_product"],
    ),
}
DENSE = """
def lora_forward(x, weight, bias, A, B, scaling):
    y = x @ (weight + scaling * B @ A).T
    return y if bias is None else y + bias
"""


@pytest.mark.parametrize("what", PATCHES)
def test_what_a_submission_patches_gains_nothing_and_is_noted(line, what):
    """A wrong result; and a dense product, which is seen in the submission's own process. Before a
    check what was patched is asked for, and put back.
    """
    patch, names = PATCHES[what]
    line.ask("changes")
    wrong = "lora_scaling = lambda alpha, r, use_rslora=False: alpha"
    assert line.ask("run", f"{wrong}\n{DENSE}\n{patch}") == ""
    verdict = judge(EXERCISES["3.1.1 lora_scaling"], line.answer("lora_scaling"))
    assert "Nothing divides alpha" in verdict.message
    assert line.ask("changes") == names
    assert line.ask("changes") == []
    verdict = judge(EXERCISES["3.1.1 lora_forward"], line.answer("lora_forward"))
    assert "you built an out × in tensor" in verdict.message


# --- messages that are none -----------------------------------------------------------------------
class Sends:
    """The other end of a line that sends what it likes."""

    def __init__(self, message):
        self.message = message

    def send_bytes(self, message) -> None:
        pass

    def recv_bytes(self, limit) -> bytes:
        if isinstance(self.message, Exception):
            raise self.message
        return self.message


class Harmful:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


GARBLED = {
    "nothing": b"",
    "a pickle": pickle.dumps(Harmful()),
    "no reply": encode([1, 2]),
    "neither a value nor a fault": encode({"a": 1}),
    "half a fault": encode({"fault": {"kinds": ["ValueError"]}}),
    "cut off": encode({"value": torch.ones(100)})[:-10],
}


@pytest.mark.parametrize("message", GARBLED)
def test_what_is_no_message_is_the_loss_of_the_line(message):
    with pytest.raises(LineLost, match="sends what is no answer"):
        Line(Sends(GARBLED[message])).ask("take", "answer")


@pytest.mark.parametrize(
    "error", [EOFError(), ConnectionResetError(), OSError("bad message length")]
)
def test_a_process_that_has_gone_is_no_error_of_the_answers(error):
    """`judge` catches what an answer raises, and this is not among it."""
    with pytest.raises(LineLost):
        judge(EXERCISES["3.1.7 kl_estimate"], DistantAnswer(Line(Sends(error))))
