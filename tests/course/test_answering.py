"""An answer in another process is judged as one in this process: the same verdicts, word for word,
and nothing of the other process reaches what judges.
"""

import pytest

from ftlib.course import sandbox
from ftlib.course.answering import Line
from ftlib.course.catalogue import MODULES
from ftlib.course.exercise import Verdict, judge, load_lab

EXERCISES = {f"{number} {e.name}": e for number in MODULES for e in load_lab(number).exercises}
TRAINED = {key: e for key, e in EXERCISES.items() if e.gradient_of}
SETUP = "from ftlib.course.exercise import load_lab, open_lab\ncheck, *_ = open_lab('3.1.7')"


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
