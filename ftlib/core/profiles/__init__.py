"""What a lab runs at each scale: `tiny` (embedded, offline, CPU), `pocket` (a real model that a
package brings, offline, CPU), `small`, `spark`.

`FTLIB_PROFILE` chooses; without it, `tiny` where there is no GPU and `small` where there is one.
`FTLIB_MODEL` (a folder or Hub id) replaces the profile's model, `FTLIB_ROWS` (a folder of
JSONL files) for its data.
"""

from __future__ import annotations

import os

import torch

from ftlib.core.profiles import hub, pocket, tiny
from ftlib.core.profiles.parts import Profile
from ftlib.core.rehearsal import is_rehearsal, rehearsed

__all__ = ["PROFILES", "Profile", "get_profile"]

PROFILES = {
    "tiny": tiny.PROFILE,
    "pocket": pocket.PROFILE,
    "small": hub.SMALL,
    "spark": hub.SPARK,
}


def _default_name() -> str:
    return "small" if torch.cuda.is_available() else "tiny"


def get_profile(name: str | Profile | None = None) -> Profile:
    """The profile by name, else that of `FTLIB_PROFILE`, else the default for this machine; with
    FTLIB_REHEARSE=1 its rehearsal (`core.rehearsal`); tiny, whose recorded runs other profiles
    show, is short as it is.

    ValueError if the name is unknown.
    """
    if isinstance(name, Profile):
        return name
    chosen = name or os.environ.get("FTLIB_PROFILE") or _default_name()
    if chosen not in PROFILES:
        raise ValueError(
            f"profile {chosen!r} is unknown: set FTLIB_PROFILE to one of {', '.join(PROFILES)}"
        )
    profile = PROFILES[chosen]
    if is_rehearsal() and chosen != "tiny":
        return rehearsed(profile)
    return profile
