"""What lab E2 runs at in each profile."""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.core.profiles import Profile

# The strengths of each method, from the weakest on; the same in every profile.
RATES = (1.0, 0.7, 0.5, 0.35)  # of the best rate
HALF = 0.5  # of it: every method runs at the best rate, and somewhere here too
REPLAYED = (0.01, 0.03, 0.1)  # shares of the mixture
WEIGHTS = (100.0, 1000.0)  # EWC's λ
WAYS = (0.75, 0.5)  # t of interpolation: 1 is the trained model
THRESHOLDS = (0.5, 0.2, 0.05)  # of an early stop, nats per token


@dataclass(frozen=True)
class Settings:
    """`rates`, `lora_rates`: those that are tried of full fine-tuning and of LoRA. Every other
    method runs at the best of the former. `lora_alpha`: what lab 3.1.1's grid of ranks, alphas and
    rates has chosen on the same rows, at the profile's rank.
    """

    steps: int
    batch: int
    rates: tuple[float, ...]
    lora_rates: tuple[float, ...]
    lora_alpha: float
    every: int  # steps between two looks of the watch


TINY = Settings(
    steps=40,
    batch=4,
    rates=(5e-4, 7e-4, 1e-3, 1.4e-3, 2e-3, 2.8e-3, 4e-3),
    lora_rates=(4.4e-5, 6.3e-5, 8.8e-5, 1.25e-4, 1.8e-4, 2.5e-4, 3.5e-4),
    lora_alpha=4096,
    every=3,
)


def settings_of(profile: Profile) -> Settings:
    """The lab's settings in a profile. Elsewhere than in tiny they are where a search begins."""
    if profile.name == "tiny":
        return TINY
    full = profile.study.lr_full
    lora = profile.study.lr_lora
    return Settings(
        steps=profile.study.steps,
        batch=profile.study.batch,
        rates=(full, 4 * full),
        lora_rates=(lora / 8, lora / 2),
        lora_alpha=16 * profile.rank,
        every=max(1, profile.study.steps // 12),
    )
