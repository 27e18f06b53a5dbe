"""The committed records: whole, of today's code and data, and what they say comes out again."""

import pytest
from conftest import needs_llama, this_commit

from ftlib.core.paths import POCKET, POCKET_HUB, resolve
from ftlib.core.profiles import get_profile
from ftlib.course.catalogue import MODULES
from ftlib.course.records.again import compute_again, disagreements, draw_entries
from ftlib.course.records.empty_folder import in_empty_folder
from ftlib.course.records.experiment import experiments_of
from ftlib.course.records.live import open_experiments
from ftlib.course.records.store import (
    NOT_COMPUTED,
    RECORDS,
    read_record,
    record_path,
    to_compute,
)

FEW = 3  # entries that are computed again
LONGEST = 15.0  # seconds that such an entry took when it was recorded
MOST_BYTES = 400_000  # of one record: numbers and short samples

RECORDED = []
for lab in MODULES:
    for experiment in experiments_of(lab):
        for profile in experiment.profiles:
            RECORDED.append((lab, experiment, profile))
NAMES = [f"{lab} {experiment.name} {profile}" for lab, experiment, profile in RECORDED]
each = pytest.mark.parametrize("lab, experiment, profile", RECORDED, ids=NAMES)


DRAWN = draw_entries(list(MODULES), get_profile("tiny"), FEW, this_commit(), LONGEST)


def needs_model(profile: str) -> None:
    """Skip where the profile's base weights are not on this machine."""
    if profile == "pocket" and resolve(POCKET) == POCKET_HUB:
        pytest.skip("the pocket model is not here: run `make pocket`")


def needs_record(lab: str, name: str, profile: str) -> None:
    """Skip where pocket, whose runs take minutes, has no record of an experiment yet."""
    if profile == "pocket" and not record_path(lab, name, profile).exists():
        pytest.skip("not recorded in pocket yet: the lab shows tiny's")


@each
def test_every_arm_and_seed_is_recorded_with_todays_code_and_data(lab, experiment, profile):
    needs_model(profile)
    needs_record(lab, experiment.name, profile)
    record = read_record(lab, experiment.name, profile)
    with in_empty_folder():
        jobs = to_compute(record, experiment, get_profile(profile))
    if profile == "pocket":  # a record on its way counts as none: the lab shows tiny's
        jobs = [job for job in jobs if job.why != NOT_COMPUTED]
    reasons = sorted({job.why for job in jobs})
    assert not jobs, (
        f"{len(jobs)} entries are missing or stale ({'; '.join(reasons)}): "
        f"`ftlib record {lab} --experiment {experiment.name} --profile {profile}`"
    )
    assert record_path(lab, experiment.name, profile).stat().st_size < MOST_BYTES


@each
def test_a_claim_has_ten_seeds_and_a_reading_for_whatever_comes(lab, experiment, profile):
    needs_model(profile)
    chosen = get_profile(profile)
    arms = experiment.arms(chosen)
    assert profile == "pocket" or set(experiment.live or ()) <= set(arms)
    for claim in experiment.claims:
        assert experiment.seeds_of(chosen) >= (10 if profile == "tiny" else 5)
        assert profile == "pocket" or set(claim.contrast.arms) <= set(arms)
        readings = [claim.above, claim.below, claim.none]
        assert len(set(readings)) == 3 and min(map(len, readings)) > 30
    if experiment.claims:
        result = open_experiments(lab, chosen).show(experiment.name)
        for decision in result.decisions().values():
            assert decision.outcome in ("above", "below", "none")


def test_no_record_is_left_of_an_experiment_that_is_gone():
    known = {record_path(lab, e.name, profile) for lab, e, profile in RECORDED}
    assert set(RECORDS.rglob("*.json")) <= known


@pytest.mark.parametrize("drawn", DRAWN, ids=[drawn.name for drawn in DRAWN])
def test_a_few_entries_come_out_again(drawn):
    if drawn.record.lab == "3.1.10":
        needs_llama()
    assert not disagreements(drawn, compute_again(drawn, get_profile("tiny")))
