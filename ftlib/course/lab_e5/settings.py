"""What lab E5 runs at each scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ftlib.core.profiles import Profile
from ftlib.core.rehearsal import is_rehearsal

PUBLIC = ("MMLU", "ARC-Challenge", "HellaSwag")


@dataclass(frozen=True)
class Settings:
    """`benchmarks`: that are scored before and after fine-tuning, `count` questions of each;
    `formed`: questions that are asked in three forms; `judged`: pairs that the profile's own model
    judges.
    """

    benchmarks: tuple[str, ...]
    count: int
    formed: int
    judged: int


SETTINGS = {
    "tiny": Settings(
        ("world_facts", "world_strangers", "world_letters"), count=60, formed=40, judged=40
    ),
    "pocket": Settings(("knowledge",), count=60, formed=24, judged=10),
    "small": Settings(PUBLIC, count=200, formed=100, judged=40),
    "spark": Settings(PUBLIC, count=400, formed=200, judged=60),
}
REHEARSED = 6  # questions and pairs at most


def settings_of(profile: Profile) -> Settings:
    """The lab's settings for a profile; in a rehearsal with few questions."""
    settings = SETTINGS[profile.name]
    if not is_rehearsal():
        return settings
    fewer = {}
    for name in ("count", "formed", "judged"):
        fewer[name] = min(getattr(settings, name), REHEARSED)
    return replace(settings, **fewer)
