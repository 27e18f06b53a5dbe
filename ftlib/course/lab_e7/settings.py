"""What lab E7 runs at in each profile. Its two processes share a CPU, so the model is tiny's or
pocket's: what larger ones need is planned, and launched on the machines that hold them.
"""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.core.profiles import Profile, get_profile

Case = tuple[str, str]  # method and kind of sharding, as `plan_memory` names them


@dataclass(frozen=True)
class Settings:
    """rows_each: rows of a process in a step. steps: of a run that is compared with one process.
    cases: what is laid beside the planner. eps: AdamW's, large, since where a gradient is almost 0
    Adam's step would be its sign, which rounding sets.
    """

    rows_each: int = 4
    steps: int = 3
    rank: int = 4
    eps: float = 1e-4
    held_out: int = 64
    fault_steps: int = 50
    cases: tuple[Case, ...] = (
        ("lora", "ddp"),
        ("lora", "zero2"),
        ("lora", "full"),
        ("full", "ddp"),
        ("full", "full"),
        ("qlora", "full"),
    )


SMALLER = {
    "pocket": Settings(
        rows_each=2,
        steps=2,
        held_out=8,
        fault_steps=8,
        cases=(("lora", "ddp"), ("lora", "full"), ("qlora", "full")),
    )
}


def at_scale(profile: Profile) -> Profile:
    """The profile whose model and rows the processes use: tiny's, where it is neither tiny nor
    pocket.
    """
    return profile if profile.name in ("tiny", "pocket") else get_profile("tiny")


def settings_of(profile: Profile) -> Settings:
    """What the lab runs at in the profile."""
    return SMALLER.get(profile.name, Settings())
