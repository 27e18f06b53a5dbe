"""Lab E4's two models: a teacher, and a student made of a few of its base's layers; and the rows
that they answer.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence

import numpy as np
from torch import nn

from ftlib.adapters.io import load_adapter
from ftlib.adapters.lora import merge_and_unload
from ftlib.core.profiles import Profile
from ftlib.course.lab_e4.settings import settings_of
from ftlib.course.records.kit import rows_of, study_base, train_study
from ftlib.course.start import sft_adapter
from ftlib.models.load import load_model

TEACHER_SEED = 0
WARM_SEED = 0
DEAL = 4  # the seed by which people are dealt to the two halves
EVERY_THIRD = 3  # of the base's layers is left out, where the settings name none


# --- rows -----------------------------------------------------------------------------------------
def pool_of(profile: Profile) -> list[dict]:
    """The rows on which the teacher was tuned, and from which a student's are drawn."""
    family = settings_of(profile).family
    return [row for row in rows_of(profile, "train") if not family or row["family"] == family]


@functools.cache
def _by_key(profile: Profile) -> dict[str, list[dict]]:
    """{what rows are about: the rows}, in a drawn order that is always the same; a row that does
    not say it stands alone.
    """
    found: dict[str, list[dict]] = {}
    for i, row in enumerate(pool_of(profile)):
        found.setdefault(row.get("key") or f"row {i}", []).append(row)
    keys = np.random.default_rng(DEAL).permutation(sorted(found)).tolist()
    return {key: found[key] for key in keys}


def warm_rows(profile: Profile) -> list[dict]:
    """What every student has read before it meets the teacher: the rows of half the keys, that is
    in tiny of half the people.
    """
    keys = list(_by_key(profile))
    chosen = keys[: len(keys) // 2]
    return [row for key in chosen for row in _by_key(profile)[key]]


def _question(row: dict) -> str:
    return row["messages"][-2]["content"]


def _rows_to_read(profile: Profile, key: str) -> list[dict]:
    """The rows about a person that ask in other words than the first, on which students are
    measured: a question may stand there several times, with several answers.
    """
    first, *others = _by_key(profile)[key]
    return [row for row in others if _question(row) != _question(first)]


def _people(profile: Profile, seed: int) -> list[str]:
    """Whom a student of this seed is to learn about: people of the other half."""
    keys = list(_by_key(profile))
    others = [key for key in keys[len(keys) // 2 :] if _rows_to_read(profile, key)]
    order = np.random.default_rng(seed).permutation(len(others))
    return [others[i] for i in order[: settings_of(profile).people].tolist()]


def _other_half(profile: Profile) -> list[dict]:
    """The rows that are none of `warm_rows`."""
    keys = list(_by_key(profile))
    rows = []
    for key in keys[len(keys) // 2 :]:
        rows += _by_key(profile)[key]
    return rows


def _drawn(rows: Sequence[dict], count: int, seed: int) -> list[dict]:
    """At most `count` of the rows, others for every seed."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return [rows[i] for i in order[:count].tolist()]


def student_rows(profile: Profile, seed: int) -> list[dict]:
    """The rows that a student of this seed learns on: of each of its people all that ask in other
    words than the row on which it is measured; or a draw from the rows of the other half.
    """
    settings = settings_of(profile)
    if not settings.people:
        return _drawn(_other_half(profile), settings.rows, seed)
    rows = []
    for key in _people(profile, seed):
        rows += _rows_to_read(profile, key)
    return rows


def test_rows(profile: Profile, seed: int) -> list[dict]:
    """The rows on which a student of this seed is measured: one of each of its people, asked as it
    has not read.
    """
    settings = settings_of(profile)
    if not settings.people:
        return _drawn(rows_of(profile, "golden"), settings.rows, seed)
    return [_by_key(profile)[key][0] for key in _people(profile, seed)]


# --- models ---------------------------------------------------------------------------------------
def keep_layers(model: nn.Module, keep: Sequence[int]) -> nn.Module:
    """A new model of some of a Llama's layers, by their numbers, with copies of their weights and
    of the embedding, the last norm and the head. ValueError for a layer that it does not have.
    """
    count = model.config.num_hidden_layers
    wrong = [number for number in keep if not 0 <= number < count]
    if wrong or not keep:
        raise ValueError(
            f"keep={tuple(keep)}: numbers from 0 to {count - 1} are needed, one or more"
        )
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(keep)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[number] for number in keep]
    small = type(model)(config).to(model.device, model.dtype)
    small.load_state_dict(_renumbered(model.state_dict(), keep))
    small.generation_config = copy.deepcopy(model.generation_config)
    return small.requires_grad_(True)


def _renumbered(weights: dict, keep: Sequence[int]) -> dict:
    """The weights of the kept layers under their new numbers, and what belongs to no layer."""
    found = {}
    for name, weight in weights.items():
        before, mark, after = name.partition(".layers.")
        if not mark:
            found[name] = weight
            continue
        number, _, rest = after.partition(".")
        if int(number) in keep:
            found[f"{before}.layers.{list(keep).index(int(number))}.{rest}"] = weight
    return found


def kept_layers(profile: Profile, count: int) -> tuple[int, ...]:
    """The numbers of a base's layers that the profile's student keeps: those of the settings; else
    all where the base is a smaller model than the teacher already, or all but every third. The last
    is always kept: the norm and the head behind it expect what it writes.
    """
    if settings_of(profile).keep:
        return settings_of(profile).keep
    if profile.study.model != profile.model:
        return tuple(range(count))
    kept = [number for number in range(count - 2) if number % EVERY_THIRD != EVERY_THIRD - 1]
    return (*kept, count - 1)


def cut_student(profile: Profile):
    """(model, tokenizer) of a student as it is cut out of the base: it cannot speak yet."""
    base, tokenizer = study_base(profile)
    keep = kept_layers(profile, base.config.num_hidden_layers)
    return keep_layers(base, keep), tokenizer


@functools.cache
def _warm_student(profile: Profile):
    model, tokenizer = cut_student(profile)
    settings = settings_of(profile)
    if settings.warm_steps:
        options = {"steps": settings.warm_steps, "batch_size": settings.warm_batch}
        rate = settings.warm_rate
        train_study(profile, model, tokenizer, warm_rows(profile), WARM_SEED, rate, **options)
    return model, tokenizer


def fresh_student(profile: Profile):
    """(model, tokenizer) where every student starts, a new copy: cut out of the base and, where it
    could not write without, tuned on rows that it is not measured on. No teacher has been near it.
    """
    model, tokenizer = _warm_student(profile)
    return copy.deepcopy(model), tokenizer


@functools.cache
def study_teacher(profile: Profile):
    """(model, tokenizer) of the teacher, frozen; made once in a process: the profile's model with
    lab 3.1.4's adapter, or one in its place, merged; in tiny then tuned on the pool.
    """
    model, tokenizer = load_model(profile=profile)
    model = merge_and_unload(load_adapter(model, sft_adapter(profile))).requires_grad_(True)
    settings = settings_of(profile)
    if settings.teacher_steps:
        options = {"steps": settings.teacher_steps, "batch_size": settings.teacher_batch}
        rate = settings.teacher_rate
        train_study(profile, model, tokenizer, pool_of(profile), TEACHER_SEED, rate, **options)
    return model.eval().requires_grad_(False), tokenizer
