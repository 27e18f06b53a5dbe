"""What lab E3 runs at in each profile."""

from __future__ import annotations

from dataclasses import dataclass

from ftlib.core.profiles import Profile
from ftlib.course.lab_e3.count_adapter_parameters import count_adapter_parameters, nearest_size


@dataclass(frozen=True)
class Settings:
    """`rates`: {method: the middle of those tried}. `targets`: where LoRA stands, chosen so that
    rank one comes as near to (IA)³'s number of parameters as it can.
    """

    steps: int
    batch: int
    targets: tuple[str, ...]
    rates: dict[str, float]
    live_steps: int  # of a run that shows one thing in a cell


TINY = Settings(
    steps=40,
    batch=8,
    targets=("q_proj", "k_proj", "v_proj"),
    rates={"LoRA": 8e-3, "LoReFT": 8e-3, "(IA)³": 6.4e-2, "prefix": 0.16, "bottleneck": 1.6e-2},
    live_steps=20,
)
# Where a sweep begins: nothing of these was tried.
ELSEWHERE = {"LoRA": 1e-3, "LoReFT": 1e-3, "(IA)³": 1e-2, "prefix": 1e-2, "bottleneck": 1e-3}


def settings_of(profile: Profile) -> Settings:
    """The lab's settings in a profile."""
    if profile.name == "tiny":
        return TINY
    return Settings(
        steps=profile.comparison.steps,
        batch=profile.comparison.batch,
        targets=("q_proj", "v_proj"),
        rates=ELSEWHERE,
        live_steps=2 * profile.demo_steps,
    )


CONFIG_FIELDS = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)


def shape_of(config) -> dict[str, int]:
    """The fields of a Llama's configuration that counting needs."""
    fields = {name: getattr(config, name, None) for name in CONFIG_FIELDS}
    width = config.hidden_size // config.num_attention_heads
    return {name: width if value is None else int(value) for name, value in fields.items()}


def sizes_of(config, targets: tuple[str, ...]) -> dict[str, int]:
    """{method: its size} at which each comes nearest to the number of parameters of (IA)³, which
    has no size (1 stands for it).
    """
    shape = shape_of(config)
    budget = count_adapter_parameters(shape, "(IA)³", 1)
    sizes = {"(IA)³": 1}
    for method in ("LoRA", "LoReFT", "prefix", "bottleneck"):
        sizes[method] = nearest_size(shape, method, budget, targets)
    return sizes
