"""Wrong answers made by code: none is accepted, none is told what is not so, most are named.

FTLIB_MUTANTS=1 judges all; without it an even sample. `python -m tests.course.mutants` prints a
table by exercise.
"""

import os

import pytest
import torch
from mutants import (
    EQUIVALENT,
    SAMPLE,
    Mutant,
    cases_of,
    exercises,
    is_named,
    judged,
    outputs,
    untrue,
)

ALL = os.environ.get("FTLIB_MUTANTS") == "1"


@pytest.fixture(scope="module")
def verdicts():
    return list(judged(1 if ALL else SAMPLE))


def test_there_are_enough_mutants_of_every_exercise(verdicts):
    """A class of mistakes that can be made in an exercise is made in it."""
    assert len(verdicts) >= (2000 if ALL else 400)
    seen = {mutant.exercise.name for mutant, _, _ in verdicts}
    every = {exercise.name for exercise in exercises()}
    unseen = every - seen
    assert len(unseen) <= (0 if ALL else len(every) // 15), unseen


def test_no_mutant_is_accepted(verdicts):
    accepted = {
        (mutant.exercise.name, mutant.name)
        for mutant, _, verdict in verdicts
        if verdict.status != "wrong"
    }
    unknown = accepted - set(EQUIVALENT)
    assert not unknown, (
        f"{sorted(unknown)}: give the exercise an input on which such an answer is wrong; where it "
        "is right, name it in EQUIVALENT of tests/course/mutants.py, and say why"
    )
    if ALL:
        assert accepted == set(EQUIVALENT)


def test_what_is_said_of_a_mutant_is_so(verdicts):
    """Factors, offsets, dimensions, shifts and bank entries, computed again with NumPy."""
    false = {}
    for mutant, came, verdict in verdicts:
        found = untrue(mutant, verdict.message, came)
        if found:
            false[mutant.exercise.name, mutant.name] = found
    assert not false


def test_most_mutants_are_named(verdicts):
    """By the bank or by a relation; a mutant of which only the inputs are told is not counted."""
    named = sum(is_named(verdict.message) for _, _, verdict in verdicts)
    assert named >= 0.8 * len(verdicts), named / len(verdicts)


@pytest.mark.parametrize(
    "said",
    [
        "Your result is 2 times what is wanted: values differ.",
        "Your result is `beta` times what is wanted: values differ.",
        "Your result is rotated by one position forwards along dimension 0: values differ.",
        "Only the first along dimension 0 is wrong: values differ.",
    ],
)
def test_a_sentence_that_is_not_so_is_found(said):
    """An answer that is 3 times the reference's is none of these."""
    (exercise,) = [e for e in exercises() if e.name == "implicit_reward"]

    def tripled(*args):
        return 3 * exercise.reference(*args)

    mutant = Mutant(exercise, "tripled", tripled)
    came = outputs(tripled, cases_of(exercise))
    assert untrue(mutant, said, came)
    assert not untrue(mutant, "Your result is 3 times what is wanted: values differ.", came)
    (bank, *_) = exercise.wrong
    assert untrue(mutant, bank.message, came)
    assert torch.is_tensor(came[0])
