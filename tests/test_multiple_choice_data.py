"""The multiple-choice questions about the world: made from the seed, one right choice each."""

import json

import pytest
import yaml
from conftest import ROOT

from data import build
from data.multiple_choice import MOST, multiple_choice_rows
from data.world import SEED, World, article
from ftlib.evaluation.benchmarks import load_questions

BENCHMARK = ROOT / "data" / "benchmark"


@pytest.fixture(scope="module")
def world():
    return World(SEED)


@pytest.fixture(scope="module")
def parts(world):
    return multiple_choice_rows(world)


def test_the_committed_files_come_from_the_seed_byte_for_byte(world, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "BENCHMARK", tmp_path)
    build.build_benchmark(world)
    assert {file.name for file in tmp_path.iterdir()} == {
        file.name for file in BENCHMARK.glob("*.jsonl")
    }
    for file in tmp_path.iterdir():
        assert file.read_bytes() == (BENCHMARK / file.name).read_bytes()


def test_the_answer_is_the_fact_and_no_other_choice_is(world, parts):
    entities = {e.name: e for e in world.people + world.places + world.things + world.strangers}
    for rows in parts.values():
        for row in rows:
            relation, name = row["key"].split("/")
            fact = entities[name].facts[relation]
            right = row["choices"][row["answer"]]
            assert right in (fact, article(fact), f"the {fact}")
            assert len(set(row["choices"])) == 4 and name in row["context"]


def test_no_question_twice_and_as_many_as_said(parts):
    for rows in parts.values():
        assert len({row["key"] for row in rows}) == len(rows)
    assert len(parts["facts"]) == 5 * MOST + 5 * 24 + 4 * MOST
    assert len(parts["strangers"]) == 5 * MOST


def test_the_right_choice_stands_anywhere(parts):
    """Of 480 questions 120 each are expected; 2.6 standard deviations (9.5) to either side."""
    places = [row["answer"] for row in parts["facts"]]
    assert all(95 <= places.count(place) <= 145 for place in range(4))


def test_nobody_in_strangers_is_in_facts(parts):
    names = [{row["key"].split("/")[1] for row in rows} for rows in parts.values()]
    assert not names[0] & names[1]


@pytest.mark.parametrize("task", ["facts", "strangers", "letters"])
def test_a_task_file_names_a_file_that_is_there(task):
    config = yaml.safe_load((BENCHMARK / f"world_{task}.yaml").read_text())
    path = ROOT / config["dataset_kwargs"]["data_files"]["test"]
    assert config["task"] == f"world_{task}"
    assert len(load_questions(path)) == len(path.read_text().splitlines())
    assert json.loads(path.read_text().splitlines()[0]).keys() >= {"context", "choices", "answer"}
