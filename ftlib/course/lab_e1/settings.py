"""What lab E1 runs at in each profile."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from ftlib.core.profiles import Profile


@dataclass(frozen=True)
class Settings:
    """`policy_lr`: the middle of the rates that are tried. A rollout is `answers` answers, learnt
    from in `epochs` steps.
    """

    judgements: int  # pairs that the reward model is trained on, and DPO
    few: int  # pairs of a reward model that has seen too little
    reward_batch: int  # pairs
    reward_lr: float
    rollouts: int
    answers: int
    epochs: int
    policy_lr: float
    dpo_batch: int  # pairs
    answer_tokens: int  # an answer may have
    asked: int  # held-out prompts answered after a run
    live_rollouts: int  # of a run in a cell


TINY = Settings(
    judgements=192,
    few=48,
    reward_batch=16,
    reward_lr=2e-3,
    rollouts=10,
    answers=16,
    epochs=2,
    policy_lr=2e-3,
    dpo_batch=8,
    answer_tokens=48,
    asked=32,
    live_rollouts=3,
)


# Smaller than elsewhere, for two cores; nothing was tuned.
POCKET = Settings(
    judgements=40,
    few=10,
    reward_batch=8,
    reward_lr=2e-4,
    rollouts=4,
    answers=8,
    epochs=1,
    policy_lr=2e-4,
    dpo_batch=2,
    answer_tokens=64,
    asked=8,
    live_rollouts=2,
)


def settings_of(profile: Profile) -> Settings:
    """The lab's settings in a profile. On the large models they are a place to begin: nothing of
    them was tuned there.
    """
    if profile.name in ("tiny", "pocket"):
        return TINY if profile.name == "tiny" else POCKET
    wanted = profile.preference
    return dataclasses.replace(
        POCKET,
        judgements=min(96, wanted.count),
        few=24,
        reward_lr=wanted.lr,
        epochs=2,
        policy_lr=wanted.lr,
        dpo_batch=max(2, wanted.batch // 2),
        answer_tokens=wanted.answer_tokens,
    )
